"""An open build of Qdrant Edge."""

import ctypes
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from .base import EVERYWHERE, WORDS, Build, Hit, Point, Search, Where
from .build_files import Manifest, OpenFolder
from .errors import map_errors
from .graphs import SEARCHED
from .kept import Kept
from .points import INTENT, ContentHash, from_hits, from_record, id_of, words_of
from .words import Sparse, WordEncoder

PAGE = 256
"""Points that are read or written at once."""
PAYLOADS_KEPT = 50_000
"""Of an open build, for each set of fields: some tens of megabytes."""
VECTORS_KEPT = 20_000
"""Of an open build, for each name: 31 MB where D is 384."""
WORDS_KEPT = 5_000
"""Points of an open build whose words are kept: some 30 MB."""
INTENTS_KEPT = 20_000
"""Of an open build, with the ids of their points."""


class EdgeBuild(Build):
    """A sealed build, its files mapped."""

    def __init__(self, manifest: Manifest, shard: edge.EdgeShard, where: str, folder: OpenFolder) -> None:
        """Wrap an open shard. It is closed when nothing refers to it any more."""
        self.metadata, self.seal, self.approximate = manifest.metadata, manifest.seal, manifest.graphs
        self.encoder = WordEncoder(manifest.metadata.bm25)
        self._shard, self._where = shard, where
        weakref.finalize(self, _close, shard, folder).atexit = False
        # Nor is it let go of at exit: the engine would put its files out of the disk's cache, for the next process.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(shard))
        self._payloads: dict[tuple[str, ...], Kept[dict[str, Any]]] = {}
        self._intents = Kept(self._read_intents, INTENTS_KEPT)
        self._vectors = {name: Kept(self._reader_of(name), VECTORS_KEPT) for name in manifest.metadata.layout.vectors}
        self._words = Kept(self._read_words, WORDS_KEPT)
        self._idf: dict[int, float] = {}

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """See `Build`. One call of the engine, whose threads are woken once."""
        requests = [_request(search) for search in searches if search.can_find]
        with map_errors(self._where):
            found = iter(self._shard.query_batch(edge.QueryBatchRequest(requests)) if requests else [])
            return [self._hits(search, next(found)) if search.can_find else [] for search in searches]

    def _hits(self, search: Search, found: Sequence[edge.ScoredPoint]) -> list[Hit]:
        return from_hits(search, found, self._payloads_of(search.fields).of if search.fields else None)

    def scores(self, searches: Sequence[Search], ids: Sequence[str]) -> list[NDArray[np.float64]]:
        """See `Build`. Computed from what is kept of the points: asking the engine takes several times as long."""
        with map_errors(self._where):
            return [
                self._bm25(search.query, ids)
                if isinstance(search.query, Sparse)
                else self._cosines(search.using, search.query, ids)
                for search in searches
            ]

    def _cosines(self, using: str, query: NDArray[np.float32], ids: Sequence[str]) -> NDArray[np.float64]:
        vectors = self._vectors[using].of(ids)
        there = [number for number, vector in enumerate(vectors) if vector is not None]
        cosines = np.full(len(ids), np.nan)
        if there:
            # Row by row, unlike a matrix product: equal vectors get equal cosines.
            cosines[there] = np.einsum("ij,j->i", np.array([vectors[number] for number in there]), query)
        return cosines

    def _bm25(self, query: Sparse, ids: Sequence[str]) -> NDArray[np.float64]:
        """As the engine computes it: what a word counts for is taken from the engine, once for each word."""
        unknown = [word for word in query.indices if word not in self._idf]
        best = self.search([Search(WORDS, Sparse([word], [1.0]), 1) for word in unknown]) if unknown else []
        for word, hits in zip(unknown, best, strict=True):
            self._idf[word] = next((hit.score / (self._words.of([hit.id])[0] or {})[word] for hit in hits), 0.0)
        weights = [(word, value * self._idf[word]) for word, value in zip(*query, strict=True)]
        scores = [
            sum([weight * words[word] for word, weight in weights if word in words]) if words else 0.0
            for words in self._words.of(ids)
        ]
        return np.array([score or np.nan for score in scores])

    def _payloads_of(self, fields: Sequence[str]) -> Kept[dict[str, Any]]:
        """These fields by id."""

        def read(ids: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
            records = self._shard.retrieve(ids, with_payload=list(fields), with_vector=False)
            return ((id_of(record), record.payload or {}) for record in records)

        found = self._payloads.get(tuple(fields))
        return found or self._payloads.setdefault(tuple(fields), Kept(read, PAYLOADS_KEPT))

    def _reader_of(self, name: str) -> Callable[[list[Any]], Iterator[tuple[str, NDArray[np.float32] | None]]]:
        """Reads vectors of one name; None: the point has none."""

        def read(ids: list[Any]) -> Iterator[tuple[str, NDArray[np.float32] | None]]:
            records = self._shard.retrieve(ids, with_payload=False, with_vector=[name])
            return ((point.id, point.vectors.get(name)) for point in map(from_record, records))

        return read

    def _read_words(self, ids: list[Any]) -> Iterator[tuple[str, dict[int, float]]]:
        records = self._shard.retrieve(ids, with_payload=False, with_vector=[WORDS])
        return ((id_of(record), dict(zip(*words_of(record), strict=True))) for record in records)

    def _read_intents(self, names: list[str]) -> Iterable[tuple[str, list[str]]]:
        found: dict[str, list[str]] = {name: [] for name in names}
        for records in _pages(self._shard, self._where, {INTENT: names}, vectors=False, payload=[INTENT]):
            for record in records:
                found[(record.payload or {})[INTENT]].append(id_of(record))
        return found.items()

    def payloads(self, where: Where, fields: Sequence[str]) -> dict[str, dict[str, Any]]:
        """See `Build`."""
        with map_errors(self._where):
            if list(where) == [INTENT]:
                ids = [one for found in self._intents.of([str(name) for name in where[INTENT]]) for one in found or ()]
            else:
                pages = _pages(self._shard, self._where, where, vectors=False, payload=False)
                ids = [id_of(record) for records in pages for record in records]
            return {one: payload or {} for one, payload in zip(ids, self._payloads_of(fields).of(ids), strict=True)}

    def retrieve(self, ids: Collection[str], vectors: Sequence[str] = ()) -> dict[str, Point]:
        """See `Build`."""
        with map_errors(self._where):
            records = self._shard.retrieve(list(ids), with_payload=True, with_vector=False)
            points = {point.id: point for point in map(from_record, records)}
            for name in vectors:
                for point, vector in zip(points.values(), self._vectors[name].of(list(points)), strict=True):
                    if vector is not None:
                        point.vectors[name] = vector
        return points

    def scroll(self, where: Where = EVERYWHERE, vectors: Sequence[str] | None = None) -> Iterator[Point]:
        """See `Build`."""
        wanted = self.metadata.layout.vectors if vectors is None else vectors
        for records in _pages(self._shard, self._where, where, list(wanted)):
            yield from (from_record(record) for record in records)

    def count(self, where: Where = EVERYWHERE) -> int:
        """See `Build`."""
        with map_errors(self._where):
            return self._shard.count(edge.CountRequest(exact=True, filter=_filter(where)))

    def facet(self, field: str, limit: int, where: Where = EVERYWHERE) -> list[tuple[str, int]]:
        """See `Build`."""
        with map_errors(self._where):
            found = self._shard.facet(edge.FacetRequest(field, limit=limit, exact=True, filter=_filter(where))).hits
        return [(str(hit.value), hit.count) for hit in found]

    def content_hash(self) -> str:
        """See `Build`."""
        return content_hash(self._shard, self._where).hexdigest()


def _close(shard: edge.EdgeShard, folder: OpenFolder) -> None:
    """Close a shard while its folder has a path: without, each file is an error, and its backtrace takes memory."""
    with suppress(Exception):  # it may have been deleted
        shard.close()
    folder.close()


def _request(search: Search) -> edge.QueryRequest:
    vector = edge.SparseVector(*search.query) if isinstance(search.query, Sparse) else search.query.tolist()
    return edge.QueryRequest(
        limit=search.limit,
        query=edge.Query.Nearest(vector, using=search.using),
        filter=_filter(search.where, search.among),
        with_payload=False,
        with_vector=list(search.vectors) or False,
        params=edge.SearchParams(hnsw_ef=max(SEARCHED, 2 * search.limit), exact=search.exact),
    )


def _filter(where: Where, among: Collection[str] | None = None) -> edge.Filter | None:
    conditions: list[Any] = []
    for field, values in where.items():
        wanted: Any = list(values)
        conditions.append(edge.FieldCondition(field, match=edge.MatchAny(wanted)))
    if among is not None:
        conditions.append(edge.HasIdCondition(set(among)))
    return edge.Filter(must=conditions) if conditions else None


def _pages(
    shard: edge.EdgeShard, place: str, where: Where, vectors: list[str] | bool, *, payload: list[str] | bool = True
) -> Iterator[list[edge.Record]]:
    offset = None
    while True:
        with map_errors(place):
            records, offset = shard.scroll(
                edge.ScrollRequest(
                    offset=offset, limit=PAGE, filter=_filter(where), with_payload=payload, with_vector=vectors
                )
            )
        yield records
        if offset is None:
            return


def content_hash(shard: edge.EdgeShard, place: str) -> ContentHash:
    """The hash over all points of an open shard. `place`: how an error names it."""
    content = ContentHash()
    for records in _pages(shard, place, EVERYWHERE, vectors=True):
        for record in records:
            content.add(from_record(record), words_of(record))
    return content
