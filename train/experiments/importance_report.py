"""What `qaserve bench importance` compares, its report, and how that is told in sentences, tables and plots."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from qaserve.schemas.ingest import Interval
from qaserve.schemas.record import Record
from train.experiments.harness import (
    MRR,
    NONE,
    PRODUCT_MRR,
    STANDARD_ERRORS,
    Plot,
    Run,
    Table,
    draw_intervals,
    signed,
    table,
)
from train.importance.measures import BOUNDS, COMBINED_SHARE, PRIORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARGIN = 0.01
"""Two weightings do the same where the whole interval of their difference, in MRR or cosine, is within ± this."""

Columns = dict[str, Callable[[str], str]]
"""Cells of a table by title: from the name of the weights."""
Use = Literal["prior", "distillation"]
Queries = Literal["all", "boundary"]

USES: tuple[Use, ...] = ("prior", "distillation")
QUERIES: tuple[Queries, ...] = ("all", "boundary")
IN_WORDS: dict[Use, str] = {"prior": "as prior in the routing softmax", "distillation": "in the distillation loss"}

UNIFORM, ENTROPY = "uniform", "entropy"
CONTROL = "shuffled entropy"
MEASURES = tuple(name for name in PRIORS if name != UNIFORM)

MRR_WITHOUT_WORDS = "mrr_without_words"
TO_ANSWER, TO_TEACHER = "cosine_to_answer", "cosine_to_teacher"
LEVEL = 0.05
"""Probability that chance alone makes one or more of all differences of a run count as such."""


class Result(Record):
    """What one weighting does in one use, over the questions of all seeds."""

    use: Use
    weighting: str
    queries: Queries
    metrics: dict[str, float] = Field(
        description="Means; mrr with β, mrr_without_words with β 0, product_mrr with all evidence."
    )
    gains: dict[str, Interval] = Field(description="Differences to uniform, paired; empty for uniform itself.")
    over_entropy: Interval | None = Field(description="Difference in mrr to entropy; null for entropy and uniform.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if PRODUCT_MRR not in self.metrics:
            raise ValueError(f"the metrics lack {PRODUCT_MRR}")
        return self


class Spread(Record):
    """What the weights of one measure look like, mean over the seeds."""

    weighting: str
    lowest: float
    highest: float
    deviation: float
    with_entropy: float = Field(description="Pearson correlation with the weights of entropy.")


class ImportanceRun(Run):
    """What the experiment found with one encoder."""

    dimension: int
    pairs: int
    seeds: tuple[int, ...]
    queries: int = Field(description="Questions asked, all seeds together.")
    boundary: int = Field(description="How many of them are boundary questions.")
    clusters: float
    regularization: float
    temperature: float
    hits: int
    lexical_weight: float
    alpha: float = Field(COMBINED_SHARE, description="Share of the entropy in combined.")
    bounds: tuple[float, float] = Field(BOUNDS, description="Lowest and highest weight.")
    trainings: int = Field(1, description="Students of each weighting trained on a split.")
    student: str
    epochs: int = Field(description="At most, of a student's training.")
    left_out: tuple[str, ...] = Field(description="Measures that were not taken.")
    why_left_out: str
    head_perplexity: float | None = Field(
        None, description="Of the fitted masked-language-model head on held-out texts; null: none had to be fitted."
    )
    unigram_perplexity: float | None = Field(None, description="Of the tokens' frequencies alone, on the same texts.")
    spreads: tuple[Spread, ...]
    results: tuple[Result, ...]

    def result(self, use: Use, weighting: str, queries: Queries) -> Result:
        """The result of this name."""
        return next(one for one in self.results if (one.use, one.weighting, one.queries) == (use, weighting, queries))

    @property
    def weightings(self) -> list[str]:
        """The names of what was compared with uniform."""
        return [one.weighting for one in self.spreads if one.weighting != UNIFORM]


# What is shown


def tables(run: ImportanceRun) -> Iterator[Table]:
    """MRR and cosines of each use, and what the weights look like."""
    for use in USES:
        yield _mrr_table(run, use)
        yield _cosine_table(run, use)
    yield table(
        f"What the weights look like, {run.encoder}, α {run.alpha:g}",
        run.spreads,
        {
            "weights": lambda one: one.weighting,
            "lowest": lambda one: f"{one.lowest:.2f}",
            "highest": lambda one: f"{one.highest:.2f}",
            "standard deviation": lambda one: f"{one.deviation:.2f}",
            "correlation with entropy": lambda one: f"{one.with_entropy:+.2f}",
        },
    )


def _mrr_table(run: ImportanceRun, use: Use) -> Table:
    columns: Columns = {
        "MRR": lambda name: f"{run.result(use, name, 'all').metrics[MRR]:.4f}",
        "difference to uniform": _gain(run, use, "all", MRR),
        "on boundary questions": _gain(run, use, "boundary", MRR),
        "without words (β 0)": _gain(run, use, "all", MRR_WITHOUT_WORDS),
        "on boundary questions, without words": _gain(run, use, "boundary", MRR_WITHOUT_WORDS),
        "MRR of the product": lambda name: f"{run.result(use, name, 'all').metrics[PRODUCT_MRR]:.4f}",
        "difference, the product": _gain(run, use, "all", PRODUCT_MRR),
        "on boundary questions, the product": _gain(run, use, "boundary", PRODUCT_MRR),
    }
    return _table(f"Importance {IN_WORDS[use]}: MRR, {_conditions(run)}", columns, run)


def _cosine_table(run: ImportanceRun, use: Use) -> Table:
    target, metric = ("teacher", TO_TEACHER) if use == "distillation" else ("answer", TO_ANSWER)
    columns: Columns = {
        f"cosine to the {target}": lambda name: f"{run.result(use, name, 'all').metrics[metric]:.4f}",
        "difference to uniform": _gain(run, use, "all", metric),
        "on boundary questions": _gain(run, use, "boundary", metric),
    }
    if use == "distillation":
        columns["difference in cosine to the answer"] = _gain(run, use, "all", TO_ANSWER)
    return _table(f"Importance {IN_WORDS[use]}: cosines, {_conditions(run)}", columns, run)


def _table(title: str, columns: Columns, run: ImportanceRun) -> Table:
    return table(title, [UNIFORM, *run.weightings], {"weights": str} | columns)


def _conditions(run: ImportanceRun) -> str:
    trained = f", {run.trainings} trainings of a student on each" if run.trainings > 1 else ""
    return f"{run.encoder}, β {run.lexical_weight:g}, {len(run.seeds)} split{'s' * (len(run.seeds) > 1)}{trained}"


def _gain(run: ImportanceRun, use: Use, queries: Queries, metric: str) -> Callable[[str], str]:
    def cell(name: str) -> str:
        gains = run.result(use, name, queries).gains
        return _signed(gains[metric]) if gains else NONE

    return cell


def _signed(gain: Interval) -> str:
    return signed(gain, digits=4)  # the differences are small


class Claim(NamedTuple):
    """A hypothesis of the proposal, and where its figures are."""

    words: str
    use: Use
    queries: Queries
    weightings: tuple[str, ...]
    metric: str = MRR
    over: str = UNIFORM


MORE = "Counting uncertain pairs more in the"
PLACES: dict[Use, str] = {"prior": "routing softmax", "distillation": "distillation loss"}
ON: dict[Queries, str] = {"all": "", "boundary": " on boundary questions"}
BERT = "BERT's uncertainty makes better weights than entropy, in the"
CLAIMS = (
    *(
        Claim(f"{MORE} {PLACES[use]} raises MRR{ON[queries]}", use, queries, MEASURES)
        for use in USES
        for queries in QUERIES
    ),
    *(Claim(f"{MORE} {PLACES[use]} raises the MRR of the product", use, "all", MEASURES, PRODUCT_MRR) for use in USES),
    Claim(
        f"{MORE} routing softmax brings questions nearer to their answers (cosine)", "prior", "all", MEASURES, TO_ANSWER
    ),
    Claim(
        f"{MORE} distillation loss brings the student nearer to its teacher (cosine)",
        "distillation",
        "all",
        MEASURES,
        TO_TEACHER,
    ),
    Claim(
        "Entropy weighting brings the student nearer to its teacher on boundary questions (cosine)",
        "distillation",
        "boundary",
        (ENTROPY,),
        TO_TEACHER,
    ),
    Claim(
        "Fisher weights do better than entropy in the distillation loss (MRR)",
        "distillation",
        "all",
        ("fisher-empirical", "fisher-expected"),
        over=ENTROPY,
    ),
    *(Claim(f"{BERT} {PLACES[use]} (MRR)", use, "all", ("token", "combined"), over=ENTROPY) for use in reversed(USES)),
)


def findings(run: ImportanceRun) -> Iterator[str]:
    """Every hypothesis of the proposal about importance, and how it fared."""
    for claim in CLAIMS:
        if set(claim.weightings) & set(run.weightings):
            yield _judged(run, claim)
    control = [run.result(use, CONTROL, "all").gains[MRR] for use in USES]
    yield (
        f"Control, the weights of entropy dealt out at random: MRR {_signed(control[0])} in the softmax, "
        f"{_signed(control[1])} in the distillation loss. The intervals cover the choice of questions; "
        "the luck of training shows here."
    )
    yield _by_chance(run)
    everywhere, boundary = (run.result("prior", UNIFORM, queries).metrics[MRR] for queries in QUERIES)
    yield f"Uniform weights reach MRR {boundary:.3f} on boundary questions and {everywhere:.3f} on all."
    if run.head_perplexity is not None and run.unigram_perplexity is not None:
        yield (
            "The encoder has no masked-language-model head; the one fitted to it for token and combined names masked "
            f"tokens with a perplexity of {run.head_perplexity:.0f}, their frequencies alone with one of "
            f"{run.unigram_perplexity:.0f}."
        )
    if run.left_out:
        yield f"Not compared: {', '.join(run.left_out)}; {run.why_left_out}."


def summary(run: ImportanceRun) -> Iterator[str]:
    """By how much the importance of pairs changes what the product finds, at most."""
    names = [name for name in run.weightings if name != CONTROL]
    gains = [run.result(use, name, "all").gains[PRODUCT_MRR] for use in USES for name in names]
    most = max(max(abs(gain.low), abs(gain.high)) for gain in gains)
    measures = len(gains) // len(USES)
    yield (
        f"Counting some pairs more than others changes MRR by {most:.3f} at most (95% intervals), by any of {measures} "
        "measures of importance."
    )


def _judged(run: ImportanceRun, claim: Claim) -> str:
    """The claim, and for which weights it held, did not hold, did the same, or is undecided."""
    groups: dict[str, dict[str, Interval]] = {}
    among_all = _among_all(_comparisons(run))
    for name in claim.weightings:
        key = Comparison(claim.use, name, claim.queries, claim.metric, claim.over)
        if key in among_all:
            gain, holds = among_all[key]
            groups.setdefault(_verdict(gain, holds=holds), {})[name] = gain
    said = (f"{verdict} for {_listed(groups[verdict])}" for verdict in VERDICTS if verdict in groups)
    return f"{claim.words}: {'; '.join(said)}."


VERDICTS = ("held", "did not hold (worse)", f"the same within ±{MARGIN:g}", "undecided")


def _verdict(gain: Interval, *, holds: bool) -> str:
    if holds:
        return VERDICTS[0] if gain.mean > 0 else VERDICTS[1]
    return VERDICTS[2] if gain.low > -MARGIN and gain.high < MARGIN else VERDICTS[3]


def _listed(gains: Mapping[str, Interval]) -> str:
    """A few with their intervals, many with the range of their means."""
    if len(gains) <= 2:
        return ", ".join(f"{name} {_signed(gain)}" for name, gain in gains.items())
    means = [gain.mean for gain in gains.values()]
    return f"{', '.join(gains)} ({min(means):+z.4f} … {max(means):+z.4f})"


class Comparison(NamedTuple):
    """A difference that was looked at: of what, and to which weights."""

    use: Use
    weighting: str
    queries: Queries
    metric: str
    over: str


def _comparisons(run: ImportanceRun) -> dict[Comparison, Interval]:
    """Every difference of a measure; those of the control are none."""
    found: dict[Comparison, Interval] = {}
    for one in run.results:
        if one.weighting in MEASURES:
            name = one.use, one.weighting, one.queries
            found |= {Comparison(*name, metric, UNIFORM): gain for metric, gain in one.gains.items()}
            if one.over_entropy is not None:
                found[Comparison(*name, MRR, ENTROPY)] = one.over_entropy
    return found


def _among_all(found: Mapping[Comparison, Interval]) -> dict[Comparison, tuple[Interval, bool]]:
    """Each difference, and whether it holds among all: Holm's step-down method, p by the width of the interval."""
    in_order = sorted(found, key=lambda one: p_value(found[one]))
    holding = takewhile(
        lambda place: p_value(found[in_order[place]]) * (len(found) - place) <= LEVEL, range(len(found))
    )
    kept = {in_order[place] for place in holding}
    return {one: (gain, one in kept) for one, gain in found.items()}


