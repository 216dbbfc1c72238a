"""What an ingest holds of many pairs without holding it in memory: temporary files that have no name.

A file without a name is gone with the process, however that ends, so nothing is ever left behind.
"""

import os
import tempfile
import weakref
from array import array
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from qaserve.common.files import writing


def scratch_folder(models_dir: Path) -> Path | None:
    """Where temporary files go: beside the bundles, which are on a disk; the system's folder may be in memory.

    None, the system's folder, where the other cannot be written to: a dry run needs no models folder.
    """
    return models_dir if os.access(models_dir, os.W_OK) else None


class Texts:
    """Texts on disk, in the order they were added, each read when it is looked at. Not for two threads at once."""

    def __init__(self, folder: Path | None) -> None:
        """Begin without any.

        Args:
            folder: Where the file goes; None: the system's folder for such.

        Raises:
            StoreWriteError: There is no room for it; so do all methods.
        """
        self._file = _unnamed(self, folder)
        self._ends = array("q", [0])

    def __len__(self) -> int:
        """How many."""
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> bytes:
        """The text of a row, 0 … n-1."""
        start, end = self._ends[row], self._ends[row + 1]
        with _writing():
            self._file.seek(start)
            return self._file.read(end - start)

    def append(self, text: bytes) -> None:
        """Add a text."""
        with _writing():
            self._file.seek(self._ends[-1])
            self._file.write(text)
        self._ends.append(self._ends[-1] + len(text))


class Vectors:
    """Vectors on disk, added some rows at a time."""

    def __init__(self, dimension: int, folder: Path | None) -> None:
        """Begin without any, of D dimensions; folder and errors as of `Texts`."""
        self._dimension, self._count, self._file = dimension, 0, _unnamed(self, folder)

    def append(self, rows: NDArray[np.float32]) -> None:
        """Add rows (m, D), or one of them, (D,)."""
        with _writing():
            self._file.write(np.ascontiguousarray(rows, dtype=np.float32).tobytes())
        self._count += rows.size // self._dimension

    def array(self) -> NDArray[np.float32]:
        """(n, D) all rows so far, read-only, as a map of the file: the system reads and drops pages as it needs."""
        if not self._count:
            return np.empty((0, self._dimension), dtype=np.float32)
        with _writing():
            self._file.flush()
            shape = self._count, self._dimension
            return np.asarray(np.memmap(self._file, dtype=np.float32, mode="r", shape=shape))


def _unnamed(owner: object, folder: Path | None) -> IO[bytes]:
    """A temporary file without a name, closed when its owner is gone."""
    with _writing():
        file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with its owner
    weakref.finalize(owner, _close, file)
    return file


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # what is left to write on a full disk is not needed any more
        file.close()


def _writing() -> AbstractContextManager[None]:
    return writing("temporary files cannot be written", "Free some space; nothing was changed.")
