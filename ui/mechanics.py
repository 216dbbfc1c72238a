"""The vote as statistical mechanics: energies, partition functions and free energies. Pure NumPy.

A hit i with similarity s_i has the energy E_i = s_max - s_i, measured from the most similar hit, and the Boltzmann
weight b_i = prior_i · exp(-E_i / τ). A cluster k with g_k hits has

    Z_k = Σ b_i over its hits,    F_k = -τ log Z_k,    w_k = Z_k / Σ_j Z_j.

w_k is its share of the vote. The shares of the hits are p_i = b_i / Σ_j b_j.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qaserve.schemas.ask import Hit

Floats = NDArray[np.float64]


class ClusterState(NamedTuple):
    """One cluster of the vote."""

    cluster: int
    degeneracy: int
    """g_k: how many hits it has."""
    best: float
    """Similarity of its best hit: the hit with the largest Boltzmann weight."""
    partition: float
    """Z_k; 0 where it is too small for a float."""
    free_energy: float
    """F_k: the lower, the more weight."""
    weight: float
    """w_k; the weights of all clusters sum to 1."""
    best_weight: float
    """The weight it would have if only the best hit of each cluster voted; they sum to 1."""


class Mechanics(NamedTuple):
    """The vote of one question at one temperature."""

    energies: Floats
    """(N,) E_i, 0 for the best hit."""
    factors: Floats
    """(N,) b_i."""
    clusters: tuple[ClusterState, ...]
    """Largest weight first."""
    entropy: float
    """Entropy of the shares of the hits, in nats."""
    voters: float
    """Effective number of voters: the exponential of `entropy`; 1 to N."""
    cluster_entropy: float
    """Entropy of the cluster weights, in nats."""
    effective_clusters: float
    """Effective number of clusters: the exponential of `cluster_entropy`."""


class Sweep(NamedTuple):
    """Cluster weights of the same hits at other temperatures."""

    temperatures: Floats
    """(T,) τ."""
    clusters: tuple[int, ...]
    """K clusters, in ascending order."""
    weights: Floats
    """(T, K) rows sum to 1."""


def mechanics(hits: Sequence[Hit], temperature: float, *, priors: bool) -> Mechanics:
    """Everything about the vote of these hits.

    Args:
        hits: N known questions that vote.
        temperature: τ.
        priors: False leaves the priors of the hits out, as a question with `priors` off does.

    Raises:
        ValueError: there are no hits, or the temperature is not above 0.
    """
    energies, logs = _logarithms(hits, temperature, priors)
    labels = np.array([hit.cluster for hit in hits])
    numbers = np.unique(labels)
    partitions = np.array([np.logaddexp.reduce(logs[labels == one]) for one in numbers])
    best = [int(np.flatnonzero(labels == one)[np.argmax(logs[labels == one])]) for one in numbers]
    weights, best_weights, shares = _normalised(partitions), _normalised(logs[best]), _normalised(logs)
    states = [
        ClusterState(
            cluster=int(one),
            degeneracy=int((labels == one).sum()),
            best=hits[best[row]].similarity,
            partition=float(np.exp(partitions[row])),
            free_energy=float(-temperature * partitions[row]),
            weight=float(weights[row]),
            best_weight=float(best_weights[row]),
        )
        for row, one in enumerate(numbers)
    ]
    of_hits, of_clusters = entropy(shares), entropy(weights)
    return Mechanics(
        energies=energies,
        factors=np.exp(logs),
        clusters=tuple(sorted(states, key=lambda state: -state.weight)),
        entropy=of_hits,
        voters=float(np.exp(of_hits)),
        cluster_entropy=of_clusters,
        effective_clusters=float(np.exp(of_clusters)),
    )


def sweep(hits: Sequence[Hit], temperatures: Sequence[float], *, priors: bool) -> Sweep:
    """Cluster weights at other temperatures: exact, because τ does not change which questions vote.

    Args:
        hits: As of `mechanics`.
        temperatures: T values of τ.
        priors: As of `mechanics`.
    """
    logs = np.array([_logarithms(hits, temperature, priors)[1] for temperature in temperatures])
    numbers, columns = np.unique([hit.cluster for hit in hits], return_inverse=True)
    weights = _normalised(logs) @ np.eye(len(numbers))[columns]
    return Sweep(np.array(temperatures, dtype=np.float64), tuple(numbers.tolist()), weights)


def stable_range(found: Sweep, temperature: float) -> tuple[float, float]:
    """The lowest and the highest τ of a sweep around `temperature` between which the same cluster leads.

    Raises:
        ValueError: the sweep does not hold the temperature.
    """
    (places,) = np.nonzero(found.temperatures == temperature)
    if not places.size:
        raise ValueError(f"the sweep does not hold the temperature {temperature}")
    leaders = found.weights.argmax(axis=1)
    low = high = int(places[0])
    while low > 0 and leaders[low - 1] == leaders[places[0]]:
        low -= 1
    while high + 1 < len(leaders) and leaders[high + 1] == leaders[places[0]]:
        high += 1
    return float(found.temperatures[low]), float(found.temperatures[high])


def entropy(shares: ArrayLike) -> float:
    """Entropy in nats of shares that sum to 1; a share of 0 adds nothing."""
    values = np.asarray(shares, dtype=np.float64)
    positive = values[values > 0]
    return float(max(0.0, -(positive * np.log(positive)).sum()))


def _logarithms(hits: Sequence[Hit], temperature: float, priors: bool) -> tuple[Floats, Floats]:
    """(N,) energies and (N,) logarithms of the Boltzmann weights, which do not underflow."""
    if not hits:
        raise ValueError("no known question votes")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    similarities = np.array([hit.similarity for hit in hits], dtype=np.float64)
    energies = similarities.max() - similarities
    weights = np.array([hit.prior if priors else 1.0 for hit in hits], dtype=np.float64)
    return energies, np.log(weights) - energies / temperature


def _normalised(logs: Floats) -> Floats:
    """Shares that sum to 1 along the last axis, from the logarithms of weights."""
    return np.asarray(np.exp(logs - np.logaddexp.reduce(logs, axis=-1, keepdims=True)))
