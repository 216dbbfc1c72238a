"""Qdrant: the only room that talks to it.

A build of a corpus is the collection `<corpus>@<build>`; the alias `<corpus>` points at the live one. A point is one
pair with two named vectors, `question` and `answer`, cosine, so every score is a cosine: higher is nearer.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from qdrant_client import QdrantClient, models

from qaserve.errors import NotFoundError, StoreError
from qaserve.records import EncoderIdentity, Filters, Pair, Record, StoredPair
from qaserve.settings import StoreSettings
from qaserve.store_connection import connect_embedded, connect_server, translated
from qaserve.turns import Turns

QUESTION, ANSWER = "question", "answer"
PAGE = 256
EMBEDDED_STEP = 16
"""Points that embedded Qdrant writes before a search may pass: it commits each to the disk by itself, some 10 ms."""
INDEXED = ("cluster", "cluster_id", "pair_id", "topics", "tags", "related_skills", "source_file", "content_hash")
METADATA_KEY = "qaserve"
NO_FILTER = Filters()


class CollectionInfo(Record):
    """What a collection says of itself."""

    corpus: str
    build: str
    encoder: EncoderIdentity
    pairs: int
    clusters: int
    bundle_hash: str
    sources: tuple[str, ...]
    created: str


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


def collection_name(corpus: str, build: str) -> str:
    """Name of a build's collection. It holds an @, which no corpus name may, so it never equals an alias."""
    return f"{corpus}@{build}"


