"""Progress of long work, on stderr, so that stdout stays the answer's."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[int], None]


class Reporter(Protocol):
    """Told by long work how far it is."""

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Advance]:
        """Enter a stage of `total` steps (None: unknown); call what is given with the number of steps done."""


class Silent:
    """Reports nothing."""

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:  # noqa: ARG002 - as of `Reporter`
        """Enter a stage."""
        yield lambda _: None


class Bars:
    """A bar per stage on a terminal, a line per stage elsewhere."""

    def __init__(self, console: Console) -> None:
        """Draw on this console."""
        self._console = console

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """Enter a stage."""
        columns = (
            TextColumn("{task.description:<22}", markup=False),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(name, total=total)
            yield lambda done: progress.advance(task, done)
            if total is None:
                progress.update(task, total=progress.tasks[0].completed)
