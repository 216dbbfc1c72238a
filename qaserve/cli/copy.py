"""`qaserve copy`."""

from typing import Annotated

import typer

from qaserve.cli.base import Json, app, corpus_to_ask, err, out
from qaserve.common.errors import UsageError
from qaserve.common.progress import Bars
from qaserve.settings import StoreSettings, get_settings

COPY_HELP = """Copy builds from the embedded Qdrant of QASERVE_DATA_DIR to a server, or back.

The live build, or all of them with `--all`; the same one is live there afterwards. What was interrupted goes on where
it was. Every copy is compared with its original (count, and a SHA-256 over ids, payloads and vectors) before it is made
live, which comes last. The originals stay; so do the bundles, which both places share. QASERVE_QDRANT_API_KEY is sent
only to the address that QASERVE_QDRANT_URL names.

**Examples**

    qaserve copy --to http://localhost:6333

    qaserve copy --to https://qdrant.example:6333 --all --json

    qaserve copy --from http://localhost:6333
"""


@app.command(help=COPY_HELP)
def copy(
    *,
    to: Annotated[str | None, typer.Option("--to", metavar="URL", help="Server to copy to.")] = None,
    back: Annotated[str | None, typer.Option("--from", metavar="URL", help="Server to copy back from.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every build, not only the live one.")] = False,
    as_json: Json = False,
) -> None:
    """See COPY_HELP."""
    from qaserve.builds.copy import copy as copy_builds
    from qaserve.common.locks import corpus_lock
    from qaserve.store import open_store

    settings = get_settings()
    url = to or back
    if url is None or (to is not None and back is not None):
        raise UsageError("say where to: one of --to and --from", hint="qaserve copy --to http://localhost:6333")
    with (
        open_store(_settings_of(settings.store, None)) as folder,
        open_store(_settings_of(settings.store, url)) as server,
    ):
        source, target = (folder, server) if to is not None else (server, folder)
        corpus = corpus_to_ask(settings, source)
        with corpus_lock(settings.store.models_dir, corpus, f"copy of corpus {corpus}", settings.store.lock_wait):
            report = copy_builds(source, target, corpus, Bars(err), everything=everything)
    if as_json:
        print(report.model_dump_json(indent=2))
        return
    for build in report.builds:
        there = build.pairs - build.copied
        earlier = f", {there:,} were there" if there else ""
        out.print(f"Build {build.build}: {build.pairs:,} pairs, {build.copied:,} copied{earlier}; the copy is equal.")
    out.print(f"Corpus {report.corpus} is live in {report.target} as build {report.live}.")
    if to is not None:
        out.print(f"To use it: export QASERVE_QDRANT_URL={url}")


def _settings_of(settings: StoreSettings, url: str | None) -> StoreSettings:
    """The same settings for the embedded folder, or for a server; the key goes to its own address only."""
    own = settings.qdrant_url is not None and url is not None and settings.qdrant_url.rstrip("/") == url.rstrip("/")
    keys = ("qdrant_api_key", "qdrant_read_api_key")
    return settings.model_copy(update={"qdrant_url": url, **({} if own else dict.fromkeys(keys))})
