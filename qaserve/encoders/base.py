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

FIXED_TEXTS = (
    "",
    " \t\n ",
    "\u200b\u00ad\ufeff",
    "a",
    "?!",
    "How do I extract records from Markdown?",
    "  spaces   around\nand lines\n\nbetween  ",
    "def f(x: int) -> list[int]:\n    return [x ** 2 for _ in range(3)]  # code",
    "Größe, naïve façade, e\u0301 and \u00e9, ﬁ",
    "日本語のテキストと한국어와中文",
    "שלום עולם مرحبا بالعالم Привет, мир",
    "🙂👩‍👩‍👧 ∑ √2 ≤ π",
    "one two three " * 20,
    "a sentence of middling length about searching in pairs of questions and answers. " * 12,
    "longword" * 500,
    "the longest text, which every encoder cuts; " * 3_000,
)
"""The shortest and the longest, Unicode, and texts of which cleaning leaves nothing."""


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


def lowest_cosine(encoder: Encoder, other: Encoder) -> float:
    """The lowest cosine between the vectors that two encoders of one model give a fixed text."""

    def compared(expected: Vectors, found: Vectors) -> float:
        return float((expected.astype(np.float64) * found).sum(axis=1).min())

    return min(
        compared(encoder.encode_questions(FIXED_TEXTS), other.encode_questions(FIXED_TEXTS)),
        compared(encoder.encode_answers(FIXED_TEXTS), other.encode_answers(FIXED_TEXTS)),
    )
