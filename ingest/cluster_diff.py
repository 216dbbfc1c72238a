"""What became of the clusters between two builds: which go on, and which appeared, vanished, split or merged."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from qaserve.schemas.ingest import Regrouped, Regrouping, Renumbered

CONTINUES = 0.2
"""Least share of the pairs of two matched clusters (Jaccard) that both hold, for the cluster to go on."""
SPLIT_SHARE = 0.25
"""A cluster is split where two or more others each got such a share of its pairs."""
MERGED_SHARE = 0.5
"""A cluster is merged where it got such a share of the pairs of two or more."""


@dataclass(frozen=True)
class Grouping:
    """The clusters of a build."""

    labels: Mapping[str, int]
    """The cluster of every pair, by point id."""
    count: int
    """K."""


def match(before: Grouping, after: Grouping) -> dict[int, int]:
    """Which cluster of `before` each of `after` goes on from; clusters that are new are left out.

    Of all one-to-one matchings the one that shares the most pairs (Kuhn 1955, by `linear_sum_assignment`).
    """
    overlap = _overlap(before, after)
    either = overlap.sum(axis=1)[:, None] + overlap.sum(axis=0)[None] - overlap
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return {
        int(new): int(old)
        for old, new in zip(rows, columns, strict=True)
        if overlap[old, new] > 0 and overlap[old, new] >= CONTINUES * either[old, new]
    }


def numbered(clusters: Iterable[int], wanted: Mapping[int, int]) -> dict[int, int]:
    """A number 0 … K-1 for each of K clusters: the one it wants where that is below K, else one that is left."""
    members = list(clusters)
    numbers = {cluster: wanted[cluster] for cluster in members if wanted.get(cluster, len(members)) < len(members)}
    left = sorted(set(range(len(members))) - set(numbers.values()))
    return numbers | dict(zip([cluster for cluster in members if cluster not in numbers], left, strict=True))


def regroup(
    before: Grouping,
    after: Grouping,
    origins: Mapping[int, int],
    names_before: Sequence[str],
    names_after: Sequence[str],
) -> Regrouping:
    """What became of the clusters.

    Args:
        before: The clusters of one build.
        after: Those of the other.
        origins: Which cluster of `before` each of `after` goes on from.
        names_before: By number; a missing one is named by its number.
        names_after: By number.
    """
    share = _overlap(before, after).astype(np.float64)
    share /= np.maximum(share.sum(axis=1, keepdims=True), 1)
    goes_on = {old: new for new, old in origins.items()}
    shared = before.labels.keys() & after.labels.keys()
    split = {old: np.flatnonzero(share[old] >= SPLIT_SHARE).tolist() for old in range(before.count)}
    merged = {new: np.flatnonzero(share[:, new] >= MERGED_SHARE).tolist() for new in range(after.count)}

    def named(old: Iterable[int], new: Iterable[int]) -> Regrouped:
        return Regrouped(
            before=tuple(_name(names_before, number) for number in old), after=tuple(names_after[n] for n in new)
        )

    return Regrouping(
        moved=sum(goes_on.get(before.labels[point]) != after.labels[point] for point in shared),
        appeared=tuple(names_after[new] for new in range(after.count) if new not in origins),
        vanished=tuple(_name(names_before, old) for old in range(before.count) if old not in goes_on),
        split=tuple(named([old], parts) for old, parts in split.items() if len(parts) > 1),
        merged=tuple(named(sources, [new]) for new, sources in merged.items() if len(sources) > 1),
        renumbered=tuple(
            Renumbered(name=names_after[new], was=old, now=new) for new, old in sorted(origins.items()) if new != old
        ),
    )


def _overlap(before: Grouping, after: Grouping) -> NDArray[np.int64]:
    """(K before, K after) pairs that are in one cluster before and in one after."""
    overlap = np.zeros((before.count, after.count), dtype=np.int64)
    for point in before.labels.keys() & after.labels.keys():
        overlap[before.labels[point], after.labels[point]] += 1
    return overlap


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else f"cluster {number}"
