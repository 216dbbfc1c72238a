"""Files that appear whole or not at all, and what is said where the disk refuses."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qaserve.common.errors import StoreWriteError


@contextmanager
def writing(failed: str, hint: str) -> Iterator[None]:
    """Say in the house's words that the disk refuses.

    Args:
        failed: What cannot be done then, a sentence without its end; the system's reason follows.
        hint: What to do.

    Raises:
        StoreWriteError: The disk is full or read-only, or the file is not for us.
    """
    try:
        yield
    except OSError as error:
        raise StoreWriteError(f"{failed}: {error.strerror or error}", hint=hint) from error


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A path in the same folder that takes the name of `path` when all went well, and is gone when it did not.

    Raises:
        StoreWriteError: The disk is full or read-only.
    """
    with writing(f"{path} cannot be written", "Free some space or name a writable folder."):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
            fresh = Path(scratch) / path.name
            yield fresh
            fresh.replace(path)


def sync_file(path: Path) -> None:
    """Put a file on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Put what a folder lists on the disk."""
    if os.name == "nt":  # its folders cannot be opened
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
