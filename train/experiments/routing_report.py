"""What `qaserve bench routing` compares, its report, and how that is told in sentences, tables and plots."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from qaserve.schemas.explore import Headline, HeadlineBar
from qaserve.schemas.ingest import Interval
from qaserve.schemas.params import Trial
from qaserve.schemas.record import Record
from train.experiments.harness import (
    COSINE,
    MRR,
    NONE,
    SHOWN,
    Difference,
    Plot,
    Result,
    Run,
    Table,
    compared,
    differences_table,
    draw_gains,
    is_difference,
    results_table,
    signed,
    style,
    table,
    versus,
)
from train.tuning import START

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SplitName = Literal["phrasing", "intent", "random"]
ABOUT: dict[SplitName, str] = {
    "phrasing": "new phrasings of known intents",
    "intent": "intents without a known question (all answers are searched)",
    "random": "upstream's random tenth, which leaks near-repeats (all answers are searched)",
}
REFERENCE_TEMPERATURE = 0.1
"""The proposal's."""
REFERENCE_CENTROIDS = 10
"""Upstream's; the proposal says "top-K"."""
LEXICAL_WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.5)
RAW, RAW_QUESTIONS, BM25 = "raw answers", "raw questions", "BM25 over question and answer"
FUSION = "reciprocal rank fusion of raw answers and BM25"
REFERENCE_CENTROID = f"reference W, centroid τ={REFERENCE_TEMPERATURE}"
REFERENCE_QUESTION = f"reference W, question τ={REFERENCE_TEMPERATURE}"
REFERENCE_QUESTION2 = f"reference W, question2 τ={REFERENCE_TEMPERATURE}"
CENTROID = f"anchored W, centroid τ={REFERENCE_TEMPERATURE}"
QUESTION_REFERENCE_TEMPERATURE = f"anchored W, question τ={REFERENCE_TEMPERATURE}"
QUESTION = f"anchored W, question τ={START.search.temperature:g}"
QUESTION_HITS = f"{QUESTION}, {START.search.hits} hits"
QUESTION2 = f"anchored W, question2 τ={START.search.temperature:g}"
BEST_QUESTION = f"anchored W, best question of each cluster τ={START.search.temperature:g}"
PER_PAIR_REFERENCE = f"per-pair W, τ={REFERENCE_TEMPERATURE}"
PER_PAIR = f"per-pair W, τ={START.search.temperature:g}, {START.search.hits} hits"
DEFAULT = "the product, default hyperparameters"
TUNED = "the product, hyperparameters tuned on the training side"
TUNED_PHRASINGS = "the product, hyperparameters tuned for new phrasings alone"
UNPROJECTED = "the product without projection, its other hyperparameters tuned on the training side"
PLAIN_WORDS = "plain search with words, their weight tuned on the training side"
TXTAI = "txtai over answers"
TXTAI_BOTH = "txtai over question and answer as one text"
TXTAI_HYBRID = "txtai hybrid over question and answer as one text"
TXTAI_HYBRID_ANSWERS = "txtai hybrid over question and answer, vectors of the answers"
RIVALS = (
    RAW,
    RAW_QUESTIONS,
    BM25,
    FUSION,
    PLAIN_WORDS,
    UNPROJECTED,
    REFERENCE_CENTROID,
    REFERENCE_QUESTION,
    REFERENCE_QUESTION2,
    TXTAI,
    TXTAI_BOTH,
    TXTAI_HYBRID,
    TXTAI_HYBRID_ANSWERS,
    DEFAULT,
)
"""What the product is measured against; its own default hyperparameters where it has others."""
RIVALS_UNKNOWN = (RAW, BM25, FUSION, PLAIN_WORDS, UNPROJECTED, DEFAULT)
"""The same where no question of the intent is known."""


def with_words(weight: float) -> str:
    """Name of the product's default routing and projection with words of weight β."""
    return f"{QUESTION_HITS}, words β={weight:g}"


WORDS = {with_words(weight) for weight in LEXICAL_WEIGHTS}
"""Methods that have a plot of their own."""


class Hypothesis(NamedTuple):
    """What the proposal expects, as a difference that can be measured."""

    claim: str
    method: str
    reference: str
    measure: str = MRR
    at_least: float = 0.0
    split: SplitName = "phrasing"


