"""The experiment behind `qaserve bench finetuning`: the product beside an encoder fine-tuned on the same pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from qaserve.encoder import SentenceEncoder
from qaserve.errors import UsageError
from qaserve.lexical import Lexicon, pair_text
from qaserve.progress import Advance
from qaserve.records import Record
from qaserve.settings import FitSettings
from train import finetuning
from train.experiments.comparison import (
    Difference,
    Result,
    Tally,
    compared,
    differences_table,
    draw_gains,
    results_table,
    row_cosines,
    signed,
)
from train.experiments.finetuning_split import PARTS, Cost, timed, tune
from train.experiments.harness import Experiment, Plot, Source, Table
from train.folds import Examples, Fold, make_fold
from train.result_cache import Kept
from train.splits import check_families, first_families, phrasing_split
from train.tuning import START, choose, ranks_of

QUICK_PAIRS = 24
QUICK_EPOCHS = 1
STEPS_A_SEED = PARTS + 3

RAW = "raw answers"
RAW_WORDS = "raw answers and words"
PRODUCT = "the product, default numbers"
CHOSEN = "the product, numbers chosen on the training side"
TUNED = "fine-tuned encoder"
TUNED_WORDS = "fine-tuned encoder and words"
TUNED_PRODUCT = "the product on the fine-tuned encoder, default numbers"
COMPARED = {PRODUCT: [TUNED, TUNED_WORDS], CHOSEN: [TUNED, TUNED_WORDS], TUNED_PRODUCT: [TUNED, TUNED_WORDS, PRODUCT]}


class Costs(Record):
    """What the parts took, each after the pairs were encoded once."""

    fitting: Cost = Field(description="The product: clusters, bank of W, lexicon.")
    choosing: Cost = Field(description="The product's numbers by cross-validation; a build may skip it.")
    training: Cost = Field(description="Fine-tuning the encoder.")
    encoding: Cost = Field(description="Encoding all answers again, which a changed encoder needs.")


class FinetuningRun(Record):
    """What came out for one encoder."""

    encoder: str
    dimension: int
    pairs: int
    seeds: tuple[int, ...]
    epochs: int
    trained_on: float = Field(description="Pairs of the training side, mean over the seeds.")
    queries: float = Field(description="Held-out questions, mean over the seeds.")
    losses: tuple[float, ...] = Field(description="Training loss of each epoch, mean over the seeds.")
    costs: Costs = Field(description="Means over the seeds.")
    results: tuple[Result, ...]
    differences: tuple[Difference, ...]


class FinetuningReport(Record):
    """What the experiment found, one run for each encoder."""

    runs: tuple[FinetuningRun, ...]


@dataclass(frozen=True)
class Trained:
    """What one seed gives beside its ranks."""

    trained_on: int
    queries: int
    losses: tuple[float, ...]
    costs: Costs


def run(source: Source, *, seeds: Sequence[int], quick: bool, advance: Advance) -> FinetuningRun:
    """Fine-tune the encoder on the training side of each seed's phrasing split, and ask what was held out.

    Vectors of the unchanged encoder are those of the source. The product is question routing with anchored W and
    words: with the numbers of a build that tried none, and with numbers chosen on the training side. A finished
    training is left with what the source keeps, and taken from there by a run after an interrupted one.

    Args:
        source: Pairs and vectors, and the encoder that made them.
        seeds: One split, one K-means and one training each.
        quick: The first of the seeds alone, about 25 pairs and one epoch.
        advance: Told as often as `steps` says.

    Raises:
        CorpusError: No phrasing can be held out.
        UsageError: The source has no encoder, or a training package is not installed.
        EncoderError: The encoder cannot be loaded.
        StoreWriteError: A finished training cannot be kept.
    """
    if source.model is None:
        raise UsageError(
            f"fine-tuning needs the encoder {source.encoder} itself; there are only its vectors",
            hint="Set QASERVE_ENCODER to the encoder that made the vectors.",
        )
    examples, epochs = source.examples, finetuning.EPOCHS
    if quick:
        examples, epochs, seeds = examples.take(first_families(examples.pairs, QUICK_PAIRS)), QUICK_EPOCHS, seeds[:1]
    check_families(examples.pairs)
    tally = Tally()
    trained = [one_seed(examples, source.model, seed, epochs, tally, source.kept, advance) for seed in seeds]
    return summary(source.encoder, examples, seeds, tally, trained)


def steps(seeds: Sequence[int], quick: bool) -> int:
    """How often `run` will call `advance`, each time with 1."""
    return STEPS_A_SEED * len(seeds[:1] if quick else seeds)


def one_seed(
    examples: Examples,
    model: SentenceEncoder,
    seed: int,
    epochs: int,
    tally: Tally,
    kept: Kept | None,
    advance: Advance,
) -> Trained:
    """Measure one seed: its ranks go into the tally, the rest comes back."""
    split = phrasing_split(examples.pairs, seed)
    known, asked = examples.take(split.train), examples.take(split.test)
    fold, fitting = timed(lambda: _fitted(known, asked, seed))
    _ask_unchanged(fold, tally)
    advance(1)
    tuning, choosing = timed(lambda: choose(known, FitSettings(anchor=None, seed=seed), lambda _: None))
    if tuning is not None:
        tally.add(CHOSEN, ranks_of(fold, tuning.chosen))
    advance(1)
    tuned = tune(known, asked, model, seed, epochs, kept, advance)
    _ask_tuned(_fitted(tuned.known, tuned.asked, seed), tally)
    advance(1)
    took = tuned.training
    costs = Costs(fitting=fitting, choosing=choosing, training=took.training, encoding=took.encoding)
    return Trained(len(known), len(asked), took.losses, costs)


def summary(
    encoder: str, examples: Examples, seeds: Sequence[int], tally: Tally, trained: Sequence[Trained]
) -> FinetuningRun:
    """Means over the seeds, and the differences over all their questions together."""
    return FinetuningRun(
        encoder=encoder,
        dimension=examples.questions.shape[1],
        pairs=len(examples),
        seeds=tuple(seeds),
        epochs=len(trained[0].losses),
        trained_on=float(np.mean([one.trained_on for one in trained])),
        queries=float(np.mean([one.queries for one in trained])),
        losses=tuple(np.mean([one.losses for one in trained], axis=0).tolist()),
        costs=_mean_costs([one.costs for one in trained]),
        results=tally.results(RAW),
        differences=tuple(
            difference for method, others in COMPARED.items() for difference in tally.differences(method, others)
        ),
    )


# What is timed


def _fitted(known: Examples, asked: Examples, seed: int) -> Fold:
    """A fold with everything fitted that a build of its known side has."""
    fold = make_fold(known, asked, seed)
    fold.bank(START.anchor)
    Lexicon.fit([str(row) for row in range(len(known))], map(pair_text, known.pairs))
    return fold


def _mean_costs(costs: Sequence[Costs]) -> Costs:
    def mean(name: str) -> Cost:
        parts: list[Cost] = [getattr(one, name) for one in costs]
        return Cost(
            cpu_seconds=float(np.mean([part.cpu_seconds for part in parts])),
            wall_seconds=float(np.mean([part.wall_seconds for part in parts])),
        )

    return Costs(**{name: mean(name) for name in Costs.model_fields})


# What is asked


def _ask_unchanged(fold: Fold, tally: Tally) -> None:
    queries = fold.asked.questions
    tally.ask(fold.asked.intents)
    tally.add(RAW, fold.ranks(fold.cosines(queries)), row_cosines(queries, fold.asked.answers))
    tally.add(RAW_WORDS, fold.ranks(fold.scores(queries, START.lexical_weight)))
    tally.add(PRODUCT, ranks_of(fold, START))


def _ask_tuned(fold: Fold, tally: Tally) -> None:
    """`fold` holds vectors of the fine-tuned encoder."""
    queries = fold.asked.questions
    tally.add(TUNED, fold.ranks(fold.cosines(queries)), row_cosines(queries, fold.asked.answers))
    tally.add(TUNED_WORDS, fold.ranks(fold.scores(queries, START.lexical_weight)))
    tally.add(TUNED_PRODUCT, ranks_of(fold, START))


# What is shown


def tables(report: FinetuningReport) -> list[Table]:
    """How well each method finds, the product against the fine-tuned encoder, and what it all took."""
    return [
        table
        for one in report.runs
        for table in (
            results_table(_caption(one), one.results),
            differences_table(f"{one.encoder}: the product against the fine-tuned encoder", one.differences),
            _costs_table(one),
        )
    ]


def _caption(run: FinetuningRun) -> str:
    return (
        f"{run.encoder} (D {run.dimension}), {run.pairs:,} pairs, {run.epochs} epochs over {run.trained_on:.0f} pairs, "
        f"mean of {len(run.seeds)} splits with {run.queries:.0f} held-out phrasings"
    )


def _costs_table(run: FinetuningRun) -> Table:
    costs = {
        "fitting the product (clusters, W, words)": run.costs.fitting,
        "choosing its numbers by trial": run.costs.choosing,
        "fine-tuning the encoder": run.costs.training,
        "encoding all answers again": run.costs.encoding,
    }
    rows = tuple((work, f"{cost.cpu_seconds:,.2f}", f"{cost.wall_seconds:,.2f}") for work, cost in costs.items())
    return Table(f"{run.encoder}: what it took, mean of the splits", ("work", "CPU seconds", "seconds"), rows)


def findings(report: FinetuningReport) -> list[str]:
    """Sentences with their figures, for each encoder."""
    return [sentence for one in report.runs for sentence in _sentences(one)]


def _sentences(run: FinetuningRun) -> Iterator[str]:
    for one in run.differences:
        yield (
            f"{run.encoder}: {one.method} against {one.reference}: {compared(one.gain)}, MRR "
            f"{one.base + one.gain.mean:.3f} and {one.base:.3f}, difference {signed(one.gain)}."
        )
    fitting, choosing, training = (
        cost.cpu_seconds for cost in (run.costs.fitting, run.costs.choosing, run.costs.training)
    )
    yield (
        f"{run.encoder}: fine-tuning took {training:,.0f} CPU seconds a split, fitting the product {fitting:.2f}: "
        f"{training / fitting:,.0f} times as much; with the choice of the product's numbers "
        f"({choosing:.1f} CPU seconds) {training / (fitting + choosing):,.0f} times as much."
    )


def plots(report: FinetuningReport) -> list[Plot]:
    """What each method gains over a search with the unchanged encoder."""
    title = "What every method gains in MRR over a plain search of the answers with the unchanged encoder"
    series = {one.encoder: one.results for one in report.runs}
    return [Plot("gains", title, lambda axes: draw_gains(axes, series, RAW))]


EXPERIMENT = Experiment(
    "finetuning", "The product beside a fine-tuned encoder", FinetuningReport, tables, findings, plots
)