class Store:
    """Builds in Qdrant, embedded in a folder, in memory, or on a server. Safe to share between threads."""

    def __init__(self, client: QdrantClient, *, where: str, embedded: bool, holder: Any = None) -> None:
        """Wrap a client; `open_store` and `memory_store` are the usual ways in."""
        self._client = client
        self._holder = holder
        self.where = where
        self.embedded = embedded
        # Embedded Qdrant is not thread-safe: a read during a write fails. One lock guards it; a server needs none.
        self._lock = Turns() if embedded else nullcontext()

    def __enter__(self) -> Self:
        """Use as a context manager to close it for certain."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Let go of the folder or connection."""
        with self._lock:
            self._client.close()
            if self._holder is not None:
                self._holder.release()

    # Builds

    def live_builds(self) -> dict[str, str]:
        """The live build of each corpus."""
        with self._lock, translated(self.where):
            aliases = self._client.get_aliases().aliases
        split = {alias.alias_name: alias.collection_name.partition("@") for alias in aliases}
        return {alias: build for alias, (corpus, at, build) in split.items() if at and corpus == alias}

    def live(self, corpus: str) -> str:
        """The live build of a corpus. Raises NotFoundError when there is none."""
        builds = self.live_builds()
        if corpus not in builds:
            there = f"There are: {', '.join(sorted(builds))}." if builds else "There is none yet."
            raise NotFoundError(
                f"no corpus {corpus!r} in {self.where}", hint=f"{there} `qaserve ingest FILE` makes one."
            )
        return builds[corpus]

    def corpora(self) -> list[str]:
        """Every corpus that has a collection, live or not."""
        with self._lock, translated(self.where):
            names = [found.name for found in self._client.get_collections().collections]
        return sorted({corpus for corpus, at, _ in (name.partition("@") for name in names) if at})

    def builds(self, corpus: str) -> list[CollectionInfo]:
        """Every build of a corpus that has a collection, newest first."""
        with self._lock, translated(self.where):
            names = [found.name for found in self._client.get_collections().collections]
        found = [self.info(corpus, name.partition("@")[2]) for name in names if name.startswith(f"{corpus}@")]
        return sorted(found, key=lambda info: info.created, reverse=True)

    def info(self, corpus: str, build: str) -> CollectionInfo:
        """What a build's collection says of itself. Raises NotFoundError, or StoreError if it is not one of ours."""
        name = collection_name(corpus, build)
        with self._lock, translated(self.where):
            if not self._client.collection_exists(name):
                raise NotFoundError(
                    f"no build {build!r} of corpus {corpus!r}", hint="`qaserve builds list` shows them."
                )
            metadata = self._client.get_collection(name).config.metadata or {}
        try:
            return CollectionInfo.model_validate(metadata.get(METADATA_KEY))
        except ValidationError as error:
            raise StoreError(
                f"collection {name} in {self.where} does not say how it was made",
                hint="It was not written by this version of qaserve: delete it and ingest again.",
            ) from error

    def count(self, corpus: str, build: str) -> int:
        """How many pairs a build's collection really holds."""
        with self._lock, translated(self.where):
            return self._client.count(collection_name(corpus, build), exact=True).count

    def create(self, info: CollectionInfo) -> None:
        """Make an empty collection for a build, replacing an unfinished one of the same build."""
        name, dimension = collection_name(info.corpus, info.build), info.encoder.dimension
        vector = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
        with self._lock, translated(self.where):
            if self._client.collection_exists(name):
                self._client.delete_collection(name)
            self._client.create_collection(
                name,
                vectors_config={QUESTION: vector, ANSWER: vector},
                metadata={METADATA_KEY: info.model_dump(mode="json")},
            )
            if not self.embedded:  # embedded Qdrant scans; it has no payload indexes
                for field in INDEXED:
                    schema = (
                        models.PayloadSchemaType.INTEGER if field == "cluster" else models.PayloadSchemaType.KEYWORD
                    )
                    self._client.create_payload_index(name, field, field_schema=schema)

    def write(self, corpus: str, build: str, points: Iterable[PairVectors]) -> Iterator[int]:
        """Write points in batches; yields the size of each batch written, for a progress bar."""
        name = collection_name(corpus, build)
        page: list[models.PointStruct] = []
        for point in points:
            page.append(_to_point(point))
            if len(page) == PAGE:
                yield self._upsert(name, page)
                page = []
        if page:
            yield self._upsert(name, page)

    def _upsert(self, name: str, page: list[models.PointStruct]) -> int:
        step = EMBEDDED_STEP if self.embedded else len(page)
        for start in range(0, len(page), step):
            with self._lock, translated(self.where):
                self._client.upsert(name, page[start : start + step], wait=True)
        return len(page)

    def activate(self, corpus: str, build: str) -> None:
        """Make a build live, by one atomic alias change."""
        name = collection_name(corpus, build)
        change: list[Any] = [
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=corpus))
        ]
        with self._lock, translated(self.where):
            if corpus in self.live_builds():
                change.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=corpus)))
            self._client.update_collection_aliases(change_aliases_operations=change)

    def delete(self, corpus: str, build: str) -> None:
        """Delete a build's collection. The caller makes sure that it is not live."""
        with self._lock, translated(self.where):
            self._client.delete_collection(collection_name(corpus, build))

    # Pairs

    def scroll(self, corpus: str, build: str) -> Iterator[PairVectors]:
        """Every pair of a build with its vectors, page by page, in the order of ids."""
        name, offset = collection_name(corpus, build), None
        while True:
            with self._lock, translated(self.where):
                records, offset = self._client.scroll(name, limit=PAGE, offset=offset, with_vectors=True)
            for record in records:
                yield PairVectors(_to_stored(record), *_vectors(record))
            if offset is None:
                return

    def pairs_by(self, corpus: str, build: str, key: str, value: str | int) -> list[StoredPair]:
        """The pairs whose payload field equals a value, in the order of ids."""
        name, offset, found = collection_name(corpus, build), None, []
        condition = models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=value))])
        while True:
            with self._lock, translated(self.where):
                records, offset = self._client.scroll(name, scroll_filter=condition, limit=PAGE, offset=offset)
            found += [_to_stored(record) for record in records]
            if offset is None:
                return found

    def retrieve(
        self, corpus: str, build: str, ids: Sequence[str]
    ) -> dict[str, tuple[StoredPair, NDArray[np.float32]]]:
        """Pairs by id, each with its answer vector; ids that are not there are left out."""
        with self._lock, translated(self.where):
            records = self._client.retrieve(collection_name(corpus, build), list(ids), with_vectors=[ANSWER])
        return {str(record.id): (_to_stored(record), _vector(record, ANSWER)) for record in records}

    def facets(self, corpus: str, build: str, field: str, limit: int) -> list[tuple[str, int]]:
        """The values of an indexed payload field and in how many pairs each is, most frequent first."""
        with self._lock, translated(self.where):
            found = self._client.facet(collection_name(corpus, build), key=field, limit=limit, exact=True)
        return [(str(hit.value), hit.count) for hit in found.hits]

    # Search

    def nearest_questions(
        self,
        corpus: str,
        build: str,
        vector: NDArray[np.floating],
        limit: int,
        filters: Filters = NO_FILTER,
        *,
        with_vectors: bool,
    ) -> list[QuestionHit]:
        """Known questions nearest to a (D,) vector, nearest first; equal ones in the order of ids."""
        fields = ["pair_id", "question", "cluster", "prior"]
        condition = _to_filter(filters)
        found = self._search(corpus, build, QUESTION, vector, limit, fields, condition, with_vectors=with_vectors)
        return [
            QuestionHit(
                id=str(point.id),
                similarity=point.score,
                vectors=_vectors(point) if with_vectors else None,
                **{field: (point.payload or {})[field] for field in fields},
            )
            for point in found
        ]

    def nearest_answers(
        self,
        corpus: str,
        build: str,
        vector: NDArray[np.floating],
        limit: int,
        filters: Filters = NO_FILTER,
        among: Sequence[str] | None = None,
    ) -> list[AnswerHit]:
        """Answers nearest to a (D,) vector of any length, nearest first; equal ones in the order of ids.

        `among`: ids of points; only these are looked at.
        """
        condition = _to_filter(filters, among)
        found = self._search(corpus, build, ANSWER, vector, limit, ["cluster_id"], condition, with_vectors=False)
        return [
            AnswerHit(id=str(point.id), cluster_id=(point.payload or {})["cluster_id"], similarity=point.score)
            for point in found
        ]

    def _search(
        self,
        corpus: str,
        build: str,
        using: str,
        vector: NDArray[np.floating],
        limit: int,
        fields: list[str],
        condition: models.Filter | None,
        *,
        with_vectors: bool,
    ) -> list[models.ScoredPoint]:
        with self._lock, translated(self.where):
            points = self._client.query_points(
                collection_name(corpus, build),
                query=np.asarray(vector, dtype=np.float32).tolist(),
                using=using,
                query_filter=condition,
                limit=limit,
                with_payload=fields,
                with_vectors=with_vectors,
            ).points
        return sorted(points, key=lambda point: (-point.score, str(point.id)))


