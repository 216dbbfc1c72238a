"""From the similarities of known questions to a projected question: the one composition of routing and projection.

    s_i = x · q_i                   similarities of the N nearest known questions
    p_i ∝ prior_i · exp(s_i / τ)    shares in the vote                              `qaserve.core.routing`
    w_k = Σ_{k(i)=k} p_i            cluster weights
    x'  = Σ_k w_k · x W_k           projection                                      `qaserve.core.projection`
    x'' = (1-ω) x' + ω x' G         whitening within intents: G as `train.whitening` fits it
    score_i, intents                parts of the score, each intent once            `qaserve.core.scoring`

Every step takes a batch of m questions. The engine asks one question, with neighbors from Qdrant; tuning, the gate,
calibration and the student's teacher ask many, with neighbors from a matrix of similarities.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qaserve.core.projection import project_by_pairs
from qaserve.core.routing import Floats, final_softmax, redistribute, route_by_centroids, softmax
from qaserve.schemas.params import SearchParams

Ints = NDArray[np.intp]


class Bank(Protocol):
    """One projection per cluster."""

    def __len__(self) -> int:
        """K."""

    def project_rows(self, rows: Floats, weights: Floats) -> Floats:
        """(m, D) unit rows and (m, K) weights → (m, D) blended projections, not normalised."""


class Network(Protocol):
    """A student, which replaces routing and projection."""

    def project(self, x: Floats, /) -> Floats:
        """(m, D) unit rows → (m, D), not normalised."""


@dataclass(frozen=True)
class Neighbors:
    """The N known questions nearest to each of m questions, nearest first."""

    similarities: Floats
    """(m, N) cosines."""
    clusters: Ints
    """(m, N) clusters of their answers, 0 … K-1."""
    rows: Ints
    """(m, N) rows of the neighbors in `vectors`."""
    priors: Floats | None = None
    """(m, N) importance in the vote, positive; None: 1 for all."""
    vectors: tuple[Floats, Floats] | None = None
    """(n, D) question and (n, D) answer vectors; only per-pair projection reads them."""


def nearest_neighbors(
    similarities: Floats,
    count: int | None,
    labels: ArrayLike,
    priors: Floats | None = None,
    vectors: tuple[Floats, Floats] | None = None,
) -> Neighbors:
    """The nearest known questions by a matrix of similarities.

    Args:
        similarities: (m, n) cosines of questions to known questions.
        count: N; None or more than n means all.
        labels: (n,) clusters of the known pairs.
        priors: (n,) importance of each; None: 1 for all.
        vectors: (n, D) question and answer vectors of the known pairs, for per-pair projection.
    """
    known = similarities.shape[1]
    top = np.broadcast_to(np.arange(known), similarities.shape)
    if count is not None and count < known:
        top = np.sort(np.argpartition(-similarities, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(similarities, top, axis=1), axis=1, kind="stable")
    rows = np.take_along_axis(top, order, axis=1)
    return Neighbors(
        np.take_along_axis(similarities, rows, axis=1),
        np.asarray(labels, dtype=np.intp)[rows],
        rows,
        None if priors is None else priors[rows],
        vectors,
    )


@dataclass(frozen=True)
class Routing:
    """Outcome of routing m questions: who voted, and what each cluster weighs."""

    weights: Floats
    """(m, K) what the projections are blended with; rows sum to 1, or are 0 where a question has no neighbor."""
    shares: Floats
    """(m, N) share of each neighbor in the vote; (m, 0) with centroid routing."""
    votes: Floats | None = None
    """(m, K) sums of the shares: the weights before a final softmax; None with centroid routing."""
    similarities: Floats | None = None
    """(m, K) cosines to the clusters' mean questions; None unless centroids route."""


class Projected(NamedTuple):
    """Questions carried into answer space."""

    vectors: Floats
    """(m, D) x', not normalised: the less the clusters agree, the shorter."""
    routing: Routing | None
    """None where a student stands in for it."""
    searched: Floats
    """(m, D) x'', what the answers are compared with, not normalised; x' without whitening."""


@dataclass(frozen=True)
class Pipeline:
    """How a build answers with one set of parameters."""

    params: SearchParams
    bank: Bank
    mean_questions: NDArray[np.floating] | None = None
    """(K, D) unit rows; only centroid routing reads them."""
    student: Network | None = None
    """Read only where the projection is 'student'."""
    whitening: NDArray[np.floating] | None = None
    """(D, D) G; read only where whitening has a share."""

    @property
    def needs_neighbors(self) -> bool:
        """Whether known questions are asked at all."""
        return self.params.projection != "student" and self.params.routing != "centroid"

    @property
    def needs_vectors(self) -> bool:
        """Whether the neighbors' vectors are read."""
        return self.needs_neighbors and self.params.projection == "pair"

    def project(self, queries: Floats, neighbors: Neighbors | None) -> Projected:
        """Route questions and carry them into answer space.

        Args:
            queries: (m, D) unit rows.
            neighbors: Of each; read where `needs_neighbors`.

        Raises:
            ValueError: Neighbors, their vectors, mean questions, a student or G are needed and not there.
        """
        routing = None
        if self.params.projection == "student":
            moved = _there(self.student, "a student").project(queries)
        else:
            routing = self.route(queries, neighbors)
            moved = self._blend(queries, routing, neighbors)
        projected = _part_way(queries, moved, self.params.projection_share)
        return Projected(projected, routing, self.whiten(projected))

    def whiten(self, projected: Floats) -> Floats:
        """Projected questions (m, D) whitened: x''. Raises ValueError where G is needed and not there."""
        share = self.params.whitening
        return projected if share == 0 else _part_way(projected, projected @ _there(self.whitening, "G"), share)

    def route(self, queries: Floats, neighbors: Neighbors | None) -> Routing:
        """Cluster weights of questions (m, D); arguments and errors as of `project`."""
        params = self.params
        if params.routing == "centroid":
            means = _there(self.mean_questions, "the clusters' mean questions")
            routed = [route_by_centroids(query, means, params.centroids, params.temperature) for query in queries]
            weights, similarities = (np.stack(part) for part in zip(*routed, strict=True))
            return Routing(weights, np.empty((len(queries), 0)), None, similarities)
        known = _there(neighbors, "known questions")
        shares = softmax(known.similarities, params.temperature, known.priors if params.priors else None)
        votes = np.zeros((len(queries), len(self.bank)))
        np.add.at(votes, (np.arange(len(queries))[:, None], known.clusters), shares)
        weights = final_softmax(votes, params.final_temperature) if params.routing == "question2" else votes
        return Routing(weights, shares, votes)

    def _blend(self, queries: Floats, routing: Routing, neighbors: Neighbors | None) -> Floats:
        if self.params.projection == "none":
            return queries.copy()
        if self.params.projection == "cluster":
            return self.bank.project_rows(queries, routing.weights)
        known = _there(neighbors, "known questions")
        questions, answers = _there(known.vectors, "the neighbors' vectors")
        moved = []
        for number, query in enumerate(queries):
            shares = routing.shares[number]
            if self.params.routing == "question2" and routing.votes is not None:
                weights = routing.votes[number], routing.weights[number]
                shares = redistribute(shares, known.clusters[number], *weights)
            used = known.rows[number]
            moved.append(project_by_pairs(query, questions[used], answers[used], shares))
        return np.stack(moved)


def _part_way(before: Floats, after: Floats, share: float) -> Floats:
    return after if share == 1 else (1 - share) * before + share * after


T = TypeVar("T")


def _there(value: T | None, name: str) -> T:
    if value is None:
        raise ValueError(f"{name} are needed for this routing or projection and were not given")
    return value
