"""Routing: which clusters of answers a question is about. Pure NumPy.

All three forms share one softmax with temperature τ and a prior on each logit,

    p_i = prior_i · exp(s_i / τ) / Σ_j prior_j · exp(s_j / τ),

the probability-weighted softmax of the proposal; prior_i = 1 is the standard one. A cluster with many matching
questions weighs more than one with few: its degeneracy g(E) in P(E) ∝ g(E) · exp(-E / kT).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def softmax(logits: ArrayLike, temperature: float, prior: ArrayLike | None = None) -> Floats:
    """Softmax over the last axis, weighted by a prior.

    Args:
        logits: (..., N) similarities, higher is better.
        temperature: τ > 0. Small: the best takes all. Large: all alike, in proportion to the prior.
        prior: (..., N), positive; None means 1 for all. Its scale does not matter.

    Returns:
        (..., N) float64, non-negative, summing to 1; empty for N = 0.

    Raises:
        ValueError: temperature, a logit or a prior is out of range.
    """
    values = np.asarray(logits, dtype=np.float64)
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature is {temperature}; it must be finite and above 0")
    if not np.isfinite(values).all():
        raise ValueError("a similarity is not finite")
    if values.shape[-1] == 0:
        return values
    scaled = values / temperature
    if prior is not None:
        weights = np.asarray(prior, dtype=np.float64)
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise ValueError("a prior is not finite and above 0")
        scaled = scaled + np.log(weights)
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def final_softmax(weights: ArrayLike, temperature: float) -> Floats:
    """The proposal's two-level form: softmax over all K cluster weights, divided by τ'.

    Args:
        weights: (..., K) sums of the hits' shares by cluster.
        temperature: τ'.

    Returns:
        (..., K) weights that sum to 1; clusters without a vote keep a small share. A row of zeros stays one.
    """
    values = np.asarray(weights, dtype=np.float64)
    return np.where(values.any(axis=-1, keepdims=True), softmax(values, temperature), values)


def redistribute(probabilities: ArrayLike, clusters: ArrayLike, votes: Floats, weights: Floats) -> Floats:
    """Hit probabilities after a final softmax: each cluster's new weight, shared as its hits shared the old one.

    Args:
        probabilities: (N,) share of each hit before the final softmax.
        clusters: (N,) cluster of each hit.
        votes: (K,) cluster weights before the final softmax.
        weights: (K,) cluster weights after it.

    Returns:
        (N,) probabilities that sum to 1; clusters without a hit drop out.
    """
    labels, old = np.asarray(clusters, dtype=np.intp), np.asarray(probabilities, dtype=np.float64)
    if labels.size == 0:
        return old
    votes_of = votes[labels]
    shares = np.divide(old, votes_of, out=np.zeros_like(old), where=votes_of > 0) * weights[labels]
    return np.asarray(shares / shares.sum())


def route_by_centroids(query: ArrayLike, centroids: ArrayLike, top: int, temperature: float) -> tuple[Floats, Floats]:
    """Blend the clusters whose mean question is nearest.

    Args:
        query: (D,) unit vector.
        centroids: (K, D) unit vectors, the normalised mean questions.
        top: How many clusters to blend; more than K means all.
        temperature: τ.

    Returns:
        (K,) weights that sum to 1, zero outside the top, and (K,) similarities.
    """
    similarities = np.asarray(centroids, dtype=np.float64) @ np.asarray(query, dtype=np.float64)
    best = np.argsort(-similarities, kind="stable")[:top]
    weights = np.zeros_like(similarities)
    weights[best] = softmax(similarities[best], temperature)
    return weights, similarities


def normalized_entropy(weights: ArrayLike) -> float:
    """Entropy of a distribution over K outcomes, divided by log K: 0 one outcome, 1 all alike (0 for K < 2)."""
    values = np.asarray(weights, dtype=np.float64)
    positive = values[values > 0]
    if values.size < 2 or positive.size == 0:
        return 0.0
    return float(max(0.0, -(positive * np.log(positive)).sum() / np.log(values.size)))


def voting_shares(
    similarities: Floats, temperature: float, hits: int | None = None, prior: Floats | None = None
) -> Floats:
    """Probabilities of question routing for many questions at once.

    Args:
        similarities: (m, n) cosines of questions to known questions.
        temperature: τ.
        hits: How many of the nearest vote; None means all.
        prior: (n,) importance of each known question, positive; None means 1 for all.

    Returns:
        (m, n) shares, rows sum to 1; zero beyond the top `hits`.
    """
    if hits is None or hits >= similarities.shape[1]:
        return softmax(similarities, temperature, prior)
    top = np.argpartition(-similarities, hits - 1, axis=1)[:, :hits]
    voting = softmax(np.take_along_axis(similarities, top, axis=1), temperature, None if prior is None else prior[top])
    shares = np.zeros_like(similarities)
    np.put_along_axis(shares, top, voting, axis=1)
    return shares


BLOCK = 1024
"""Questions routed at once."""


def leave_one_out_weights(
    questions: Floats, labels: NDArray[np.integer], count: int, temperature: float, hits: int | None
) -> Floats:
    """Cluster weights of every known question when all the others vote.

    Only the row itself is left out. Another pair that asks the same in the same words votes: where it is of another
    cluster, the question really is uncertain.

    Args:
        questions: (n, D) unit rows.
        labels: (n,) cluster of each.
        count: K.
        temperature: τ.
        hits: How many of the nearest others vote; None means all.

    Returns:
        (n, K) weights, rows sum to 1; zero where there is no other question. O(1024 · n) memory besides.
    """
    total = len(questions)
    clusters = np.eye(count)[labels]
    weights = np.empty((total, count))
    for start in range(0, total, BLOCK):
        rows = np.arange(start, min(start + BLOCK, total))
        others = np.arange(total) != rows[:, None]
        similarities = (questions[rows] @ questions.T)[others].reshape(len(rows), total - 1)
        shares = np.zeros((len(rows), total))
        shares[others] = voting_shares(similarities, temperature, hits).ravel()
        weights[rows] = shares @ clusters
    return weights
