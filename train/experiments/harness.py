"""What all experiments share: records of a report, figures of methods on held-out queries, tables, intervals, plots."""

from collections import defaultdict
from collections.abc import Callable, Iterable, KeysView, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qaserve.common.errors import UsageError
from qaserve.core.metrics import paired_bootstrap
from qaserve.core.routing import Floats
from qaserve.core.scoring import intent_scores
from qaserve.core.splits import first_families
from qaserve.schemas.explore import Headline
from qaserve.schemas.ingest import Interval
from qaserve.schemas.params import SearchParams
from qaserve.schemas.record import Record
from qaserve.settings import FitSettings
from train.folds import Examples, Fold
from train.tuning import DEFAULTS, hyperparameters_of, tune

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MRR, COSINE = "mrr", "cosine"
PRODUCT_MRR = "product_mrr"
"""By all evidence: see `product_mrr`."""
STANDARD_ERRORS = 2 * 1.96
"""In a 95% interval, from end to end."""
SHOWN = {MRR: "MRR", "hit1": "Hit@1", "hit3": "Hit@3", "hit5": "Hit@5", "ndcg10": "nDCG@10", COSINE: "cosine"}
"""The figures of a table and the heads of their columns."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""One for each series; colour-blind readers can tell them apart (Okabe & Ito 2008)."""
MARKS = ("o", "s", "D", "^")
GREY = "#777777"
INSTALL = "pip install 'qaserve[bench]'"
NONE = "–"
"""A cell without a figure."""


class Run(Record):
    """What an experiment found with one encoder."""

    encoder: str = Field(description="Its name; where several corpora were measured, 'NAME on CORPUS'.")


OneRun = TypeVar("OneRun", bound=Run)
Row = TypeVar("Row")


class Report(Record, Generic[OneRun]):
    """What an experiment found, one run for each encoder."""

    runs: tuple[OneRun, ...]


class Table(NamedTuple):
    """A table of a report, ready to be shown; columns after the first hold figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Plot(NamedTuple):
    """A plot of a report."""

    name: str
    """Of its file, without ending."""
    title: str
    """What one sees, in a sentence; also the text for those who cannot see it."""
    draw: "Callable[[Axes], None]"


@dataclass(frozen=True)
class Experiment(Generic[OneRun]):
    """An experiment as `qaserve bench` knows it: how the runs of its report are shown."""

    name: str
    title: str
    report: type[Report[OneRun]]
    tables_of: Callable[[OneRun], Iterable[Table]]
    findings_of: Callable[[OneRun], Iterable[str]]
    """Sentences with their figures, made from the run; the encoder's name is put before each."""
    plots_of: Callable[[Sequence[OneRun]], list[Plot]]
    preface: tuple[str, ...] = ()
    """Findings that hold for every encoder."""
    headline_of: Callable[[OneRun], Headline | None] = lambda _: None
    """The result that is told first."""
    overview_of: Callable[[Sequence[OneRun]], Iterable[Table]] = lambda _: ()
    """Tables in which all runs stand together."""
    summary_of: Callable[[OneRun], Iterable[str]] = lambda _: ()
    """What came out, in plain sentences; the first is the report's heading on the page."""

    def summary(self, report: Report[OneRun]) -> list[str]:
        """What came out for the first run, for readers who know none of the experiment's terms."""
        return list(self.summary_of(report.runs[0])) if report.runs else []

    def tables(self, report: Report[OneRun]) -> list[Table]:
        """Those of all runs together, then those of each."""
        return [*self.overview_of(report.runs), *(table for run in report.runs for table in self.tables_of(run))]

    def findings(self, report: Report[OneRun]) -> list[str]:
        """The findings of every run."""
        return [*self.preface, *(f"{run.encoder}: {one}" for run in report.runs for one in self.findings_of(run))]

    def headline(self, report: Report[OneRun]) -> Headline | None:
        """The headline of the first run."""
        return self.headline_of(report.runs[0]) if report.runs else None

    def plots(self, report: Report[OneRun]) -> list[Plot]:
        """The plots, each of all runs or of one."""
        return self.plots_of(report.runs)


# Figures


class Result(Record):
    """A method's figures, mean over the seeds."""

    method: str
    metrics: dict[str, float]
    gain: Interval | None = Field(
        description="Difference in MRR to the reference, over all questions of all seeds; null: the reference itself."
    )


class Difference(Record):
    """One method's figure less another's, over all questions of all seeds."""

    method: str
    reference: str
    measure: str = Field(
        description="mrr: reciprocal rank; cosine: to the pair's own answer; teacher_cosine: of student and teacher."
    )
    base: float = Field(description="Mean of the reference.")
    gain: Interval


