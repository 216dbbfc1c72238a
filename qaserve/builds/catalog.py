"""Builds as wholes: a collection and a bundle that share one id."""

import hashlib
from pathlib import Path
from typing import Any

from qaserve.builds import bundle as bundles
from qaserve.common.errors import EncoderMismatchError, NotFoundError, StoreError, UsageError
from qaserve.common.files import writing
from qaserve.schemas.builds import LEAST_AGREEMENT, BuildInfo, EncoderIdentity
from qaserve.store.locks import LOCKED, corpus_lock
from qaserve.store.qdrant import CollectionInfo, Store

UNFINISHED = ".unfinished"
"""Ends the name of a mark: an empty file, beside the lock, of a build that is being written or deleted."""


def is_complete(store: Store, models_dir: Path, info: CollectionInfo) -> bool:
    """Whether all pairs are in the collection and the bundle's manifest is the one they were written with."""
    manifest = bundles.folder_of(models_dir, info.corpus, info.build) / bundles.MANIFEST
    try:
        found = hashlib.sha256(manifest.read_bytes()).hexdigest()
    except OSError:
        return False
    return found == info.bundle_hash and store.count(info.corpus, info.build) == info.pairs


def check_count(store: Store, info: CollectionInfo) -> None:
    """Raise StoreError where a build's collection does not hold as many pairs as were written."""
    found = store.count(info.corpus, info.build)
    if found != info.pairs:
        raise StoreError(
            f"build {info.build} of corpus {info.corpus!r} is damaged: {found:,} of its {info.pairs:,} pairs are in "
            f"{store.where}",
            hint="`qaserve ingest` with the same files puts back what is missing; "
            "`qaserve builds activate` goes back to another build.",
        )


def check_encoder(info: CollectionInfo, encoder: EncoderIdentity) -> None:
    """Raise EncoderMismatchError, with both named, where a build's vectors are not comparable with the encoder's.

    They are when both are of one model and one backend, or of two backends that agree on the fixed texts.
    """
    if not info.encoder.comparable(encoder):
        bound = info.encoder.cosine_bound(encoder)
        if bound > -1:
            raise EncoderMismatchError(
                f"build {info.build} of corpus {info.corpus!r} was made with {info.encoder}; the setting is {encoder}. "
                f"The cosine of the two backends may be as low as {bound:.5f}; {LEAST_AGREEMENT} is needed",
                hint=f"Set QASERVE_ENCODER_BACKEND={info.encoder.backend}, or run `qaserve ingest --re-encode`.",
            )
        raise EncoderMismatchError(
            f"build {info.build} of corpus {info.corpus!r} was made with {info.encoder}; the setting is {encoder}",
            hint=f"Set QASERVE_ENCODER to that of {info.encoder.id}, or ingest under another "
            "QASERVE_CORPUS; `qaserve ingest --re-encode` encodes the whole corpus anew with the encoder of now.",
        )


def list_builds(store: Store, models_dir: Path, corpus: str) -> list[BuildInfo]:
    """Every build of a corpus, newest first."""
    live = store.live_builds().get(corpus)
    return [
        BuildInfo(
            build=info.build,
            corpus=corpus,
            live=info.build == live,
            complete=is_complete(store, models_dir, info),
            created=info.created,
            pairs=info.pairs,
            clusters=info.clusters,
            encoder=info.encoder.id,
            sources=info.sources,
            **_said_by_manifest(models_dir, info),
        )
        for info in store.builds(corpus)
    ]


def _said_by_manifest(models_dir: Path, info: CollectionInfo) -> dict[str, Any]:
    manifest = bundles.read_manifest(models_dir, info.corpus, info.build)
    if manifest is None:
        return {}
    return {"prior": manifest.prior, "metrics": manifest.metrics, "student": manifest.student is not None}


