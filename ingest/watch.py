"""Files and folders that are watched: they count as changed once no write follows, by their times."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ingest.readers import find_files
from qaserve.common.errors import CorpusError

POLL_SECONDS = 1.0
"""Between two looks; files must stay the same from one to the next before they count as written."""

State = dict[Path, tuple[int, int]]
"""Size and time of change of each file."""


def changes(paths: Sequence[Path], sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Gives a turn when the paths hold files, and again whenever these have changed and then stayed the same.

    What changes during a turn gives another: nothing is missed, and there is one turn at a time.

    Args:
        paths: Files and folders, looked at each time; one that is gone holds nothing.
        sleep: Waits the given seconds.
    """
    done: State = {}
    last: State = {}
    while True:
        now = _state(paths)
        if now and now != done and now == last:
            done = now
            yield
        last = now
        sleep(POLL_SECONDS)


def _state(paths: Sequence[Path]) -> State:
    found: State = {}
    for path in paths:
        with suppress(CorpusError):
            for file, _ in find_files([path]):
                with suppress(OSError):  # it was deleted in between
                    said = file.stat()
                    found[file] = said.st_size, said.st_mtime_ns
    return found
