"""Who may use a folder or change a corpus, and what Qdrant raises turned into our errors."""

import errno
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from filelock import FileLock, Timeout
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from qaserve.common.errors import (
    BuildNotFoundError,
    QaserveError,
    StoreError,
    StoreLockedError,
    StoreRefusedError,
    StoreUnreachableError,
    StoreWriteError,
)
from qaserve.common.progress import Reporter
from qaserve.common.text import shorten

LOCK = "lock"
HOLDER = "holder.json"
LOCKED = ".lock"
"""Folder beside the bundles of a corpus in which its lock lies; no build is called so."""
UNWRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT})
"""What a disk says that is full, read-only or not ours. Reading may work all the same."""
POLL_SECONDS = 0.05
REFUSED = frozenset({401, 403})
GONE = re.compile(r"Collection \S+ (not found|doesn't exist)")
"""How embedded Qdrant and a server say that a collection is not there."""


class Holder:
    """The right to a folder: a kernel lock, freed even by kill -9, and a note on who has it."""

    def __init__(
        self, folder: Path, purpose: str, wait: float, hint: str, *, name: str = "", reporter: Reporter | None = None
    ) -> None:
        """Take the folder.

        Args:
            folder: Which.
            purpose: What it is taken for: others who want it are told so.
            wait: Seconds to wait for it.
            hint: What to do when it is still in use then.
            name: What the error calls it; empty: by its path.
            reporter: Told that this waits, and for whom. What it raises ends the waiting.

        Raises:
            StoreLockedError: It is in use, and still is after `wait` seconds. The message names the holder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._note = folder / HOLDER
        self._lock = FileLock(folder / LOCK)
        try:
            self._acquire(wait, reporter)
        except Timeout as error:
            waited = f", also after {wait:g} seconds" if wait else ""
            raise StoreLockedError(f"{name or folder} is in use by {self._who()}{waited}", hint=hint) from error
        with suppress(OSError):  # a full disk: the lock holds without its note
            self._note.write_text(json.dumps({"pid": os.getpid(), "purpose": purpose}), encoding="utf-8")

    def _acquire(self, wait: float, reporter: Reporter | None) -> None:
        deadline = time.monotonic() + wait
        with ExitStack() as stack:
            advance = None
            while True:
                try:
                    self._lock.acquire(blocking=False)
                except Timeout:
                    if time.monotonic() >= deadline:
                        raise
                else:
                    return
                if reporter is not None and advance is None:
                    advance = stack.enter_context(reporter.stage(f"Waiting for {self._who()}", None))
                if advance is not None:
                    advance(0)
                time.sleep(POLL_SECONDS)

    def _who(self) -> str:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            return f"process {int(note['pid'])} ({shorten(str(note['purpose']), 120)})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def __enter__(self) -> Self:
        """Use as a context manager to give it back for certain."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Give the folder back."""
        self.release()

    def release(self) -> None:
        """Give the folder back."""
        with suppress(OSError):
            self._note.unlink()
        self._lock.release()


def corpus_lock(models_dir: Path, corpus: str, purpose: str, wait: float, reporter: Reporter | None = None) -> Holder:
    """The right to change the builds of a corpus: for one process, and one thread of it, at a time.

    It lies beside the bundles, so it holds wherever Qdrant is; machines that share no models folder are not kept apart.
    Arguments as of `Holder`.

    Raises:
        StoreLockedError: It is in use, and still is after `wait` seconds. The message names the holder.
        StoreWriteError: The folder cannot be written to.
    """
    folder = models_dir / corpus / LOCKED
    with translated(str(folder)):
        hint = "Try again when that has ended, or set QASERVE_LOCK_WAIT to wait longer."
        return Holder(folder, purpose, wait, hint, name=f"corpus {corpus!r}", reporter=reporter)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what Qdrant and the disk raise into our errors, in the one place that knows them."""
    try:
        yield
    except UnexpectedResponse as error:
        raise _answered(where, error) from error
    except (ResponseHandlingException, httpx.HTTPError) as error:
        raise StoreUnreachableError(
            f"Qdrant at {where} does not answer: {shorten(str(error), 160)}",
            hint="Start it, or correct QASERVE_QDRANT_URL; unset it to use the embedded Qdrant.",
        ) from error
    except ApiException as error:
        raise StoreError(
            f"Qdrant at {where}: {shorten(str(error), 200)}", hint="The server's log says more."
        ) from error
    except (sqlite3.Error, OSError) as error:
        raise _disk_error(where, error) from error
    except ValueError as error:
        if not GONE.search(str(error)):
            raise
        raise _gone(where) from error


def _answered(where: str, error: UnexpectedResponse) -> QaserveError:
    text = str(error.content, errors="replace")
    if error.status_code == httpx.codes.NOT_FOUND and GONE.search(text):
        return _gone(where)
    if error.status_code in REFUSED:
        return StoreRefusedError(
            f"Qdrant at {where} refuses the key (HTTP {error.status_code})",
            hint="Set QASERVE_QDRANT_API_KEY to the key that the server was started with.",
        )
    return StoreError(
        f"Qdrant at {where} answered HTTP {error.status_code}: {shorten(text, 99)}",
        hint="The server's log says more.",
    )


def _gone(where: str) -> BuildNotFoundError:
    return BuildNotFoundError(
        f"a build has been deleted from {where} while it was read", hint="`qaserve builds list` shows what there is."
    )


def _disk_error(where: str, error: sqlite3.Error | OSError) -> StoreError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return StoreError(
            f"{where} is damaged: {reason}", hint="Move it away and ingest again; the corpus files are all it needs."
        )
    full = getattr(error, "errno", None) == errno.ENOSPC or "full" in reason
    hint = "Free some space." if full else "Make the folder writable, or set QASERVE_DATA_DIR to one that is."
    return StoreWriteError(f"{where} cannot be written or read: {reason}", hint=f"{hint} The live build is untouched.")