def p_value(gain: Interval) -> float:
    """Two-sided p of no difference, for a normal error as wide as the interval says."""
    if gain.low == gain.high:
        return float(gain.mean == 0)
    return math.erfc(abs(gain.mean) / ((gain.high - gain.low) / STANDARD_ERRORS) / math.sqrt(2))


def _by_chance(run: ImportanceRun) -> str:
    among_all = _among_all(_comparisons(run))
    gains = [gain for gain, _ in among_all.values()]
    above, below = sum(gain.low > 0 for gain in gains), sum(gain.high < 0 for gain in gains)
    holding = [gain.mean for gain, holds in among_all.values() if holds]
    up = sum(one > 0 for one in holding)
    return (
        f"Of all {len(gains)} differences (each measure and use, all and boundary questions, MRR with and without "
        f"words and of the product, cosines, to uniform and to entropy) {above} are above zero and {below} below it "
        f"with their whole interval; chance alone leaves about {len(gains) / 20:.0f} so. Corrected for their number "
        f"(Holm), {up} stay above and {len(holding) - up} below; only these are called held or worse."
    )


def plots(runs: Sequence[ImportanceRun]) -> list[Plot]:
    """The differences in MRR, a plot per encoder."""
    return [
        Plot(
            f"differences-{one.encoder.replace('/', '-')}",
            f"MRR with each measure's weights less MRR with uniform weights, 95% intervals, {one.encoder}",
            partial(_draw, run=one),
        )
        for one in runs
    ]


def _draw(axes: "Axes", run: ImportanceRun) -> None:
    rows = {f"{name}, {use}": (use, name) for use in USES for name in run.weightings}
    titles = dict(zip(QUERIES, ("all questions", "boundary quarter"), strict=True))
    series = {
        titles[queries]: {row: run.result(*of, queries).gains[MRR] for row, of in rows.items()} for queries in QUERIES
    }
    draw_intervals(axes, list(rows), series, "difference in MRR to uniform weights (right: better), 95% interval")


PREFACE = (
    "The weights act on routing and projection, so answers are ranked by these and the words; the MRR of the product "
    "is that with topics, whitening and second pairs too, in the shares that the training side chose."
)
