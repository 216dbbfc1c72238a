"""Copying builds from one store to another: embedded to a server, and back.

The bundles stay where they are; only points are copied. An interrupted copy goes on where it was. A copy is sealed only
when its hash over ids, payloads and vectors is that of the original, and the target's live build changes last.
"""

from collections.abc import Iterator

from pydantic import Field

from qaserve.common.errors import BuildNotFoundError, NotFoundError, StoreError
from qaserve.common.progress import Advance, Reporter
from qaserve.schemas.record import Record
from qaserve.store import Build, BuildMetadata, BuildRef, Point, Store


class CopiedBuild(Record):
    """A build that is now in both places."""

    build: str
    pairs: int
    copied: int = Field(description="Pairs written now; the rest was there from an earlier copy.")
    content_hash: str = Field(description="SHA-256 over ids, payloads and vectors, equal in both places.")


class CopyReport(Record):
    """What a copy did."""

    corpus: str
    source: str
    target: str
    builds: tuple[CopiedBuild, ...] = Field(description="Oldest first.")
    live: str | None = Field(description="The build that is live in the target; null: none.")


def copy(source: Store, target: Store, corpus: str, reporter: Reporter, *, everything: bool = False) -> CopyReport:
    """Copy the live build, or all builds, and make the same one live in the target.

    Args:
        source: Where the builds are; nothing is changed there.
        target: Where they are copied to. Its other builds stay.
        corpus: Whose builds.
        reporter: Shows how far it is.
        everything: All builds, not only the live one.

    Raises:
        NotFoundError: There is nothing to copy.
        StoreError: A build is damaged, or its copy is not equal to it: the copy is deleted, the target's live build
            stays.
    """
    live = source.live_builds().get(corpus)
    chosen = [found for found in reversed(source.builds(corpus)) if everything or found.build == live]
    if not chosen:
        raise NotFoundError(
            f"corpus {corpus!r} has no {'build' if everything else 'live build'} in {source.where}",
            hint="`qaserve builds list` shows what there is.",
        )
    copied = tuple(_copy_whole(source, target, metadata, reporter) for metadata in chosen)
    if live is not None:
        target.set_live(BuildRef(corpus, live))
    return CopyReport(
        corpus=corpus,
        source=source.where,
        target=target.where,
        builds=copied,
        live=target.live_builds().get(corpus),
    )


def _copy_whole(source: Store, target: Store, metadata: BuildMetadata, reporter: Reporter) -> CopiedBuild:
    """Copy the documents of a build, then the build."""
    if metadata.sections:
        _copy(source, target, source.metadata(metadata.ref.documents), reporter)
    return _copy(source, target, metadata, reporter)


def _copy(source: Store, target: Store, metadata: BuildMetadata, reporter: Reporter) -> CopiedBuild:
    ref, original, copied = metadata.ref, source.open(metadata.ref), 0
    if not _is_there(target, ref, original):
        # Not as a context manager: what was copied before an interruption stays, and the next copy goes on.
        writer = target.create(metadata, resume=True)
        with reporter.stage(f"Copying {metadata.build} (pairs)", metadata.pairs) as advance:
            copied = sum(writer.append(_rest(original, writer.last, advance)))
        writer.make_graphs(lambda vectors: reporter.stage("Making HNSW graphs (vectors)", vectors))
        if writer.content_hash != original.seal.content_hash:
            found = writer.content_hash
            writer.discard()
            raise StoreError(
                f"the copy of build {ref} in {target.where} has content hash {found[:12]}…; its "
                f"original in {source.where} was sealed with {original.seal.content_hash[:12]}…",
                hint="`qaserve verify` says what is damaged. The copy is deleted, unless it is live.",
            )
        writer.seal()
    with reporter.stage(f"Comparing {metadata.build} (pairs)", None):
        seal = target.verify(ref)
    return CopiedBuild(build=metadata.build, pairs=metadata.pairs, copied=copied, content_hash=seal.content_hash)


def _is_there(target: Store, ref: BuildRef, original: Build) -> bool:
    """Whether the target holds the same build, sealed and with all points."""
    try:
        return target.open(ref).seal.content_hash == original.seal.content_hash
    except (BuildNotFoundError, StoreError):
        return False


def _rest(original: Build, last: str | None, advance: Advance) -> Iterator[Point]:
    """The points after the last one that is there."""
    for point in original.scroll():
        advance(1)
        if last is None or point.id > last:
            yield point
