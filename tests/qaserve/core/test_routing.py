import numpy as np
import pytest
from conftest import vote

from qaserve.core.routing import (
    final_softmax,
    leave_one_out_weights,
    normalized_entropy,
    redistribute,
    route_by_centroids,
    softmax,
    voting_shares,
)


def unit(rng, *shape):
    rows = rng.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_question_routing_is_the_weighted_softmax_summed_by_cluster(rng):
    similarities, prior = rng.uniform(-1, 1, 50), rng.uniform(0.5, 2, 50)
    labels, count, temperature = rng.integers(0, 7, 50), 9, 0.05
    powers = prior * np.exp(similarities / temperature)
    expected = powers / powers.sum()
    weights = np.array([expected[labels == cluster].sum() for cluster in range(count)])
    shares, votes = vote(similarities, labels, count, temperature, prior)
    np.testing.assert_allclose(shares, expected, rtol=1e-12)
    np.testing.assert_allclose(votes, weights, rtol=1e-12)


def test_prior_of_one_is_the_standard_softmax_and_its_scale_does_not_matter(rng):
    similarities = rng.uniform(-1, 1, 20)
    plain = softmax(similarities, 0.1)
    np.testing.assert_allclose(softmax(similarities, 0.1, np.ones(20)), plain, rtol=1e-12)
    np.testing.assert_allclose(softmax(similarities, 0.1, np.full(20, 7.0)), plain, rtol=1e-12)


def test_centroid_routing_agrees_with_a_direct_computation(rng):
    centroids, query = unit(rng, 12, 16), unit(rng, 16)
    weights, similarities = route_by_centroids(query, centroids, 4, 0.1)
    best = sorted(range(12), key=lambda k: -(centroids[k] @ query))[:4]
    powers = {k: np.exp(centroids[k] @ query / 0.1) for k in best}
    expected = [powers.get(k, 0.0) / sum(powers.values()) for k in range(12)]
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    np.testing.assert_allclose(similarities, centroids @ query)


def test_more_centroids_than_there_are_means_all(rng):
    weights, _ = route_by_centroids(unit(rng, 8), unit(rng, 3, 8), 100, 0.1)
    assert (weights > 0).all()


def test_final_softmax_is_over_all_clusters(rng):
    weights = rng.dirichlet(np.ones(6))
    np.testing.assert_allclose(
        final_softmax(weights, 0.1), np.exp(weights / 0.1) / np.exp(weights / 0.1).sum(), rtol=1e-12
    )


