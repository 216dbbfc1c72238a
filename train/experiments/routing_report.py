"""What `qaserve bench routing` reports: its records, and how they are told in tables, sentences and plots."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from qaserve.bundle import Trial
from qaserve.records import Record
from train.experiments.comparison import (
    COLOURS,
    MRR,
    SHOWN,
    Difference,
    Result,
    compared,
    differences_table,
    draw_gains,
    results_table,
    signed,
)
from train.experiments.harness import Plot, Table
from train.metrics import Interval
from train.tuning import START

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SplitName = Literal["phrasing", "intent", "random"]
ABOUT: dict[SplitName, str] = {
    "phrasing": "new phrasings of known answers",
    "intent": "intents without a known question (raw questions cannot find them), answers of all pairs searched",
    "random": "the proposal's random tenth, which leaks near-repeats, answers of all pairs searched",
}
SEED_TEMPERATURE = 0.1
"""Temperature and top-k of the proposal's own recipe."""
SEED_CENTROIDS = 10
LEXICAL_WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.5)
RAW, RAW_QUESTIONS, BM25 = "raw answers", "raw questions", "BM25 over question and answer"
FUSION = "reciprocal rank fusion of raw answers and BM25"
SEED_CENTROID = f"seed W, centroid τ={SEED_TEMPERATURE}"
SEED_QUESTION = f"seed W, question τ={SEED_TEMPERATURE}"
SEED_QUESTION2 = f"seed W, question2 τ={SEED_TEMPERATURE}"
CENTROID = f"anchored W, centroid τ={SEED_TEMPERATURE}"
QUESTION_SEED_TEMPERATURE = f"anchored W, question τ={SEED_TEMPERATURE}"
QUESTION = f"anchored W, question τ={START.temperature:g}"
QUESTION_HITS = f"{QUESTION}, {START.hits} hits"
QUESTION2 = f"anchored W, question2 τ={START.temperature:g}"
BEST_QUESTION = f"anchored W, best question of each cluster τ={START.temperature:g}"
PER_PAIR_SEED = f"per-pair W, τ={SEED_TEMPERATURE}"
PER_PAIR = f"per-pair W, τ={START.temperature:g}, {START.hits} hits"
DEFAULT = "the product, default numbers"
CHOSEN = "the product, numbers chosen on the training side"
TXTAI = "txtai over answers"
TXTAI_BOTH = "txtai over question and answer as one text"
TXTAI_HYBRID = "txtai hybrid over question and answer as one text"
TXTAI_HYBRID_ANSWERS = "txtai hybrid over question and answer, vectors of the answers"


def with_words(weight: float) -> str:
    """Name of the product's default routing and projection with words of weight β."""
    return DEFAULT if weight == START.lexical_weight else f"{QUESTION_HITS}, words β={weight:g}"


WORDS = {with_words(weight) for weight in LEXICAL_WEIGHTS} - {DEFAULT}
"""Methods that have a plot of their own."""


class SplitResults(Record):
    """What came out on one split."""

    split: SplitName
    queries: float = Field(description="Questions asked, mean over the seeds.")
    searched: float = Field(description="Pairs whose answers are searched, mean over the seeds.")
    clusters: float = Field(description="K, mean over the seeds.")
    results: tuple[Result, ...]


class WordsPoint(Record):
    """MRR with some weight of the words."""

    weight: float = Field(description="β.")
    mrr: float
    gain: Interval = Field(description="Over β = 0.")


class Tested(Record):
    """A hypothesis of the proposal, and the difference that decides it."""

    claim: str
    split: SplitName
    at_least: float = Field(description="Share of the reference's figure that was promised; 0: more than nothing.")
    difference: Difference


class RoutingRun(Record):
    """What came out for one encoder."""

    encoder: str
    dimension: int
    pairs: int
    seeds: tuple[int, ...]
    splits: tuple[SplitResults, ...]
    words: tuple[WordsPoint, ...]
    chosen: tuple[Trial, ...] = Field(description="The numbers chosen on the training side of each phrasing split.")
    product: str = Field(description="The method that stands for the product in `against`.")
    against: tuple[Difference, ...] = Field(description="The product less what else there is, on phrasing.")
    hypotheses: tuple[Tested, ...]
    left_out: tuple[str, ...] = Field(description="What was not measured, and why.")


class RoutingReport(Record):
    """What the experiment found, one run for each encoder."""

    runs: tuple[RoutingRun, ...]


def tables(report: RoutingReport) -> list[Table]:
    """For each encoder: the product against the rest, all methods on each split, and the numbers chosen."""
    return [table for one in report.runs for table in _tables(one)]


