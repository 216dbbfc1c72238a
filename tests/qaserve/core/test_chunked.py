"""Each sum against its definition, a row at a time, on more rows than one step takes."""

import numpy as np
import pytest

from qaserve.core import chunked


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    monkeypatch.setattr(chunked, "ROWS", 4)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 11])
def test_slices_cover_every_row_once(count):
    parts = list(chunked.slices(count))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(count))
    assert all(part.stop - part.start <= 4 for part in parts)


def test_rows_are_summed_by_cluster(rng):
    rows, labels = rng.normal(size=(11, 3)), rng.choice([0, 2], 11)
    by_hand = [sum((row for row, one in zip(rows, labels, strict=True) if one == k), np.zeros(3)) for k in range(4)]
    np.testing.assert_allclose(chunked.summed_rows(rows, labels, 4), by_hand, atol=1e-12)


@pytest.mark.parametrize("shape", [(11, 3), (3, 11), (5, 5)])
def test_the_smaller_gram_matrix(rng, shape):
    rows = rng.normal(size=shape).astype(np.float32)
    exact = [[float(x) for x in row] for row in rows]
    few = exact if shape[0] <= shape[1] else list(zip(*exact, strict=True))
    by_hand = [[sum(x * y for x, y in zip(one, other, strict=True)) for other in few] for one in few]
    found = chunked.gram(rows)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, by_hand, atol=1e-12)


def test_distances_are_squared_and_to_the_own_mean(rng):
    rows, means, labels = rng.normal(size=(11, 3)), rng.normal(size=(2, 3)), rng.integers(0, 2, 11)
    by_hand = [
        sum((x - m) ** 2 for x, m in zip(row, means[k], strict=True)) for row, k in zip(rows, labels, strict=True)
    ]
    np.testing.assert_allclose(chunked.distances(rows, labels, means), by_hand, rtol=1e-12)


def test_the_nearest_mean_is_by_distance_and_not_by_product(rng):
    rows, means = rng.normal(size=(40, 3)), rng.normal(size=(7, 3)) * rng.uniform(0.2, 3, (7, 1))
    by_hand = [int(np.argmin([np.linalg.norm(row - mean) for mean in means])) for row in rows]
    assert chunked.nearest(rows, means).tolist() == by_hand
    assert by_hand != (rows @ means.T).argmax(axis=1).tolist()
