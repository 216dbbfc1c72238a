"""The one place where pairs, points and the records of both engines are turned into each other."""

import hashlib
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from operator import gt
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from qaserve.common.errors import StoreError
from qaserve.schemas.ask import Filters
from qaserve.schemas.documents import Section
from qaserve.schemas.pairs import Pair, StoredPair

from .base import WORDS, Build, BuildMetadata, Hit, Layout, Point, Seal, Search, unit
from .words import Sparse, WordEncoder

QUESTION, ANSWER, TOPIC = "question", "answer", "topic"
PAIRS = Layout(
    vectors=(QUESTION, ANSWER, TOPIC),
    keywords=("cluster_id", "pair_id", "topics", "tags", "related_skills", "source_file"),
    integers=("cluster",),
    text=("question", "answer"),
)
"""Of a build of pairs. Every pair has the first two vectors; `topic` only a pair that says what it is about."""
INTENT = "cluster_id"
"""Field of the payload that holds the author's intent."""
SECTION = "section"
SECTIONS = Layout(vectors=(SECTION,), text=("text",))
"""Of the documents of a build: a point for each section. They are read whole, so none of their fields is indexed."""
RELATED_SKILLS = "related_skills"
"""Field of the payload that holds the skills that a pair names."""
HIT_FIELDS = ("pair_id", INTENT, "question", RELATED_SKILLS, "cluster", "prior")
"""Of the payload, what is read with a hit. One set for all, for a build keeps each set that is read."""
NO_FILTER = Filters()
NO_VECTORS: Mapping[str, NDArray[np.float32]] = MappingProxyType({})
TIES = 8
"""Known questions read beyond the limit, to see whether it cuts through equally near ones."""
UNIT_TOLERANCE = 1e-3
SECTION_NAMESPACE = uuid.UUID("0f0c9a52-8d1e-5b6e-9b7a-3f2f3f0f6b51")


class PairVectors(NamedTuple):
    """A pair with its unit vectors, (D,) float32."""

    stored: StoredPair
    question: NDArray[np.float32]
    answer: NDArray[np.float32]
    topic: NDArray[np.float32] | None = None


class QuestionHit(NamedTuple):
    """A known question near the asked one."""

    id: str
    pair_id: str
    cluster_id: str
    question: str
    cluster: int
    prior: float
    similarity: float
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    """q and a, where asked for."""


class AnswerHit(NamedTuple):
    """An answer near a vector, without the answer."""

    id: str
    pair_id: str
    cluster_id: str
    question: str
    similarity: float


# Pairs


def pair_text(pair: Pair) -> str:
    """What of a pair is searched by words."""
    return "\n".join(str(getattr(pair, field)) for field in PAIRS.text)


def to_point(row: PairVectors) -> Point:
    """The point of a pair."""
    stored = row.stored
    payload = stored.pair.model_dump(mode="json") | {
        "content_hash": stored.pair.content_hash,
        "cluster": stored.cluster,
        # A server parses numbers of up to 15 digits exactly, longer ones not always.
        "prior": float(f"{stored.prior:.12g}"),
    }
    vectors = {QUESTION: row.question, ANSWER: row.answer} | ({} if row.topic is None else {TOPIC: row.topic})
    return Point(stored.id, payload, vectors)


def to_pair(point: Point) -> StoredPair:
    """The pair of a point."""
    fields = {name: point.payload.get(name) for name in Pair.model_fields}
    return StoredPair(
        id=point.id,
        pair=Pair.model_validate(fields),
        cluster=point.payload["cluster"],
        prior=point.payload["prior"],
    )


def to_pair_vectors(point: Point) -> PairVectors:
    """The pair of a point with its vectors."""
    vectors = point.vectors
    return PairVectors(to_pair(point), vectors[QUESTION], vectors[ANSWER], vectors.get(TOPIC))


def section_point(corpus: str, section: Section, vector: NDArray[np.float32]) -> Point:
    """The point of a section, with its (D,) unit vector."""
    name = json.dumps([corpus, section.path, section.order])
    payload = section.model_dump(mode="json") | {"skill": section.skill}
    return Point(str(uuid.uuid5(SECTION_NAMESPACE, name)), payload, {SECTION: vector})