def _tables(run: RoutingRun) -> Iterator[Table]:
    yield differences_table(f"{run.encoder}: the product against what else there is, new phrasings", run.against)
    for part in run.splits:
        yield results_table(
            f"{run.encoder} (D {run.dimension}), {ABOUT[part.split]}: {run.pairs:,} pairs, mean of {len(run.seeds)} "
            f"splits with {part.queries:.0f} questions asked, {part.searched:.0f} pairs searched and "
            f"{part.clusters:.0f} clusters",
            part.results,
        )
    if run.chosen:
        yield Table(
            f"{run.encoder}: numbers chosen on the training side of each split",
            ("split", "λ", "τ", "N", "τ'", "β", "MRR there"),
            tuple(_chosen_row(number, one) for number, one in enumerate(run.chosen)),
        )


def _chosen_row(number: int, one: Trial) -> tuple[str, ...]:
    final = "–" if one.final_temperature is None else f"{one.final_temperature:g}"
    numbers = (f"{one.anchor:g}", f"{one.temperature:g}", str(one.hits), final, f"{one.lexical_weight:g}")
    return str(number), *numbers, f"{one.mrr:.3f}"


OUTCOMES = {
    "better": "higher MRR than that of",
    "no difference": "no difference in MRR to that of",
    "worse": "lower MRR than that of",
}


def findings(report: RoutingReport) -> list[str]:
    """Sentences with their figures, for each encoder."""
    return [sentence for one in report.runs for sentence in _sentences(one)]


def _sentences(run: RoutingRun) -> Iterator[str]:
    for part in run.splits:
        yield _sentence_of_split(run, part)
    for outcome, sentence in OUTCOMES.items():
        told = [f"{one.reference} {signed(one.gain)}" for one in run.against if compared(one.gain) == outcome]
        if told:
            yield f"{run.encoder}, new phrasings: {run.product}: {sentence} {'; '.join(told)}."
    for tested in run.hypotheses:
        yield _sentence_of_hypothesis(run, tested)
    for reason in run.left_out:
        yield f"{run.encoder}: left out: {reason}."


def _sentence_of_split(run: RoutingRun, part: SplitResults) -> str:
    found = {one.method: one for one in part.results}
    product, raw = found[DEFAULT], found[RAW]
    gain = product.gain or Interval(low=0, mean=0, high=0)
    return (
        f"{run.encoder}: {product.method}, asked {ABOUT[part.split]}: MRR {product.metrics[MRR]:.3f}, raw answers "
        f"{raw.metrics[MRR]:.3f}: {compared(gain)}, difference {signed(gain)}."
    )


def _sentence_of_hypothesis(run: RoutingRun, tested: Tested) -> str:
    one = tested.difference
    return (
        f'{run.encoder}: "{tested.claim}" {verdict(tested)}: {SHOWN[one.measure]} '
        f"{one.base:.3f} ({one.reference}) and {one.base + one.gain.mean:.3f} ({one.method}), "
        f"{tested.split} split, difference {signed(one.gain)}, {one.gain.mean / one.base:+z.1%}."
    )


def verdict(tested: Tested) -> str:
    """Whether a hypothesis held: by its whole interval, not by its mean."""
    gain, floor = tested.difference.gain, tested.at_least * tested.difference.base
    if gain.low <= 0 <= gain.high:
        return "– no difference"
    if gain.low > floor:
        return "held"
    return "did not hold" if gain.high < floor else "is undecided"


def plots(report: RoutingReport) -> list[Plot]:
    """What every method gains, and what the words add."""
    phrasing = {
        one.encoder: [result for result in part.results if result.method not in WORDS]
        for one in report.runs
        for part in one.splits
        if part.split == "phrasing"
    }
    return [
        Plot(
            "gains",
            "What every method gains in MRR over a plain search of the answers, asked new phrasings",
            lambda axes: draw_gains(axes, phrasing, RAW),
        ),
        Plot(
            "words",
            "MRR over β, the weight of the words; the band is the 95% interval of the difference to no words",
            lambda axes: _draw_words(axes, report),
        ),
    ]


def _draw_words(axes: "Axes", report: RoutingReport) -> None:
    for number, one in enumerate(report.runs):
        colour, base = COLOURS[number % len(COLOURS)], one.words[0].mrr
        weights = [point.weight for point in one.words]
        axes.plot(weights, [point.mrr for point in one.words], marker="o", markersize=4, color=colour)
        low, high = ([base + getattr(point.gain, end) for point in one.words] for end in ("low", "high"))
        axes.fill_between(weights, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.annotate(one.encoder, (weights[-1], one.words[-1].mrr), xytext=(6, 0), textcoords="offset points")
    axes.margins(x=0.12)
    axes.set_xlabel("β, weight of the words")
    axes.set_ylabel("MRR")
