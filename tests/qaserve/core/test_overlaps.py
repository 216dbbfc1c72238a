import numpy as np
import pytest

from qaserve.core import overlaps as module
from qaserve.core.overlaps import nearest_rows, overlaps


def unit_rows(rng, count, dimension=6):
    rows = rng.normal(size=(count, dimension))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def brute_force(vectors, groups, threshold):
    """From the definition: every row of one group against every row of the other."""
    found = {}
    for first in range(groups.max() + 1):
        for second in range(first + 1, groups.max() + 1):
            nearest = tuple(
                max(float(a @ b) for a in rows[groups == first] for b in rows[groups == second]) for rows in vectors
            )
            if max(nearest) >= threshold:
                found[first, second] = nearest
    return found


@pytest.mark.parametrize("rows", [1, 3, 7, 1_024])
@pytest.mark.parametrize("threshold", [0.6, 0.9])
def test_blocks_of_any_size_find_what_all_pairs_at_once_do(rng, monkeypatch, rows, threshold):
    monkeypatch.setattr(module, "ROWS", rows)
    groups = np.concatenate([np.arange(9), rng.integers(0, 9, 41)])  # one group is larger than a small block
    vectors = [unit_rows(rng, 50), unit_rows(rng, 50)]
    found, total = overlaps(vectors, groups, threshold, 1_000)
    expected = brute_force(vectors, groups, threshold)
    assert total == len(found) == len(expected)
    assert {(one.first, one.second) for one in found} == set(expected)
    for one in found:
        assert one.similarities == pytest.approx(expected[one.first, one.second])
    best = [max(one.similarities) for one in found]
    assert best == sorted(best, reverse=True)


@pytest.mark.parametrize("rows", [1, 1_024])
def test_the_nearest_are_kept_and_all_are_counted(rng, monkeypatch, rows):
    groups, vectors = np.arange(30), [unit_rows(rng, 30)]
    everything, total = overlaps(vectors, groups, 0.3, 1_000)
    monkeypatch.setattr(module, "ROWS", rows)
    few, counted = overlaps(vectors, groups, 0.3, 5)
    assert total == counted > 5
    assert [one[:2] for one in few] == [one[:2] for one in everything[:5]]


def test_one_group_overlaps_with_none(rng):
    assert overlaps([unit_rows(rng, 4)], np.zeros(4, dtype=int), 0.5, 10) == ([], 0)


def test_the_nearest_rows_are_named(rng):
    first, second = unit_rows(rng, 4), unit_rows(rng, 5)
    second[3] = first[2]
    assert nearest_rows(first, second) == (2, 3)


def test_equal_pairs_of_groups_come_in_the_order_of_their_numbers():
    """So near as the threshold is near enough."""
    rows = np.tile(np.eye(1, 4, dtype=np.float32), (30, 1))
    found, total = overlaps([rows], np.arange(30), 1.0, 100)
    assert total == 30 * 29 // 2
    assert [one[:2] for one in found] == [(a, b) for a in range(30) for b in range(a + 1, 30)][:100]


def test_a_block_is_whole_groups_of_so_many_rows_at_most(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 3)
    assert list(module._blocks(np.cumsum([0, 2, 1, 4, 2, 2, 1]))) == [(0, 2), (2, 3), (3, 4), (4, 6)]
    assert list(module._blocks(np.array([0]))) == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_nearest_of_each_group_are_found_as_the_rows_are_held(rng, monkeypatch, dtype):
    """Also where a group has more rows than one step."""
    monkeypatch.setattr(module, "ROWS", 2)
    rows, starts = unit_rows(rng, 9).astype(dtype), np.array([0, 5, 6])
    found = module._nearest(rows, starts, 0, 2)
    assert found.dtype == dtype
    cosines = rows @ rows.T
    expected = [[cosines[a, b].max() for b in (slice(0, 5), 5, slice(6, 9))] for a in (slice(0, 5), slice(5, 6))]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
