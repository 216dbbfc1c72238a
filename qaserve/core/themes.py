"""Grouping of a few hundred vectors by similarity, without a number of groups."""

import numpy as np
from numpy.typing import NDArray


def themes(vectors: NDArray[np.floating], threshold: float) -> list[list[int]]:
    """Rows around the rows with the most neighbors: greedily, the largest theme first.

    Args:
        vectors: (n, D) unit rows; n² floats are held.
        threshold: Cosine to the first row of a theme that its rows have at least.

    Returns:
        Every row once; the first of each theme is its middle, the others follow in order.
    """
    near = vectors @ vectors.T >= threshold
    np.fill_diagonal(near, val=True)
    left = np.ones(len(vectors), dtype=bool)
    found = []
    while left.any():
        counts = np.where(left, (near & left).sum(axis=1), 0)
        middle = int(counts.argmax())
        members = np.flatnonzero(near[middle] & left)
        left[members] = False
        found.append([middle, *(row for row in members.tolist() if row != middle)])
    return found
