"""Files that appear whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qaserve.errors import StoreWriteError


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A path in the same folder that takes the name of `path` when all went well, and is gone when it did not.

    Raises:
        StoreWriteError: The disk is full or read-only.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
            fresh = Path(scratch) / path.name
            yield fresh
            fresh.replace(path)
    except OSError as error:
        raise StoreWriteError(
            f"{path} cannot be written: {error.strerror or error}", hint="Free some space or name a writable folder."
        ) from error
