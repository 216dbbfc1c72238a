"""Writes a build of Qdrant Edge."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from qaserve.common.errors import StoreWriteError
from qaserve.common.failpoints import failpoint
from qaserve.common.files import sync_folder

from .base import WORDS, BuildMetadata, OnGraphs, Point, Seal, Writer
from .build_files import MANIFEST, SHARD, Manifest, seal_files, sync_tree
from .edge_build import PAGE, content_hash
from .errors import map_errors
from .graphs import CONFIG, make_graphs
from .points import Intake

PACKAGE = "qdrant-edge-py"
ENGINE = f"{PACKAGE} {packages.version(PACKAGE)}"
"""As a seal names it."""
FREE_BYTES = 64 << 20
"""Kept free while writing: Edge maps its files, and a mapped file on a full disk ends the process."""


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
                self._intake.content = content_hash(self._shard, str(folder))
                self.last = self._intake.content.last
            else:
                shutil.rmtree(folder, ignore_errors=True)
                (folder / SHARD).mkdir(parents=True)
                self._shard = edge.EdgeShard.create(str(folder / SHARD), _config(metadata))
                for name in metadata.layout.keywords:
                    self._shard.update(_index(name, edge.PayloadSchemaType.Keyword))
                for name in metadata.layout.integers:
                    self._shard.update(_index(name, edge.IntegerIndexParams(lookup=True, range=False)))
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

    @property
    def content_hash(self) -> str:
        """See `Writer`."""
        return self._intake.content.hexdigest()

    def seal(self) -> Seal:
        """See `Writer`."""
        with map_errors(str(self._folder)):
            self._shard.flush()
            self._shard.close()
            # Opening a fresh shard folds its journals in; after that, reading changes no file.
            self._shard = edge.EdgeShard.load(str(self._folder / SHARD))
            stored = self._shard.count(edge.CountRequest(exact=True))
            self._shard.close()
            seal = self._intake.sealed(stored, ENGINE)
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
        max_search_threads=1,  # more search neither one segment sooner, nor the two that graphs leave
        wal_enabled=False,
    )


def _index(field: str, kind: edge.PayloadSchemaType | edge.IntegerIndexParams) -> edge.UpdateOperation:
    return edge.UpdateOperation.create_field_index(field, kind)
