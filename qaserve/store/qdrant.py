"""Qdrant: the only room that talks to it.

A build of a corpus is the collection `<corpus>@<build>`; the alias `<corpus>` points at the live one. A point is one
pair with two named vectors, `question` and `answer`, cosine, so every score is a cosine: higher is nearer.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from qdrant_client import QdrantClient, models

from qaserve.common.errors import BuildNotFoundError, NotFoundError, StoreError, StoreUnreachableError, StoreWriteError
from qaserve.common.failpoints import reach
from qaserve.common.fair_lock import Turns
from qaserve.schemas.ask import Filters
from qaserve.schemas.builds import EncoderIdentity
from qaserve.schemas.pairs import StoredPair
from qaserve.schemas.record import Record
from qaserve.settings import StoreSettings
from qaserve.store.embedded import connect_embedded, journal, unlisted
from qaserve.store.locks import Holder, translated
from qaserve.store.points import (
    ANSWER,
    ANSWER_FIELDS,
    QUESTION,
    QUESTION_FIELDS,
    AnswerHit,
    PairVectors,
    QuestionHit,
    to_answer_hit,
    to_filter,
    to_pair_vectors,
    to_point,
    to_question_hit,
    to_stored,
    vector_of,
    wire_bytes,
)
from qaserve.store.server import connect_server, index_payload, layout, wait_until_green

PAGE = 256
REQUEST_BYTES = 16 << 20
"""Half of what a server takes in one request unless it is told otherwise. A larger point goes alone."""
EMBEDDED_STEP = 16
"""Points that embedded Qdrant writes before a search may pass: it commits each by itself."""
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


def collection_name(corpus: str, build: str) -> str:
    """Name of a build's collection. It holds an @, which no corpus name may, so it never equals an alias."""
    return f"{corpus}@{build}"


