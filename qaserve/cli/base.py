"""What every command shares."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from qaserve import __version__
from qaserve.common.errors import NotFoundError, UsageError
from qaserve.common.text import shorten

if TYPE_CHECKING:
    from collections.abc import Collection

    from qaserve.encoders.sentence_transformer import SentenceEncoder
    from qaserve.encoders.serving import ServingEncoder
    from qaserve.settings import Settings
    from qaserve.store import Store

out = Console()
err = Console(stderr=True)

FILTER_RULE = "Several values of one field: any of them. Several fields: all of them."
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]

SAMPLE_CORPUS = "sample"
NOT_IN_A_NAME = re.compile(r"[^a-z0-9_-]+")


def _version(*, wanted: bool) -> None:
    if wanted:
        out.print(f"qaserve {__version__}")
        raise typer.Exit


def root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=lambda value: _version(wanted=value), is_eager=True
        ),
    ] = False,
) -> None:
    """Search over question/answer pairs that explains itself."""


def root_app() -> typer.Typer:
    """`qaserve` without a command."""
    made = typer.Typer(
        name="qaserve",
        help="Search over question/answer pairs that explains itself.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )
    made.callback()(root)
    return made


app = root_app()


def say_error(message: str, hint: str) -> None:
    """Say on stderr what went wrong, and what to do."""
    err.print(Text.assemble(("error: ", "bold red"), message))
    if hint:
        err.print(Text.assemble(("try:   ", "bold"), hint))


def parse_filters(given: list[str], fields: "Collection[str]", command: str = "--filter") -> dict[str, tuple[str, ...]]:
    """`FIELD=VALUE` texts as values by field: a pair passes that has one of the values, in every field that is given.

    Raises:
        UsageError: One is not FIELD=VALUE, or has no field of `fields`.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in given:
        field, _, value = text.partition("=")
        if not value or field not in fields:
            raise UsageError(
                f"{command} {shorten(text, 80)!r} is not FIELD=VALUE with a field of {', '.join(fields)}",
                hint=f"For example: {command} topics=Compilation",
            )
        found[field] = (*found.get(field, ()), value)
    return found


def say_data_folder(settings: "Settings") -> None:
    """Say what a command changes that no API does for it, where one might think that it does."""
    if settings.server.api_url is not None:
        where = settings.store.qdrant_url or settings.store.data_dir
        err.print(Text(f"QASERVE_API_URL is set, but this works on {where}, not over the API."))


def make_encoder(settings: "Settings") -> "ServingEncoder":
    """The encoder of the settings; it is opened, and exported if need be, when it is first needed."""
    from qaserve.common.progress import Bars
    from qaserve.encoders.serving import ServingEncoder

    return ServingEncoder(settings.encoder, settings.store.data_dir / "encoders", Bars(err))


def make_torch_encoder(settings: "Settings") -> "SentenceEncoder":
    """The same model in torch, for what reads more of it than vectors."""
    from qaserve.encoders.sentence_transformer import SentenceEncoder

    return SentenceEncoder(settings.encoder, str(settings.store.data_dir / "encoders"))


def corpus_to_ask(settings: "Settings", store: "Store") -> str:
    """The corpus of the settings, else the only one there is besides the sample."""
    if settings.store.corpus is not None:
        return settings.store.corpus
    found = sorted(set(store.live_builds()) - {SAMPLE_CORPUS})  # the sample only fills an empty place
    found = found or store.corpora()  # a corpus that lost its live build is still one
    there = [corpus for corpus in found if corpus != SAMPLE_CORPUS] or found
    if len(there) > 1:
        raise UsageError(f"there are several corpora: {', '.join(there)}", hint=f"Say which: QASERVE_CORPUS={there[0]}")
    if not there:
        raise NotFoundError(f"there is no corpus in {store.where}", hint=store.how_to_start())
    return there[0]


def corpus_to_fill(settings: "Settings", store: "Store", paths: list[Path]) -> str:
    """The corpus of the settings, else the only one besides the sample, else one named after the first path."""
    there = {*store.live_builds(), *store.corpora()} - {SAMPLE_CORPUS}
    return corpus_to_ask(settings, store) if settings.store.corpus or there else corpus_named_after(paths[0])


def corpus_named_after(path: Path) -> str:
    """A corpus name from a file's: `skills_qa.jsonl.gz` is corpus `skills`."""
    stem = path.resolve().name.split(".")[0].lower()
    name = NOT_IN_A_NAME.sub("-", stem.removesuffix("_qa").removesuffix("-qa")).strip("-_")[:63]
    return name or "corpus"
