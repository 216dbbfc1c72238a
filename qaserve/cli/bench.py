"""`qaserve bench`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from qaserve.cli.base import Json, app, corpus_to_ask, err, make_encoder, out
from qaserve.errors import CorpusError, UsageError
from qaserve.progress import Bars
from qaserve.settings import Settings, get_settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qaserve.records import Pair
    from train.routing_experiment import RoutingReport

MIN_PAIRS = 30
SHOWN = ("mrr", "hit1", "hit3", "hit5", "cosine")

bench_app = typer.Typer(help="Measure, on data that nothing was fitted or tuned on.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

ROUTING_HELP = """Compare every routing with every projection, on held-out phrasings.

For each seed one phrasing of every answer family of three or more is held out; clusters, K and W see only the rest.
Relevant is the pair's own intent (`cluster_id`); every intent is ranked once, by its best answer. Vectors are those of
the live build, or those of a file with arrays `Q` and `A` in the order of a corpus file.

**Examples**

    qaserve bench routing --seeds 5

    qaserve bench routing --corpus skills_qa.jsonl --embeddings mpnet.npz --json
"""


LATENCY_HELP = """Ask known questions and show where the time goes, beside the bare encoder and bare Qdrant searches.

**Examples**

    qaserve bench latency

    qaserve bench latency --questions 500 --json
"""


@bench_app.callback()
def bench() -> None:
    """Measure, on data that nothing was fitted or tuned on."""


@bench_app.command(help=ROUTING_HELP)
def routing(
    *,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="How many splits, seeds 0, 1, 2 …")] = 3,
    corpus: Annotated[Path | None, typer.Option(help="Corpus file of the embeddings.")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="npz file with arrays Q and A.")] = None,
    as_json: Json = False,
) -> None:
    """See ROUTING_HELP."""
    from train import routing_experiment
    from train.fitting import DEFAULT_ANCHOR

    settings = get_settings()
    if (corpus is None) != (embeddings is None):
        raise UsageError("--corpus and --embeddings go together", hint="Give both, or neither for the live build.")
    if corpus is not None and embeddings is not None:
        pairs, questions, answers = _from_files(settings, corpus, embeddings)
        encoder = embeddings.stem
    else:
        pairs, questions, answers, encoder = _from_live_build(settings)
    if len(pairs) < MIN_PAIRS:
        raise CorpusError(f"{len(pairs)} pairs are too few to split; {MIN_PAIRS} are needed", hint="Ingest more pairs.")
    numbers = range(seeds)
    with Bars(err).stage("Comparing (methods)", routing_experiment.steps(numbers)) as advance:
        report = routing_experiment.run(
            pairs,
            questions,
            answers,
            encoder=encoder,
            seeds=numbers,
            anchor=settings.fit.anchor or DEFAULT_ANCHOR,
            advance=advance,
        )
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        _show(report)


@bench_app.command(help=LATENCY_HELP)
def latency(
    *,
    questions: Annotated[int, typer.Option(min=1, max=10_000, help="How many questions to ask.")] = 100,
    as_json: Json = False,
) -> None:
    """See LATENCY_HELP."""
    from qaserve.engine import Engine
    from qaserve.store import open_store
    from train import latency_experiment

    settings = get_settings()
    with open_store(settings.store, "qaserve bench latency") as store:
        corpus = corpus_to_ask(settings, store)
        encoder = make_encoder(settings)
        engine = Engine(store, encoder, settings.store.models_dir, corpus, settings.routing)
        known = [row.stored.pair.question for row in store.scroll(corpus, engine.load().info.build)]
        chosen = known[:: max(1, len(known) // questions)][:questions]
        with Bars(err).stage("Asking (questions)", len(chosen)) as advance:
            report = latency_experiment.run(engine, encoder, chosen, advance)
    if as_json:
        print(report.model_dump_json(indent=2))
        return
    took = report.engine
    out.print(f"Medians of {report.questions} questions over {report.pairs:,} pairs, in milliseconds:")
    out.print(f"  encode {took.encode}  route {took.route}  project {took.project}  search {took.search}")
    out.print(f"  total {took.total}; bare encoder {report.bare_encode}, two bare searches {report.bare_searches}")
    out.print(f"  the engine takes {report.over_bare} times its bare parts")
    out.print(f"Bank of W: {report.bank_bytes:,} bytes; as dense matrices {report.dense_bank_bytes:,}")


def _from_live_build(settings: Settings) -> "tuple[list[Pair], NDArray[np.float32], NDArray[np.float32], str]":
    import numpy as np

    from qaserve.store import open_store

    with open_store(settings.store, "qaserve bench") as store:
        corpus = corpus_to_ask(settings, store)
        build = store.live(corpus)
        encoder = store.info(corpus, build).encoder.id
        rows = list(store.scroll(corpus, build))
    pairs = [row.stored.pair for row in rows]
    return pairs, np.stack([row.question for row in rows]), np.stack([row.answer for row in rows]), encoder


def _from_files(
    settings: Settings, corpus: Path, embeddings: Path
) -> "tuple[list[Pair], NDArray[np.float32], NDArray[np.float32]]":
    import numpy as np

    from ingest.readers import Located, find_files, read_files

    pairs = [item.pair for item in read_files(find_files([corpus]), settings.read) if isinstance(item, Located)]
    try:
        with np.load(embeddings, allow_pickle=False) as arrays:
            questions, answers = arrays["Q"], arrays["A"]
    except (OSError, ValueError, KeyError) as error:
        raise CorpusError(
            f"{embeddings} is not an npz file with arrays Q and A: {error}", hint="Save it with numpy.savez."
        ) from error
    if not questions.ndim == answers.ndim == 2 or not len(questions) == len(answers) == len(pairs):
        raise CorpusError(
            f"{embeddings} holds Q {questions.shape} and A {answers.shape}; {corpus} gives {len(pairs)} pairs",
            hint="Both arrays need a row for every pair, in the order of the file.",
        )
    return pairs, questions, answers


def _show(report: "RoutingReport") -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("method")
    for name in SHOWN:
        table.add_column({"mrr": "MRR", "cosine": "cos"}.get(name, name.replace("hit", "Hit@")), justify="right")
    table.add_column("MRR over raw answers (95%)", justify="right")
    for result in report.results:
        cells = [f"{result.metrics[name]:.3f}" if name in result.metrics else "–" for name in SHOWN]
        gain = (
            "–"
            if result.gain is None
            else f"{result.gain.mean:+.3f} ({result.gain.low:+.3f} … {result.gain.high:+.3f})"
        )
        table.add_row(result.method, *cells, gain)
    out.print(table)
    out.print(
        f"{report.pairs:,} pairs, encoder {report.encoder} (D {report.dimension}), mean of {len(report.seeds)} splits "
        f"with {report.queries:.0f} held-out questions and {report.clusters:.0f} clusters, λ {report.anchor:g}."
    )
