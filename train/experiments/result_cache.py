"""Finished results of a long experiment, so that a run after an interrupted one goes on from there."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from qaserve.common.files import written_beside
from qaserve.common.text import digest_of

SECONDS = "seconds"
"""Key in a file's header, next to the result's own words."""


class ResultCache:
    """A folder of results, each a file that appears whole or not at all.

    Its key is a digest of all that a result depends on: a run over other data or with other packages does not find it.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is read or written yet; the folder need not be there."""
        self._folder = folder
        self._used: set[Path] = set()
        self.spared_seconds = 0.0
        """Seconds that making the results found here had taken."""

    def load(self, depends_on: Iterable[str]) -> tuple[dict[str, NDArray[np.generic]], dict[str, str]] | None:
        """Arrays and words of a result; None where there is none, or it cannot be read."""
        path = self._path(depends_on)
        try:
            with safe_open(path, framework="numpy") as file:
                names = file.keys()
                arrays = {name: file.get_tensor(name) for name in names}
                words = dict(file.metadata())
            seconds = float(words.pop(SECONDS))
        except (OSError, SafetensorError, TypeError, LookupError, ValueError):
            return None
        self.spared_seconds += seconds
        self._used.add(path)
        return arrays, words

    def save(
        self,
        depends_on: Iterable[str],
        arrays: Mapping[str, NDArray[np.generic]],
        words: Mapping[str, str],
        *,
        seconds: float,
    ) -> None:
        """Keep a result and the seconds it took.

        Raises:
            StoreWriteError: It cannot be written.
        """
        path = self._path(depends_on)
        with written_beside(path) as fresh:
            tensors = {name: np.ascontiguousarray(one) for name, one in arrays.items()}
            fresh.write_bytes(save(tensors, {**words, SECONDS: repr(seconds)}))
        self._used.add(path)

    def clear(self) -> None:
        """Delete the results that this run kept or used: its report has them now, and the next run measures again."""
        for path in self._used:
            path.unlink(missing_ok=True)
        self._used.clear()
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _path(self, depends_on: Iterable[str]) -> Path:
        return self._folder / f"{digest_of(depends_on)[:16]}.safetensors"
