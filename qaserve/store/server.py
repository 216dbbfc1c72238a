"""A Qdrant server, through qdrant-client. A build is a collection; the alias `<corpus>` is the live one.

The sections of its documents are a collection of their own, `<corpus>.documents@<build>`.

Collections are in strict mode: a filter on a field that is not indexed is refused. What a build says of itself, and its
seal, are the collection's metadata.
"""

import json
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import metadata as packages
from typing import Any

from pydantic import ValidationError
from qdrant_client import QdrantClient, models

from qaserve.common.errors import (
    BuildNotFoundError,
    QaserveError,
    StoreError,
    StoreUnreachableError,
    UsageError,
)
from qaserve.common.failpoints import failpoint
from qaserve.schemas.record import Record
from qaserve.settings import StoreSettings

from .base import (
    DOCUMENTS_SUFFIX,
    EVERYWHERE,
    WORDS,
    Build,
    BuildMetadata,
    BuildRef,
    Hit,
    OnGraphs,
    Point,
    Seal,
    Search,
    Store,
    Where,
    Writer,
)
from .connection import FIRST_WAIT, LONGEST_WAIT, map_server_errors
from .errors import damaged, not_found
from .points import ContentHash, Intake, from_hits, from_record, words_of
from .words import Sparse, WordEncoder

PAGE = 256
REQUEST_BYTES = 16 << 20
"""Half of what a server takes in one request unless it is told otherwise. A larger point goes alone."""
NUMBER_BYTES = 24
"""Most bytes of a float32 in JSON, with its comma."""
METADATA_KEY = "qaserve"
ENGINE = f"qdrant-client {packages.version('qdrant-client')}"


class Manifest(Record):
    """What the metadata of a collection hold."""

    metadata: BuildMetadata
    seal: Seal | None = None


class ServerBuild(Build):
    """A sealed build in a collection."""

    def __init__(self, metadata: BuildMetadata, seal: Seal, client: QdrantClient, where: str) -> None:
        """Read a collection through a client."""
        self.metadata, self.seal, self.encoder = metadata, seal, WordEncoder(metadata.bm25)
        self.approximate = True
        self._client, self._name, self._where = client, str(metadata.ref), where

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """See `Build`."""
        asked = [_request(search) for search in searches if search.can_find]
        with map_server_errors(self._where):
            found = iter(self._client.query_batch_points(self._name, asked) if asked else [])
        return [from_hits(search, next(found).points) if search.can_find else [] for search in searches]

    def retrieve(self, ids: Collection[str], vectors: Sequence[str] = ()) -> dict[str, Point]:
        """See `Build`."""
        with map_server_errors(self._where):
            records = self._client.retrieve(self._name, list(ids), with_vectors=list(vectors) or False)
        return {point.id: point for point in map(from_record, records)}

    def scroll(self, where: Where = EVERYWHERE, vectors: Sequence[str] | None = None) -> Iterator[Point]:
        """See `Build`."""
        wanted = list(self.metadata.layout.vectors if vectors is None else vectors)
        for records in _pages(self._client, self._name, self._where, where, wanted):
            yield from (from_record(record) for record in records)

    def payloads(self, where: Where, fields: Sequence[str]) -> dict[str, dict[str, Any]]:
        """See `Build`."""
        pages = _pages(self._client, self._name, self._where, where, vectors=False, payload=list(fields))
        return {str(record.id): record.payload or {} for records in pages for record in records}

    def count(self, where: Where = EVERYWHERE) -> int:
        """See `Build`."""
        with map_server_errors(self._where):
            return self._client.count(self._name, count_filter=_filter(where), exact=True).count

    def facet(self, field: str, limit: int, where: Where = EVERYWHERE) -> list[tuple[str, int]]:
        """See `Build`."""
        with map_server_errors(self._where):
            found = self._client.facet(self._name, key=field, limit=limit, exact=True, facet_filter=_filter(where)).hits
        return [(str(hit.value), hit.count) for hit in found]

    def content_hash(self) -> str:
        """See `Build`."""
        return _content_hash(self._client, self._name, self._where).hexdigest()


