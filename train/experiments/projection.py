"""The experiment behind `qaserve bench projection`: what dense W cost, compared with low-rank and per-pair W.

All three are measured in one run, on the same clusters and the same questions. Dense W are fitted by an SVD of D × D,
as the formula polar(SᵀT + λI) says; the low-rank form is what a build does; per-pair W need no fit, only the vectors of
the hits, which Qdrant holds already. All work is done by one thread: on a machine that does something else as well, the
threads of one SVD wait for each other, and the comparison would flatter whoever needs none.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits

from qaserve.common.progress import Advance
from qaserve.core.clustering import cluster_answers, cluster_count
from qaserve.core.projection import ProjectionBank, project_by_pairs
from qaserve.core.routing import Floats, softmax
from qaserve.schemas.record import Record
from train.experiments.datasets import Source
from train.experiments.harness import COLOURS, GREY, Experiment, Plot, Report, Run, Table
from train.folds import Examples, Fold
from train.procrustes import anchored, fit_bank, polar
from train.tuning import START

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLUSTERS = 512
"""More dense W would not fit into the memory of a small machine: 1.2 GB at D 768."""
DENSE_PARTS = 20
"""Steps of progress in which dense W are fitted."""
FIT_REPEATS = 5
"""The low-rank fit is over so soon that one measurement of it says little."""
QUESTIONS = 200
QUICK_PAIRS = 240
QUICK_CLUSTERS = 4
SAME = 1e-10
"""Matrices whose entries differ by no more are the same but for rounding."""
MB, GB, MILLI = 1e6, 1e9, 1e3
Form = Literal["dense", "low rank", "per pair"]
RATIOS = ("time to fit", "memory", "time of a question")


class Cost(Record):
    """What a form of W costs."""

    fit_seconds: float = Field(description="For all clusters.")
    bytes: int = Field(description="That it needs beyond the vectors of the pairs.")
    question_ms: float = Field(description="Median time to project one question, after routing.")


class Measurement(Record):
    """One clustering, measured."""

    seed: int
    clusters: int
    voting: float = Field(description="Mean number of clusters that vote for a question.")
    costs: dict[Form, Cost]
    difference: float = Field(description="Largest between entries of dense and low-rank W, in double precision.")
    stored_difference: float = Field(description="The same for the low-rank W as they are stored, in single precision.")


class ProjectionRun(Run):
    """What was measured with one encoder; where several seeds were, costs are shown as medians."""

    dimension: int
    pairs: int
    asked: int
    regularization: float
    temperature: float
    hits: int
    dense_pairs_bytes: int = Field(description="That per-pair W would take as dense float32 matrices.")
    measurements: tuple[Measurement, ...]

    def middle(self, figure: Callable[[Measurement], float]) -> float:
        """Median of a figure over the seeds."""
        return median(figure(one) for one in self.measurements)

    def cost(self, form: Form) -> Cost:
        """Median cost of a form over the seeds."""
        return Cost(
            fit_seconds=self.middle(lambda one: one.costs[form].fit_seconds),
            bytes=round(self.middle(lambda one: one.costs[form].bytes)),
            question_ms=self.middle(lambda one: one.costs[form].question_ms),
        )

    def ratios(self) -> tuple[float, float, float]:
        """How many times more dense W cost than low-rank W, in the order of `RATIOS`."""
        dense, low_rank = self.cost("dense"), self.cost("low rank")
        return (
            dense.fit_seconds / low_rank.fit_seconds,
            dense.bytes / low_rank.bytes,
            dense.question_ms / low_rank.question_ms,
        )


def run(source: Source, *, seeds: Sequence[int], quick: bool, advance: Advance) -> ProjectionRun:
    """Fit and ask all three forms at the source's D, once for each seed.

    Args:
        source: Pairs with the vectors of one encoder, unit rows (n, D).
        seeds: Of K-means; each is a measurement of its own.
        quick: Only the largest clusters of some of the pairs.
        advance: Told 1 after each step, see `steps`.
    """
    examples = source.examples.take(_spread(len(source.examples), QUICK_PAIRS)) if quick else source.examples
    dimension = examples.questions.shape[1]
    with threadpool_limits(1):
        measurements = tuple(_measure(examples, seed, quick, advance) for seed in seeds)
    return ProjectionRun(
        encoder=source.encoder,
        dimension=dimension,
        pairs=len(examples),
        asked=min(QUESTIONS, len(examples)),
        regularization=START.regularization,
        temperature=START.search.temperature,
        hits=START.search.hits,
        dense_pairs_bytes=len(examples) * dimension**2 * 4,
        measurements=measurements,
    )


def steps(seeds: Sequence[int], quick: bool) -> int:
    """How often `run` calls `advance`: clusters, the low-rank fit, the parts of the dense fit, and the questions."""
    return len(seeds) * (_dense_parts(quick) + 3)


def _dense_parts(quick: bool) -> int:
    return 1 if quick else DENSE_PARTS


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the first `count` rows, evenly spread."""
    return np.unique(np.linspace(0, count - 1, most).astype(np.int64))


