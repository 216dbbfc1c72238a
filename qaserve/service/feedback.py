"""What people said of answers: one append-only file of JSON Lines for each corpus.

A record is acknowledged after it is on the disk. A process that dies in the middle of writing leaves half a line at the
end of the file, which nobody was told is kept; whoever appends next sets it aside and goes on.
"""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from pydantic import ValidationError

from qaserve.common.errors import NotFoundError, StoreError, StoreWriteError, UsageError
from qaserve.common.files import writing
from qaserve.schemas.feedback import Feedback, FeedbackPage

FOLDER = "feedback"
SUFFIX = ".jsonl"
LOCK_SECONDS = 10.0
TAIL = 4096


class Line(NamedTuple):
    """A whole line of the file."""

    feedback: Feedback | None
    """None where it is no judgement."""
    end: int
    """Offset of what follows it."""


class FeedbackLog:
    """The file of one corpus. Threads and processes may share it."""

    def __init__(self, data_dir: Path, corpus: str) -> None:
        """Remember where it is; nothing is made before the first record."""
        self.path = data_dir / FOLDER / f"{corpus}{SUFFIX}"
        self.corpus = corpus
        self._thread = threading.Lock()

    def append(self, record: Feedback) -> None:
        """Keep a record; it is on the disk when this returns.

        Raises:
            StoreWriteError: It cannot be kept: the disk is full, read-only or failing.
        """
        line = record.model_dump_json().encode() + b"\n"
        failed = f"the feedback cannot be kept in {self.path}"
        with (
            writing(failed, "Free some space, or set QASERVE_DATA_DIR to a writable folder."),
            self._locked(),
            self._opened() as file,
        ):
            end = self._mended(file)
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise

    def page(self, after: int = 0, limit: int | None = None) -> FeedbackPage:
        """Some records, oldest first.

        Args:
            after: 0, or `next` of the page before.
            limit: How many at most; None: all.

        Raises:
            UsageError: `after` is not the end of a record.
        """
        kept: list[Feedback] = []
        unreadable, end, more = 0, after, False
        for line in self.lines(after):
            if len(kept) == limit:
                more = True
                break
            end = line.end
            if line.feedback is None:
                unreadable += 1
            else:
                kept.append(line.feedback)
        return FeedbackPage(corpus=self.corpus, feedback=tuple(kept), unreadable=unreadable, next=end if more else None)

    def lines(self, after: int = 0) -> Iterator[Line]:
        """Every whole line behind an offset; half a line at the end is not there yet."""
        try:
            with self.path.open("rb") as file:
                if after:
                    file.seek(after - 1)
                    if file.read(1) != b"\n":
                        raise UsageError(
                            f"after={after} is not where a record of corpus {self.corpus!r} ends",
                            hint="Give the `next` of the page before, or leave it out.",
                        )
                end = after
                for raw in file:
                    if not raw.endswith(b"\n"):
                        return
                    end += len(raw)
                    yield Line(_read(raw), end)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be read: {error.strerror or error}", hint="Check its permissions."
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._thread:
            try:
                with FileLock(f"{self.path}.lock", timeout=LOCK_SECONDS):
                    yield
            except Timeout as error:
                raise StoreWriteError(
                    f"another process has held {self.path.name}.lock for {LOCK_SECONDS:g} seconds",
                    hint="Try again; if it stays so, look for a process that hangs.",
                ) from error

    @contextmanager
    def _opened(self) -> Iterator[FileIO]:
        fresh = not self.path.exists()
        with self.path.open("a+b", buffering=0) as file:
            if fresh:  # its name must survive as well as its content
                _sync_folder(self.path.parent)
            yield file

    def _mended(self, file: FileIO) -> int:
        """Set half a line at the end aside, in a file of its own. Gives the length of what is whole."""
        size = whole = file.seek(0, os.SEEK_END)
        found = False
        while whole and not found:
            start = max(0, whole - TAIL)
            file.seek(start)
            newline = _all_of(file, whole - start).rfind(b"\n")
            found, whole = newline >= 0, start + newline + 1
        if whole < size:
            file.seek(whole)
            with self.path.with_suffix(".torn").open("ab") as aside:
                aside.write(_all_of(file, size - whole) + b"\n")
                aside.flush()
                os.fsync(aside.fileno())
            file.truncate(whole)
        return whole


def the_log(data_dir: Path, corpus: str | None) -> FeedbackLog:
    """The file of a corpus, or the only one there is; Qdrant need not be open.

    Raises:
        NotFoundError: Nothing was said yet.
        UsageError: There are several, and none is named.
    """
    there = sorted(path.name.removesuffix(SUFFIX) for path in (data_dir / FOLDER).glob(f"*{SUFFIX}"))
    if corpus is None and len(there) > 1:
        raise UsageError(
            f"there is feedback on several corpora: {', '.join(there)}", hint=f"Say which: QASERVE_CORPUS={there[0]}"
        )
    chosen = corpus or (there[0] if there else None)
    if chosen is None or chosen not in there:
        about = "" if corpus is None else f" on corpus {corpus!r}"
        raise NotFoundError(
            f"there is no feedback{about} in {data_dir / FOLDER}", hint="It comes in through POST /v1/feedback."
        )
    return FeedbackLog(data_dir, chosen)


def _read(raw: bytes) -> Feedback | None:
    try:
        return Feedback.model_validate_json(raw)
    except ValidationError:
        return None


def _all_of(file: FileIO, size: int) -> bytes:
    parts: list[bytes] = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
