"""`qaserve builds` and `qaserve verify`."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from qaserve.cli.base import Json, app, corpus_to_ask, out, say_data_folder
from qaserve.settings import Settings, get_settings

if TYPE_CHECKING:
    from qaserve.schemas.builds import BuildInfo

builds_app = typer.Typer(
    help="List the builds of a corpus, compare two, go back to one, delete old ones.", no_args_is_help=True
)
app.add_typer(builds_app, name="builds")


@builds_app.command("list")
def list_(*, as_json: Json = False) -> None:
    """List every build, newest first; with QASERVE_API_URL, those of that API. Example: qaserve builds list --json."""
    from qaserve.cli.render_answer import show_builds

    found = _listed(get_settings())
    if as_json:
        print(json.dumps({"builds": [build.model_dump(mode="json") for build in found]}, indent=2))
    else:
        show_builds(out, found)


@builds_app.command()
def diff(
    before: Annotated[str, typer.Argument(help="Id of a build from the list.")],
    after: Annotated[str | None, typer.Argument(help="Id of another.", show_default="the live build")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Say how two builds differ: pairs, clusters, metrics. Example: qaserve builds diff 3f9a1c2d4e5b."""
    from ingest import diff as differences
    from qaserve.cli.render_ingest import show_diff
    from qaserve.store import open_store

    settings = get_settings()
    with open_store(settings.store) as store:
        corpus = corpus_to_ask(settings, store)
        found = differences.diff(store, settings.store.models_dir, corpus, before, after or store.live(corpus).build)
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        show_diff(out, found)


@builds_app.command()
def activate(
    build: Annotated[str, typer.Argument(help="Id of a build from the list.")], *, as_json: Json = False
) -> None:
    """Check a build and make it live; with QASERVE_API_URL, in that API.

    Example: qaserve builds activate 3f9a1c2d4e5b
    """
    corpus = _activate(get_settings(), build)
    print(json.dumps({"corpus": corpus, "build": build}) if as_json else f"Corpus {corpus} is live as build {build}.")


@builds_app.command()
def prune(
    *,
    keep: Annotated[int, typer.Option(min=0, help="How many builds to keep besides the live one.")] = 3,
    as_json: Json = False,
) -> None:
    """Delete old builds, never the live one. Example: qaserve builds prune --keep 1."""
    from qaserve.builds import catalog as builds
    from qaserve.store import open_store

    settings = get_settings()
    say_data_folder(settings)
    with open_store(settings.store) as store:
        corpus = corpus_to_ask(settings, store)
        gone = builds.prune(store, settings.store.models_dir, corpus, keep, settings.store.lock_wait)
    print(
        json.dumps({"corpus": corpus, "deleted": gone})
        if as_json
        else f"Deleted {len(gone)} builds of corpus {corpus}."
    )


def _listed(settings: Settings) -> "list[BuildInfo]":
    from qaserve.builds import catalog as builds
    from qaserve.client.http import Client
    from qaserve.store import open_store

    if settings.server.api_url is not None:
        with Client(**settings.server.client) as client:
            return list(client.builds().builds)
    with open_store(settings.store) as store:
        corpora = [settings.store.corpus] if settings.store.corpus else store.corpora()
        return [build for corpus in corpora for build in builds.list_builds(store, settings.store.models_dir, corpus)]


def _activate(settings: Settings, build: str) -> str:
    """Make a build live; gives the corpus."""
    from qaserve.builds import catalog as builds
    from qaserve.client.http import Client
    from qaserve.store import BuildRef, open_store

    if settings.server.api_url is not None:
        with Client(**settings.server.client) as client:
            return client.activate(build).corpus
    with open_store(settings.store) as store:
        corpus = corpus_to_ask(settings, store)
        builds.activate(store, settings.store.models_dir, BuildRef(corpus, build), settings.store.lock_wait)
    return corpus


@app.command()
def verify(
    build: Annotated[str | None, typer.Argument(help="Id of a build.", show_default="the live build")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every build of the corpus.")] = False,
    as_json: Json = False,
) -> None:
    """Read all of a build and compare it with the hashes it was sealed with. Example: qaserve verify --all."""
    from qaserve.builds.catalog import verify as verify_build
    from qaserve.common.errors import BundleError, DamagedBuildError
    from qaserve.store import BuildRef, open_store

    settings = get_settings()
    damaged = {}
    with open_store(settings.store, read_only=True) as store:
        corpus = corpus_to_ask(settings, store)
        chosen = store.names(corpus) if everything else [build or store.live(corpus).build]
        for name in chosen:
            try:
                verify_build(store, settings.store.models_dir, BuildRef(corpus, name))
            except (DamagedBuildError, BundleError) as error:
                damaged[name] = error
    if as_json:
        found = {name: damaged[name].message if name in damaged else None for name in chosen}
        print(json.dumps({"corpus": corpus, "damage": found}, indent=2))
    else:
        for name in chosen:
            out.print(Text(damaged[name].message if name in damaged else f"build {corpus}@{name} is as it was sealed"))
        for hint in dict.fromkeys(error.hint for error in damaged.values()):
            out.print(Text(hint))
    if damaged:
        raise typer.Exit(1)