class ServerWriter(Writer):
    """A build in a collection that has no seal yet."""

    def __init__(self, metadata: BuildMetadata, client: QdrantClient, where: str, *, resume: bool, live: bool) -> None:
        """Begin in a collection that is there; with `resume`, go on in it. One that is `live` is never discarded."""
        self._metadata, self._client, self._where = metadata, client, where
        self._name, self._keeps, self._intake = str(metadata.ref), live, Intake(metadata)
        if resume:
            self._intake.content = _content_hash(client, self._name, where)
        self.last = self._intake.content.last

    def append(self, points: Iterable[Point]) -> Iterator[int]:
        """See `Writer`. A batch holds as many points as fit into one request."""
        page: list[models.PointStruct] = []
        size = 0
        for point in points:
            words = self._intake.take(point)
            numbers = sum(vector.size for vector in point.vectors.values()) + 2 * len(words.indices)
            weight = NUMBER_BYTES * numbers + len(json.dumps(point.payload))
            if page and (len(page) == PAGE or size + weight > REQUEST_BYTES):
                yield self._upsert(page)
                page, size = [], 0
            vectors: dict[str, Any] = {name: vector.tolist() for name, vector in point.vectors.items()}
            vectors[WORDS] = models.SparseVector(indices=words.indices, values=words.values)
            page.append(models.PointStruct(id=point.id, vector=vectors, payload=point.payload))
            size += weight
        if page:
            yield self._upsert(page)

    def _upsert(self, page: list[models.PointStruct]) -> int:
        with map_server_errors(self._where):
            self._client.upsert(self._name, page, wait=True)
        failpoint("page written")
        return len(page)

    def make_graphs(self, on_graphs: OnGraphs) -> None:
        """See `Writer`. The server makes them when it likes."""

    @property
    def content_hash(self) -> str:
        """See `Writer`."""
        return self._intake.content.hexdigest()

    def seal(self) -> Seal:
        """See `Writer`."""
        with map_server_errors(self._where):
            stored = self._client.count(self._name, exact=True).count
        seal = self._intake.sealed(stored, ENGINE)
        manifest = Manifest(metadata=self._metadata, seal=seal)
        with map_server_errors(self._where):
            self._client.update_collection(self._name, metadata={METADATA_KEY: manifest.model_dump(mode="json")})
        self._keeps = True
        failpoint("build written")
        return seal

    def discard(self) -> None:
        """See `Writer`."""
        if not self._keeps:
            with suppress(QaserveError), map_server_errors(self._where):
                self._client.delete_collection(self._name)


