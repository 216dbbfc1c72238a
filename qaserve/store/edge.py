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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import qdrant_edge as edge
from pydantic import ValidationError

from qaserve.common.errors import BuildNotFoundError, DamagedBuildError, StoreError, UsageError
from qaserve.common.failpoints import failpoint
from qaserve.common.files import sync_file, sync_folder

from .base import DOCUMENTS_SUFFIX, BuildMetadata, BuildRef, Seal, Store
from .build_files import (
    MANIFEST,
    REWRITTEN,
    SHARD,
    Manifest,
    OpenFolder,
    remove_tree,
    seal_file,
)
from .edge_build import EdgeBuild
from .edge_writer import ENGINE, EdgeWriter
from .errors import damaged, map_errors, not_found

T = TypeVar("T")

LIVE = "live"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LEFTOVER = re.compile(r"\.(?P<build>[A-Za-z0-9].*)\.(unfinished|deleted)")
OLD_FOLDER = "qdrant"
"""Where version 0.1 kept its builds, in the data folder."""


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
        written, now = manifest.seal.engine, ENGINE
        if written.rpartition(".")[0] != now.rpartition(".")[0]:
            raise DamagedBuildError(
                f"build {ref} was written by {written}; {now} is installed",
                hint=f"Install {written.replace(' ', '==')}, or ingest all files of the build again with "
                "`qaserve ingest --replace`.",
            )
        folder = self._folder(ref)
        with map_errors(f"build {ref} in {self.where}"):
            for name, sealed in manifest.files.items():
                path = folder / name
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
        if not held.is_in_place():  # the engine may have met files missing, and made them anew
            shard.close()
            raise StoreError(f"{folder} was deleted or written again while it was opened", hint="Open it again.")
        if points != manifest.seal.points:
            shard.close()  # before its folder is let go of
            raise damaged(ref, f"{folder} holds {points:,} points; it was sealed with {manifest.seal.points:,}")
        return EdgeBuild(manifest, shard, place, held)

    def verify(self, ref: BuildRef) -> Seal:
        """See `Store`."""
        folder, manifest = self._folder(ref), self._manifest(ref)
        self._check(ref, manifest)
        for name, sealed in manifest.files.items():
            with map_errors(str(folder / name)):
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
            raise BuildNotFoundError(
                f"no corpus {corpus!r} in {self.where}", hint="List the builds to see which there are."
            )
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
