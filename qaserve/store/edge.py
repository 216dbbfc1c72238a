"""Qdrant Edge: Qdrant's own engine in this process. A build is a folder, and a shard of Edge lies in it.

    data/<corpus>/<build>/build.json   the seal: metadata, count, hashes of content and files
    data/<corpus>/<build>/shard/       what Edge writes
    data/<corpus>/live                 id of the live build
    data/<corpus>/.<build>.unfinished  a build until it is sealed
    data/<corpus>/.<build>.deleted     a build that is being deleted
    data/<corpus>.documents/<build>/   the sections of a build's documents, laid out the same

A shard is written without a write-ahead log: what is not flushed is lost, and nothing of it is live yet. Without the
log, any number of processes open a shard at once. They map its files, which stay readable until they are closed, also
after they were deleted. Edge does not notice a flipped byte; `verify` does.
"""

import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import metadata as packages
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray
from pydantic import ValidationError

from qaserve.common.errors import BuildNotFoundError, DamagedBuildError, StoreError, StoreWriteError, UsageError
from qaserve.common.failpoints import failpoint

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
from .build_files import (
    REWRITTEN,
    Manifest,
    OpenFolder,
    remove_tree,
    seal_file,
    seal_files,
    sync_file,
    sync_folder,
    sync_tree,
)
from .errors import damaged, map_errors, not_found
from .graphs import CONFIG, SEARCHED, make_graphs
from .kept import Kept
from .points import INTENT, ContentHash, Intake, from_hits, from_record, id_of, words_of
from .words import Sparse, WordEncoder

T = TypeVar("T")

PACKAGE = "qdrant-edge-py"
VERSION = packages.version(PACKAGE)
PAGE = 256
PAYLOADS_KEPT = 50_000
"""Of an open build, for each set of fields: some tens of megabytes."""
VECTORS_KEPT = 20_000
"""Of an open build, for each name: 31 MB where D is 384."""
WORDS_KEPT = 5_000
"""Points of an open build whose words are kept: some 30 MB."""
INTENTS_KEPT = 20_000
"""Of an open build, with the ids of their points."""
FREE_BYTES = 64 << 20
"""Kept free while writing: Edge maps its files, and a mapped file on a full disk ends the process."""
MANIFEST, SHARD, LIVE = "build.json", "shard", "live"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LEFTOVER = re.compile(r"\.(?P<build>[A-Za-z0-9].*)\.(unfinished|deleted)")
OLD_FOLDER = "qdrant"
"""Where version 0.1 kept its builds, in the data folder."""


class EdgeBuild(Build):
    """A sealed build, its files mapped."""

    def __init__(self, manifest: Manifest, shard: edge.EdgeShard, where: str, folder: "OpenFolder") -> None:
        """Wrap an open shard. It is closed when nothing refers to it any more."""
        self.metadata, self.seal, self.approximate = manifest.metadata, manifest.seal, manifest.graphs
        self.encoder = WordEncoder(manifest.metadata.bm25)
        self._shard, self._where, self._folder = shard, where, folder
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
        return from_hits(found, self._payloads_of(search.fields).of if search.fields else None)

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
        best = self.search([Search(WORDS, Sparse([word], [1.0]), 1) for word in unknown])
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

    def facet(self, field: str, limit: int) -> list[tuple[str, int]]:
        """See `Build`."""
        with map_errors(self._where):
            found = self._shard.facet(edge.FacetRequest(field, limit=limit, exact=True)).hits
        return [(str(hit.value), hit.count) for hit in found]

    def content_hash(self) -> str:
        """See `Build`."""
        return _content_hash(self._shard, self._where).hexdigest()


