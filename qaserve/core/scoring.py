"""Scoring: the parts of a pair's score, and the score of an intent. Pure NumPy.

    dense_i = (1-θ) · cos(x'', a_i) + θ · cos(q, t_i)     cos(x'', a_i) alone where pair i has no topic
    score_i = (1-β) · dense_i + β · m · bm25_i / max_j bm25_j,    m = max(0, max_j dense_j)
    intent  = (1-σ) · best score of its pairs + σ · second best       the best alone where it has one pair

so that all parts are on the scale of a cosine. x'' is the projected and whitened question, q the question, a_i and t_i
the answer and topic of pair i.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.core.routing import Floats
from qaserve.schemas.params import SearchParams


class Scores(NamedTuple):
    """Scores of c pairs for m questions, and the parts that they are the sum of; all (m, c), higher is better."""

    total: Floats
    answer: Floats
    """(1-β) (1-θ) · cosine of the projected and whitened question to the answer; without θ where there is no topic."""
    topic: Floats
    """(1-β) θ · cosine of the question to the topic; 0 where there is none."""
    words: Floats
    """β · m · relative BM25."""


def combine(
    params: SearchParams,
    answers: NDArray[np.floating],
    topics: NDArray[np.floating] | None = None,
    words: NDArray[np.floating] | None = None,
    best: float | None = None,
) -> Scores:
    """Blend the parts of a score.

    Args:
        params: Their weights: θ is `topic_weight`, β is `lexical_weight`.
        answers: (m, c) cosines of the projected and whitened questions to the answers.
        topics: (m, c) cosines of the questions to the topics, NaN where a pair has none; None: no pair has one.
        words: (m, c) BM25 over the question's best, 0 to 1; None: no words, and the dense part has the whole weight.
        best: m of all pairs where only some of them are given; None: the best dense score of each row.
    """
    answer = np.asarray(answers)
    topic = np.zeros_like(answer)
    if topics is not None and params.topic_weight > 0:
        absent, share = np.isnan(topics), params.topic_weight
        answer = np.where(absent, answer, (1 - share) * answer)
        topic = np.where(absent, topic, share * topics)
    if words is None or params.lexical_weight == 0 or answer.size == 0:
        return Scores(answer + topic, answer, topic, np.zeros_like(answer))
    dense, weight = answer + topic, params.lexical_weight
    scale = np.maximum(dense.max(axis=1, keepdims=True) if best is None else best, 0.0)
    matched = np.asarray(weight * scale * np.asarray(words))
    return Scores((1 - weight) * dense + matched, (1 - weight) * answer, (1 - weight) * topic, matched)


def intent_scores(
    scores: NDArray[np.floating], intents: Sequence[str], second_share: float = 0.0
) -> tuple[list[str], NDArray[np.floating]]:
    """The score of every intent.

    Args:
        scores: (m, c) scores of c pairs.
        intents: (c,) intent of each.
        second_share: σ.

    Returns:
        The names of I intents, sorted, and their (m, I) scores.
    """
    names, members = _members(tuple(intents))
    best = np.full((len(scores), len(names)), -np.inf, dtype=scores.dtype)
    second = best.copy()
    for columns, places in members:
        values = scores[:, columns]
        if second_share:
            second[:, places] = np.maximum(second[:, places], np.minimum(best[:, places], values))
        best[:, places] = np.maximum(best[:, places], values)
    if second_share == 0:
        return list(names), best
    second = np.where(np.isneginf(second), best, second)
    return list(names), (1 - second_share) * best + second_share * second


@lru_cache(maxsize=16)
def _members(intents: tuple[str, ...]) -> tuple[tuple[str, ...], list[tuple[NDArray[np.intp], NDArray[np.intp]]]]:
    """The names, sorted, and the first pair of every intent, the second of all that have one, and so on.

    Each as the columns of the pairs and the places of their intents among the names.
    """
    names, numbers = np.unique(np.array(intents), return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    turn = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    members = [(order[turn == number], ordered[turn == number]) for number in range(turn.max(initial=-1) + 1)]
    return tuple(names.tolist()), members