def _measure(examples: Examples, seed: int, quick: bool, advance: Advance) -> Measurement:
    fold = _fold(examples, seed, quick)
    advance(1)
    bank, low_rank_seconds = _fit_low_rank(fold)
    advance(1)
    dense = _fit_dense(fold, bank, _dense_parts(quick), advance)
    weights = fold.weights(START.search)
    times = _ask(fold, bank, dense.matrices, weights)
    advance(1)
    return Measurement(
        seed=seed,
        clusters=fold.count,
        voting=float(np.count_nonzero(weights, axis=1).mean()),
        costs={
            "dense": Cost(fit_seconds=dense.seconds, bytes=dense.matrices.nbytes, question_ms=times["dense"]),
            "low rank": Cost(fit_seconds=low_rank_seconds, bytes=bank.nbytes, question_ms=times["low rank"]),
            "per pair": Cost(fit_seconds=0.0, bytes=0, question_ms=times["per pair"]),
        },
        difference=dense.difference,
        stored_difference=dense.stored_difference,
    )


def _fold(examples: Examples, seed: int, quick: bool) -> Fold:
    """Clustered as a build does; the queries are some of its own questions, evenly spread."""
    count = cluster_count(examples.answers, "participation", MAX_CLUSTERS)
    labels = cluster_answers(examples.answers, count, seed)
    if quick and count > QUICK_CLUSTERS:
        kept = np.flatnonzero(labels < QUICK_CLUSTERS)  # labels are numbered by size, largest first
        examples, labels, count = examples.take(kept), labels[kept], QUICK_CLUSTERS
    return Fold(examples, examples.take(_spread(len(examples), QUESTIONS)), labels, count, examples)


def _members(fold: Fold, cluster: int) -> tuple[Floats, Floats]:
    """S and T of a cluster, (n_k, D) each."""
    rows = np.flatnonzero(fold.labels == cluster)
    return fold.train.questions[rows], fold.train.answers[rows]


# Fitting


def _fit_low_rank(fold: Fold) -> tuple[ProjectionBank, float]:
    """The bank, and the median of the seconds of several fits."""
    times = []
    for _ in range(FIT_REPEATS):
        started = time.perf_counter()
        bank = fit_bank(fold.train.questions, fold.train.answers, fold.labels, fold.count, START.regularization)
        times.append(time.perf_counter() - started)
    return bank, median(times)


class DenseFit(NamedTuple):
    """Dense W, and how they compare."""

    matrices: NDArray[np.float32]
    """(K, D, D)."""
    seconds: float
    difference: float
    stored_difference: float


def _fit_dense(fold: Fold, bank: ProjectionBank, parts: int, advance: Advance) -> DenseFit:
    """Dense W of every cluster; only the fit is timed, not the comparison with the low-rank form."""
    dimension = fold.train.questions.shape[1]
    matrices = np.empty((fold.count, dimension, dimension), dtype=np.float32)
    _dense(*_members(fold, 0))  # the first call also wakes up threads
    seconds = difference = stored = 0.0
    for part in np.array_split(np.arange(fold.count), parts):
        for cluster in part.tolist():
            questions, answers = _members(fold, cluster)
            started = time.perf_counter()
            matrix = _dense(questions, answers)
            seconds += time.perf_counter() - started
            matrices[cluster] = matrix
            low_rank = anchored(questions, answers, START.regularization)
            difference = max(difference, float(np.abs(matrix - low_rank.dense()).max()))
            stored = max(stored, float(np.abs(matrix - bank[cluster].dense()).max()))
        advance(1)
    return DenseFit(matrices, seconds, difference, stored)


def _dense(questions: Floats, answers: Floats) -> Floats:
    """(D, D) anchored W by an SVD of D × D."""
    return polar(questions.T @ answers + START.regularization * np.eye(questions.shape[1]))


# Asking


def _ask(fold: Fold, bank: ProjectionBank, matrices: NDArray[np.float32], weights: Floats) -> dict[Form, float]:
    """Median milliseconds; every query takes all forms in turn, so that a busy machine slows all of them."""
    times: dict[Form, list[float]] = {"dense": [], "low rank": [], "per pair": []}
    neighbors = fold.neighbors(START.search.hits)
    all_shares = softmax(neighbors.similarities, START.search.temperature, neighbors.priors)
    for query, used, shares, row in zip(fold.queries.questions, neighbors.rows, all_shares, weights, strict=True):
        hits = fold.train.take(used)
        single = query.astype(np.float32)
        times["dense"].append(_milliseconds(_through_dense, single, matrices, row))
        times["low rank"].append(_milliseconds(bank.project, query, row))
        times["per pair"].append(_milliseconds(project_by_pairs, query, hits.questions, hits.answers, shares))
    return {form: median(found) for form, found in times.items()}


