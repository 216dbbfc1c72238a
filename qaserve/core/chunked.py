"""Sums and distances over many vectors, some rows at a time, so that no copy of all of them is ever made."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

ROWS = 8_192
"""Rows of one step."""


def slices(count: int) -> Iterator[slice]:
    """Slices of at most `ROWS`, together 0 … count-1."""
    for start in range(0, count, ROWS):
        yield slice(start, min(start + ROWS, count))


def summed_rows(rows: NDArray[np.floating], labels: NDArray[np.integer], count: int) -> NDArray[np.float64]:
    """(K, D) sum of every cluster's rows.

    Args:
        rows: (n, D).
        labels: (n,) their clusters.
        count: K.
    """
    sums = np.zeros((count, rows.shape[1]))
    for part in slices(len(rows)):
        np.add.at(sums, labels[part], rows[part])
    return sums


def gram(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """The smaller of the two Gram matrices of rows (n, D): (D, D) where n > D, else (n, n)."""
    if len(rows) <= rows.shape[1]:
        few = np.asarray(rows, dtype=np.float64)
        return np.asarray(few @ few.T)
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for part in slices(len(rows)):
        some = np.asarray(rows[part], dtype=np.float64)
        total += some.T @ some
    return total


def distances(
    vectors: NDArray[np.floating], labels: NDArray[np.integer], means: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n,) squared distance of every row to the mean of its cluster, of means (K, D)."""
    found = np.empty(len(vectors))
    for part in slices(len(vectors)):
        found[part] = ((vectors[part] - means[labels[part]]) ** 2).sum(axis=1)
    return found


def nearest(vectors: NDArray[np.floating], means: NDArray[np.float64]) -> NDArray[np.intp]:
    """(n,) row of the nearest of means (K, D)."""
    found = np.empty(len(vectors), dtype=np.intp)
    lengths = (means**2).sum(axis=1)
    for part in slices(len(vectors)):
        found[part] = (lengths - 2 * np.asarray(vectors[part], dtype=np.float64) @ means.T).argmin(axis=1)
    return found