def to_sections(points: Iterable[Point]) -> tuple[tuple[Section, ...], NDArray[np.float32]]:
    """The sections of points, by path and order, and their (s, D) vectors."""
    fields = set(Section.model_fields)
    found = [
        (Section.model_validate({name: point.payload[name] for name in fields}), point.vectors[SECTION])
        for point in points
    ]
    found.sort(key=lambda one: (one[0].path, one[0].order))
    vectors = np.stack([vector for _, vector in found]) if found else np.empty((0, 0), dtype=np.float32)
    return tuple(section for section, _ in found), vectors


def nearest(
    build: Build,
    vector: NDArray[np.floating],
    questions: int,
    answers: int,
    filters: Filters = NO_FILTER,
    *,
    with_vectors: bool = False,
) -> tuple[list[QuestionHit], list[AnswerHit]]:
    """Known questions and answers nearest to a (D,) vector of any length, nearest first, found by one call.

    Equally near questions come in the order of ids. An engine returns any of those where its limit cuts. So more are
    read, until the last is farther than the last that is kept: the same questions vote in every engine, and a trace can
    be recomputed.

    Args:
        build: What is searched.
        vector: What they are near to.
        questions: How many questions.
        answers: How many answers.
        filters: What they must pass.
        with_vectors: Also read the vectors of the questions and of their answers.
    """
    query, where, asked = unit(vector), filters.given, questions and questions + TIES
    wanted = (QUESTION, ANSWER) if with_vectors else ()
    known = Search(QUESTION, query, asked, where, fields=HIT_FIELDS, vectors=wanted)
    hits, near = build.search([known, Search(ANSWER, query, answers, where, fields=HIT_FIELDS)])
    while questions and len(hits) == asked and hits[-1].score == hits[questions - 1].score:
        asked *= 4
        (hits,) = build.search([known._replace(limit=asked)])
    hits = sorted(hits, key=lambda hit: (-hit.score, hit.id))[:questions]
    return [_question_hit(hit, with_vectors=with_vectors) for hit in hits], list(map(_answer_hit, near))


def nearest_questions(
    build: Build, vector: NDArray[np.floating], limit: int, filters: Filters = NO_FILTER, *, with_vectors: bool = False
) -> list[QuestionHit]:
    """The questions of `nearest`."""
    return nearest(build, vector, limit, 0, filters, with_vectors=with_vectors)[0]


def nearest_answers(
    build: Build,
    vector: NDArray[np.floating],
    limit: int,
    filters: Filters = NO_FILTER,
    among: Collection[str] | None = None,
) -> list[AnswerHit]:
    """Answers nearest to a (D,) vector of any length, nearest first; only `among` these ids, where given."""
    found = build.nearest(ANSWER, vector, limit, filters.given, among=among, fields=HIT_FIELDS)
    return list(map(_answer_hit, found))


def _question_hit(hit: Hit, *, with_vectors: bool) -> QuestionHit:
    vectors = (hit.vectors[QUESTION], hit.vectors[ANSWER]) if with_vectors else None
    pair_id, intent, question, _, cluster, prior = map(hit.payload.__getitem__, HIT_FIELDS)
    return QuestionHit(hit.id, pair_id, intent, question, cluster, prior, hit.score, vectors)


def _answer_hit(hit: Hit) -> AnswerHit:
    payload = hit.payload
    return AnswerHit(hit.id, payload["pair_id"], payload[INTENT], payload["question"], hit.score)


# Engines


class EngineRecord(Protocol):
    """What both engines return."""

    @property
    def id(self) -> Any:
        """Id of the point."""

    @property
    def payload(self) -> dict[str, Any] | None:
        """The payload that was asked for."""

    @property
    def vector(self) -> Any:
        """The vectors that were asked for, by name."""


class EngineHit(EngineRecord, Protocol):
    """A record with a score."""

    @property
    def score(self) -> float:
        """Higher is nearer."""


def id_of(record: EngineRecord) -> str:
    """The id of an engine's record."""
    return _ids_of([record])[0]


def _ids_of(records: Iterable[EngineRecord]) -> list[str]:
    own = [record.id for record in records]
    return [_written(one.int) if isinstance(one, uuid.UUID) else str(one) for one in own]


@lru_cache(maxsize=20_000)
def _written(number: int) -> str:
    """Writing an id takes longer than finding it."""
    return str(uuid.UUID(int=number))


