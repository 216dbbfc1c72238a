"""A lock that long work gives up to short work between two of its steps."""

import threading
from types import TracebackType


class FairLock:
    """A lock that a thread may take again while it has it, and that goes to one who waits before it goes back.

    Python's own locks may be taken again at once by the thread that lets go of them, before one that sleeps is awake: a
    thread that works in many steps would keep all others out until it is done.
    """

    def __init__(self) -> None:
        """Nobody has it."""
        self._next, self._held = threading.Lock(), threading.Lock()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        """Wait for it. Whoever waits keeps `_next`, at which the one who just had it then waits in turn."""
        me = threading.get_ident()
        if self._owner != me:
            with self._next:
                self._held.acquire()
            self._owner = me
        self._depth += 1

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Let go of it."""
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._held.release()

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it."""
        return self._next.locked()