HYPOTHESES = (
    Hypothesis(
        "routing by questions instead of centroids gives 5% more cosine or better, with the reference W",
        REFERENCE_QUESTION,
        REFERENCE_CENTROID,
        COSINE,
        0.05,
    ),
    Hypothesis(
        "routing by questions instead of centroids gives 5% more cosine or better, with anchored W",
        QUESTION_REFERENCE_TEMPERATURE,
        CENTROID,
        COSINE,
        0.05,
    ),
    Hypothesis(
        "routing by questions at the product's temperature gives 5% more cosine or better, with anchored W",
        QUESTION,
        CENTROID,
        COSINE,
        0.05,
    ),
    Hypothesis("routing by questions finds better, with the reference W", REFERENCE_QUESTION, REFERENCE_CENTROID),
    Hypothesis("routing by questions finds better, with anchored W", QUESTION_REFERENCE_TEMPERATURE, CENTROID),
    Hypothesis("routing by questions at the product's temperature finds better, with anchored W", QUESTION, CENTROID),
    Hypothesis(
        "routing by questions generalises better, to intents that nothing was fitted on",
        QUESTION_REFERENCE_TEMPERATURE,
        CENTROID,
        split="intent",
    ),
    Hypothesis(
        "a final softmax over the clusters finds better, with the reference W", REFERENCE_QUESTION2, REFERENCE_QUESTION
    ),
    Hypothesis("a final softmax over the clusters finds better, with anchored W", QUESTION2, QUESTION),
    Hypothesis(
        "a cluster should weigh more with every question that matches, not by its best", QUESTION, BEST_QUESTION
    ),
    Hypothesis("projection with the reference W finds better than none", REFERENCE_QUESTION, RAW),
    Hypothesis("one W for each cluster finds better than a blend of single pairs' W", QUESTION_HITS, PER_PAIR),
)


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


class RoutingRun(Run):
    """What came out for one encoder."""

    dimension: int
    pairs: int
    seeds: tuple[int, ...]
    splits: tuple[SplitResults, ...]
    words: tuple[WordsPoint, ...]
    chosen: tuple[Trial, ...] = Field(description="Tuned on the training side of each phrasing split.")
    chosen_unknown: tuple[Trial, ...] = Field(description="Tuned on the training side of each intent split.")
    product: str = Field(description="The method that stands for the product in `against`.")
    against: tuple[Difference, ...] = Field(description="The product less what else there is, on phrasing.")
    against_unknown: tuple[Difference, ...] = Field(description="The same on intents without a known question.")
    hypotheses: tuple[Tested, ...]
    left_out: tuple[str, ...] = Field(description="What was not measured, and why.")


def tables(run: RoutingRun) -> Iterator[Table]:
    """The product against the rest, all methods on each split, and the tuned hyperparameters."""
    yield differences_table(f"{run.encoder}: the product against what else there is, new phrasings", run.against)
    title = f"{run.encoder}: the product against what else there is, {ABOUT['intent']}"
    yield differences_table(title, run.against_unknown)
    for part in run.splits:
        yield results_table(
            f"{run.encoder} (D {run.dimension}), {ABOUT[part.split]}: {run.pairs:,} pairs, mean of {len(run.seeds)} "
            f"splits with {part.queries:.0f} questions asked, {part.searched:.0f} pairs searched and "
            f"{part.clusters:.0f} clusters",
            part.results,
        )
    for split, chosen in (("phrasing", run.chosen), ("intent", run.chosen_unknown)):
        if not chosen:
            continue
        yield table(
            f"{run.encoder}: hyperparameters tuned on the training side of each {split} split",
            enumerate(chosen),
            {
                "split": lambda row: row[0],
                "projection": lambda row: f"{row[1].search.projection}, {row[1].search.projection_share:g}",
                "λ": lambda row: f"{row[1].regularization:g}",
                "ω": lambda row: f"{row[1].search.whitening:g}",
                "τ": lambda row: f"{row[1].search.temperature:g}",
                "N": lambda row: row[1].search.hits,
                "τ'": lambda row: (
                    f"{row[1].search.final_temperature:g}" if row[1].search.routing == "question2" else NONE
                ),
                "β": lambda row: f"{row[1].search.lexical_weight:g}",
                "θ": lambda row: f"{row[1].search.topic_weight:g}",
                "σ": lambda row: f"{row[1].search.second_share:g}",
                "MRR there, phrasings": lambda row: f"{row[1].phrasings:.3f}",
                "intents": lambda row: NONE if row[1].intents is None else f"{row[1].intents:.3f}",
            },
        )


HEADLINE = {
    TUNED: "qaserve",
    UNPROJECTED: "qaserve without projection",
    PLAIN_WORDS: "plain search with words",
    TXTAI_HYBRID: "txtai, hybrid search",
    RAW: "plain search",
    BM25: "words alone (BM25)",
}
"""What the headline compares, by the names that the page shows."""


