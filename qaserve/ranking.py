"""The final ranking: cosine and lexical term together, each intent once, by its best pair."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.lexical import Lexicon
from qaserve.store import AnswerHit, Store

FIRST_LOOK = 48
"""Answers fetched before they are grouped by intent; more until the ranking is certain."""
GROWTH = 4


class Scored(NamedTuple):
    """An answer with its score."""

    hit: AnswerHit
    score: float
    lexical: float
    """The lexical part of the score."""


class Words(NamedTuple):
    """What the lexical term knows of a question."""

    weight: float
    """β."""
    lexicon: Lexicon
    relative: NDArray[np.float32]
    """(n,) BM25 of every pair over the best."""


def rank_intents(
    store: Store, corpus: str, build: str, vector: NDArray[np.floating], top_k: int, words: Words | None
) -> list[Scored]:
    """The best pair of each of the first `top_k` intents: exactly what scoring every pair would give.

    Both lists, by cosine and by words, are read from the top. What is in neither scores at most as much as the last of
    both together; once the ranking is better than that, nothing unread can enter it (the threshold algorithm, Fagin,
    Lotem & Naor 2003). Grouped here and not in Qdrant, whose grouped and fused queries behave differently between
    embedded mode, server and shard counts.

    Args:
        store: Where the build is.
        corpus: Its corpus.
        build: The build.
        vector: (D,) projected question, of any length.
        top_k: How many intents.
        words: The lexical term; None for the cosine alone.

    Returns:
        Best first; fewer than `top_k` where there are fewer intents.
    """
    order = np.empty(0, np.intp) if words is None else np.argsort(-words.relative, kind="stable")
    limit = max(FIRST_LOOK, 8 * top_k)
    while True:
        near = store.nearest_answers(corpus, build, vector, limit)
        best, bound = _by_both(store, corpus, build, vector, near, words, order[:limit])
        if len(near) < limit or (len(best) >= top_k and best[top_k - 1].score >= bound):
            return best[:top_k]
        limit *= GROWTH


def _by_both(
    store: Store,
    corpus: str,
    build: str,
    vector: NDArray[np.floating],
    near: list[AnswerHit],
    words: Words | None,
    wordy: NDArray[np.intp],
) -> tuple[list[Scored], float]:
    """What the answers read so far give, and what any other could score at most."""
    if words is None or not near:
        return _first_per_intent([Scored(hit, hit.similarity, 0.0) for hit in near]), -np.inf
    seen = {hit.id for hit in near}
    more = [words.lexicon.ids[row] for row in wordy if words.relative[row] > 0]
    more = [point for point in more if point not in seen]
    found = near + (store.nearest_answers(corpus, build, vector, len(more), among=more) if more else [])
    scale = words.weight * max(0.0, near[0].similarity)
    relative: Mapping[str, float] = words.lexicon.of(words.relative, [hit.id for hit in found])
    scored = [
        Scored(hit, (1 - words.weight) * hit.similarity + scale * relative[hit.id], scale * relative[hit.id])
        for hit in found
    ]
    scored.sort(key=lambda one: (-one.score, one.hit.id))
    bound = (1 - words.weight) * near[-1].similarity + scale * float(words.relative[wordy[-1]])
    return _first_per_intent(scored), bound


def _first_per_intent(found: list[Scored]) -> list[Scored]:
    best: dict[str, Scored] = {}
    for one in found:
        best.setdefault(one.hit.cluster_id, one)
    return list(best.values())