class Store:
    """Builds in Qdrant, embedded in a folder, in memory, or on a server. Safe to share between threads."""

    def __init__(
        self,
        client: QdrantClient,
        *,
        where: str,
        holder: Holder | None = None,
        server: StoreSettings | None = None,
        read_only: bool = False,
    ) -> None:
        """Wrap a client; `open_store` and `memory_store` are the usual ways in.

        Args:
            client: Embedded, or of a server.
            where: What to call it in messages.
            holder: The right to its folder, let go when the store is closed.
            server: Settings of the server; None: it is embedded.
            read_only: Its folder cannot be written: every change is refused.
        """
        self._client = client
        self._holder = holder
        self._server = server
        self.read_only = read_only
        self.where = where
        self.embedded = server is None
        # Embedded Qdrant is not thread-safe: a read during a write fails. One lock guards it; a server needs none.
        self._lock = Turns() if self.embedded else nullcontext()

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
            self._check_no_builds(corpus)
            there = f"There are: {', '.join(sorted(builds))}." if builds else "There is none yet."
            raise NotFoundError(
                f"no corpus {corpus!r} in {self.where}", hint=f"{there} `qaserve ingest FILE` makes one."
            )
        return builds[corpus]

    def _check_no_builds(self, corpus: str) -> None:
        """Say which builds there are of a corpus without a live one."""
        there = self.builds(corpus)
        if there:
            listed = ", ".join(f"{info.build} ({info.pairs:,} pairs, {info.created[:16]})" for info in there)
            raise NotFoundError(
                f"corpus {corpus!r} has no live build; {self.where} has these, newest first: {listed}",
                hint=f"`qaserve builds activate {there[0].build}` makes the newest live.",
            )

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
                raise BuildNotFoundError(
                    f"no build {build!r} of corpus {corpus!r}", hint="`qaserve builds list` shows them."
                )
            config = self._client.get_collection(name).config
        try:
            info = CollectionInfo.model_validate((config.metadata or {}).get(METADATA_KEY))
        except ValidationError as error:
            raise StoreError(
                f"collection {name} in {self.where} does not say how it was made",
                hint="It was not written by this version of qaserve: delete it and ingest again.",
            ) from error
        sizes = config.params.vectors if isinstance(config.params.vectors, dict) else {}
        for vector, params in sizes.items():
            if params.size != info.encoder.dimension:
                raise StoreError(
                    f"collection {name} in {self.where} holds {vector} vectors of D {params.size}; "
                    f"its encoder {info.encoder} gives others",
                    hint="It was changed by something else: delete it and ingest again.",
                )
        return info

    def count(self, corpus: str, build: str) -> int:
        """How many pairs a build's collection really holds."""
        with self._lock, translated(self.where):
            return self._client.count(collection_name(corpus, build), exact=True).count

    def create(self, info: CollectionInfo) -> None:
        """Make an empty collection for a build, replacing an unfinished one of the same build."""
        self._check_writable()
        name, dimension = collection_name(info.corpus, info.build), info.encoder.dimension
        on_disk = True if self._server is not None and self._server.qdrant_on_disk else None
        vector = models.VectorParams(size=dimension, distance=models.Distance.COSINE, on_disk=on_disk)
        with self._lock, translated(self.where):
            if self._client.collection_exists(name):
                self._client.delete_collection(name)
            self._client.create_collection(
                name,
                vectors_config={QUESTION: vector, ANSWER: vector},
                metadata={METADATA_KEY: info.model_dump(mode="json")},
                **({} if self._server is None else layout(self._server)),
            )
            if not self.embedded:  # embedded Qdrant scans; it has no payload indexes
                index_payload(self._client, name)
        reach("collection created")

    def write(self, corpus: str, build: str, points: Iterable[PairVectors]) -> Iterator[int]:
        """Write points in batches of so many points and bytes; yields the size of each batch, for a progress bar."""
        self._check_writable()
        name, size = collection_name(corpus, build), 0
        page: list[models.PointStruct] = []
        with self._lock, translated(self.where):
            journal(self._client, name, "WAL")
        for point in (to_point(*row) for row in points):
            weight = 0 if self.embedded else wire_bytes(point)
            if page and (len(page) == PAGE or size + weight > REQUEST_BYTES):
                yield self._upsert(name, page)
                page, size = [], 0
            page.append(point)
            size += weight
        if page:
            yield self._upsert(name, page)
        with self._lock, translated(self.where):
            journal(self._client, name, "DELETE")

    def _upsert(self, name: str, page: list[models.PointStruct]) -> int:
        step = EMBEDDED_STEP if self.embedded else len(page)
        for start in range(0, len(page), step):
            with self._lock, translated(self.where):
                self._client.upsert(name, page[start : start + step], wait=True)
        reach("page written")
        return len(page)

    def activate(self, corpus: str, build: str) -> None:
        """Make a build live, by one atomic alias change; on a server, once it is indexed.

        Raises:
            StoreError: The server does not get it indexed within QASERVE_QDRANT_GREEN seconds.
        """
        self._check_writable()
        name = collection_name(corpus, build)
        if self._server is not None:
            with translated(self.where):
                wait_until_green(self._client, name, self._server.qdrant_green)
        change: list[Any] = [
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=corpus))
        ]
        reach("swap due")
        with self._lock:
            if corpus in self.live_builds():
                change.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=corpus)))
            try:
                with translated(self.where):
                    self._client.update_collection_aliases(change_aliases_operations=change)
            except StoreUnreachableError:  # it may have been done all the same
                if self.live_builds().get(corpus) != build:
                    raise
        reach("swapped")

    def delete(self, corpus: str, build: str) -> None:
        """Delete a build's collection, and with it its text. The caller makes sure that it is not live.

        Raises:
            StoreWriteError: Its files cannot be deleted.
        """
        self._check_writable()
        name = collection_name(corpus, build)
        with self._lock, translated(self.where):
            self._client.delete_collection(name)
        files = None if self._holder is None else Path(self.where) / "collection" / name
        if files is not None:  # embedded Qdrant ignores errors, and deletes nothing that its list does not know
            shutil.rmtree(files, ignore_errors=True)
            if files.exists():
                raise StoreWriteError(
                    f"{files} cannot be deleted: it still holds the text of build {build}",
                    hint="Make the folder writable; `qaserve builds prune` deletes it.",
                )
        reach("collection removed")

    def unlisted(self, corpus: str) -> list[str]:
        """Builds of a corpus whose files are in the folder of the embedded Qdrant and that it does not list."""
        if self._holder is None:
            return []
        with translated(self.where):
            names = [name.partition("@") for name in unlisted(Path(self.where))]
        return [build for found, _, build in names if found == corpus]

    def _check_writable(self) -> None:
        if self.read_only:
            raise StoreWriteError(
                f"{self.where} cannot be written: it was opened to be read only",
                hint="Make the folder writable or free some space, and start again. Asking works meanwhile.",
            )

    # Pairs

    def scroll(self, corpus: str, build: str) -> Iterator[PairVectors]:
        """Every pair of a build with its vectors, page by page, in the order of ids."""
        pages = self._pages_of_embedded if self.embedded else self._pages_of_server
        for records in pages(collection_name(corpus, build)):
            for record in records:
                yield to_pair_vectors(record)

    def _pages_of_server(self, name: str) -> Iterator[list[models.Record]]:
        offset = None
        while True:
            with translated(self.where):
                records, offset = self._client.scroll(name, limit=PAGE, offset=offset, with_vectors=True)
            yield records
            if offset is None:
                return

    def _pages_of_embedded(self, name: str) -> Iterator[list[models.Record]]:
        """Embedded Qdrant sorts and walks all ids for every page of a scroll: they are listed once instead."""
        with self._lock, translated(self.where):
            count = self._client.count(name, exact=True).count
            ids = [found.id for found in self._client.scroll(name, limit=count or 1, with_payload=False)[0]]
        for start in range(0, len(ids), PAGE):
            with self._lock, translated(self.where):
                records = self._client.retrieve(name, ids[start : start + PAGE], with_vectors=True)
            yield records

    def pairs_by(self, corpus: str, build: str, key: str, value: str | int) -> list[StoredPair]:
        """The pairs whose payload field equals a value, in the order of ids."""
        name, offset, found = collection_name(corpus, build), None, []
        condition = models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=value))])
        while True:
            with self._lock, translated(self.where):
                records, offset = self._client.scroll(name, scroll_filter=condition, limit=PAGE, offset=offset)
            found += [to_stored(record) for record in records]
            if offset is None:
                return found

    def retrieve(
        self, corpus: str, build: str, ids: Sequence[str]
    ) -> dict[str, tuple[StoredPair, NDArray[np.float32]]]:
        """Pairs by id, each with its answer vector; ids that are not there are left out."""
        with self._lock, translated(self.where):
            records = self._client.retrieve(collection_name(corpus, build), list(ids), with_vectors=[ANSWER])
        return {str(record.id): (to_stored(record), vector_of(record, ANSWER)) for record in records}

    def points(self, corpus: str, build: str, ids: Sequence[str]) -> dict[str, PairVectors]:
        """Pairs by id with both their vectors; ids that are not there are left out."""
        with self._lock, translated(self.where):
            records = self._client.retrieve(collection_name(corpus, build), list(ids), with_vectors=True)
        return {str(record.id): to_pair_vectors(record) for record in records}

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
        condition = to_filter(filters)
        found = self._search(
            corpus, build, QUESTION, vector, limit, QUESTION_FIELDS, condition, with_vectors=with_vectors
        )
        return [to_question_hit(point) for point in found]

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
        condition = to_filter(filters, among)
        found = self._search(corpus, build, ANSWER, vector, limit, ANSWER_FIELDS, condition, with_vectors=False)
        return [to_answer_hit(point) for point in found]

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
        exactly = models.QuantizationSearchParams(rescore=True)  # a quantised score is no cosine
        with self._lock, translated(self.where):
            points = self._client.query_points(
                collection_name(corpus, build),
                query=np.asarray(vector, dtype=np.float32).tolist(),
                using=using,
                query_filter=condition,
                search_params=None if self.embedded else models.SearchParams(quantization=exactly),
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
        return Store(connect_server(settings), where=settings.qdrant_url, server=settings)
    folder = settings.data_dir / "qdrant"
    client, holder = connect_embedded(folder, purpose, settings.lock_wait)
    return Store(client, where=str(folder), holder=holder, read_only=holder is None)


def memory_store() -> Store:
    """A store in memory, gone with the process."""
    return Store(QdrantClient(location=":memory:", force_disable_check_same_thread=True), where=":memory:")


def now() -> str:
    """The present, as builds write it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