def evaluate(
    scores: Floats, intents: Sequence[str], relevant: Sequence[str], second_share: float = 0.0
) -> dict[str, Floats]:
    """Figures of every query by `ir-measures`, each intent listed once, by its score.

    Of equal scores the relevant intent's is listed first, as `qaserve.core.metrics.intent_ranks` counts; `ir-measures`
    would order them by name.

    Args:
        scores: (m, c) score of every candidate for every query, higher is better; one of -inf is not listed.
        intents: (c,) intent of every candidate.
        relevant: (m,) intent of every query.
        second_share: σ of `qaserve.core.scoring.intent_scores`.

    Returns:
        (m,) reciprocal rank, Success@1, 3 and 5 (Hit@k) and nDCG@10, by the names of `SHOWN`.

    Raises:
        UsageError: ir-measures is not installed.
    """
    try:
        import ir_measures  # noqa: PLC0415 - an extra
        from ir_measures import RR, Success, nDCG  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(f"experiments need {error.name}, which is not installed", hint=INSTALL) from error
    names = {RR: MRR, Success @ 1: "hit1", Success @ 3: "hit3", Success @ 5: "hit5", nDCG @ 10: "ndcg10"}
    listed, best = intent_scores(scores, intents, second_share)
    right = np.array(listed) == np.array(relevant)[:, None]
    places = np.argsort(np.lexsort((~right, -best)))
    run = {
        str(query): {listed[one]: -float(places[query, one]) for one in np.flatnonzero(best[query] > -np.inf)}
        for query in range(len(best))
    }
    qrels = {str(query): {intent: 1} for query, intent in enumerate(relevant)}
    found = {name: np.zeros(len(best)) for name in names.values()}
    for one in ir_measures.iter_calc(list(names), qrels, run):
        found[names[one.measure]][int(one.query_id)] = one.value
    return found


class Tally:
    """Figures of methods on held-out queries, gathered seed by seed."""

    def __init__(self) -> None:
        """Empty."""
        self._values: dict[str, dict[str, list[Floats]]] = {}
        self._intents: list[Sequence[str]] = []

    def begin(self, intents: Sequence[str]) -> None:
        """Begin a seed whose queries have these relevant intents, (m,)."""
        self._intents.append(intents)

    def add(self, method: str, values: Mapping[str, Floats]) -> None:
        """Note one seed of a method: (m,) figures by measure. Only the last seeds may be left out."""
        of_method = self._values.setdefault(method, {})
        for measure, figures in values.items():
            of_method.setdefault(measure, []).append(figures)

    @property
    def methods(self) -> KeysView[str]:
        """What was measured, in the order in which it came."""
        return self._values.keys()

    def figures(self, method: str) -> dict[str, float]:
        """Every measure of a method, mean over the seeds."""
        return {name: mean(float(seed.mean()) for seed in seeds) for name, seeds in self._values[method].items()}

    def results(self, reference: str) -> tuple[Result, ...]:
        """Every method's figures, and its gain in MRR over the reference."""
        return tuple(
            Result(
                method=method,
                metrics=self.figures(method),
                gain=None if method == reference else self.difference(method, reference).gain,
            )
            for method in self._values
        )

    def pooled(self, method: str, measure: str, seeds: int | None = None) -> Floats:
        """The figures of all queries of all seeds, or of the first few."""
        return np.concatenate(self._values[method][measure][:seeds])

    def difference(
        self, method: str, reference: str, measure: str = MRR, chosen: NDArray[np.bool_] | None = None
    ) -> Difference:
        """Mean difference of two methods with its interval, over the queries of all seeds that both have, by intent.

        `chosen`: which of these queries are looked at; None: all.
        """
        seeds = min(len(self._values[name][measure]) for name in (method, reference))
        values, base = (self.pooled(name, measure, seeds) for name in (method, reference))
        rows = np.ones(len(values), dtype=bool) if chosen is None else chosen
        intents = np.concatenate([np.array(seed) for seed in self._intents[:seeds]])[rows]
        gain = paired_bootstrap(values[rows], base[rows], intents.tolist())
        return Difference(method=method, reference=reference, measure=measure, base=float(base[rows].mean()), gain=gain)

    def differences(self, method: str, references: Iterable[str]) -> tuple[Difference, ...]:
        """`difference` in MRR to each reference that was measured; none where the method was not."""
        return tuple(self.difference(method, name) for name in references if {method, name} <= self.methods)


def mean(values: Iterable[float]) -> float:
    """Mean of one value or more."""
    return float(np.mean(list(values)))


def row_cosines(vectors: Floats, targets: Floats) -> Floats:
    """(m,) cosine of rows (m, D), of any length above zero, to unit rows (m, D)."""
    return np.asarray((vectors * targets).sum(axis=1) / np.linalg.norm(vectors, axis=1))


# All evidence: what a projection comes to in the product


def tuned_search(train: Examples, seed: int, *, quick: bool) -> SearchParams:
    """What a build of these pairs is asked with: chosen on them alone, or the defaults where it is quick or too few."""
    fit = FitSettings(regularization=None, seed=seed)
    return hyperparameters_of(None if quick else tune(train, fit, lambda _: None), fit).search


