"""`qaserve bench golden`."""

from pathlib import Path
from typing import Annotated

import typer

from qaserve.cli.base import Json, corpus_to_ask, err, make_encoder, out
from qaserve.cli.bench import bench_app
from qaserve.common.progress import Bars
from qaserve.settings import get_settings

GOLDEN_HELP = """Ask the live build questions whose answers people judged, and see how well it does.

A line of the file is `{"question": "…", "pair_id": "…"}`, or one of `qaserve feedback export`. Other pairs that answer
it as well stand in a list, `"also": ["…"]`: the first of them counts. Of a pair that helped, the intent is relevant; of
one that did not, it is counted how often it still comes first.

**Examples**

    qaserve bench golden golden.jsonl

    qaserve feedback export --out said.jsonl && qaserve bench golden said.jsonl --json
"""


@bench_app.command(help=GOLDEN_HELP)
def golden(
    file: Annotated[Path, typer.Argument(help="JSON Lines of judgements.", show_default=False)],
    *,
    as_json: Json = False,
) -> None:
    """See GOLDEN_HELP."""
    from ingest.judgements import read_judgements
    from qaserve.cli.render_answer import show_bad_lines, show_unknown_lines
    from qaserve.search.engine import Engine
    from qaserve.store import open_store
    from train.experiments import golden as golden_experiment

    settings = get_settings()
    judged = read_judgements(file, settings.read)
    with open_store(settings.store) as store:
        corpus = corpus_to_ask(settings, store)
        engine = Engine(store, make_encoder(settings), settings.store.models_dir, corpus, settings.search)
        with Bars(err).stage("Asking (questions)", len(judged.judgements)) as advance:
            report = golden_experiment.run(engine, judged, file.name, advance)
    if as_json:
        print(report.model_dump_json(indent=2))
        return
    out.print(f"Build {report.build} of corpus {report.corpus}")
    if report.helpful is not None:
        found = report.helpful
        out.print(f"{found.questions} questions whose answer is known: MRR {found.mrr:.3f}")
        out.print(f"  Hit@1 {found.hit1:.3f}  Hit@3 {found.hit3:.3f}  Hit@5 {found.hit5:.3f}")
        out.print(f"  abstained on {found.abstained:.1%} of them")
    if report.unhelpful is not None:
        still = report.unhelpful
        out.print(f"{still.questions} pairs that did not help: {still.first} still come first ({still.share:.1%})")
    if report.unknown:
        show_unknown_lines(out, report.unknown, report.unknown_lines)
    show_bad_lines(err, report.bad)
