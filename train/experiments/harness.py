"""What every experiment is made of, so that one place writes, shows and draws them all."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from qaserve.records import Record
from train.folds import Examples

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qaserve.encoder import SentenceEncoder
    from train.result_cache import Kept


class Source(NamedTuple):
    """What an experiment runs on: pairs with the vectors of one encoder."""

    encoder: str
    examples: Examples
    model: "SentenceEncoder | None" = None
    """The encoder that made the vectors, where it is at hand; its weights are read when they are first needed."""
    kept: "Kept | None" = None
    """Where parts of hours of work are kept until the report is made."""


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


class Experiment(NamedTuple):
    """An experiment as `qaserve bench` knows it."""

    name: str
    title: str
    report: type[Record]
    tables: Callable[[Any], list[Table]]
    findings: Callable[[Any], list[str]]
    """Sentences, each with its figure, made from the report and not beforehand."""
    plots: Callable[[Any], list[Plot]]
