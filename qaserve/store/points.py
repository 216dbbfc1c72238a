"""A pair as a point of Qdrant, and what comes back: the one place where the two are turned into each other."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qaserve.common.errors import StoreError
from qaserve.schemas.ask import Filters
from qaserve.schemas.pairs import Pair, StoredPair

QUESTION, ANSWER = "question", "answer"
QUESTION_FIELDS = ["pair_id", "question", "cluster", "prior"]
"""Of the payload, that a `QuestionHit` takes."""
ANSWER_FIELDS = ["cluster_id"]
"""Of the payload, that an `AnswerHit` takes."""
NUMBER_BYTES = 24
"""At most so many takes a float32 in JSON, with its comma."""


class PairVectors(NamedTuple):
    """A pair with its two unit vectors, (D,) float32."""

    stored: StoredPair
    question: NDArray[np.float32]
    answer: NDArray[np.float32]


class QuestionHit(NamedTuple):
    """A known question near the asked one."""

    id: str
    pair_id: str
    question: str
    cluster: int
    prior: float
    similarity: float
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    """q and a, where asked for."""


class AnswerHit(NamedTuple):
    """An answer near a vector; the pair itself is fetched later, for the few that are shown."""

    id: str
    cluster_id: str
    similarity: float


def to_point(stored: StoredPair, question: NDArray[np.float32], answer: NDArray[np.float32]) -> models.PointStruct:
    """The point of a pair with its two unit vectors, (D,)."""
    payload = stored.pair.model_dump(mode="json") | {
        "content_hash": stored.pair.content_hash,
        "cluster": stored.cluster,
        "prior": stored.prior,
    }
    vectors = {QUESTION: question.tolist(), ANSWER: answer.tolist()}
    return models.PointStruct(id=stored.id, vector=vectors, payload=payload)


def to_stored(record: models.Record) -> StoredPair:
    """The pair of a point."""
    payload = record.payload or {}
    fields = {name: payload.get(name) for name in Pair.model_fields}
    return StoredPair(
        id=str(record.id), pair=Pair.model_validate(fields), cluster=payload["cluster"], prior=payload["prior"]
    )


def to_pair_vectors(record: models.Record) -> PairVectors:
    """The pair of a point, with its vectors."""
    return PairVectors(to_stored(record), *vectors_of(record))


def to_question_hit(point: models.ScoredPoint) -> QuestionHit:
    """A known question that was found; its vectors where they were asked for."""
    payload = point.payload or {}
    return QuestionHit(
        id=str(point.id),
        similarity=point.score,
        vectors=vectors_of(point) if point.vector else None,
        **{field: payload[field] for field in QUESTION_FIELDS},
    )


def to_answer_hit(point: models.ScoredPoint) -> AnswerHit:
    """An answer that was found."""
    payload = point.payload or {}
    return AnswerHit(id=str(point.id), similarity=point.score, **{field: payload[field] for field in ANSWER_FIELDS})


def to_filter(filters: Filters, among: Sequence[str] | None = None) -> models.Filter | None:
    """The condition that a point meets all filters and, where ids are given, is among these."""
    conditions: list[models.Condition] = [
        models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))
        for field, values in filters.given.items()
    ]
    if among is not None:
        conditions.append(models.HasIdCondition(has_id=list(among)))
    return models.Filter(must=conditions) if conditions else None


def vector_of(record: models.Record | models.ScoredPoint, name: str) -> NDArray[np.float32]:
    """A point's question or answer vector, (D,)."""
    vectors = record.vector
    if not isinstance(vectors, dict):
        raise StoreError(f"point {record.id} has no named vectors", hint="The collection is not one of qaserve's.")
    return np.asarray(vectors[name], dtype=np.float32)


def vectors_of(record: models.Record | models.ScoredPoint) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A point's question and answer vector, (D,) each."""
    return vector_of(record, QUESTION), vector_of(record, ANSWER)


def wire_bytes(point: models.PointStruct) -> int:
    """About how many bytes a point takes in a request, rather more than less."""
    vectors = point.vector if isinstance(point.vector, dict) else {}
    numbers = sum(len(vector) for vector in vectors.values() if isinstance(vector, list))
    return NUMBER_BYTES * numbers + len(json.dumps(point.payload))
