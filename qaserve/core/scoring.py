"""Scoring: the parts of a pair's score, and intents ranked by their best pair. Pure NumPy.

    score_i = (1-β) · cos(x', a_i) + β · m · bm25_i / max_j bm25_j,    m = max(0, max_j cos(x', a_j))

so that both parts are on the scale of a cosine.
"""

from collections.abc import Sequence
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


class Intents:
    """Which pairs share an intent, so that each intent is ranked once, by its best pair."""

    def __init__(self, names: Sequence[str]) -> None:
        """Group c pairs by the names of their intents, (c,)."""
        self._numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        numbers = np.array([self._numbers[name] for name in names], dtype=np.intp)
        self._order = np.argsort(numbers, kind="stable")
        self._starts = np.searchsorted(numbers[self._order], np.arange(len(self._numbers)))

    def best(self, scores: Floats) -> Floats:
        """(m, I) best score of every intent, of scores (m, c); intents in the order of their first pair."""
        return np.asarray(np.maximum.reduceat(scores[:, self._order], self._starts, axis=1))

    def ranks(self, scores: Floats, relevant: Sequence[str]) -> Floats:
        """Rank of each question's relevant intent.

        Args:
            scores: (m, c), higher is better.
            relevant: (m,) the relevant intent of every question.

        Returns:
            (m,) ranks from 1; infinite where no pair has the relevant intent.
        """
        best = self.best(scores)
        ranks = np.full(len(scores), np.inf)
        for row, name in enumerate(relevant):
            if name in self._numbers:
                ranks[row] = 1 + np.count_nonzero(best[row] > best[row, self._numbers[name]])
        return ranks
