import numpy as np
import pytest

from qaserve.core.landscape import AMONG, SHARPNESS, layout, place


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, np.empty((0, 2))),
        (1, [[0, 0]]),
        (2, [[1, 0], [-1, 0]]),
        (3, [[1, 0], [-0.5, 3**0.5 / 2], [-0.5, -(3**0.5) / 2]]),
    ],
)
def test_few_clusters_stand_on_a_circle(count, expected):
    np.testing.assert_allclose(layout(np.eye(3)[:count]), expected, atol=1e-12)


def test_like_clusters_stand_near_each_other_and_the_map_repeats(rng):
    means = unit(np.repeat(np.eye(4, 12), 6, axis=0) + 0.1 * rng.normal(size=(24, 12)))
    positions = layout(means)
    assert (positions == layout(means)).all()
    assert np.abs(positions).max() == pytest.approx(1)
    np.testing.assert_allclose(positions.mean(axis=0), 0, atol=1e-6)
    apart = np.linalg.norm(positions[:, None] - positions, axis=-1)
    own = np.repeat(np.arange(4), 6)
    alike = own[:, None] == own
    assert apart[alike].max() < apart[~alike].min()


@pytest.mark.parametrize(("count", "perplexity"), [(4, 1.0), (13, 4.0), (60, 12.0)])
def test_four_or_more_are_laid_out_by_t_sne_with_as_many_neighbors_as_there_can_be(rng, count, perplexity):
    from sklearn.manifold import TSNE

    means = unit(rng.normal(size=(count, 8)))
    placed = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=0).fit_transform(means)
    centred = placed - placed.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(layout(means), centred / np.abs(centred).max(), atol=1e-5)


def test_a_vector_stands_between_the_clusters_nearest_to_it(rng):
    means, positions, vectors = unit(rng.normal(size=(9, 5))), rng.normal(size=(9, 2)), rng.normal(size=(4, 5))
    for vector, found in zip(vectors, place(vectors, means, positions), strict=True):
        cosines = means @ vector / np.linalg.norm(vector)
        among = sorted(range(9), key=lambda k: -cosines[k])[:AMONG]
        powers = np.exp(cosines[among] / SHARPNESS)
        np.testing.assert_allclose(found, powers @ positions[among] / powers.sum(), rtol=1e-9)


def test_vectors_of_float32_are_placed_as_their_exact_values(rng):
    means, positions = unit(rng.normal(size=(3, 5))).astype(np.float32), rng.normal(size=(3, 2))
    vectors = rng.normal(size=(4, 5)).astype(np.float32)
    exact = place(vectors.astype(np.float64), means.astype(np.float64), positions)
    np.testing.assert_allclose(place(vectors, means, positions), exact, rtol=1e-12)


def test_of_equally_near_clusters_the_first_count():
    positions = np.column_stack([np.arange(60.0), np.zeros(60)])
    means = np.tile(np.eye(2), (30, 1))
    found = place(np.array([[0.0, 2.0]]), means, positions)
    np.testing.assert_allclose(found, [[np.mean([1, 3, 5, 7, 9, 11]), 0]])
