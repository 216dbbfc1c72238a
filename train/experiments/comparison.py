"""Methods compared over the same held-out questions, and how their differences are said."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from qaserve.records import Record
from qaserve.routing import Floats
from train.experiments.harness import Table
from train.metrics import Interval, paired_bootstrap, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MRR, COSINE = "mrr", "cosine"
SHOWN = {MRR: "MRR", "hit1": "Hit@1", "hit3": "Hit@3", "hit5": "Hit@5", "ndcg10": "nDCG@10", COSINE: "cosine"}
"""The figures of a table and the heads of their columns."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""One for each encoder; the colour-blind can tell them apart (Okabe & Ito 2008)."""
MARKS = ("o", "s", "D", "^")
GREY = "#777777"


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
    measure: str = Field(description="mrr: reciprocal rank; cosine: to the pair's own answer.")
    base: float = Field(description="Mean of the reference.")
    gain: Interval


class Tally:
    """The ranks of every method on every split, gathered seed by seed."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._figures: dict[str, list[dict[str, float]]] = {}
        self._values: dict[tuple[str, str], list[Floats]] = {}
        self._intents: list[str] = []

    def ask(self, intents: Sequence[str]) -> None:
        """Begin a seed whose questions want these intents, (m,); then add every method."""
        self._intents += intents

    def add(self, method: str, ranks: Floats, cosines: Floats | None = None) -> None:
        """Note one seed of a method; every method must be asked the same questions in the same order.

        Args:
            method: Its name.
            ranks: (m,) rank of the wanted intent, from 1; infinite where it is not found.
            cosines: (m,) cosine of the moved question to the pair's own answer, where questions are moved.
        """
        figures = summarize(ranks)
        self._values.setdefault((method, MRR), []).append(1 / ranks)
        if cosines is not None:
            figures[COSINE] = float(cosines.mean())
            self._values.setdefault((method, COSINE), []).append(cosines)
        self._figures.setdefault(method, []).append(figures)

    @property
    def methods(self) -> set[str]:
        """Those that were measured."""
        return set(self._figures)

    def results(self, reference: str) -> tuple[Result, ...]:
        """Every method's means over the seeds, in the order they came, and its gain in MRR over the reference."""
        return tuple(
            Result(
                method=method,
                metrics=means(rows),
                gain=None if method == reference else self.difference(method, reference).gain,
            )
            for method, rows in self._figures.items()
        )

    def difference(self, method: str, reference: str, measure: str = MRR) -> Difference:
        """Mean difference of two methods, with its interval: all questions of all seeds, by intent."""
        values, base = (np.concatenate(self._values[name, measure]) for name in (method, reference))
        return Difference(
            method=method,
            reference=reference,
            measure=measure,
            base=float(base.mean()),
            gain=paired_bootstrap(values, base, self._intents),
        )

    def differences(self, method: str, references: Iterable[str]) -> tuple[Difference, ...]:
        """`difference` in MRR to each reference that was measured; none where the method was not."""
        return tuple(self.difference(method, name) for name in references if {method, name} <= self.methods)


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each figure over rows that have the same figures."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def signed(gain: Interval) -> str:
    """A difference in figures: mean and 95% interval."""
    return f"{gain.mean:+z.3f} ({gain.low:+z.3f} … {gain.high:+z.3f})"


def is_difference(gain: Interval) -> bool:
    """Whether the interval leaves zero out."""
    return gain.low > 0 or gain.high < 0


def compared(gain: Interval) -> str:
    """A difference in words: better, worse or no difference."""
    if not is_difference(gain):
        return "no difference"
    return "better" if gain.mean > 0 else "worse"


def results_table(title: str, results: Iterable[Result]) -> Table:
    """A row for every method: its figures, a dash where it has none, and its gain over the reference."""
    rows = tuple(
        (
            one.method,
            *(f"{one.metrics[name]:.3f}" if name in one.metrics else "–" for name in SHOWN),
            "–" if one.gain is None else signed(one.gain),
        )
        for one in results
    )
    return Table(title, ("method", *SHOWN.values(), "MRR gained (95%)"), rows)


def differences_table(title: str, differences: Iterable[Difference]) -> Table:
    """A row for every difference, in MRR."""
    rows = tuple(
        (
            f"{one.method} – {one.reference}",
            f"{one.base + one.gain.mean:.3f}",
            f"{one.base:.3f}",
            signed(one.gain),
            compared(one.gain),
        )
        for one in differences
    )
    return Table(title, ("the first less the second", "first", "second", "difference in MRR (95%)", "so it is"), rows)


def draw_gains(axes: "Axes", series: Mapping[str, Sequence[Result]], reference: str) -> None:
    """A dot with its 95% interval for every method's gain in MRR, best on top; a colour and mark for each series."""
    found = defaultdict(list)
    for one in chain(*series.values()):
        if one.gain is not None:
            found[one.method].append(one.gain.mean)
    methods = sorted(found, key=lambda method: -np.mean(found[method]))
    places = {method: row for row, method in enumerate(methods)}
    for number, (name, results) in enumerate(series.items()):
        aside = 0.22 * (number - (len(series) - 1) / 2)
        gains = [(places[one.method] + aside, one.gain) for one in results if one.gain is not None]
        means = [gain.mean for _, gain in gains]
        lengths = [[gain.mean - gain.low for _, gain in gains], [gain.high - gain.mean for _, gain in gains]]
        axes.errorbar(
            means,
            [place for place, _ in gains],
            xerr=lengths,
            fmt=MARKS[number % len(MARKS)],
            color=COLOURS[number % len(COLOURS)],
            markersize=5,
            label=name,
        )
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"MRR gained over {reference}, with 95% interval")
    if len(series) > 1:
        axes.legend()


def row_cosines(vectors: Floats, targets: Floats) -> Floats:
    """(m,) cosine of rows (m, D), of any length above zero, to unit rows (m, D)."""
    return np.asarray((vectors * targets).sum(axis=1) / np.linalg.norm(vectors, axis=1))
