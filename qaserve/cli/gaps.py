"""`qaserve gaps`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from qaserve.cli.base import Json, app, corpus_to_ask, make_encoder, out
from qaserve.common.errors import UsageError
from qaserve.common.text import shorten
from qaserve.settings import Settings, get_settings

if TYPE_CHECKING:
    from qaserve.schemas.gaps import GapList

SHOWN_CHARS = 70

GAPS_HELP = """Show which questions found no answer, in themes, each with the cluster that is nearest.

With QASERVE_KEEP_QUESTIONS=true `ask`, `serve` and `mcp` keep questions that they abstained on, and questions whose
answer was judged unhelpful, for QASERVE_KEEP_DAYS days. With QASERVE_API_URL those of that API are shown.

`--export` writes a line for each theme: its questions and an empty answer. Fill in the answers, delete the lines that
need none, and ingest the file; a line that has no answer yet is refused with its number.

**Examples**

    qaserve gaps

    qaserve gaps --export gaps.jsonl

    qaserve gaps --delete
"""


@app.command(help=GAPS_HELP)
def gaps(
    *,
    export: Annotated[Path | None, typer.Option(help="File to write a skeleton of pairs to.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete all kept questions.")] = False,
    as_json: Json = False,
) -> None:
    """See GAPS_HELP."""
    from qaserve.common.files import written_beside

    if delete:
        if export is not None:
            raise UsageError("--delete and --export exclude each other", hint="Export first.")
        _delete(get_settings(), as_json=as_json)
        return
    if export is not None and export.exists():
        raise UsageError(f"{export} is there already", hint="It may hold answers: name another file, or delete it.")
    found = _found(get_settings())
    if export is not None:
        with written_beside(export) as fresh, fresh.open("w", encoding="utf-8") as file:
            file.writelines(theme.skeleton() for theme in found.themes)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    _show(found)
    if export is not None and found.themes:
        out.print(Text(f"written: {export}. Fill in the answers, then: qaserve ingest {export}"))


def _show(found: "GapList") -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("asked", "question", "nearest cluster", "nearest known question"):
        table.add_column(name, justify="right" if name == "asked" else "left")
    for one in found.themes:
        texts = (shorten(text, SHOWN_CHARS) for text in (one.question, one.cluster_name))
        known = f"{shorten(one.known, SHOWN_CHARS)} ({one.similarity:.2f})"
        table.add_row(str(one.count), *map(Text, (*texts, known)))
    if found.themes:
        out.print(table)
    out.print(f"{found.questions} questions kept, {len(found.themes)} themes. {_rule(found)}")
    if found.looked_at < found.questions:
        out.print(f"The newest {found.looked_at:,} were grouped.")


def _rule(found: "GapList") -> str:
    if found.keeps:
        return f"Questions are kept for {found.days} days."
    return "Questions are not kept: set QASERVE_KEEP_QUESTIONS=true where they are asked."


def _found(settings: Settings) -> "GapList":
    from qaserve.client.http import Client
    from qaserve.search.engine import Engine
    from qaserve.service.gaps import Gaps, QuestionLog
    from qaserve.store import open_store

    if settings.server.api_url is not None:
        with Client(**settings.server.client) as client:
            return client.gaps()
    with open_store(settings.store, read_only=True) as store:
        corpus = corpus_to_ask(settings, store)
        engine = Engine(store, make_encoder(settings), settings.store.models_dir, corpus, settings.search)
        return Gaps(engine, QuestionLog(settings.store.data_dir, corpus, **settings.server.keeping)).themes()


def _delete(settings: Settings, *, as_json: bool) -> None:
    from qaserve.client.http import Client
    from qaserve.schemas.gaps import GapsDeleted
    from qaserve.service.gaps import QuestionLog
    from qaserve.store import open_store

    if settings.server.api_url is not None:
        with Client(**settings.server.client) as client:
            gone = client.delete_gaps()
    else:
        with open_store(settings.store, read_only=True) as store:
            corpus = corpus_to_ask(settings, store)
        gone = GapsDeleted(deleted=QuestionLog(settings.store.data_dir, corpus, **settings.server.keeping).delete())
    print(gone.model_dump_json() if as_json else f"Deleted {gone.deleted} questions.")
