"""How two builds of a corpus differ."""

from pathlib import Path

from pydantic import Field

from ingest.cluster_diff import Grouping, match, regroup
from ingest.compare import compare
from ingest.report import list_edits, listed
from qaserve.builds.bundle import read_manifest
from qaserve.builds.catalog import list_builds
from qaserve.common.errors import NotFoundError
from qaserve.common.text import did_you_mean
from qaserve.schemas.builds import BuildInfo
from qaserve.schemas.ingest import Edit, ListedPair, Regrouping
from qaserve.schemas.pairs import Pair
from qaserve.schemas.record import Record
from qaserve.store import BuildRef, Store
from qaserve.store.points import to_pair


class BuildDiff(Record):
    """What it takes to get from one build to another."""

    corpus: str
    before: BuildInfo
    after: BuildInfo
    added: tuple[ListedPair, ...]
    updated: tuple[ListedPair, ...]
    removed: tuple[ListedPair, ...]
    unchanged: int
    edits: tuple[Edit, ...] = Field(description="The first of the updated pairs: what differs.")
    clusters: Regrouping | None = Field(description="Null: the bundle of one of the two is broken.")


def diff(store: Store, models_dir: Path, corpus: str, before: str, after: str) -> BuildDiff:
    """How two builds of a corpus differ. Vectors are not compared.

    Raises:
        NotFoundError: There is no such build.
    """
    infos = {info.build: info for info in list_builds(store, models_dir, corpus)}
    for build in (before, after):
        if build not in infos:
            hint = did_you_mean(build, infos) or "`qaserve builds list` shows them."
            raise NotFoundError(f"no build {build!r} of corpus {corpus!r}", hint=hint)
    (old, old_labels), (new, new_labels) = (_read(store, BuildRef(corpus, build)) for build in (before, after))
    changes = compare(new, old, replace=True)
    return BuildDiff(
        corpus=corpus,
        before=infos[before],
        after=infos[after],
        added=listed(changes.added, new),
        updated=listed(changes.updated, new),
        removed=listed(changes.removed, old),
        unchanged=len(changes.unchanged),
        edits=list_edits(changes.updated, old, new),
        clusters=_regrouping(models_dir, corpus, (before, old_labels), (after, new_labels)),
    )


def _read(store: Store, ref: BuildRef) -> tuple[dict[str, Pair], dict[str, int]]:
    stored = [to_pair(point) for point in store.open(ref).scroll(vectors=())]
    return {one.id: one.pair for one in stored}, {one.id: one.cluster for one in stored}


def _regrouping(
    models_dir: Path, corpus: str, before: tuple[str, dict[str, int]], after: tuple[str, dict[str, int]]
) -> Regrouping | None:
    old, new = (read_manifest(models_dir, BuildRef(corpus, build)) for build, _ in (before, after))
    if old is None or new is None:
        return None
    first, second = Grouping(before[1], len(old.clusters)), Grouping(after[1], len(new.clusters))
    names = ([cluster.name for cluster in manifest.clusters] for manifest in (old, new))
    return regroup(first, second, match(first, second), *names)
