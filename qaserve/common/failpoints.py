"""Named steps of long work, at which a test makes the process die or the disk be full.

Nothing happens at a step unless a test has armed a hook in this process; no setting and no variable does it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

STEPS = (
    "rows read",
    "orphans removed",
    "texts encoded",
    "build created",
    "page written",
    "build written",
    "bundle begun",
    "bundle complete",
    "bundle in place",
    "swap due",
    "swapped",
    "bundle removed",
    "build removed",
)
"""In the order of an ingest; the last two are of a deletion."""

_hooks: list[Callable[[str], None]] = []


def failpoint(step: str) -> None:
    """Say that a step is reached."""
    for hook in _hooks:
        hook(step)


@contextmanager
def armed(hook: Callable[[str], None]) -> Iterator[None]:
    """For tests: call a hook with the name of every step that is reached meanwhile."""
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.remove(hook)
