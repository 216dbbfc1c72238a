"""What an engine found, told: the answers and, where it is asked for, why they are what they are."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qaserve.core.pipeline import Routing
from qaserve.core.routing import normalized_entropy
from qaserve.schemas.ask import (
    Answer,
    ClusterVote,
    Excluded,
    Filters,
    Hit,
    Link,
    RawAnswer,
    ScoreParts,
    Trace,
)
from qaserve.schemas.pairs import Pair, StoredPair
from qaserve.search.outcome import Found, Pairs, Query
from qaserve.store.points import AnswerHit, QuestionHit, nearest_answers

PLAIN_LIMIT = 50
"""Answers of the plain search that `raw_rank` is read from."""
PLAIN_SHOWN = 3
"""How many of those a trace shows at the least."""
SHOWN = tuple(name for name in Pair.model_fields if name in Answer.model_fields)
"""Of a pair, as an answer tells it."""
EXPECTED = 3
"""How many of the first plain answers, and of the strongest voters, a trace says why they are missing."""


@dataclass(frozen=True)
class PlainSearch:
    """What is found without routing, projection and words; nothing unless a trace is asked for."""

    first: Sequence[AnswerHit] = ()
    """Best answer of each intent, best first, among the filtered pairs."""
    everywhere: Sequence[AnswerHit] = ()
    """The first answers of a plain search of everything, whatever is filtered."""
    voters: Sequence[QuestionHit] = ()
    """The known questions that voted most."""

    @classmethod
    def of(cls, query: Query, found: Found, near: Sequence[AnswerHit]) -> "PlainSearch":
        """From the `PLAIN_LIMIT` answers nearest to the question as it is, among the filtered pairs."""
        everywhere = near[:EXPECTED]
        if query.filters:
            everywhere = nearest_answers(query.build.points, found.vector, EXPECTED)
        routing = found.projected.routing
        strongest = [] if routing is None else np.argsort(-routing.shares[0], kind="stable")[:EXPECTED].tolist()
        return cls(_first_per_intent(near), everywhere, [found.hits[row] for row in strongest])

    def shown(self, top_k: int) -> Sequence[AnswerHit]:
        """What a trace shows of it."""
        return self.first[: max(top_k, PLAIN_SHOWN)]

    def missing(self, answers: Iterable[str]) -> list[str]:
        """Ids of the pairs whose absence a trace explains: one of each intent that is not among the answers'."""
        expected: dict[str, str] = {}
        for hits in (self.everywhere, self.voters):
            for hit in hits:
                expected.setdefault(hit.cluster_id, hit.id)
        told = set(answers)
        return [point for intent, point in expected.items() if intent not in told]


def ids_to_read(query: Query, found: Found, plain: PlainSearch) -> list[str]:
    """Ids of all pairs that answers and trace show."""
    first = [one.best for one in found.best[: query.request.top_k]]
    return [*(one.id for one in first), *plain.missing(one.intent for one in first)]


def answers_of(query: Query, found: Found, plain: PlainSearch, pairs: Pairs) -> tuple[Answer, ...]:
    """The answers that are shown, best first."""
    ranks = {hit.cluster_id: rank for rank, hit in enumerate(plain.first, start=1)}
    ranked = found.best[: query.request.top_k]
    shared = query.build.points.shared_words(query.question, [one.best.id for one in ranked])
    answers = []
    for rank, ((score, best, second), words) in enumerate(zip(ranked, shared, strict=True), start=1):
        stored, vector = pairs[best.id]
        answers.append(
            Answer(
                rank=rank,
                score=score,
                parts=ScoreParts(projected=best.answer, topic=best.topic, lexical=best.words),
                second=second,
                words=words,
                similarity=best.similarity,
                projected_similarity=cosine(found.projected.vectors[0], vector),
                raw_similarity=cosine(found.vector, vector),
                raw_rank=ranks.get(stored.pair.intent),
                id=stored.id,
                known=stored.id in found.known,
                cluster=stored.cluster,
                author=stored.pair.author,
                links=_links(query, stored.pair),
                **{name: getattr(stored.pair, name) for name in SHOWN},
            )
        )
    return tuple(answers)


def _links(query: Query, pair: Pair) -> tuple[Link, ...]:
    """Where the names that a pair gives lead; none where the build has no documents to lead to."""
    links = query.build.library.links
    names = dict.fromkeys((*pair.related_skills, *pair.related_docs)) if query.build.sections is not None else {}
    return tuple(Link(name=name, path=links.resolve(name)) for name in names)