def activate(store: Store, models_dir: Path, corpus: str, build: str, wait: float = 0.0) -> None:
    """Make a build live after checking it. The build that was live stays, and can be made live again.

    Args:
        store: Where the builds are.
        models_dir: Where the bundles are.
        corpus: Whose builds.
        build: Which.
        wait: Seconds to wait for whoever else changes the builds of the corpus.

    Raises:
        StoreLockedError: Somebody else still does.
        NotFoundError: There is no such build.
        BundleError: Its bundle is missing or corrupt.
        UsageError: Its collection is not complete.
    """
    store.info(corpus, build)  # no lock, and no folder for it, where there is no such build
    with corpus_lock(models_dir, corpus, f"activation in corpus {corpus}", wait):
        info = store.info(corpus, build)
        bundles.read(models_dir, corpus, build)
        if not is_complete(store, models_dir, info):
            raise UsageError(
                f"build {build} is not complete: {store.count(corpus, build)} of {info.pairs} pairs are in its "
                "collection",
                hint="`qaserve ingest` with the same files completes it.",
            )
        store.activate(corpus, build)


def prune(store: Store, models_dir: Path, corpus: str, keep: int, wait: float = 0.0) -> list[str]:
    """Delete all but the live build and the `keep` newest others; returns the builds deleted.

    Files of builds that the embedded Qdrant does not list are deleted too.

    Raises:
        NotFoundError: There is no such corpus.
        StoreLockedError: Somebody else still changes its builds, after so many seconds of waiting.
    """
    if not store.builds(corpus) and not store.unlisted(corpus):
        raise NotFoundError(f"no corpus {corpus!r} in {store.where}", hint="`qaserve builds list` shows what there is.")
    with corpus_lock(models_dir, corpus, f"prune of corpus {corpus}", wait):
        others = [info for info in list_builds(store, models_dir, corpus) if not info.live]
        gone = [*(info.build for info in others[keep:]), *store.unlisted(corpus)]
        for build in gone:
            _delete(store, models_dir, corpus, build)
        bundles.remove_leftovers(models_dir, corpus)
    return gone


def mark_unfinished(models_dir: Path, corpus: str, build: str) -> None:
    """Mark a build that is about to be written or deleted: only what is marked is ever tidied away.

    Raises:
        StoreWriteError: The disk is full or read-only.
    """
    mark = _mark(models_dir, corpus, build)
    with writing(f"{mark} cannot be written", "Free some space or set QASERVE_MODELS_DIR to a writable folder."):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def unmark(models_dir: Path, corpus: str, build: str) -> None:
    """Take the mark of a build away: it is whole, or gone."""
    with writing(f"{_mark(models_dir, corpus, build)} cannot be deleted", "Make the folder writable."):
        _mark(models_dir, corpus, build).unlink(missing_ok=True)


def unfinished(models_dir: Path, corpus: str) -> set[str]:
    """Builds that are marked as being written or deleted."""
    return {mark.stem for mark in (models_dir / corpus / LOCKED).glob(f"*{UNFINISHED}")}


def _mark(models_dir: Path, corpus: str, build: str) -> Path:
    return models_dir / corpus / LOCKED / f"{build}{UNFINISHED}"


def orphans(store: Store, models_dir: Path, corpus: str) -> list[str]:
    """What an interrupted ingest or prune left behind: builds that are marked, not live, and not complete.

    A build that lacks something without a mark was damaged: it is kept, and `qaserve doctor` tells of it.
    """
    marked, live = unfinished(models_dir, corpus), store.live_builds().get(corpus)
    listed = [
        info.build
        for info in (store.builds(corpus) if marked else [])
        if info.build in marked and info.build != live and not is_complete(store, models_dir, info)
    ]
    return listed + [build for build in store.unlisted(corpus) if build in marked]


def remove_orphans(store: Store, models_dir: Path, corpus: str) -> list[str]:
    """Delete the orphans of interrupted ingests and prunes; gives which they were."""
    found = orphans(store, models_dir, corpus)
    for build in found:
        _delete(store, models_dir, corpus, build)
    if corpus in store.live_builds():  # else the mark tells a first ingest that was interrupted from a lost alias
        for build in unfinished(models_dir, corpus):
            unmark(models_dir, corpus, build)
    bundles.remove_leftovers(models_dir, corpus)
    return found


def _delete(store: Store, models_dir: Path, corpus: str, build: str) -> None:
    # Marked first: the next ingest finishes what a crash interrupts.
    mark_unfinished(models_dir, corpus, build)
    bundles.remove(models_dir, corpus, build)
    store.delete(corpus, build)
    unmark(models_dir, corpus, build)
