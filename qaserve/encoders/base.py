"""What an encoder is, and what every encoder does alike: batches by length, and the check of what comes out."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qaserve.common.errors import EncoderError
from qaserve.common.text import shorten
from qaserve.schemas.builds import EncoderIdentity

Vectors = NDArray[np.float32]
OnBatch = Callable[[int], None]

FEW_TEXTS = 4
"""Up to this many texts are encoded on one thread. That costs a little on an idle machine and saves much on a busy one,
where the threads of one short forward pass wait for each other."""


class Encoder(Protocol):
    """What the engine and the build need of an encoder."""

    @property
    def identity(self) -> EncoderIdentity:
        """What the vectors depend on."""

    def encode_questions(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> Vectors:
        """(n, D) float32 unit rows, in the order of the texts. `on_batch` is told the size of each batch done."""

    def encode_answers(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> Vectors:
        """The same for answers, which some models encode with another prompt."""


def cores() -> int:
    """Processors of this machine."""
    return os.cpu_count() or 1


def batches(lengths: Sequence[int], size: int) -> Iterator[NDArray[np.intp]]:
    """Indices of the texts, longest first, at most `size` at a time.

    Texts of like length share a batch, which wastes no padding; the largest batch fails first if memory is short.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


def unit_rows(vectors: Vectors, name: str, texts: Sequence[str]) -> Vectors:
    """(n, D) float32 rows of length 1. Raises EncoderError where a row is zero or not finite."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0))
    if bad.size:
        raise EncoderError(
            f"encoder {name} gave no usable vector for {shorten(texts[int(bad[0])], 80)!r}",
            hint="Check the model's files; another encoder can be set with QASERVE_ENCODER.",
        )
    return np.asarray(vectors / lengths, dtype=np.float32)
