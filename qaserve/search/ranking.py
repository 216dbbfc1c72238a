"""The final ranking: the parts of the score together, each intent once, by its best pair."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.core.lexical import Lexicon
from qaserve.core.scoring import combine
from qaserve.schemas.ask import Filters
from qaserve.store.points import AnswerHit
from qaserve.store.qdrant import NO_FILTER, Store

FIRST_LOOK = 48
"""Answers fetched before they are grouped by intent; more until the ranking is certain."""
GROWTH = 4


class RankedPair(NamedTuple):
    """A pair with its score and the parts that it is the sum of."""

    hit: AnswerHit
    score: float
    answer: float
    words: float


class LexicalQuery(NamedTuple):
    """The words of a question."""

    weight: float
    """β."""
    lexicon: Lexicon
    relative: NDArray[np.float32]
    """(n,) BM25 of every pair over the best."""


def rank_intents(
    store: Store,
    corpus: str,
    build: str,
    vector: NDArray[np.floating],
    top_k: int,
    words: LexicalQuery | None,
    filters: Filters = NO_FILTER,
) -> list[RankedPair]:
    """The best pair of each of the first `top_k` intents: exactly what scoring every pair would give.

    The nearest answers are read. An answer beyond them has at most the last one's cosine; the few whose words could
    still lift them above the k-th intent are looked up, and nothing else can enter the ranking. Grouped here and not in
    Qdrant, whose grouped and fused queries behave differently between embedded mode, server and shard counts.

    Args:
        store: Where the build is.
        corpus: Its corpus.
        build: The build.
        vector: (D,) projected question, of any length.
        top_k: How many intents.
        words: The words of the question; None for the answer part alone.
        filters: Only these pairs are ranked.

    Returns:
        Best first; fewer than `top_k` where there are fewer intents.
    """
    limit = max(FIRST_LOOK, 6 * top_k)
    while True:
        near = store.nearest_answers(corpus, build, vector, limit, filters)
        best = _by_intent(near, near, words)
        if len(near) < limit:
            return best[:top_k]
        if len(best) >= top_k:
            contenders = _contenders(near, best[top_k - 1].score, words)
            if not contenders:
                return best[:top_k]
            if len(contenders) <= limit:
                more = store.nearest_answers(corpus, build, vector, len(contenders), filters, among=contenders)
                return _by_intent(near, [*near, *more], words)[:top_k]
        limit *= GROWTH


def _contenders(near: Sequence[AnswerHit], wanted: float, words: LexicalQuery | None) -> list[str]:
    """Ids of the pairs not among the nearest whose score could reach `wanted`."""
    if words is None:
        return []
    farthest = np.full((1, words.relative.size), near[-1].similarity)
    bounds = combine(farthest, words.relative[None, :], words.weight, near[0].similarity).total[0]
    bounds[words.lexicon.rows(hit.id for hit in near)] = -np.inf
    return [words.lexicon.ids[row] for row in np.flatnonzero((bounds >= wanted) & (words.relative > 0))]


def _by_intent(near: Sequence[AnswerHit], found: Sequence[AnswerHit], words: LexicalQuery | None) -> list[RankedPair]:
    """The best of `found` per intent, best first; `near` begins with the nearest of all answers."""
    if not near:
        return []
    relative = None if words is None else words.relative[None, words.lexicon.rows(hit.id for hit in found)]
    cosines = np.array([[hit.similarity for hit in found]])
    scores = combine(cosines, relative, 0.0 if words is None else words.weight, near[0].similarity)
    parts = zip(*(part[0].tolist() for part in scores), strict=True)
    ranked = [RankedPair(hit, *part) for hit, part in zip(found, parts, strict=True)]
    if words is not None:
        ranked.sort(key=lambda one: (-one.score, one.hit.id))
    best: dict[str, RankedPair] = {}
    for one in ranked:
        best.setdefault(one.hit.cluster_id, one)
    return list(best.values())
