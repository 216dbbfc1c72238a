"""`qaserve overlaps`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from qaserve.cli.base import Json, app, corpus_to_ask, make_encoder, out
from qaserve.common.text import shorten
from qaserve.schemas.explore import MAX_OVERLAPS, OVERLAP_THRESHOLD
from qaserve.settings import Settings, get_settings

if TYPE_CHECKING:
    from qaserve.schemas.explore import OverlapList

SHOWN_CHARS = 100

OVERLAPS_HELP = """Find intents whose questions or answers nearly coincide, and how to merge them.

Two intents are listed where a question of one and a question of the other, or an answer of each, have at least this
cosine. The one with more pairs is to be kept. With QASERVE_API_URL the live build of that API is looked at.

**Examples**

    qaserve overlaps

    qaserve overlaps --threshold 0.9 --limit 200 --json
"""


@app.command(help=OVERLAPS_HELP)
def overlaps(
    *,
    threshold: Annotated[float, typer.Option(min=0.5, max=1.0, help="Lowest cosine.")] = OVERLAP_THRESHOLD,
    limit: Annotated[int, typer.Option(min=1, max=MAX_OVERLAPS, help="How many to list, the nearest.")] = 100,
    as_json: Json = False,
) -> None:
    """See OVERLAPS_HELP."""
    found = _found(get_settings(), threshold, limit)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("questions", "answers"):
        table.add_column(name, justify="right")
    table.add_column("keep, merge, and why")
    for one in found.overlaps:
        said = f"{one.keep} ({one.keep_pairs}) ← {one.merge} ({one.merge_pairs})"
        texts = (shorten(text, SHOWN_CHARS) for text in dict.fromkeys((one.keep_text, one.merge_text)))
        about = Text.assemble((said, "bold"), "\n", " / ".join(texts), "\n", (one.reason, "dim"))
        table.add_row(f"{one.question:.3f}", f"{one.answer:.3f}", about)
    if found.overlaps:
        out.print(table)
    out.print(
        f"Build {found.build}: {found.found} pairs of its {found.intents} intents have questions or answers with a "
        f"cosine of at least {found.threshold:g}."
    )
    if found.looked_at < found.pairs:
        out.print(f"{found.looked_at:,} of its {found.pairs:,} pairs were compared.")


def _found(settings: Settings, threshold: float, limit: int) -> "OverlapList":
    from qaserve.client.http import Client
    from qaserve.search.engine import Engine
    from qaserve.search.explore import Explorer
    from qaserve.store import open_store

    if settings.server.api_url is not None:
        with Client(**settings.server.client) as client:
            return client.overlaps(threshold, limit)
    with open_store(settings.store, read_only=True) as store:
        corpus = corpus_to_ask(settings, store)
        engine = Engine(store, make_encoder(settings), settings.store.models_dir, corpus, settings.search)
        return Explorer(engine).overlaps(threshold, limit)
