"""Copying builds from one Qdrant to another: embedded to a server, and back.

The bundles stay where they are; only collections are copied. A copy that was interrupted goes on where it was, is
compared with its original before anything points at it, and the alias moves last.
"""

import hashlib
import json
from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qaserve.common.errors import NotFoundError, StoreError
from qaserve.common.progress import Advance, Reporter
from qaserve.schemas.record import Record
from qaserve.store.points import PairVectors
from qaserve.store.qdrant import PAGE, CollectionInfo, Store

TOLERANCE = 1e-6
"""By so much a component of a vector may differ: Qdrant normalises vectors when it stores them, embedded and server
each in its own way, which can change their last bits."""


class MovedBuild(Record):
    """A build that is now in both places."""

    build: str
    pairs: int
    copied: int = Field(description="Pairs written now; the rest was there from an earlier, interrupted move.")
    fingerprint: str = Field(description="SHA-256 over ids, payloads and vectors, equal in both places.")


class MoveReport(Record):
    """What a move did."""

    corpus: str
    source: str
    target: str
    builds: tuple[MovedBuild, ...] = Field(description="Oldest first.")
    live: str | None = Field(description="The build that is live in the target; null: none.")


def move(source: Store, target: Store, corpus: str, reporter: Reporter, *, everything: bool = False) -> MoveReport:
    """Copy the live build, or all builds, and make the same one live in the target.

    Args:
        source: Where the builds are; nothing is changed there.
        target: Where they are copied to. Other builds that it holds stay; one of the same id is completed.
        corpus: Whose builds.
        reporter: Shows how far it is.
        everything: All builds, not only the live one.

    Raises:
        NotFoundError: There is nothing to copy.
        StoreError: A copy is not equal to its original: it has been deleted again, and the target's alias stays.
    """
    live = source.live_builds().get(corpus)
    chosen = [info for info in reversed(source.builds(corpus)) if everything or info.build == live]
    if not chosen:
        raise NotFoundError(
            f"corpus {corpus!r} has no {'build' if everything else 'live build'} in {source.where}",
            hint="`qaserve builds list` shows what there is.",
        )
    moved = tuple(_copy(source, target, info, reporter) for info in chosen)
    if live is not None:
        target.activate(corpus, live)
    return MoveReport(
        corpus=corpus,
        source=source.where,
        target=target.where,
        builds=moved,
        live=target.live_builds().get(corpus),
    )


def _copy(source: Store, target: Store, info: CollectionInfo, reporter: Reporter) -> MovedBuild:
    place = info.corpus, info.build
    if info.build not in {found.build for found in target.builds(info.corpus)}:
        target.create(info)
    copied = 0
    with reporter.stage(f"Copying {info.build} (pairs)", info.pairs) as advance:
        for page in _pages(source, info):
            there = target.points(*place, [row.stored.id for row in page])
            missing = [row for row in page if row.stored.id not in there]
            copied += sum(target.write(*place, missing))
            advance(len(page))
    with reporter.stage(f"Comparing {info.build} (pairs)", info.pairs) as advance:
        counts = [store.count(*place) for store in (source, target)]
        prints = _fingerprints(source, target, info, advance) if counts[0] == counts[1] else ("", "")
    if counts[0] != counts[1] or prints[0] != prints[1]:
        if target.live_builds().get(info.corpus) != info.build:
            target.delete(*place)
        raise StoreError(
            f"the copy of build {info.build} in {target.where} is not its original: {counts[1]:,} pairs with "
            f"fingerprint {prints[1][:12] or '-'} there, {counts[0]:,} with {prints[0][:12] or '-'} in {source.where}",
            hint="What is live stays; the copy is deleted unless it is that. Move again, while nothing else writes.",
        )
    return MovedBuild(build=info.build, pairs=counts[0], copied=copied, fingerprint=prints[0])


def _pages(source: Store, info: CollectionInfo) -> Iterator[list[PairVectors]]:
    rows = source.scroll(info.corpus, info.build)
    while page := list(islice(rows, PAGE)):
        yield page


def _fingerprints(source: Store, target: Store, info: CollectionInfo, advance: Advance) -> tuple[str, str]:
    """Of the original, and of the copy; where a component of it differs within the tolerance, the original's counts."""
    original, copy = hashlib.sha256(), hashlib.sha256()
    for page in _pages(source, info):
        there = target.points(info.corpus, info.build, [row.stored.id for row in page])
        for row in page:
            original.update(_bytes_of(row))
            found = there.get(row.stored.id)
            if found is not None:
                question, answer = _snapped(found.question, row.question), _snapped(found.answer, row.answer)
                copy.update(_bytes_of(PairVectors(found.stored, question, answer)))
        advance(len(page))
    return original.hexdigest(), copy.hexdigest()


def _snapped(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.abs(found - wanted) <= TOLERANCE, wanted, found)


def _bytes_of(row: PairVectors) -> bytes:
    stored = json.dumps(row.stored.model_dump(mode="json"), sort_keys=True, ensure_ascii=False).encode()
    return b"\n".join((stored, row.question.tobytes(), row.answer.tobytes()))
