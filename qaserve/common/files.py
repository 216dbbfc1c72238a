"""Files that appear whole or not at all, and what is said where the disk refuses."""

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