def product_mrr(fold: Fold, projected: Floats, search: SearchParams) -> Floats:
    """(m,) reciprocal rank of queries projected to (m, D), by answers, whitened, topics, words and second pairs."""
    whitened = fold.pipeline(search, fold.bank(DEFAULTS.regularization)).whiten(projected)
    scores = fold.scores(whitened, search)
    return evaluate(scores, fold.candidates.intents, fold.queries.intents, search.second_share)[MRR]


# Intervals


def signed(gain: Interval, digits: int = 3) -> str:
    """A difference in figures: mean and 95% interval. A bound just below zero keeps its sign: it decides."""
    low, high = (f"{bound + 0.0:+.{digits}f}" for bound in (gain.low, gain.high))  # + 0.0: -0.0 is no negative
    return f"{gain.mean:+z.{digits}f} ({low} … {high})"


def is_difference(gain: Interval) -> bool:
    """Whether the interval leaves zero out."""
    return gain.low > 0 or gain.high < 0


def compared(gain: Interval) -> str:
    """A difference in words: better, worse or no difference."""
    if not is_difference(gain):
        return "no difference"
    return "better" if gain.mean > 0 else "worse"


FINDS = {"better": "finds more than", "no difference": "ties", "worse": "finds less than"}
"""A comparison as a verb, by `compared`."""


def versus(name: str, mrr: float, other: str, base: float, gain: Interval) -> str:
    """Who finds more, with both figures.

    Args:
        name: Of a method, as a reader knows it.
        mrr: Its figure.
        other: What it is compared with.
        base: The figure of that.
        gain: The difference.
    """
    return f"{name} {FINDS[compared(gain)]} {other} (MRR {mrr:.3f} and {base:.3f})"


# Quick runs


def part_of(examples: Examples, seeds: Sequence[int], pairs: int, *, quick: bool) -> tuple[Examples, Sequence[int]]:
    """What a run measures: all, or where it is quick the first seed and whole families of about this many pairs."""
    return (examples.take(first_families(examples.pairs, pairs)), seeds[:1]) if quick else (examples, seeds)


# Tables


def table(title: str, rows: Iterable[Row], columns: Mapping[str, Callable[[Row], Any]]) -> Table:
    """A table: of every row, what each column's function makes of it."""
    return Table(title, tuple(columns), tuple(tuple(str(cell(row)) for cell in columns.values()) for row in rows))


def results_table(title: str, results: Iterable[Result]) -> Table:
    """A row for every method: its figures, a dash where it has none, and its gain over the reference."""

    def figure(name: str) -> Callable[[Result], str]:
        return lambda one: f"{one.metrics[name]:.3f}" if name in one.metrics else NONE

    columns = {"method": lambda one: one.method} | {head: figure(name) for name, head in SHOWN.items()}
    gained = {"MRR gained (95%)": lambda one: NONE if one.gain is None else signed(one.gain)}
    return table(title, results, columns | gained)


def differences_table(title: str, differences: Iterable[Difference]) -> Table:
    """A row for every difference, in MRR."""
    return table(
        title,
        differences,
        {
            "the first less the second": lambda one: f"{one.method} – {one.reference}",
            "first": lambda one: f"{one.base + one.gain.mean:.3f}",
            "second": lambda one: f"{one.base:.3f}",
            "difference in MRR (95%)": lambda one: signed(one.gain),
            "so it is": lambda one: compared(one.gain),
        },
    )


# Plots


def style(number: int) -> dict[str, Any]:
    """Colour and mark of a series."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKS[number % len(MARKS)]}


def draw_intervals(
    axes: "Axes", names: Sequence[str], series: Mapping[str, Mapping[str, Interval]], label: str
) -> None:
    """A dot with its 95% interval for every named difference, first on top; a colour and mark for each series."""
    for number, (title, named) in enumerate(series.items()):
        aside = 0.22 * (number - (len(series) - 1) / 2)
        places, gains = zip(*((names.index(name) + aside, gain) for name, gain in named.items()), strict=True)
        lengths = [[one.mean - one.low for one in gains], [one.high - one.mean for one in gains]]
        means = [one.mean for one in gains]
        axes.errorbar(means, places, xerr=lengths, linestyle="none", markersize=5, label=title, **style(number))
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    if len(series) > 1:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series))


def draw_gains(axes: "Axes", series: Mapping[str, Sequence[Result]], reference: str) -> None:
    """`draw_intervals` of every method's gain in MRR over the reference, best on top."""
    gains = {title: {one.method: one.gain for one in results if one.gain} for title, results in series.items()}
    found = defaultdict(list)
    for method, gain in chain(*(named.items() for named in gains.values())):
        found[method].append(gain.mean)
    names = sorted(found, key=lambda method: -mean(found[method]))
    draw_intervals(axes, names, gains, f"MRR gained over {reference}, with 95% interval")