def from_record(record: EngineRecord) -> Point:
    """The point of an engine's record."""
    return Point(id_of(record), record.payload or {}, _dense(record.vector))


def from_hits(
    search: Search,
    found: Sequence[EngineHit],
    payloads: Callable[[list[str]], Sequence[dict[str, Any] | None]] | None = None,
) -> list[Hit]:
    """Hits of an engine's records, best first, equal scores in the order of ids.

    Args:
        search: What was searched.
        found: The records.
        payloads: Gives their payloads by their ids; None: the records have them.
    """
    ids, scores = _ids_of(found), [one.score for one in found]
    given = [one.payload for one in found] if payloads is None else payloads(ids)
    vectors = [_dense(one.vector) for one in found] if search.vectors else repeat(NO_VECTORS)
    hits = list(map(Hit, ids, scores, [payload or {} for payload in given], vectors))
    if all(map(gt, scores, scores[1:])):  # most often, and in half the time
        return hits
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))


def _dense(vectors: Mapping[str, Any] | None) -> dict[str, NDArray[np.float32]]:
    if not vectors:
        return {}
    return {name: np.asarray(vector, dtype=np.float32) for name, vector in sorted(vectors.items()) if name != WORDS}


def words_of(record: EngineRecord) -> Sparse:
    """The words of an engine's record."""
    found = record.vector.get(WORDS)
    return Sparse([], []) if found is None else Sparse(list(found.indices), list(found.values))


class ContentHash:
    """SHA-256 over points, in whatever order they come: the sum of the points' own digests, modulo 2²⁵⁶."""

    def __init__(self) -> None:
        """Of no points."""
        self.points = 0
        self.last: str | None = None
        self._sum = 0

    def add(self, point: Point, words: Sparse) -> None:
        """Count a point in: its id, payload, and the bytes of its vectors, float32."""
        digest = hashlib.sha256(point.id.encode())
        digest.update(json.dumps(point.payload, sort_keys=True, ensure_ascii=False).encode())
        for name, vector in sorted(point.vectors.items()):
            digest.update(f"\n{name}\n".encode() + np.ascontiguousarray(vector, dtype="<f4").tobytes())
        order = np.argsort(words.indices)
        digest.update(np.asarray(words.indices, dtype="<u4")[order].tobytes())
        digest.update(np.asarray(words.values, dtype="<f4")[order].tobytes())
        self._sum += int.from_bytes(digest.digest(), "big")
        self.points += 1
        self.last = max(self.last or point.id, point.id)

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return f"{self._sum % (1 << 256):064x}"


class Intake:
    """What every writer does with a point: check it, find its words, and count it into the hash."""

    def __init__(self, metadata: BuildMetadata) -> None:
        """Nothing has come in yet."""
        self.content = ContentHash()
        self._metadata, self._encoder = metadata, WordEncoder(metadata.bm25)

    def take(self, point: Point) -> Sparse:
        """The words of a point.

        Raises:
            StoreError: A vector has another name, dimension or length than those of the build.
        """
        layout, dimension = self._metadata.layout, self._metadata.encoder.dimension
        for name, vector in point.vectors.items():
            length = float(np.linalg.norm(vector))
            if name not in layout.vectors or vector.shape != (dimension,) or not abs(length - 1) <= UNIT_TOLERANCE:
                raise StoreError(
                    f"point {point.id} has a vector {name!r} of shape {vector.shape} and length {length:.4g}; build "
                    f"{self._metadata.ref} takes {', '.join(layout.vectors)} of shape {(dimension,)} and length 1",
                    hint="Encode its text with the encoder of the build.",
                )
        text = "\n".join(str(point.payload[field]) for field in layout.text if field in point.payload)
        words = self._encoder.document(text)
        self.content.add(point, words)
        return words

    def sealed(self, stored: int, engine: str) -> Seal:
        """The seal of a build that holds `stored` points. Raises StoreError unless it holds all that came in."""
        given, said = self.content.points, self._metadata.pairs
        if not stored == given == said:
            raise StoreError(
                f"build {self._metadata.ref} was given {given:,} points and holds {stored:,}; its metadata says "
                f"{said:,}",
                hint="Two points may have one id, or something else writes there. Nothing was sealed.",
            )
        return Seal(points=stored, content_hash=self.content.hexdigest(), engine=engine)
