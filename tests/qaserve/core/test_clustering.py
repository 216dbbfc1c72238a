import numpy as np
import pytest

from qaserve.core import clustering
from qaserve.core.clustering import cluster_answers, cluster_count, clustered, effective_rank, kmeans_labels


def unit(rng, *shape):
    rows = rng.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("shape", [(50, 20), (20, 50), (1, 8)])
def test_effective_rank_is_its_formula(rng, shape):
    rows = unit(rng, *shape)
    values = np.linalg.svd(rows, compute_uv=False)
    assert effective_rank(rows) == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-6)
    shares = values / values.sum()
    assert effective_rank(rows, "entropy") == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


def test_effective_rank_counts_equal_directions():
    assert effective_rank(np.eye(7)) == pytest.approx(7)
    assert effective_rank(np.ones((5, 3))) == pytest.approx(1)
    assert effective_rank(np.zeros((5, 3))) == 0
    assert effective_rank(np.diag([1.0, 1.0, 0.0]), "entropy") == pytest.approx(2)


def test_the_count_is_of_the_form_that_is_asked_for():
    rows = np.diag([1.0, 0.5, 0.5, 0.2, 0.2, 0.2])
    shares = np.array([1.0, 0.5, 0.5, 0.2, 0.2, 0.2]) / 2.6
    participation, entropy = 1 / (shares**2).sum(), np.exp(-(shares * np.log(shares)).sum())
    assert (round(participation), round(entropy)) == (4, 5)
    assert cluster_count(rows, "participation", 100) == 4
    assert cluster_count(rows, "entropy", 100) == 5


def test_count_is_bounded_by_limit_and_by_different_rows(rng):
    rows = unit(rng, 30, 30)
    assert cluster_count(rows, "participation", 4) == 4
    assert cluster_count(np.tile(rows[:2], (10, 1)), "participation", 100) <= 2
    assert cluster_count(rows[:1], "participation", 100) == 1


def test_real_answers_have_the_published_rank(real_corpus):
    embeddings = real_corpus.parents[1] / "embeddings"
    with np.load(embeddings / "minilm.npz") as arrays:
        assert cluster_count(arrays["A"], "participation", 2000) == 141


def test_labels_are_reproducible_complete_and_largest_first(rng):
    rows = np.concatenate([unit(rng, 1, 12) + 0.05 * rng.normal(size=(size, 12)) for size in (3, 30, 9)])
    labels = cluster_answers(rows, 3, seed=1)
    np.testing.assert_array_equal(labels, cluster_answers(rows, 3, seed=1))
    sizes = np.bincount(labels)
    assert sizes.tolist() == [30, 9, 3]
    assert len(set(labels[:3])) == 1


def clumps(rng, sizes):
    """Rows around far points, in turn of the points, and which point each is of."""
    own = np.repeat(np.arange(len(sizes)), sizes)
    return np.eye(len(sizes))[own] + 0.01 * rng.normal(size=(len(own), len(sizes))), own


@pytest.mark.parametrize("seed", range(4))
def test_labels_are_by_size_and_then_by_the_first_member(rng, seed):
    rows, own = clumps(rng, (3, 7, 3, 9))
    labels = cluster_answers(rows, 4, seed)
    assert labels.tolist() == np.array([2, 1, 3, 0])[own].tolist()


@pytest.mark.parametrize("many", [10, 1_000])
def test_a_seed_repeats_the_labels_whole_or_in_batches(rng, monkeypatch, many):
    monkeypatch.setattr(clustering, "MANY", many)
    rows = unit(rng, 60, 12)
    labels = kmeans_labels(rows, 9, seed=3)
    assert labels.dtype == np.int64
    for _ in range(3):
        np.testing.assert_array_equal(labels, kmeans_labels(rows, 9, seed=3))
        np.testing.assert_array_equal(cluster_answers(rows, 9, seed=3), cluster_answers(rows, 9, seed=3))


@pytest.mark.parametrize("many", [10, 1_000])
def test_a_start_gives_its_clusters_their_numbers(rng, monkeypatch, many):
    monkeypatch.setattr(clustering, "MANY", many)
    rows, own = clumps(rng, (6,) * 7)
    order = rng.permutation(7)
    start = np.eye(7)[order]
    assert kmeans_labels(rows, 7, 0, start).tolist() == np.argsort(order)[own].tolist()


def test_many_answers_are_clustered_as_they_are_held(monkeypatch):
    monkeypatch.setattr(clustering, "MANY", 3)
    held = np.ones((4, 2), np.float32)
    assert clustered(held) is held
    assert clustered(held[:3]).dtype == np.float64