def trace_of(query: Query, found: Found, plain: PlainSearch, pairs: Pairs, answers: Sequence[Answer]) -> Trace:
    """Everything that led to the answers, enough to compute them again from the build."""
    routing = found.projected.routing
    return Trace(
        params=query.params,
        names=query.names,
        entropy=0.0 if routing is None else normalized_entropy(routing.weights[0]),
        hits=() if routing is None else _hits(found.hits, routing),
        clusters=() if routing is None else _cluster_votes(query, found, routing),
        projected_similarity=cosine(found.vector, found.projected.vectors[0]),
        whitened_similarity=cosine(found.projected.vectors[0], found.projected.searched[0]),
        filters=query.request.filters,
        raw_answers=tuple(_raw_answers(plain.shown(query.request.top_k))),
        excluded=tuple(_excluded(query, found, plain, pairs, answers)),
    )


def _hits(hits: Sequence[QuestionHit], routing: Routing) -> tuple[Hit, ...]:
    return tuple(
        Hit(
            id=hit.id,
            pair_id=hit.pair_id,
            question=hit.question,
            similarity=hit.similarity,
            prior=hit.prior,
            probability=share,
            cluster=hit.cluster,
        )
        for hit, share in zip(hits, routing.shares[0].tolist(), strict=True)
    )


def _cluster_votes(query: Query, found: Found, routing: Routing) -> tuple[ClusterVote, ...]:
    clusters, weights, counts = query.build.clusters, routing.weights[0], Counter(hit.cluster for hit in found.hits)
    bank = query.build.bundle.model.bank if query.params.projection == "cluster" else None
    order = np.argsort(-weights, kind="stable")
    return tuple(
        ClusterVote(
            cluster=k,
            name=clusters[k].name,
            weight=float(weights[k]),
            hits=counts[k],
            vote=None if routing.votes is None else float(routing.votes[0, k]),
            similarity=None if routing.similarities is None else float(routing.similarities[0, k]),
            angle=None if bank is None else bank.angle(found.vector, k),
            rank=None if bank is None else bank.effective_rank(k),
        )
        for k in order[: np.count_nonzero(weights)].tolist()
    )


def _raw_answers(shown: Sequence[AnswerHit]) -> Iterable[RawAnswer]:
    for rank, hit in enumerate(shown, start=1):
        yield RawAnswer(
            rank=rank,
            pair_id=hit.pair_id,
            cluster_id=hit.cluster_id,
            question=hit.question,
            similarity=hit.similarity,
        )


def _excluded(
    query: Query, found: Found, plain: PlainSearch, pairs: Pairs, answers: Sequence[Answer]
) -> Iterable[Excluded]:
    """Expected pairs that did not come back, and what kept them out; an intent that came back by another pair did."""
    near, farthest = {hit.id for hit in plain.everywhere}, min((one.similarity for one in answers), default=1.0)
    for point in plain.missing(answer.cluster_id for answer in answers):
        if point not in pairs:
            continue
        stored, vector = pairs[point]
        similarity = cosine(found.projected.searched[0], vector)
        by: Literal["filter", "similarity", "routing", "words"] = "similarity"
        if not matches(query.filters, stored):
            by = "filter"
        elif similarity >= farthest:
            by = "words"
        elif point in near:
            by = "routing"
        yield Excluded(
            id=point,
            pair_id=stored.pair.pair_id,
            cluster_id=stored.pair.intent,
            question=stored.pair.question,
            raw_similarity=cosine(found.vector, vector),
            projected_similarity=cosine(found.projected.vectors[0], vector),
            similarity=similarity,
            by=by,
        )


def _first_per_intent(found: Sequence[AnswerHit]) -> list[AnswerHit]:
    best: dict[str, AnswerHit] = {}
    for hit in found:
        best.setdefault(hit.cluster_id, hit)
    return list(best.values())


def matches(filters: Filters, stored: StoredPair) -> bool:
    """Whether a pair passes, as Qdrant decides it."""
    for field, wanted in filters.given.items():
        value = stored.cluster if field == "cluster" else getattr(stored.pair, field)
        if not set(value if isinstance(value, tuple) else (value,)) & set(wanted):
            return False
    return True


def cosine(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Cosine of two (D,) vectors; 0 where one of them is 0."""
    lengths = math.sqrt(x @ x) * math.sqrt(y @ y)
    return min(1.0, max(-1.0, float(x @ y) / lengths)) if lengths > 0 else 0.0
