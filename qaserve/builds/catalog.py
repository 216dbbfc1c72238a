"""Builds as wholes: points in a store and a bundle that share one id."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from qaserve.builds import bundle as bundles
from qaserve.common.errors import (
    BuildNotFoundError,
    BundleError,
    DamagedBuildError,
    EncoderMismatchError,
    NotFoundError,
)
from qaserve.common.files import writing
from qaserve.common.locks import LOCKED, corpus_lock
from qaserve.common.text import did_you_mean
from qaserve.schemas.builds import LEAST_AGREEMENT, BuildInfo, EncoderIdentity
from qaserve.store import Build, BuildMetadata, BuildRef, Store
from qaserve.store.errors import damaged

T = TypeVar("T")

UNFINISHED = ".unfinished"
"""Ends the name of a mark: an empty file, beside the lock, of a build that is being written or deleted."""


def check_complete(store: Store, models_dir: Path, metadata: BuildMetadata, *, at_sight: bool = False) -> None:
    """Check that all points of a build and of its documents can be read, and that its bundle is the one it had.

    Args:
        store: Where the points are.
        models_dir: Where the bundle is.
        metadata: Of the build.
        at_sight: Do not open the points, which takes tens of milliseconds; their files are looked at.

    Raises:
        DamagedBuildError: Points are missing or damaged.
        BundleError: The bundle is missing or another.
    """
    if at_sight:
        store.check(metadata.ref)
        if metadata.sections:
            _whole(store, metadata.ref, lambda: store.check(metadata.ref.documents))
    else:
        store.open(metadata.ref)
        open_documents(store, metadata)
    manifest = bundles.folder_of(models_dir, metadata.ref) / bundles.MANIFEST
    try:
        found = hashlib.sha256(manifest.read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(
            f"build {metadata.ref}: {manifest} cannot be read: {error.strerror}", hint=bundles.HINT
        ) from error
    if found != metadata.bundle_hash:
        raise BundleError(
            f"build {metadata.ref}: its bundle has hash {found[:12]}…; it was written with "
            f"{metadata.bundle_hash[:12]}…",
            hint=bundles.HINT,
        )


def open_documents(store: Store, metadata: BuildMetadata) -> Build | None:
    """The sections of a build's documents; None where it has no documents.

    Raises:
        DamagedBuildError: They are missing or damaged.
        BuildNotFoundError: The build has been deleted meanwhile.
    """
    return None if not metadata.sections else _whole(store, metadata.ref, lambda: store.open(metadata.ref.documents))


def _whole(store: Store, ref: BuildRef, work: Callable[[], T]) -> T:
    """Do something with a build's documents, which are there as long as the build is."""
    try:
        return work()
    except BuildNotFoundError as error:
        store.metadata(ref)  # raises BuildNotFoundError where all of it is gone
        raise damaged(ref, f"its documents are not in {store.where}") from error


def is_complete(store: Store, models_dir: Path, metadata: BuildMetadata, *, at_sight: bool = False) -> bool:
    """Whether `check_complete` finds nothing wrong."""
    try:
        check_complete(store, models_dir, metadata, at_sight=at_sight)
    except (DamagedBuildError, BuildNotFoundError, BundleError):
        return False
    return True


def check_encoder(metadata: BuildMetadata, encoder: EncoderIdentity) -> None:
    """Raise EncoderMismatchError, with both named, where a build's vectors are not comparable with the encoder's.

    They are when both are of one model and one backend, or of two backends that agree on the fixed texts.
    """
    own = metadata.encoder
    if own.comparable(encoder):
        return
    said = f"build {metadata.build} of corpus {metadata.corpus!r} was made with {own}; the setting is {encoder}"
    bound = own.cosine_bound(encoder)
    if bound > -1:
        raise EncoderMismatchError(
            f"{said}. The cosine of the two backends may be as low as {bound:.5f}; {LEAST_AGREEMENT} is needed",
            hint=f"Set QASERVE_ENCODER_BACKEND={own.backend}, or run `qaserve ingest --re-encode`.",
        )
    raise EncoderMismatchError(
        said,
        hint=f"Set QASERVE_ENCODER to that of {own.id}, or ingest under another QASERVE_CORPUS; "
        "`qaserve ingest --re-encode` encodes the whole corpus again with the current encoder.",
    )