class ServerStore(Store):
    """Builds on a Qdrant server."""

    embedded = False

    def __init__(self, client: QdrantClient, settings: StoreSettings) -> None:
        """Use a client; `connect` gives one that retries."""
        self._client, self._settings = client, settings
        self.where = settings.qdrant_url or ":memory:"

    def close(self) -> None:
        """See `Store`."""
        self._client.close()

    def live_builds(self) -> dict[str, str]:
        """See `Store`."""
        with map_server_errors(self.where):
            aliases = self._client.get_aliases().aliases
        split = {alias.alias_name: alias.collection_name.partition("@") for alias in aliases}
        return {alias: build for alias, (corpus, at, build) in split.items() if at and corpus == alias}

    def set_live(self, ref: BuildRef) -> None:
        """See `Store`. Waits until the server has indexed the build."""
        self.metadata(ref)
        with map_server_errors(self.where):
            _wait_until_green(self._client, str(ref), self._settings.qdrant_green)
        create = models.CreateAlias(collection_name=str(ref), alias_name=ref.corpus)
        change: list[Any] = [models.CreateAliasOperation(create_alias=create)]
        failpoint("swap due")
        if ref.corpus in self.live_builds():
            change.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=ref.corpus)))
        try:
            with map_server_errors(self.where):
                self._client.update_collection_aliases(change_aliases_operations=change)
        except StoreUnreachableError:  # it may have been done all the same
            if self.live_builds().get(ref.corpus) != ref.build:
                raise
        failpoint("swapped")

    def corpora(self) -> list[str]:
        """See `Store`."""
        sealed = {ref.corpus for ref, found in self._found() if found.seal}
        return sorted(corpus for corpus in sealed if not corpus.endswith(DOCUMENTS_SUFFIX))

    def names(self, corpus: str) -> list[str]:
        """See `Store`."""
        return sorted(ref.build for ref, found in self._found(corpus) if found.seal)

    def builds(self, corpus: str) -> list[BuildMetadata]:
        """See `Store`."""
        sealed = [found.metadata for _, found in self._found(corpus) if found.seal]
        return sorted(sealed, key=lambda one: one.created, reverse=True)

    def metadata(self, ref: BuildRef) -> BuildMetadata:
        """See `Store`."""
        return self._sealed(ref)[0]

    def create(self, metadata: BuildMetadata, *, resume: bool = False) -> ServerWriter:
        """See `Store`. A live build that is damaged is written again where it is, whole."""
        name, found = str(metadata.ref), None
        with suppress(BuildNotFoundError):
            found = self._manifest(metadata.ref)
        live = found is not None and self.live_builds().get(metadata.corpus) == metadata.build
        resumed = resume and found is not None and found.seal is None
        if not (live or resumed):
            with map_server_errors(self.where):
                if found is not None:
                    self._client.delete_collection(name)
                self._create(name, metadata)
        failpoint("build created")
        return ServerWriter(metadata, self._client, self.where, resume=resumed, live=live)

    def _create(self, name: str, metadata: BuildMetadata) -> None:
        on_disk = True if self._settings.qdrant_on_disk else None
        # Unit vectors: their dot product is their cosine, and they are stored bit for bit.
        vector = models.VectorParams(size=metadata.encoder.dimension, distance=models.Distance.DOT, on_disk=on_disk)
        self._client.create_collection(
            name,
            vectors_config=dict.fromkeys(metadata.layout.vectors, vector),
            sparse_vectors_config={WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            metadata={METADATA_KEY: Manifest(metadata=metadata).model_dump(mode="json")},
            strict_mode_config=models.StrictModeConfig(
                enabled=True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False
            ),
            **_layout(self._settings),
        )
        for field in metadata.layout.keywords:
            self._client.create_payload_index(name, field, field_schema=models.PayloadSchemaType.KEYWORD)
        for field in metadata.layout.integers:
            self._client.create_payload_index(name, field, field_schema=models.PayloadSchemaType.INTEGER)

    def open(self, ref: BuildRef) -> ServerBuild:
        """See `Store`."""
        metadata, seal = self._sealed(ref)
        build = ServerBuild(metadata, seal, self._client, self.where)
        points = build.count()
        if points != seal.points:
            raise damaged(ref, f"it holds {points:,} points; it was sealed with {seal.points:,}")
        return build

    def verify(self, ref: BuildRef) -> Seal:
        """See `Store`."""
        build = self.open(ref)
        if build.content_hash() != build.seal.content_hash:
            raise damaged(ref, f"collection {ref} in {self.where} does not hold what was written to it")
        return build.seal

    def delete(self, ref: BuildRef) -> None:
        """See `Store`."""
        self._manifest(ref)
        if self.live_builds().get(ref.corpus) == ref.build:
            raise UsageError(f"build {ref} is live", hint="Make another build live first: `qaserve builds activate`.")
        with map_server_errors(self.where):
            self._client.delete_collection(str(ref))
        failpoint("build removed")

    def unfinished(self, corpus: str) -> list[str]:
        """See `Store`."""
        return sorted(ref.build for ref, found in self._found(corpus) if found.seal is None)

    def remove_unfinished(self, corpus: str) -> list[str]:
        """See `Store`."""
        removed = self.unfinished(corpus)
        for build in removed:
            self.delete(BuildRef(corpus, build))
        return removed

    def _found(self, corpus: str | None = None) -> Iterator[tuple[BuildRef, Manifest]]:
        """Builds whose collections are ours."""
        with map_server_errors(self.where):
            names = [found.name for found in self._client.get_collections().collections]
        for name in names:
            of, at, build = name.partition("@")
            if at and corpus in {None, of}:
                with suppress(StoreError, BuildNotFoundError):
                    ref = BuildRef(of, build)
                    yield ref, self._manifest(ref)

    def _manifest(self, ref: BuildRef) -> Manifest:
        with map_server_errors(self.where):
            if not self._client.collection_exists(str(ref)):
                raise not_found(ref, self.where)
            config = self._client.get_collection(str(ref)).config
        try:
            manifest = Manifest.model_validate((config.metadata or {}).get(METADATA_KEY))
        except ValidationError as error:
            raise StoreError(
                f"collection {ref} in {self.where} does not say how it was made",
                hint="This version of qaserve did not write it, and leaves it alone: rename or delete it there.",
            ) from error
        sizes = config.params.vectors if isinstance(config.params.vectors, dict) else {}
        wanted, dimension = set(manifest.metadata.layout.vectors), manifest.metadata.encoder.dimension
        if set(sizes) != wanted or any(params.size != dimension for params in sizes.values()):
            held = ", ".join(f"{name} of D {params.size}" for name, params in sorted(sizes.items()))
            raise StoreError(
                f"collection {ref} in {self.where} holds vectors {held}; its build has "
                f"{', '.join(sorted(wanted))} of D {dimension}",
                hint="Something else changed it: delete it and ingest again.",
            )
        return manifest

    def _sealed(self, ref: BuildRef) -> tuple[BuildMetadata, Seal]:
        manifest = self._manifest(ref)
        if manifest.seal is None:
            raise BuildNotFoundError(
                f"build {ref} in {self.where} was never finished", hint="The next ingest into this corpus removes it."
            )
        return manifest.metadata, manifest.seal


def _layout(settings: StoreSettings) -> dict[str, Any]:
    """How a server is told to lay out a collection; what is not set is left to it."""
    quantized = models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8))
    chosen = {
        "shard_number": settings.qdrant_shards,
        "replication_factor": settings.qdrant_replicas,
        "write_consistency_factor": settings.qdrant_write_consistency,
        "on_disk_payload": True if settings.qdrant_on_disk else None,
        "quantization_config": quantized if settings.qdrant_quantized else None,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _wait_until_green(client: QdrantClient, name: str, seconds: float) -> None:
    """Wait until a server has indexed a collection.

    Raises:
        StoreError: It has not within the given seconds, or it failed.
    """
    until = time.monotonic() + seconds
    pause = FIRST_WAIT
    while (status := client.get_collection(name).status) != models.CollectionStatus.GREEN:
        if status == models.CollectionStatus.RED:
            raise StoreError(f"collection {name} is red: it failed on the server", hint="The server's log says more.")
        if time.monotonic() > until:
            raise StoreError(
                f"collection {name} is still {status} after {seconds:g} seconds of indexing",
                hint="Give it longer with QASERVE_QDRANT_GREEN. The live build is untouched.",
            )
        if status == models.CollectionStatus.GREY:  # after a restart nothing is indexed until something is changed
            client.update_collection(name, optimizers_config=models.OptimizersConfigDiff())
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_WAIT)


