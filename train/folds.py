"""A fold: a training side, queries held out of it, and the candidates among which their answers are searched."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qaserve.builds.manifest import Hyperparameters
from qaserve.core.clustering import cluster_answers, cluster_count
from qaserve.core.lexical import Lexicon, pair_text
from qaserve.core.metrics import intent_ranks
from qaserve.core.projection import Bank, project_by_pairs
from qaserve.core.routing import Floats, final_softmax, route_by_centroids, voting_shares
from qaserve.schemas.pairs import Pair
from qaserve.schemas.params import RankForm
from train.procrustes import centred_reference, fit_bank, mean_rows

MAX_CLUSTERS = 2_000


@dataclass(frozen=True)
class Examples:
    """Pairs with their vectors: questions and answers (n, D), unit rows, in the order of the pairs."""

    pairs: Sequence[Pair]
    questions: Floats
    answers: Floats
    priors: Floats | None = None
    """(n,) importance of each in the routing softmax; None means 1 for all."""

    def __len__(self) -> int:
        """How many pairs."""
        return len(self.pairs)

    def take(self, rows: NDArray[np.integer]) -> "Examples":
        """Some of the rows."""
        priors = None if self.priors is None else self.priors[rows]
        return Examples([self.pairs[row] for row in rows], self.questions[rows], self.answers[rows], priors)

    @property
    def intents(self) -> list[str]:
        """The author's intent of every pair."""
        return [pair.cluster_id for pair in self.pairs]


@dataclass(frozen=True)
class Fold:
    """A training side, its clusters, and the queries asked of it. Everything else is computed once."""

    train: Examples
    queries: Examples
    labels: NDArray[np.int64]
    count: int
    candidates: Examples
    """What can be found: the training side, or more where answers that nothing was fitted on stay searchable."""

    @cached_property
    def similarities(self) -> Floats:
        """(m, n) cosine of every query to every training question."""
        return np.asarray(self.queries.questions @ self.train.questions.T)

    @cached_property
    def lexical(self) -> Floats:
        """(m, c) BM25 of every query and candidate, over the query's best; 0 without any."""
        lexicon = Lexicon.fit([str(row) for row in range(len(self.candidates))], map(pair_text, self.candidates.pairs))
        return np.stack([lexicon.relative(pair.question) for pair in self.queries.pairs]).astype(np.float64)

    @cached_property
    def _banks(self) -> dict[float, Bank]:
        return {}

    def bank(self, anchor: float) -> Bank:
        """Anchored W of λ."""
        if anchor not in self._banks:
            self._banks[anchor] = fit_bank(self.train.questions, self.train.answers, self.labels, self.count, anchor)
        return self._banks[anchor]

    @cached_property
    def centred(self) -> list[Floats]:
        """The proposal's W, dense: outside the span of the pairs they are whatever the SVD picks."""
        members = [np.flatnonzero(self.labels == cluster) for cluster in range(self.count)]
        return [centred_reference(self.train.questions[rows], self.train.answers[rows]) for rows in members]

    # Who votes

    def shares(self, temperature: float, hits: int | None, prior: Floats | None = None) -> Floats:
        """(m, n) probabilities of question routing; zero beyond the top `hits`, None means all.

        `prior`: (n,) importance; None means that of the training examples.
        """
        return voting_shares(self.similarities, temperature, hits, self.train.priors if prior is None else prior)

    def by_questions(
        self, temperature: float, hits: int | None, final: float | None = None, prior: Floats | None = None
    ) -> Floats:
        """(m, K) cluster weights of question routing, with the proposal's final softmax if τ' is given."""
        weights: Floats = self.shares(temperature, hits, prior) @ np.eye(self.count)[self.labels]
        return weights if final is None else np.stack([final_softmax(row, final) for row in weights])

    def by_centroids(self, temperature: float, top: int) -> Floats:
        """(m, K) cluster weights of centroid routing."""
        centroids = mean_rows(self.train.questions, self.labels, self.count)
        return np.stack([route_by_centroids(query, centroids, top, temperature)[0] for query in self.queries.questions])

    # What the vote does

    def project(self, hyperparameters: Hyperparameters, prior: Floats | None = None) -> Floats:
        """(m, D) queries through anchored W, as a build with these hyperparameters projects them."""
        one = hyperparameters
        weights = self.by_questions(one.temperature, one.hits, one.final_temperature, prior)
        return self.bank(one.anchor).project_rows(self.queries.questions, weights)

    def through_centred(self, weights: Floats, rows: NDArray[np.floating] | None = None) -> Floats:
        """(m, D) rows, or the queries, through the reference W, with (m, K) weights."""
        given = self.queries.questions if rows is None else rows
        return np.asarray(sum(weights[:, [cluster]] * (given @ matrix) for cluster, matrix in enumerate(self.centred)))

    def through_pairs(self, shares: Floats) -> Floats:
        """(m, D) questions through the rotations of single pairs."""
        projected = []
        for query, row in zip(self.queries.questions, shares, strict=True):
            used = np.flatnonzero(row)
            projected.append(project_by_pairs(query, self.train.questions[used], self.train.answers[used], row[used]))
        return np.stack(projected)

    # How well it finds

    def cosines(self, projected: Floats) -> Floats:
        """(m, c) cosine of projected queries (m, D) to the candidates' answers."""
        return np.asarray(unit_rows(projected) @ self.candidates.answers.T)

    def scores(self, projected: Floats, lexical_weight: float) -> Floats:
        """(m, c) final scores: cosine and lexical term together."""
        cosines = self.cosines(projected)
        if lexical_weight == 0:
            return cosines
        best = np.maximum(cosines.max(axis=1, keepdims=True), 0.0)
        return np.asarray((1 - lexical_weight) * cosines + lexical_weight * best * self.lexical)

    def ranks(self, scores: Floats) -> NDArray[np.float64]:
        """(m,) rank of the relevant intent, each intent listed once, by its best answer."""
        return intent_ranks(scores, self.candidates.intents, self.queries.intents)


def make_fold(
    train: Examples,
    queries: Examples,
    seed: int,
    rank_form: RankForm = "participation",
    max_clusters: int = MAX_CLUSTERS,
    candidates: Examples | None = None,
) -> Fold:
    """Cluster the training side; the queries are not looked at. The candidates are the training side by default."""
    count = cluster_count(train.answers, rank_form, max_clusters)
    labels = cluster_answers(train.answers, count, seed)
    return Fold(train, queries, labels, count, train if candidates is None else candidates)


def unit_rows(rows: Floats) -> Floats:
    """Rows divided by their lengths."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