def list_builds(store: Store, models_dir: Path, corpus: str) -> list[BuildInfo]:
    """Every build of a corpus, newest first."""
    live = store.live_builds().get(corpus)
    return [
        BuildInfo(
            build=metadata.build,
            corpus=corpus,
            live=metadata.build == live,
            complete=is_complete(store, models_dir, metadata, at_sight=True),
            created=metadata.created,
            pairs=metadata.pairs,
            clusters=metadata.clusters,
            encoder=metadata.encoder.id,
            sources=metadata.sources,
            **_said_by_manifest(models_dir, metadata.ref),
        )
        for metadata in store.builds(corpus)
    ]


def _said_by_manifest(models_dir: Path, ref: BuildRef) -> dict[str, Any]:
    manifest = bundles.read_manifest(models_dir, ref)
    if manifest is None:
        return {}
    return {"prior": manifest.prior, "metrics": manifest.metrics, "student": manifest.student is not None}


@contextmanager
def naming_close(store: Store, ref: BuildRef) -> Iterator[None]:
    """Have the error for a build that is not there name those of the corpus whose id is nearly the same."""
    try:
        yield
    except BuildNotFoundError as error:
        error.hint = did_you_mean(ref.build, store.names(ref.corpus)) or error.hint
        raise


def activate(store: Store, models_dir: Path, ref: BuildRef, wait: float = 0.0) -> None:
    """Make a build live after reading all of it. The build that was live stays, and can be made live again.

    Args:
        store: Where the builds are.
        models_dir: Where the bundles are.
        ref: Which build.
        wait: Seconds to wait for whoever else changes the builds of the corpus.

    Raises:
        StoreLockedError: Somebody else still does.
        NotFoundError: There is no such build.
        BundleError: Its bundle is missing or corrupt.
        DamagedBuildError: Its points are damaged.
    """
    with naming_close(store, ref):
        store.metadata(ref)  # no lock, and no folder for it, where there is no such build
    with corpus_lock(models_dir, ref.corpus, f"activation in corpus {ref.corpus}", wait):
        verify(store, models_dir, ref)
        store.set_live(ref)


def verify(store: Store, models_dir: Path, ref: BuildRef) -> None:
    """Read all of a build: points, documents and bundle. Raises DamagedBuildError or BundleError, naming the damage."""
    with naming_close(store, ref):
        verify_points(store, ref)
    bundles.read(models_dir, ref)
    check_complete(store, models_dir, store.metadata(ref), at_sight=True)  # the points were opened, all of them read


def verify_points(store: Store, ref: BuildRef) -> None:
    """Read all points of a build and of its documents. Raises DamagedBuildError, naming the damage."""
    store.verify(ref)
    if store.metadata(ref).sections:
        _whole(store, ref, lambda: store.verify(ref.documents))


def prune(store: Store, models_dir: Path, corpus: str, keep: int, wait: float = 0.0) -> list[str]:
    """Delete all but the live build and the `keep` newest others; returns the builds deleted.

    Builds that are damaged beyond listing, and what interrupted runs left behind, are deleted too.

    Raises:
        NotFoundError: There is no such corpus.
        StoreLockedError: Another process still changes its builds when the waiting time is over.
    """
    if not store.names(corpus) and not store.unfinished(corpus):
        hint = did_you_mean(corpus, store.corpora()) or "`qaserve builds list` shows what there is."
        raise NotFoundError(f"no corpus {corpus!r} in {store.where}", hint=hint)
    with corpus_lock(models_dir, corpus, f"prune of corpus {corpus}", wait):
        orphaned = remove_orphans(store, models_dir, corpus)  # first: none of them is one of the `keep`
        live = store.live_builds().get(corpus)
        listed = [metadata.build for metadata in store.builds(corpus)]
        damaged = [build for build in store.names(corpus) if build not in listed]
        others = [build for build in listed if build != live]
        gone = [*others[keep:], *(build for build in damaged if build != live)]
        for build in gone:
            _delete(store, models_dir, BuildRef(corpus, build))
        return gone + orphaned