def test_a_cluster_without_a_vote_keeps_its_share_in_a_final_softmax():
    """exp(0 / τ') is 1, not 0."""
    powers = np.exp(np.array([0.7, 0.3, 0.0, 0.0]) / 0.2)
    np.testing.assert_allclose(final_softmax([0.7, 0.3, 0.0, 0.0], 0.2), powers / powers.sum(), rtol=1e-12)
    rows = final_softmax([[0.7, 0.3, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], 0.2)
    np.testing.assert_allclose(rows, [powers / powers.sum(), np.zeros(4)], rtol=1e-12)


def test_redistributed_probabilities_sum_to_the_new_cluster_weights(rng):
    labels = np.append(np.arange(4), rng.integers(0, 4, 26))  # a cluster without a hit would drop out
    before, votes = vote(rng.uniform(0, 1, 30), labels, 4, 0.05)
    weights = final_softmax(votes, 0.2)
    shares = redistribute(before, labels, votes, weights)
    np.testing.assert_allclose(np.bincount(labels, weights=shares, minlength=4), weights, rtol=1e-9)


def test_redistributed_probabilities_are_each_clusters_shared_as_before(rng):
    """Also where the final softmax gives weight to a cluster without a hit, which then drops out."""
    labels, similarities = np.array([0, 2, 2, 0, 2]), rng.uniform(0, 1, 5)
    shares, votes = vote(similarities, labels, 4, 0.2)
    weights = final_softmax(votes, 0.5)
    by_hand = [p / votes[k] * weights[k] for p, k in zip(shares, labels, strict=True)]
    found = redistribute(shares, labels, votes, weights)
    np.testing.assert_allclose(found, np.array(by_hand) / (weights[0] + weights[2]), rtol=1e-12)


@pytest.mark.parametrize("hits", [1, 4, 9, None])
def test_many_questions_are_voted_on_as_one_by_one(rng, hits):
    similarities, prior = rng.uniform(-1, 1, (6, 9)), rng.uniform(0.5, 2, 9)
    found = voting_shares(similarities, 0.3, hits, prior)
    for row, shares in zip(similarities, found, strict=True):
        voting = sorted(range(9), key=lambda i: -row[i])[:hits]
        powers = np.array([prior[i] * np.exp(row[i] / 0.3) if i in voting else 0.0 for i in range(9)])
        np.testing.assert_allclose(shares, powers / powers.sum(), rtol=1e-12)


def test_entropy_is_its_definition(rng):
    weights = np.append(rng.dirichlet(np.ones(4)), 0.0)
    expected = -sum(w * np.log(w) for w in weights[:4]) / np.log(5)
    assert normalized_entropy(weights) == pytest.approx(expected, rel=1e-12)


def test_no_hit_gives_no_vote_and_finite_weights():
    shares, votes = vote([], [], 5, 0.05)
    assert shares.shape == (0,)
    np.testing.assert_array_equal(votes, np.zeros(5))
    np.testing.assert_array_equal(final_softmax(votes, 0.1), np.zeros(5))
    assert redistribute([], [], votes, votes).shape == (0,)
    assert normalized_entropy(votes) == 0.0


def test_one_hit_takes_all():
    np.testing.assert_array_equal(vote([-0.3], [2], 4, 1e-4)[1], [0, 0, 1, 0])


@pytest.mark.parametrize("temperature", [1e-4, 0.05, 1e3])
def test_equal_similarities_share_equally(temperature):
    np.testing.assert_allclose(softmax(np.full(8, 0.4), temperature), np.full(8, 1 / 8), rtol=1e-12)


@pytest.mark.parametrize("temperature", [1e-4, 1e3])
def test_extreme_temperatures_stay_finite_and_sum_to_one(rng, temperature):
    shares = softmax(rng.uniform(-1, 1, 1000), temperature, rng.uniform(0.5, 2, 1000))
    assert np.isfinite(shares).all()
    assert shares.sum() == pytest.approx(1)


def test_low_temperature_picks_the_best_and_high_temperature_follows_the_prior():
    assert softmax([0.1, 0.9, 0.5], 1e-4) == pytest.approx([0, 1, 0])
    assert softmax([0.1, 0.9], 1e3, [1.0, 3.0]) == pytest.approx([0.25, 0.75], abs=1e-3)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_means_nothing_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature is"):
        softmax([1.0], temperature)


def test_similarities_and_priors_must_be_usable():
    with pytest.raises(ValueError, match="similarity is not finite"):
        softmax([float("nan")], 0.1)
    with pytest.raises(ValueError, match="prior is not finite"):
        softmax([0.1, 0.2], 0.1, [1.0, 0.0])


def test_entropy_runs_from_one_cluster_to_all_alike():
    assert normalized_entropy([1.0, 0.0, 0.0]) == 0.0
    assert normalized_entropy(np.full(7, 1 / 7)) == pytest.approx(1.0)
    assert normalized_entropy([1.0]) == 0.0


def test_float32_is_computed_as_float64(rng):
    """To the last digits: what was stored in float32 is summed in float64."""
    similarities, prior = rng.uniform(-1, 1, 9).astype(np.float32), rng.uniform(0.5, 2, 9).astype(np.float32)
    powers = prior.astype(np.float64) * np.exp(similarities.astype(np.float64) / 0.1)
    np.testing.assert_allclose(softmax(similarities, 0.1, prior), powers / powers.sum(), rtol=1e-12)
    shares = np.array([0.5, 0.3, 0.2], np.float32)
    exact = [float(share) for share in shares]
    powers = np.exp(np.array(exact) / 0.1)
    np.testing.assert_allclose(final_softmax(shares, 0.1), powers / powers.sum(), rtol=1e-12)
    entropy = -sum(share * np.log(share) for share in exact) / np.log(3)
    assert normalized_entropy(shares) == pytest.approx(entropy, rel=1e-12)
    found = redistribute(shares, [0, 1, 1], np.array([0.5, 0.5]), np.array([0.6, 0.4]))
    by_hand = np.array([exact[0] / 0.5 * 0.6, exact[1] / 0.5 * 0.4, exact[2] / 0.5 * 0.4])
    np.testing.assert_allclose(found, by_hand / by_hand.sum(), rtol=1e-12)
    centroids, query = unit(rng, 5, 8).astype(np.float32), unit(rng, 8).astype(np.float32)
    by_hand = [sum(float(c) * float(q) for c, q in zip(row, query, strict=True)) for row in centroids]
    np.testing.assert_allclose(route_by_centroids(query, centroids, 5, 0.1)[1], by_hand, rtol=1e-12)


def test_rows_far_apart_do_not_disturb_each_other():
    """Each row is scaled by its own best, or the lower one would be 0 / 0."""
    np.testing.assert_allclose(softmax([[-1.0, -1.0], [1.0, 1.0]], 1e-4), np.full((2, 2), 0.5))


def test_a_cluster_whose_votes_are_too_small_to_count_gets_none():
    found = redistribute([1.0, 0.0], [0, 1], np.array([1.0, 0.0]), np.array([0.7, 0.3]))
    np.testing.assert_array_equal(found, [1.0, 0.0])


def test_equal_centroids_are_taken_in_their_order():
    centroids = np.tile(np.eye(3), (40, 1))  # every third is nearest: enough of them that no sort is stable by chance
    weights, _ = route_by_centroids([0.0, 1.0, 0.0], centroids, 7, 0.1)
    assert np.flatnonzero(weights).tolist() == [1, 4, 7, 10, 13, 16, 19]


def test_the_entropy_of_two_outcomes_is_its_definition():
    expected = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    assert normalized_entropy([0.25, 0.75]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("hits", [1, 5, 50])
def test_the_nearest_of_many_vote_without_a_prior(rng, hits):
    similarities = rng.uniform(-1, 1, (3, 400))
    for row, shares in zip(similarities, voting_shares(similarities, 0.2, hits), strict=True):
        voting = np.argsort(-row)[:hits]
        powers = np.zeros(400)
        powers[voting] = np.exp(row[voting] / 0.2)
        np.testing.assert_allclose(shares, powers / powers.sum(), rtol=1e-12)


@pytest.mark.parametrize("hits", [1, 8, 47, 1_000, None])
@pytest.mark.parametrize("block", [7, 1024])
def test_no_question_votes_for_itself(rng, monkeypatch, hits, block):
    monkeypatch.setattr("qaserve.core.routing.BLOCK", block)
    questions, labels = unit(rng, 48, 9), rng.integers(0, 5, 48)
    weights = leave_one_out_weights(questions, labels, 6, 0.05, hits)
    for row, question in enumerate(questions):
        others = sorted(set(range(48)) - {row}, key=lambda one: -(questions[one] @ question))[:hits]
        powers = np.exp(questions[others] @ question / 0.05)
        expected = [powers[labels[others] == k].sum() / powers.sum() for k in range(6)]
        np.testing.assert_allclose(weights[row], expected, atol=1e-12)


def test_a_question_alone_has_nobody_to_vote():
    weights = leave_one_out_weights(np.eye(1, 4), np.array([0]), 2, 0.05, 32)
    np.testing.assert_array_equal(weights, [[0, 0]])
