"""`qaserve feedback`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from qaserve.cli.base import Json, app, err, out
from qaserve.common.text import shorten
from qaserve.settings import get_settings

if TYPE_CHECKING:
    from qaserve.schemas.feedback import FeedbackPage

feedback_app = typer.Typer(help="See what was said of answers, and take it elsewhere.", no_args_is_help=True)
app.add_typer(feedback_app, name="feedback")

SHOWN_CHARS = 60

LIST_HELP = """List what was said of answers, oldest first. A running API need not be stopped for it.

**Examples**

    qaserve feedback list

    qaserve feedback list --last 20 --json
"""

EXPORT_HELP = """Write what was said as JSON Lines, for `qaserve bench golden` and `qaserve fit --feedback`.

**Examples**

    qaserve feedback export > feedback.jsonl

    qaserve feedback export --helpful --out golden.jsonl
"""


@feedback_app.command("list", help=LIST_HELP)
def list_(
    *,
    last: Annotated[int | None, typer.Option(min=1, help="Only this many, the newest.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """See LIST_HELP."""
    page = _all()
    page = page.model_copy(update={"feedback": page.feedback[-last:] if last else page.feedback})
    if as_json:
        print(page.model_dump_json(indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("when", "", "question", "pair", "comment"):
        table.add_column(name)
    for one in page.feedback:
        texts = (shorten(text, SHOWN_CHARS) for text in (one.question, one.pair_id, one.comment))
        table.add_row(one.created[:16], "+" if one.helpful else "-", *map(Text, texts))
    out.print(table)
    helpful = sum(one.helpful for one in page.feedback)
    out.print(f"Corpus {page.corpus}: {len(page.feedback)} records, {helpful} helpful.")


@feedback_app.command(help=EXPORT_HELP)
def export(
    *,
    to: Annotated[Path | None, typer.Option("--out", help="File to write; stdout without it.")] = None,
    helpful: Annotated[bool, typer.Option("--helpful", help="Only what helped.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --out: say what was written as JSON.")] = False,
) -> None:
    """See EXPORT_HELP."""
    from qaserve.common.errors import UsageError
    from qaserve.common.files import written_beside

    if as_json and to is None:
        raise UsageError("--json needs --out: without it stdout is the export", hint="Add --out FILE.")
    page = _all()
    chosen = [one for one in page.feedback if one.helpful or not helpful]
    lines = (one.model_dump_json() + "\n" for one in chosen)
    if to is None:
        sys.stdout.writelines(lines)
        return
    with written_beside(to) as fresh, fresh.open("w", encoding="utf-8") as file:
        file.writelines(lines)
    print(
        json.dumps({"corpus": page.corpus, "file": str(to), "records": len(chosen), "unreadable": page.unreadable})
        if as_json
        else f"{to}: {len(chosen)} records of corpus {page.corpus}."
    )


def _all() -> "FeedbackPage":
    """All feedback; how many records could not be read is printed on stderr."""
    from qaserve.service.feedback import the_log

    store = get_settings().store
    log = the_log(store.data_dir, store.corpus)
    page = log.page()
    if page.unreadable:
        err.print(Text(f"{page.unreadable} records of {log.path.name} cannot be read and were left out"))
    return page
