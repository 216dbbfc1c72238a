"""Clusters that stay the same from build to build.

Where the live build's clusters still fit, a new answer joins the nearest one and no other pair moves. Where they no
longer fit (`ingest.drift`), K-means starts from the live clusters' mean answers, and the clusters it finds are matched
one to one with the live ones by the pairs they share, so that numbers and names go on. A corpus that shares less than
half of its pairs with the live build is clustered from scratch, exactly as if there were none, and then matched; so is
one whose live bundle is broken.

So history matters: a corpus that grew may have other clusters than the same pairs ingested at once. `qaserve fit`
clusters again in the same way; ingesting into an empty corpus gives what the pairs alone give.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus

from ingest.cluster_diff import Grouping, match, numbered, regroup
from ingest.corpus import Corpus, LiveBuild
from ingest.drift import centroids, clustering_of, measure_drift
from qaserve.builds.manifest import Clustering, Manifest
from qaserve.core.chunked import distances, nearest
from qaserve.core.clustering import cluster_answers, cluster_count, clustered, kmeans_labels
from qaserve.schemas.ingest import ClusterChanges, Drift
from qaserve.settings import FitSettings

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Clusters:
    """The clusters of a build to be."""

    labels: Labels
    """(n,) 0 … K-1."""
    count: int
    """K."""
    made: Clustering
    """The figures of the day when they were made."""
    origins: Mapping[int, int] = field(default_factory=dict)
    """Which live cluster a cluster goes on from."""
    live: LiveBuild | None = None
    kept: bool = False
    """Whether they are the live clusters, which new pairs joined."""
    drift: Drift | None = None

    @property
    def names(self) -> dict[int, str]:
        """The names of the live clusters that go on."""
        before = () if self.live is None else self.live.cluster_names
        return {now: before[was] for now, was in self.origins.items() if was < len(before)}


def make_clusters(
    corpus: Corpus, live: LiveBuild | None, fit: FitSettings, *, comparable: bool = True, recluster: bool = False
) -> Clusters:
    """The clusters of a corpus; see the module.

    Args:
        corpus: The pairs of the build to be, with their vectors.
        live: The build before it.
        fit: How a build is fitted.
        comparable: Whether the live vectors are of the same encoder.
        recluster: Cluster again even where the live clusters fit.
    """
    answers = corpus.answers
    if live is None:
        labels, count = _from_scratch(answers, fit)
        return Clusters(labels, count, clustering_of(answers, labels, count, fit.rank_form))
    unmoved = _unmoved(corpus, live)
    manifest = live.manifest if comparable and unmoved.any() else None
    drift = None
    if manifest is not None and _same_settings(manifest, fit):
        kept = _joined(corpus, answers, unmoved, live, manifest.clustering, fit)
        drift = kept.drift
        if not recluster and (not drift or fit.drift == "recommend"):
            return kept
    warm = manifest is not None and 2 * np.count_nonzero(unmoved) >= len(unmoved)
    labels, count = _from_live(answers, live, fit) if warm else _from_scratch(answers, fit)
    labels, origins = _continued(by_point(corpus, labels), live, count)
    return Clusters(labels, count, clustering_of(answers, labels, count, fit.rank_form), origins, live, drift=drift)


def describe_changes(clusters: Clusters, corpus: Corpus, names: Sequence[str]) -> ClusterChanges | None:
    """What became of the live build's clusters; None where there was no live build.

    Args:
        clusters: Those of the build to be.
        corpus: Its pairs.
        names: The K names of its clusters.
    """
    live = clusters.live
    if live is None:
        return None
    before = Grouping(live.by_point, live.metadata.clusters)
    after = Grouping(by_point(corpus, clusters.labels), clusters.count)
    found = regroup(before, after, clusters.origins, live.cluster_names, names)
    return ClusterChanges(
        **dict(found),
        reclustered=not clusters.kept,
        recommended=clusters.kept and bool(clusters.drift),
        drift=clusters.drift,
    )


def by_point(corpus: Corpus, labels: Labels) -> dict[str, int]:
    """The cluster of every pair, by point id."""
    return dict(zip(corpus.pairs, labels.tolist(), strict=True))


def _same_settings(manifest: Manifest, fit: FitSettings) -> bool:
    wanted = fit.model_dump(include={"rank_form", "max_clusters", "seed"})
    return manifest.model_dump(include=set(wanted)) == wanted


def _unmoved(corpus: Corpus, live: LiveBuild) -> NDArray[np.bool_]:
    """(n,) whether a pair is in the live build with the same answer."""
    before = live.pairs.column("answers")
    return np.array(
        [before.get(point) == answer for point, answer in corpus.pairs.column("answers").items()], dtype=bool
    )


# The live clusters, kept


def _joined(
    corpus: Corpus,
    answers: NDArray[np.float32],
    unmoved: NDArray[np.bool_],
    live: LiveBuild,
    made: Clustering | None,
    fit: FitSettings,
) -> Clusters:
    """New answers in the nearest live cluster, every other where it is."""
    before, count, new = live.corpus.answers, live.metadata.clusters, ~unmoved
    means = centroids(before, live.labels, count)
    known = live.by_point
    labels = np.array([known.get(point, 0) for point in corpus.pairs], dtype=np.int64)
    filled = np.flatnonzero(np.bincount(live.labels, minlength=count))
    labels[new] = filled[nearest(answers[new], means[filled])]
    made = made or clustering_of(before, live.labels, count, fit.rank_form)
    gone = len(known.keys() - corpus.pairs.keys())
    made = made.model_copy(update={"changed": made.changed + np.count_nonzero(new) + gone})
    drift = measure_drift(made, answers, labels, means, new, fit.rank_form)
    labels, origins = _without_holes(labels, count)
    return Clusters(labels, len(origins), made, origins, live, kept=True, drift=drift)


def _without_holes(labels: Labels, count: int) -> tuple[Labels, dict[int, int]]:
    """Labels 0 … K-1 of the clusters that have pairs; the last take the numbers of those that lost all."""
    used = np.flatnonzero(np.bincount(labels, minlength=count)).tolist()
    numbers = numbered(used, {number: number for number in used})
    mapping = np.array([numbers.get(number, 0) for number in range(count)], dtype=np.int64)
    return mapping[labels], {now: was for was, now in numbers.items()}


# Clusters made again


def _from_scratch(answers: NDArray[np.float32], fit: FitSettings) -> tuple[Labels, int]:
    count = cluster_count(answers, fit.rank_form, fit.max_clusters)
    labels = cluster_answers(answers, count, fit.seed)
    return labels, int(labels.max()) + 1


def _from_live(answers: NDArray[np.float32], live: LiveBuild, fit: FitSettings) -> tuple[Labels, int]:
    """K-means from the live clusters' mean answers."""
    count = cluster_count(answers, fit.rank_form, fit.max_clusters)
    means = centroids(live.corpus.answers, live.labels, live.metadata.clusters)
    start = _starting_points(answers, means, np.bincount(live.labels, minlength=len(means)), count, fit.seed)
    used, labels = np.unique(kmeans_labels(answers, count, fit.seed, start), return_inverse=True)
    return np.asarray(labels, dtype=np.int64), len(used)


def _continued(labels: dict[str, int], live: LiveBuild, count: int) -> tuple[Labels, dict[int, int]]:
    """Labels by the numbers of the live clusters that they go on from, and which those are."""
    origins = match(Grouping(live.by_point, live.metadata.clusters), Grouping(labels, count))
    numbers = numbered(range(count), origins)
    renumbered = np.array([numbers[label] for label in labels.values()], dtype=np.int64)
    return renumbered, {numbers[label]: before for label, before in origins.items()}


def _starting_points(
    answers: NDArray[np.float32],
    means: NDArray[np.float64],
    sizes: NDArray[np.integer],
    count: int,
    seed: int,
) -> NDArray[np.float64]:
    """(K, D): the largest live clusters' means, and where they are too few, answers far from them (k-means++)."""
    largest = np.argsort(-sizes, kind="stable")[:count]
    start = means[np.sort(largest)]
    if len(start) == count:
        return start
    far = distances(answers, nearest(answers, start), start)
    weights = far if far.sum() > 0 else None
    more, _ = kmeans_plusplus(clustered(answers), count - len(start), sample_weight=weights, random_state=seed)
    return np.concatenate([start, more])
