"""Locks on folders between processes: a kernel lock, freed even by kill -9, and a note on who holds it."""

import json
import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from qaserve.common.errors import StoreLockedError
from qaserve.common.files import writing
from qaserve.common.progress import Reporter
from qaserve.common.text import shorten

LOCK = "lock"
HOLDER = "holder.json"
LOCKED = ".lock"
"""Folder beside the bundles of a corpus in which its lock lies; no build is called so."""
POLL_SECONDS = 0.05


class FolderLock:
    """The right to change a folder. Held from creation until `release`."""

    def __init__(
        self, folder: Path, purpose: str, wait: float, hint: str, *, name: str = "", reporter: Reporter | None = None
    ) -> None:
        """Take the lock.

        Args:
            folder: Which.
            purpose: What it is taken for: others who want it are told so.
            wait: Seconds to wait for it.
            hint: What to do when it is still in use then.
            name: What the error calls it; empty: by its path.
            reporter: Told that this waits, and for whom. What it raises ends the waiting.

        Raises:
            StoreLockedError: It is in use, and still is after `wait` seconds. The message names the holder.
            OSError: The folder cannot be written to.
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
        """Use as a context manager to release it."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Release it."""
        self.release()

    def release(self) -> None:
        """Let others have it."""
        with suppress(OSError):
            self._note.unlink()
        self._lock.release()


def corpus_lock(
    models_dir: Path, corpus: str, purpose: str, wait: float, reporter: Reporter | None = None
) -> FolderLock:
    """The right to change the builds of a corpus: for one process, and one thread of it, at a time.

    It lies beside the bundles, so it holds wherever Qdrant is; machines that share no models folder are not kept apart.
    Arguments as of `FolderLock`.

    Raises:
        StoreLockedError: It is in use, and still is after `wait` seconds. The message names the holder.
        StoreWriteError: The folder cannot be written to.
    """
    folder = models_dir / corpus / LOCKED
    with writing(
        f"{folder} cannot be written",
        "Make it writable for this user, free some space, or set QASERVE_MODELS_DIR. The live build is untouched.",
    ):
        hint = "Try again when that has ended, or set QASERVE_LOCK_WAIT to wait longer."
        return FolderLock(folder, purpose, wait, hint, name=f"corpus {corpus!r}", reporter=reporter)