class EdgeWriter(Writer):
    """A build in a folder with a dot before its name, which it loses when it is sealed."""

    def __init__(
        self, metadata: BuildMetadata, folder: Path, target: Path, *, resume: bool, graphs: bool = False
    ) -> None:
        """Begin in `folder`, or go on there; sealing renames it to `target`, and makes HNSW `graphs` before."""
        self._metadata, self._folder, self._target, self._graphs = metadata, folder, target, graphs
        self._intake = Intake(metadata)
        self.last: str | None = None
        with map_errors(str(folder)):
            if resume and (folder / SHARD).is_dir():
                self._shard = edge.EdgeShard.load(str(folder / SHARD))
                self._intake.content = _content_hash(self._shard, str(folder))
                self.last = self._intake.content.last
            else:
                shutil.rmtree(folder, ignore_errors=True)
                (folder / SHARD).mkdir(parents=True)
                self._shard = edge.EdgeShard.create(str(folder / SHARD), _config(metadata))
                for name in metadata.layout.keywords:
                    self._shard.update(_index(name, edge.PayloadSchemaType.Keyword))
                for name in metadata.layout.integers:
                    self._shard.update(_index(name, edge.PayloadSchemaType.Integer))
        failpoint("build created")

    def append(self, points: Iterable[Point]) -> Iterator[int]:
        """See `Writer`."""
        page: list[edge.Point] = []
        for point in points:
            words = self._intake.take(point)
            vectors: dict[str, Any] = {**point.vectors, WORDS: edge.SparseVector(*words)}
            page.append(edge.Point(point.id, vectors, point.payload))
            if len(page) == PAGE:
                yield self._upsert(page)
                page = []
        if page:
            yield self._upsert(page)

    def _upsert(self, page: list[edge.Point]) -> int:
        with map_errors(str(self._folder)):
            free = shutil.disk_usage(self._folder).free
            if free < FREE_BYTES:
                raise StoreWriteError(
                    f"{self._folder} cannot be written: {free >> 20} MiB are free, {FREE_BYTES >> 20} MiB are needed",
                    hint="Free some space. The live build is untouched.",
                )
            self._shard.update(edge.UpdateOperation.upsert_points(page))
        failpoint("page written")
        return len(page)

    def make_graphs(self, on_graphs: OnGraphs) -> None:
        """See `Writer`."""
        if not self._graphs:
            return
        names, points = self._metadata.layout.vectors, self._metadata.pairs
        with map_errors(str(self._folder)), on_graphs(points * len(names)) as advance:
            self._shard.flush()
            self._shard.close()
            make_graphs(self._folder / SHARD, names, points, advance)
            self._shard = edge.EdgeShard.load(str(self._folder / SHARD))

    def seal(self) -> Seal:
        """See `Writer`."""
        with map_errors(str(self._folder)):
            self._shard.flush()
            self._shard.close()
            # Opening a fresh shard folds its journals in; after that, reading changes no file.
            self._shard = edge.EdgeShard.load(str(self._folder / SHARD))
            stored = self._shard.count(edge.CountRequest(exact=True))
            self._shard.close()
            seal = self._intake.sealed(stored, f"{PACKAGE} {VERSION}")
            files = seal_files(self._folder, self._folder / SHARD)
            manifest = Manifest(metadata=self._metadata, seal=seal, files=files, graphs=self._graphs)
            (self._folder / MANIFEST).write_bytes(manifest.to_bytes())
            sync_tree(self._folder)
            failpoint("build written")
            replaced = None
            if self._target.exists():  # it was damaged, and is given back what it lost
                replaced = self._target.with_name(f".{self._target.name}.deleted")
                shutil.rmtree(replaced, ignore_errors=True)
                self._target.rename(replaced)
            self._folder.rename(self._target)
            sync_folder(self._target.parent)
            if replaced is not None:
                shutil.rmtree(replaced, ignore_errors=True)
        return seal

    def discard(self) -> None:
        """See `Writer`."""
        with suppress(Exception):  # it may be closed already
            self._shard.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class EdgeStore(Store):
    """Builds in a data folder."""

    embedded = True

    def __init__(self, data_dir: Path, hnsw_pairs: int | None = None) -> None:
        """Name the folder; it is made when something is written.

        Args:
            data_dir: The folder.
            hnsw_pairs: From this number of points, a build gets HNSW graphs; None: none does.
        """
        self._data, self.where, self._hnsw_pairs = data_dir, str(data_dir), hnsw_pairs

    def how_to_start(self) -> str:
        """See `Store`."""
        if not (self._data / OLD_FOLDER / "meta.json").is_file():
            return super().how_to_start()
        return (
            f"{self._data / OLD_FOLDER} holds builds of qaserve 0.1, which this version cannot read: "
            "`qaserve ingest FILE` with the files they were made of brings them over. Then delete that folder."
        )

    # Live builds

    def live_builds(self) -> dict[str, str]:
        """See `Store`. The files are read each time: that costs no more than looking whether they changed."""
        found = {}
        with map_errors(self.where):
            for folder in self._corpora():
                with suppress(FileNotFoundError):
                    found[folder.name] = (folder / LIVE).read_text(encoding="utf-8").strip()
        return found

    def live(self, corpus: str) -> BuildRef:
        """See `Store`."""
        with map_errors(self.where), suppress(FileNotFoundError):
            return BuildRef(corpus, (self._corpus(corpus) / LIVE).read_text(encoding="utf-8").strip())
        return super().live(corpus)

    def set_live(self, ref: BuildRef) -> None:
        """See `Store`."""
        self._manifest(ref)
        folder = self._corpus(ref.corpus)
        failpoint("swap due")
        with map_errors(str(folder)):
            fresh = folder / f".{LIVE}.unfinished"
            fresh.write_text(f"{ref.build}\n", encoding="utf-8")
            sync_file(fresh)
            fresh.replace(folder / LIVE)
            sync_folder(folder)
        failpoint("swapped")

    # Builds

    def corpora(self) -> list[str]:
        """See `Store`."""
        with map_errors(self.where):
            return [folder.name for folder in self._corpora() if self.names(folder.name)]

    def names(self, corpus: str) -> list[str]:
        """See `Store`."""
        with map_errors(self.where):
            found = self._corpus(corpus).glob(f"*/{SHARD}")
            return sorted(path.parent.name for path in found if NAME.fullmatch(path.parent.name))

    def builds(self, corpus: str) -> list[BuildMetadata]:
        """See `Store`."""
        found = []
        for name in self.names(corpus):
            with suppress(StoreError, BuildNotFoundError):
                found.append(self.metadata(BuildRef(corpus, name)))
        return sorted(found, key=lambda one: one.created, reverse=True)

    def metadata(self, ref: BuildRef) -> BuildMetadata:
        """See `Store`."""
        return self._manifest(ref).metadata

    def create(self, metadata: BuildMetadata, *, resume: bool = False) -> EdgeWriter:
        """See `Store`."""
        folder = self._folder(metadata.ref)
        if folder.exists() and not (folder / SHARD).is_dir():
            raise StoreError(
                f"{folder} is not a build of qaserve", hint="Move it away, or choose another QASERVE_DATA_DIR."
            )
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        graphs = self._hnsw_pairs is not None and metadata.pairs >= self._hnsw_pairs
        return EdgeWriter(metadata, unfinished, folder, resume=resume, graphs=graphs)

    def open(self, ref: BuildRef) -> EdgeBuild:
        """See `Store`. The sizes of all files are compared: reading behind the end of one would end the process."""
        return self._unless_rewritten(ref, self._open)

    def check(self, ref: BuildRef) -> None:
        """See `Store`."""
        self._unless_rewritten(ref, self._check)

    def _unless_rewritten(self, ref: BuildRef, work: Callable[[BuildRef, Manifest], T]) -> T:
        """Do something with a build; once more where it was deleted and written again meanwhile."""
        manifest = self._manifest(ref)
        try:
            return work(ref, manifest)
        except StoreError:
            now = self._manifest(ref)  # raises BuildNotFoundError where the build was deleted meanwhile
            if now == manifest:
                raise
            return work(ref, now)

    def _check(self, ref: BuildRef, manifest: Manifest) -> None:
        written, now = manifest.seal.engine, f"{PACKAGE} {VERSION}"
        if written.rpartition(".")[0] != now.rpartition(".")[0]:
            raise DamagedBuildError(
                f"build {ref} was written by {written}; {now} is installed",
                hint=f"Install {written.replace(' ', '==')}, or ingest all files of the build again with "
                "`qaserve ingest --replace`.",
            )
        with map_errors(f"build {ref} in {self.where}"):
            for name, sealed in manifest.files.items():
                path = self._folder(ref) / name
                if not path.is_file():
                    raise damaged(ref, f"{path} is missing")
                if path.name not in REWRITTEN and path.stat().st_size != sealed.size:
                    raise damaged(ref, f"{path} has {path.stat().st_size:,} bytes; it was sealed with {sealed.size:,}")

    def _open(self, ref: BuildRef, manifest: Manifest) -> EdgeBuild:
        self._check(ref, manifest)
        folder, place = self._folder(ref), f"build {ref} in {self.where}"
        with map_errors(place):
            held = OpenFolder(folder)
            shard = edge.EdgeShard.load(str(held.path / SHARD))
            points = shard.count(edge.CountRequest(exact=True))
        if points != manifest.seal.points:
            shard.close()  # before its folder is let go of
            raise damaged(ref, f"{folder} holds {points:,} points; it was sealed with {manifest.seal.points:,}")
        return EdgeBuild(manifest, shard, place, held)

    def verify(self, ref: BuildRef) -> Seal:
        """See `Store`."""
        folder, manifest = self._folder(ref), self._manifest(ref)
        for name, sealed in manifest.files.items():
            with map_errors(str(folder / name)):
                if not (folder / name).is_file():
                    raise damaged(ref, f"{folder / name} is missing")
                if seal_file(folder / name) != sealed:
                    raise damaged(ref, f"{folder / name} has changed since it was sealed")
        if self.open(ref).content_hash() != manifest.seal.content_hash:
            raise damaged(ref, f"{folder} does not hold what was written to it")
        return manifest.seal

    def delete(self, ref: BuildRef) -> None:
        """See `Store`."""
        folder = self._folder(ref)
        if self.live_builds().get(ref.corpus) == ref.build:
            raise UsageError(f"build {ref} is live", hint="Make another build live first: `qaserve builds activate`.")
        if not (folder / SHARD).is_dir():
            raise not_found(ref, self.where)
        with map_errors(str(folder)):
            leftover = folder.with_name(f".{folder.name}.deleted")
            shutil.rmtree(leftover, ignore_errors=True)  # of an interrupted deletion of the same build
            folder.rename(leftover)
            sync_folder(folder.parent)
            remove_tree(leftover)
        failpoint("build removed")

    def unfinished(self, corpus: str) -> list[str]:
        """See `Store`."""
        return sorted({found["build"] for _, found in self._leftovers(corpus)})

    def remove_unfinished(self, corpus: str) -> list[str]:
        """See `Store`."""
        removed = self.unfinished(corpus)
        for path, _ in self._leftovers(corpus):
            with map_errors(str(path)):
                remove_tree(path)
        return removed

    def _leftovers(self, corpus: str) -> list[tuple[Path, re.Match[str]]]:
        with map_errors(self.where):
            found = [(path, LEFTOVER.fullmatch(path.name)) for path in self._corpus(corpus).glob(".*") if path.is_dir()]
        return [(path, match) for path, match in found if match is not None]

    # Folders

    def _corpora(self) -> list[Path]:
        with suppress(FileNotFoundError):
            found = [folder for folder in self._data.iterdir() if folder.is_dir() and NAME.fullmatch(folder.name)]
            return sorted(folder for folder in found if not folder.name.endswith(DOCUMENTS_SUFFIX))
        return []

    def _corpus(self, corpus: str) -> Path:
        if not NAME.fullmatch(corpus):
            raise BuildNotFoundError(f"no corpus {corpus!r} in {self.where}", hint="`qaserve builds list` shows them.")
        return self._data / corpus

    def _folder(self, ref: BuildRef) -> Path:
        if not NAME.fullmatch(ref.build):
            raise not_found(ref, self.where)
        return self._corpus(ref.corpus) / ref.build

    def _manifest(self, ref: BuildRef) -> Manifest:
        path = self._folder(ref) / MANIFEST
        data = None
        with map_errors(str(path)):
            for _ in range(2):  # another process may delete the build now, or put it in place
                with suppress(FileNotFoundError):
                    data = path.read_bytes()
                    break
                if not (path.parent / SHARD).is_dir():
                    raise not_found(ref, self.where)
        if data is None:
            raise damaged(ref, f"{path} is missing")
        try:
            manifest = Manifest.from_bytes(data)
        except (ValueError, ValidationError) as error:
            raise damaged(ref, f"{path} cannot be read: {str(error).splitlines()[0]}") from error
        if manifest.metadata.ref != ref:
            raise StoreError(
                f"{path.parent} holds build {manifest.metadata.ref}",
                hint="The folder was renamed or copied: give it its own name again.",
            )
        return manifest


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


def _content_hash(shard: edge.EdgeShard, place: str) -> ContentHash:
    content = ContentHash()
    for records in _pages(shard, place, EVERYWHERE, vectors=True):
        for record in records:
            content.add(from_record(record), words_of(record))
    return content


def _config(metadata: BuildMetadata) -> edge.EdgeConfig:
    """Unit vectors are compared by their dot product, which is their cosine: so they are stored bit for bit.

    Cold: a vector comes into memory when it is first compared; else opening reads 32 MiB for each vector name.
    """
    vector = edge.EdgeVectorParams(
        size=metadata.encoder.dimension, distance=edge.Distance.Dot, memory=edge.Memory.Cold, hnsw_config=CONFIG
    )
    return edge.EdgeConfig(
        optimizers=edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1),
        vectors=dict.fromkeys(metadata.layout.vectors, vector),
        sparse_vectors={WORDS: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        wal_enabled=False,
    )


def _index(field: str, kind: edge.PayloadSchemaType) -> edge.UpdateOperation:
    return edge.UpdateOperation.create_field_index(field, kind)
