"""Builds as wholes: a collection and a bundle that share one id."""

import hashlib
from pathlib import Path
from typing import Any

from qaserve.builds import bundle as bundles
from qaserve.common.errors import EncoderMismatchError, NotFoundError, UsageError
from qaserve.schemas.builds import LEAST_AGREEMENT, BuildInfo, EncoderIdentity
from qaserve.store.locks import corpus_lock
from qaserve.store.qdrant import CollectionInfo, Store


def is_complete(store: Store, models_dir: Path, info: CollectionInfo) -> bool:
    """Whether all pairs are in the collection and the bundle's manifest is the one they were written with."""
    manifest = bundles.folder_of(models_dir, info.corpus, info.build) / bundles.MANIFEST
    try:
        found = hashlib.sha256(manifest.read_bytes()).hexdigest()
    except OSError:
        return False
    return found == info.bundle_hash and store.count(info.corpus, info.build) == info.pairs


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
    return {} if manifest is None else manifest.model_dump(include={"prior", "metrics"})


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
                hint="It is left over from an interrupted ingest; ingest the files again.",
            )
        store.activate(corpus, build)


def prune(store: Store, models_dir: Path, corpus: str, keep: int, wait: float = 0.0) -> list[str]:
    """Delete all but the live build and the `keep` newest others; returns the builds deleted.

    Raises:
        NotFoundError: There is no such corpus.
        StoreLockedError: Somebody else still changes its builds, after so many seconds of waiting.
    """
    if not store.builds(corpus):
        raise NotFoundError(f"no corpus {corpus!r} in {store.where}", hint="`qaserve builds list` shows what there is.")
    with corpus_lock(models_dir, corpus, f"prune of corpus {corpus}", wait):
        others = [info for info in list_builds(store, models_dir, corpus) if not info.live]
        gone = [info.build for info in others[keep:]]
        for build in gone:
            _delete(store, models_dir, corpus, build)
        bundles.remove_leftovers(models_dir, corpus)
    return gone


def orphans(store: Store, models_dir: Path, corpus: str) -> list[str]:
    """What an interrupted ingest left behind: builds that are not live and lack pairs or their bundle.

    A bundle without a collection is none: it may belong to another Qdrant that shares the models folder. There is none
    while the live build has no bundle either: the folder of bundles is then most likely the wrong one.
    """
    live = store.live_builds().get(corpus)
    if live is not None and not (bundles.folder_of(models_dir, corpus, live) / bundles.MANIFEST).is_file():
        return []
    return [
        info.build for info in store.builds(corpus) if info.build != live and not is_complete(store, models_dir, info)
    ]


def remove_orphans(store: Store, models_dir: Path, corpus: str) -> list[str]:
    """Delete the orphans of interrupted ingests; gives which they were."""
    found = orphans(store, models_dir, corpus)
    for build in found:
        _delete(store, models_dir, corpus, build)
    bundles.remove_leftovers(models_dir, corpus)
    return found


def _delete(store: Store, models_dir: Path, corpus: str, build: str) -> None:
    # Bundle first: a crash in between leaves an incomplete build, which the next ingest removes.
    bundles.remove(models_dir, corpus, build)
    store.delete(corpus, build)