def mark_unfinished(models_dir: Path, ref: BuildRef) -> None:
    """Mark a build that is about to be written or deleted: only what is marked is removed by the next ingest.

    Raises:
        StoreWriteError: The disk is full or read-only.
    """
    mark = _mark(models_dir, ref)
    with writing(f"{mark} cannot be written", "Free some space or set QASERVE_MODELS_DIR to a writable folder."):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def unmark(models_dir: Path, ref: BuildRef) -> None:
    """Take the mark of a build away: it is whole, or gone."""
    with writing(f"{_mark(models_dir, ref)} cannot be deleted", "Make the folder writable."):
        _mark(models_dir, ref).unlink(missing_ok=True)


def unfinished(models_dir: Path, corpus: str) -> set[str]:
    """Builds that are marked as being written or deleted."""
    return {mark.stem for mark in (models_dir / corpus / LOCKED).glob(f"*{UNFINISHED}")}


def _mark(models_dir: Path, ref: BuildRef) -> Path:
    return models_dir / ref.corpus / LOCKED / f"{ref.build}{UNFINISHED}"


def orphans(store: Store, models_dir: Path, corpus: str) -> list[str]:
    """What an interrupted ingest or prune left behind: builds never sealed, and marked ones, not live nor complete.

    A sealed build that lacks something without a mark was damaged: it is kept, and `qaserve doctor` tells of it.
    """
    documents = BuildRef(corpus, "").documents.corpus
    return sorted(
        {
            *store.unfinished(corpus),
            *store.unfinished(documents),
            *_half_done(store, models_dir, corpus),
            *(set(store.names(documents)) - set(store.names(corpus))) & unfinished(models_dir, corpus),
        }
    )


def _half_done(store: Store, models_dir: Path, corpus: str) -> list[str]:
    """Sealed builds whose writing or deleting was interrupted between points and bundle."""
    marked, live = unfinished(models_dir, corpus), store.live_builds().get(corpus)
    return [
        metadata.build
        for metadata in (store.builds(corpus) if marked else [])
        if metadata.build in marked and metadata.build != live and not is_complete(store, models_dir, metadata)
    ]


def remove_orphans(store: Store, models_dir: Path, corpus: str) -> list[str]:
    """Delete the orphans of interrupted ingests and prunes; gives which they were."""
    found = orphans(store, models_dir, corpus)
    for build in _half_done(store, models_dir, corpus):
        _delete(store, models_dir, BuildRef(corpus, build))
    store.remove_unfinished(corpus)
    store.remove_unfinished(BuildRef(corpus, "").documents.corpus)
    there = set(store.names(corpus))
    for build in unfinished(models_dir, corpus):
        if build not in there:  # a bundle or documents whose points are gone
            bundles.remove(models_dir, BuildRef(corpus, build))
            _delete_documents(store, BuildRef(corpus, build))
        if build not in there or corpus in store.live_builds():
            # else the mark tells a first ingest that was interrupted from a live build that was lost
            unmark(models_dir, BuildRef(corpus, build))
    bundles.remove_leftovers(models_dir, corpus)
    return found


def _delete(store: Store, models_dir: Path, ref: BuildRef) -> None:
    # Marked first: the next ingest finishes what a crash interrupts.
    mark_unfinished(models_dir, ref)
    bundles.remove(models_dir, ref)
    store.delete(ref)
    _delete_documents(store, ref)
    unmark(models_dir, ref)


def _delete_documents(store: Store, ref: BuildRef) -> None:
    with suppress(BuildNotFoundError):
        store.delete(ref.documents)
