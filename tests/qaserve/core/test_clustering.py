import numpy as np
import pytest

from qaserve.core.clustering import cluster_answers, cluster_count, effective_rank


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