def open_store(settings: StoreSettings, purpose: str) -> Store:
    """Open the Qdrant that the settings name.

    Args:
        settings: Server or embedded folder.
        purpose: What this process does with it, told to others who find the folder taken.

    Raises:
        StoreLockedError, StoreUnreachableError, StoreRefusedError, StoreWriteError, StoreError
    """
    if settings.qdrant_url is not None:
        return Store(connect_server(settings), where=settings.qdrant_url, embedded=False)
    folder = settings.data_dir / "qdrant"
    client, holder = connect_embedded(folder, purpose)
    return Store(client, where=str(folder), embedded=True, holder=holder)


def memory_store() -> Store:
    """A store in memory, gone with the process."""
    return Store(
        QdrantClient(location=":memory:", force_disable_check_same_thread=True), where=":memory:", embedded=True
    )


def now() -> str:
    """The present, as builds write it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _to_point(point: PairVectors) -> models.PointStruct:
    stored = point.stored
    payload = stored.pair.model_dump(mode="json") | {
        "content_hash": stored.pair.content_hash,
        "cluster": stored.cluster,
        "prior": stored.prior,
    }
    vectors = {QUESTION: point.question.tolist(), ANSWER: point.answer.tolist()}
    return models.PointStruct(id=stored.id, vector=vectors, payload=payload)


def _to_filter(filters: Filters, among: Sequence[str] | None = None) -> models.Filter | None:
    conditions: list[models.Condition] = [
        models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))
        for field, values in filters.given.items()
    ]
    if among is not None:
        conditions.append(models.HasIdCondition(has_id=list(among)))
    return models.Filter(must=conditions) if conditions else None


def _to_stored(record: models.Record) -> StoredPair:
    payload = record.payload or {}
    fields = {name: payload.get(name) for name in Pair.model_fields}
    return StoredPair(
        id=str(record.id), pair=Pair.model_validate(fields), cluster=payload["cluster"], prior=payload["prior"]
    )


def _vector(record: models.Record | models.ScoredPoint, name: str) -> NDArray[np.float32]:
    vectors = record.vector
    if not isinstance(vectors, dict):
        raise StoreError(f"point {record.id} has no named vectors", hint="The collection is not one of qaserve's.")
    return np.asarray(vectors[name], dtype=np.float32)


def _vectors(record: models.Record | models.ScoredPoint) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return _vector(record, QUESTION), _vector(record, ANSWER)