def headline(run: RoutingRun) -> Headline | None:
    """How often the right answer is first for new phrasings; None where nothing was tuned."""
    part = next(part for part in run.splits if part.split == "phrasing")
    first = {one.method: one.metrics["hit1"] for one in part.results}
    if TUNED not in first:
        return None
    return Headline(
        sentence=f"For {first[TUNED]:.0%} of new phrasings the right answer comes first, with a plain search for "
        f"{first[RAW]:.0%}.",
        measure=f"right answer first, of {part.queries * len(run.seeds):,.0f} questions held out ({run.encoder})",
        bars=tuple(
            HeadlineBar(label=label, share=first[method]) for method, label in HEADLINE.items() if method in first
        ),
    )


ASKED = {"phrasing": "On new phrasings of known questions", "intent": "On questions with no known phrasing"}
"""Splits of the summary, as a reader knows them."""


def summary(run: RoutingRun) -> Iterator[str]:
    """The product beside a plain search."""
    for part in run.splits:
        if part.split in ASKED:
            product, raw, gain = _beside_plain(part)
            yield f"{ASKED[part.split]}, {versus('qaserve', product, 'plain search', raw, gain)}."


def _beside_plain(part: SplitResults) -> tuple[float, float, Interval]:
    """MRR of the product and of a plain search, and their difference."""
    found = {one.method: one for one in part.results}
    product = found.get(TUNED, found[DEFAULT])
    return product.metrics[MRR], found[RAW].metrics[MRR], product.gain or Interval(low=0, mean=0, high=0)


OUTCOMES = {
    "better": "a higher MRR than",
    "no difference": "the same MRR, within its interval, as",
    "worse": "a lower MRR than",
}


def findings(run: RoutingRun) -> Iterator[str]:
    """The product on each split and against its rivals, every hypothesis, and what was left out."""
    for part in run.splits:
        yield _sentence_of_split(part)
    for asked, against in (("new phrasings", run.against), ("intents without a known question", run.against_unknown)):
        for outcome, sentence in OUTCOMES.items():
            told = [f"{one.reference} {signed(one.gain)}" for one in against if compared(one.gain) == outcome]
            if told:
                yield f"On {asked}, qaserve has {sentence} {'; '.join(told)}."
    yield from map(_sentence_of_hypothesis, run.hypotheses)
    for reason in run.left_out:
        yield f"left out: {reason}."


def _sentence_of_split(part: SplitResults) -> str:
    product, raw, gain = _beside_plain(part)
    said = versus("qaserve", product, "a plain search of the answers", raw, gain)
    return f"On {ABOUT[part.split]}, {said}, difference {signed(gain)}."


def _sentence_of_hypothesis(tested: Tested) -> str:
    one = tested.difference
    return (
        f'"{tested.claim}" {verdict(tested)}: {SHOWN[one.measure]} '
        f"{one.base:.3f} ({one.reference}) and {one.base + one.gain.mean:.3f} ({one.method}), "
        f"{tested.split} split, difference {signed(one.gain)}, {one.gain.mean / one.base:+z.1%}."
    )


def verdict(tested: Tested) -> str:
    """Whether a hypothesis held: by its whole interval, not by its mean."""
    gain, floor = tested.difference.gain, tested.at_least * tested.difference.base
    if not is_difference(gain):
        return "– no difference"
    if gain.low > floor:
        return "held"
    return "did not hold" if gain.high < floor else "is undecided"


def plots(runs: Sequence[RoutingRun]) -> list[Plot]:
    """What every method gains, and what the words add."""
    phrasing = {
        one.encoder: [result for result in part.results if result.method not in WORDS]
        for one in runs
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
            lambda axes: _draw_words(axes, runs),
        ),
    ]


def _draw_words(axes: "Axes", runs: Sequence[RoutingRun]) -> None:
    for number, one in enumerate(runs):
        look, base = style(number), one.words[0].mrr
        weights = [point.weight for point in one.words]
        axes.plot(weights, [point.mrr for point in one.words], markersize=4, **look)
        low, high = ([base + getattr(point.gain, end) for point in one.words] for end in ("low", "high"))
        axes.fill_between(weights, low, high, color=look["color"], alpha=0.15, linewidth=0)
        axes.annotate(one.encoder, (weights[-1], one.words[-1].mrr), xytext=(6, 0), textcoords="offset points")
    axes.margins(x=0.12)
    axes.set_xlabel("β, weight of the words")
    axes.set_ylabel("MRR")


PREFACE = (
    f"The default weight of the words, β {START.search.lexical_weight:g}, was once chosen on held-out questions of the "
    "public corpus, so rows with the defaults are a little optimistic there. Tuned rows choose on the training side."
)
UNDETERMINED = (
    "The pairs do not determine the reference W in all directions; what an SVD gives there follows the processor. Two "
    "machines gave MRRs that differ by up to 0.007."
)