def _request(search: Search) -> models.QueryRequest:
    vector: Any = (
        models.SparseVector(indices=search.query.indices, values=search.query.values)
        if isinstance(search.query, Sparse)
        else search.query.tolist()
    )
    exactly = models.QuantizationSearchParams(rescore=True)  # a quantised score is no cosine
    return models.QueryRequest(
        query=vector,
        using=search.using,
        limit=search.limit,
        filter=_filter(search.where, search.among),
        params=None
        if isinstance(search.query, Sparse)
        else models.SearchParams(quantization=exactly, exact=search.exact),
        with_payload=list(search.fields) or False,
        with_vector=list(search.vectors) or False,
    )


def _filter(where: Where, among: Collection[str] | None = None) -> models.Filter | None:
    conditions: list[models.Condition] = [
        models.FieldCondition(key=field, match=models.MatchAny(any=list(values))) for field, values in where.items()
    ]
    if among is not None:
        conditions.append(models.HasIdCondition(has_id=list(among)))
    return models.Filter(must=conditions) if conditions else None


def _pages(
    client: QdrantClient,
    name: str,
    place: str,
    where: Where,
    vectors: list[str] | bool,
    *,
    payload: list[str] | bool = True,
) -> Iterator[list[models.Record]]:
    offset = None
    while True:
        with map_server_errors(place):
            records, offset = client.scroll(
                name,
                scroll_filter=_filter(where),
                limit=PAGE,
                offset=offset,
                with_payload=payload,
                with_vectors=vectors or False,
            )
        yield records
        if offset is None:
            return


def _content_hash(client: QdrantClient, name: str, place: str) -> ContentHash:
    content = ContentHash()
    for records in _pages(client, name, place, EVERYWHERE, vectors=True):
        for record in records:
            content.add(from_record(record), words_of(record))
    return content
