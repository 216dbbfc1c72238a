"""Grouping of a few hundred vectors by similarity, without a number of groups."""

import numpy as np
from numpy.typing import NDArray


def themes(vectors: NDArray[np.floating], threshold: float) -> list[list[int]]:
    """Rows around the rows with the most neighbors: greedily, the largest theme first.

    Args:
        vectors: (n, D) unit rows; n² floats are held.
        threshold: Cosine to the first row of a theme that its rows have at least; above 0.

    Returns:
        Every row once; the first of each theme is its middle, the others follow in order.
    """
    cosines = vectors @ vectors.T
    near = cosines >= threshold
    np.fill_diagonal(near, val=True)
    left = np.ones(len(vectors), dtype=bool)
    found = []
    while left.any():
        counts = (near & left).sum(axis=1)
        closeness = np.where(near & left, cosines, 0).sum(axis=1) / (len(vectors) + 1)  # below 1: it decides ties
        middle = int(np.where(left, counts + closeness, 0).argmax())
        members = np.flatnonzero(near[middle] & left)
        left[members] = False
        found.append([middle, *(row for row in members.tolist() if row != middle)])
    return found
