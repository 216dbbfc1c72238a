"""The final ranking: the parts of the score together, each intent once. Formulas: `qaserve.core.scoring`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.core.scoring import combine
from qaserve.schemas.ask import Filters
from qaserve.schemas.params import SearchParams
from qaserve.store import Build, Hit, Search
from qaserve.store.base import WORDS, unit
from qaserve.store.points import ANSWER, HIT_FIELDS, INTENT, NO_FILTER, RELATED_SKILLS, TOPIC, QuestionHit

FIRST_LOOK = 64
"""Pairs read by each part of the score before they are grouped by intent; more until the ranking is certain."""
GROWTH = 4
TOLD = "pair_id", INTENT, "question", RELATED_SKILLS
"""Of the payload, that a `ScoredPair` takes."""


class ScoredPair(NamedTuple):
    """A pair with its score and the parts that it is the sum of."""

    id: str
    pair_id: str
    intent: str
    question: str
    skills: tuple[str, ...]
    """As it says them in `related_skills`."""
    similarity: float
    """Cosine of the projected and whitened question to the answer."""
    score: float
    answer: float
    topic: float
    words: float


class RankedIntent(NamedTuple):
    """An intent with its score, and its best pair."""

    score: float
    best: ScoredPair
    second: float | None
    """Score of the second-best pair; None where there is one pair, the second has no weight, or `best` stands for the
    intent because it asks the very question, not because of its score."""


class Ranked(NamedTuple):
    """The outcome of a ranking."""

    intents: list[RankedIntent]
    """The first, best first."""
    pairs: list[ScoredPair]
    """All that were read by a part of the score, best first: the best `FIRST_LOOK`, or more, of each part."""


class _Bound(NamedTuple):
    """What no pair that was not read can exceed."""

    dense: float
    total: float


def rank_intents(
    build: Build,
    question: str,
    vector: NDArray[np.floating],
    projected: NDArray[np.floating],
    params: SearchParams,
    top_k: int,
    filters: Filters = NO_FILTER,
    known: Collection[QuestionHit] = (),
) -> Ranked:
    """The first `top_k` intents: exactly what scoring every pair would give, after those that ask this very question.

    The best pairs by each part of the score are read, and the other parts of these pairs. A pair that was not read has
    at most the last one's value in every part, and an intent at most its best pair's score: more is read until no such
    pair can enter the ranking. Grouped here and not in Qdrant, so that every engine and number of shards ranks alike.

    Args:
        build: What is searched.
        question: Its words are searched.
        vector: (D,) unit vector of the question.
        projected: (D,) projected and whitened question, of any length.
        params: Weights of the parts.
        top_k: How many intents.
        filters: Only these pairs are ranked, and the best of BM25 is theirs.
        known: Pairs that ask this very question. Their intents come first, each by the best of them.

    Returns:
        The intents, best first, equal scores in the order of ids; fewer than `top_k` where there are fewer. And the
        pairs that were read for them.
    """
    ranking = _Ranking(build, question, vector, projected, params, filters)
    limit = max(FIRST_LOOK, 6 * top_k)
    while (ranked := ranking.ranked(limit, top_k)) is None:
        limit *= GROWTH
    first = ranking.own(known, ranked)
    taken = {one.best.intent for one in first}
    return Ranked([*first, *(one for one in ranked if one.best.intent not in taken)][:top_k], ranking.pairs)


class _Ranking:
    """The ranking of one question."""

    def __init__(
        self,
        build: Build,
        question: str,
        vector: NDArray[np.floating],
        projected: NDArray[np.floating],
        params: SearchParams,
        filters: Filters,
    ) -> None:
        self._build, self._params, self._filters = build, params, filters
        queries = {ANSWER: unit(projected)} | ({TOPIC: unit(vector)} if params.topic_weight else {})
        words = {WORDS: build.encoder.query(question)} if params.lexical_weight else {}
        self._searches = {
            using: Search(using, query, 0, filters.given, fields=HIT_FIELDS)
            for using, query in (queries | words).items()
        }
        self._payloads: dict[str, dict[str, Any]] = {}
        self._scored: dict[str, ScoredPair] = {}
        self.pairs: list[ScoredPair] = []
        self._best_words = self._best_dense = 0.0

    def ranked(self, limit: int, top_k: int) -> list[RankedIntent] | None:
        """The ranking from the best `limit` pairs of each part; None where that leaves doubt."""
        found = self._read(limit)
        self._best_words = next((hit.score for hit in found.get(WORDS, [])), 0.0)
        ids = list(dict.fromkeys(hit.id for hits in found.values() for hit in hits))
        pairs = self.pairs = sorted(self._score(ids, measure=True), key=_best_first)
        self._scored = {pair.id: pair for pair in pairs}
        last = {part: hits[-1].score if len(hits) == limit else None for part, hits in found.items()}
        bound = self._bound(last)
        if bound is None:
            return self._by_intent(pairs)[:top_k]
        ranked = self._by_intent(pairs if self._params.second_share == 0 else self._all_that_matter(pairs, top_k))
        certain = len(ranked) >= top_k and ranked[top_k - 1].score > bound.total and self._best_dense >= bound.dense
        return ranked[:top_k] if certain else None

    def own(self, known: Collection[QuestionHit], ranked: Iterable[RankedIntent]) -> list[RankedIntent]:
        """The intents of known pairs, best first, as they are ranked where such a pair is their best."""
        if not known:
            return []
        ids, best = {hit.id for hit in known}, {one.best.id: one for one in ranked}
        own: dict[str, ScoredPair] = {}
        for pair in self._pairs_of(list(dict.fromkeys(hit.cluster_id for hit in known))):
            if pair.id in ids:
                own.setdefault(pair.intent, pair)
        return [best.get(pair.id) or RankedIntent(pair.score, pair, None) for pair in own.values()]

    def _read(self, limit: int) -> dict[str, list[Hit]]:
        asked = [search._replace(limit=limit) for search in self._searches.values()]
        found = dict(zip(self._searches, self._build.search(asked), strict=True))
        self._payloads |= {hit.id: hit.payload for hits in found.values() for hit in hits}
        return found

    def _score(self, ids: Sequence[str], *, measure: bool = False) -> list[ScoredPair]:
        """The scores of these pairs; `measure` takes the best dense score of these."""
        found = self._build.scores(list(self._searches.values()), ids)
        values = {part: scores[None, :] for part, scores in zip(self._searches, found, strict=True)}
        answers, topics, words = values[ANSWER], values.get(TOPIC), None
        if measure:
            self._best_dense = max(0.0, float(combine(self._params, answers, topics).total.max(initial=0.0)))
        if self._best_words > 0:
            words = np.where(np.isnan(values[WORDS]), 0.0, values[WORDS]) / self._best_words
        scores = combine(self._params, answers, topics, words, self._best_dense)
        payloads = [self._payloads[one] for one in ids]
        pair_ids, intents, questions, skills = ([one[field] for one in payloads] for field in TOLD)
        parts = (part[0].tolist() for part in (answers, *scores))
        return list(map(ScoredPair, ids, pair_ids, intents, questions, map(tuple, skills), *parts))

    def _bound(self, last: Mapping[str, float | None]) -> _Bound | None:
        """Of pairs that no search found; `last`: the last value of each, None where it found all there is."""
        answer, topic, words = last[ANSWER], last.get(TOPIC), last.get(WORDS)
        if answer is None:  # every pair has an answer
            return None
        share = self._params.topic_weight if topic is not None else 0.0
        dense = max(answer, (1 - share) * answer + share * (topic or 0.0))
        weight = self._params.lexical_weight if self._best_words > 0 else 0.0
        matched = 0.0 if words is None else weight * self._best_dense * words / self._best_words
        return _Bound(dense, (1 - weight) * dense + matched)

    def _all_that_matter(self, pairs: Iterable[ScoredPair], top_k: int) -> list[ScoredPair]:
        """All pairs of those intents that can be among the first, best first. An intent scores at most as its best."""
        best: dict[str, float] = {}
        for pair in pairs:
            best.setdefault(pair.intent, pair.score)
        names = list(best)
        chosen = names[: 2 * top_k]
        found = self._pairs_of(chosen)
        ranked = self._by_intent(found)
        least = ranked[top_k - 1].score if len(ranked) >= top_k else -np.inf
        more = [name for name in names[len(chosen) :] if best[name] >= least]
        return sorted(found + self._pairs_of(more), key=_best_first) if more else found

    def _pairs_of(self, intents: Sequence[str]) -> list[ScoredPair]:
        found = self._build.payloads(self._filters.given | {INTENT: tuple(intents)}, HIT_FIELDS)
        more = [one for one in found if one not in self._scored]
        self._payloads |= found
        if more:
            self._scored |= {pair.id: pair for pair in self._score(more)}
        return sorted([self._scored[one] for one in found], key=_best_first)

    def _by_intent(self, pairs: Iterable[ScoredPair]) -> list[RankedIntent]:
        """The intents of pairs that come best first."""
        groups: dict[str, list[ScoredPair]] = {}
        for pair in pairs:
            groups.setdefault(pair.intent, []).append(pair)
        share, ranked = self._params.second_share, []
        for group in groups.values():
            second = group[1].score if share and len(group) > 1 else None
            score = group[0].score if second is None else (1 - share) * group[0].score + share * second
            ranked.append(RankedIntent(score, group[0], second))
        return sorted(ranked, key=lambda one: (-one.score, one.best.id))


def _best_first(pair: ScoredPair) -> tuple[float, str]:
    return -pair.score, pair.id
