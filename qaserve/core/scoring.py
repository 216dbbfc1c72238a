"""Scoring: the parts of a pair's score. Pure NumPy.

    score_i = (1-β) · cos(x', a_i) + β · m · bm25_i / max_j bm25_j,    m = max(0, max_j cos(x', a_j))

so that both parts are on the scale of a cosine.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.core.routing import Floats


class Scores(NamedTuple):
    """Scores of c pairs for m questions, and the parts that they are the sum of; all (m, c), higher is better."""

    total: Floats
    answer: Floats
    """(1-β) · cosine of the projected question to the answer."""
    words: Floats
    """β · m · relative BM25."""


def combine(
    cosines: NDArray[np.floating], words: NDArray[np.floating] | None, weight: float, best: float | None = None
) -> Scores:
    """Blend the parts of a score.

    Args:
        cosines: (m, c) of the projected questions to the answers.
        words: (m, c) BM25 over the question's best, 0 to 1; None: no words, and the answer has the whole weight.
        weight: β, 0 to 1.
        best: The best cosine of all answers where `cosines` holds only some of them; None: the best of each row.
    """
    answer = np.asarray(cosines, dtype=np.float64)
    if words is None or weight == 0 or answer.size == 0:
        return Scores(answer, answer, np.zeros_like(answer))
    scale = np.maximum(answer.max(axis=1, keepdims=True) if best is None else best, 0.0)
    parts = (1 - weight) * answer, np.asarray(weight * scale * np.asarray(words, dtype=np.float64))
    return Scores(parts[0] + parts[1], *parts)
