"""Groups of rows that nearly coincide: single linkage between groups, computed over blocks of rows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROWS = 1_024
"""Rows that are compared with all others in one step."""


class Overlap(NamedTuple):
    """Two groups, by number, the smaller first."""

    first: int
    second: int
    similarities: tuple[float, ...]
    """Of each array of vectors: the cosine of the nearest two rows, one of each group."""


def overlaps(
    vectors: Sequence[NDArray[np.floating]], groups: NDArray[np.integer], threshold: float, limit: int
) -> tuple[list[Overlap], int]:
    """Pairs of groups of which two rows are at least `threshold` near in any of the arrays.

    Args:
        vectors: Arrays (n, D) of unit rows, float32 for speed.
        groups: (n,) group of every row, 0 … G-1, each with a row.
        threshold: A cosine.
        limit: How many are returned.

    Returns:
        The nearest pairs of groups first, equal ones in the order of their numbers, and how many there are in all.
        Memory is O(ROWS · (n + G) + limit), time O(n² D).
    """
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    ordered = [rows[order] for rows in vectors]
    kept: list[Overlap] = []
    total = 0
    for begin, end in _blocks(np.append(starts, len(order))):
        nearest = np.stack([_nearest(rows, starts, begin, end) for rows in ordered])  # (arrays, end - begin, G)
        nearest[:, np.arange(len(starts)) <= np.arange(begin, end)[:, None]] = -np.inf  # each pair once
        best = nearest.max(axis=0)
        firsts, seconds = np.nonzero(best >= threshold)
        total += len(firsts)
        top = np.argsort(-best[firsts, seconds], kind="stable")[:limit]
        kept += [
            Overlap(begin + first, second, tuple(nearest[:, first, second].tolist()))
            for first, second in zip(firsts[top].tolist(), seconds[top].tolist(), strict=True)
        ]
        kept = sorted(kept, key=lambda one: -max(one.similarities))[:limit]
    return kept, total


def nearest_rows(first: NDArray[np.floating], second: NDArray[np.floating]) -> tuple[int, int]:
    """The rows of (a, D) and (b, D) with the highest dot product."""
    row, column = np.unravel_index(int((first @ second.T).argmax()), (len(first), len(second)))
    return int(row), int(column)


def _blocks(bounds: NDArray[np.integer]) -> Iterator[tuple[int, int]]:
    """Runs of whole groups of at most `ROWS` rows together, or of one group that has more."""
    begin, count = 0, len(bounds) - 1
    while begin < count:
        end = max(begin + 1, int(np.searchsorted(bounds, bounds[begin] + ROWS, side="right")) - 1)
        yield begin, min(end, count)
        begin = min(end, count)


def _nearest(rows: NDArray[np.floating], starts: NDArray[np.integer], begin: int, end: int) -> NDArray[np.floating]:
    """(end - begin, G) highest cosine of a row of each group from `begin` to `end` to a row of every group."""
    bounds = np.append(starts, len(rows))
    found = np.full((end - begin, len(starts)), -np.inf, dtype=rows.dtype)
    own = np.repeat(np.arange(end - begin), np.diff(bounds[begin : end + 1]))
    for start in range(0, len(own), ROWS):
        some = own[start : start + ROWS]
        first = bounds[begin] + start
        columns = np.maximum.reduceat(rows[first : first + len(some)] @ rows.T, starts, axis=1)
        np.maximum.at(found, some, columns)
    return found