def _milliseconds(work: Callable[..., object], *arguments: Any) -> float:
    started = time.perf_counter()
    work(*arguments)
    return MILLI * (time.perf_counter() - started)


def _through_dense(query: NDArray[np.float32], matrices: NDArray[np.float32], weights: Floats) -> Floats:
    projected = np.zeros(len(query))
    for cluster in np.flatnonzero(weights).tolist():
        projected += weights[cluster] * (query @ matrices[cluster])
    return projected


# What is shown


def tables(run: ProjectionRun) -> list[Table]:
    """What each form costs."""
    clusters = run.middle(lambda one: one.clusters)
    title = f"{run.encoder}: D {run.dimension}, {run.pairs:,} pairs, {clusters:g} clusters, λ {run.regularization:g}"
    return [Table(title, ("form of W", "time to fit", "memory beyond the pairs", "a question"), tuple(_rows(run)))]


def _rows(run: ProjectionRun) -> Iterator[tuple[str, ...]]:
    for name, cost in (("dense", run.cost("dense")), ("low rank, as served", run.cost("low rank"))):
        yield name, f"{cost.fit_seconds:.3g} s", f"{cost.bytes / MB:.3g} MB", f"{cost.question_ms:.3f} ms"
    yield "per pair", "none", "none", f"{run.cost('per pair').question_ms:.3f} ms"
    yield "dense / low rank", *(_number(ratio) for ratio in run.ratios())


def findings(run: ProjectionRun) -> Iterator[str]:
    """What came out, with figures."""
    where = f"at D {run.dimension}"
    to_fit, memory, to_ask = run.ratios()
    yield (
        f"{where}, against dense W the low-rank form is {_times(to_fit, 'faster', 'slower')} to fit, "
        f"{_times(memory, 'smaller', 'larger')} and {_times(to_ask, 'faster', 'slower')} to ask (one thread each)."
    )
    difference = max(one.difference for one in run.measurements)
    stored = max(one.stored_difference for one in run.measurements)
    verdict = "they are the same W" if difference <= SAME else "they are not the same W"
    yield (
        f"{where}, no entry of the two differs by more than {difference:.1e} in double precision, so {verdict}; "
        f"stored in single precision the low-rank form is off by at most {stored:.1e}."
    )
    per_pair = run.cost("low rank").question_ms / run.cost("per pair").question_ms
    yield (
        f"{where}, per-pair W need no fit and are {_times(per_pair, 'faster', 'slower')} to ask than the low-rank "
        f"form, with {run.hits} hits in {run.middle(lambda one: one.voting):.1f} clusters a question; "
        f"as dense matrices they would take {run.dense_pairs_bytes / GB:.2g} GB."
    )


def summary(run: ProjectionRun) -> Iterator[str]:
    """What storing projections at low rank saves."""
    to_fit, memory, _ = run.ratios()
    same = "the same" if max(one.difference for one in run.measurements) <= SAME else "other"
    yield (
        f"Projections as qaserve keeps them are {_times(memory, 'smaller', 'larger')} and "
        f"{_times(to_fit, 'faster', 'slower')} to fit than full matrices, and give {same} results."
    )


def _times(ratio: float, better: str, worse: str) -> str:
    return f"{_number(ratio)} times {better}" if ratio >= 1 else f"{_number(1 / ratio)} times {worse}"


def _number(ratio: float) -> str:
    """Three digits, never as a power of ten."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def plots(runs: Sequence[ProjectionRun]) -> list[Plot]:
    """How many times more dense W cost."""
    return [
        Plot("ratios", "What dense W cost, as a multiple of their exact low-rank form", lambda axes: _draw(axes, runs))
    ]


def _draw(axes: "Axes", runs: Sequence[ProjectionRun]) -> None:
    bars = [
        (f"{quantity}, {one.encoder} (D {one.dimension})", ratio)
        for number, quantity in enumerate(RATIOS)
        for one in runs
        for ratio in [one.ratios()[number]]
    ]
    names, values = zip(*bars, strict=True)
    drawn = axes.barh(names, values, height=0.6, color=COLOURS[0])
    axes.bar_label(drawn, [f"{_number(value)} ×" for value in values], padding=4)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xscale("log")
    axes.set_xlim(min(1, *values), max(values) * 3)
    axes.axvline(1, color=GREY, linewidth=1)
    axes.set_xlabel("times the cost of the low-rank form (logarithmic)")


PREFACE = "Only W is measured, and nothing is ranked: words, topics and whitening have no part in it."

EXPERIMENT = Experiment(
    "projection",
    "Dense, low-rank and per-pair projection",
    Report[ProjectionRun],
    tables,
    findings,
    plots,
    (PREFACE,),
    summary_of=summary,
)
