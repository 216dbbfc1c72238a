"""A fold: one side that everything is fitted on, and questions held out of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ingest.labels import cluster_answers, cluster_count
from qaserve.lexical import Lexicon, pair_text
from qaserve.projection import Bank, project_by_pairs
from qaserve.records import Pair
from qaserve.routing import Floats, final_softmax, route_by_centroids
from qaserve.settings import RankForm
from train.distillation.teachers import voting_shares
from train.metrics import intent_ranks
from train.procrustes import centred_seed, fit_bank, mean_rows

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
    """One side that is fitted on, its clusters, and the questions asked of it. Everything else is computed once."""

    known: Examples
    asked: Examples
    labels: NDArray[np.int64]
    count: int
    searched: Examples
    """What can be found: the known side, or more where answers that nothing was fitted on stay searchable."""

    @cached_property
    def similarities(self) -> Floats:
        """(m, n) cosine of every question asked to every known question."""
        return np.asarray(self.asked.questions @ self.known.questions.T)

    @cached_property
    def lexical(self) -> Floats:
        """(m, s) BM25 of every question asked and every pair searched, over the question's best; 0 without any."""
        lexicon = Lexicon.fit([str(row) for row in range(len(self.searched))], map(pair_text, self.searched.pairs))
        return np.stack([lexicon.relative(pair.question) for pair in self.asked.pairs]).astype(np.float64)

    @cached_property
    def _banks(self) -> dict[float, Bank]:
        return {}

    def bank(self, anchor: float) -> Bank:
        """Anchored W of λ."""
        if anchor not in self._banks:
            self._banks[anchor] = fit_bank(self.known.questions, self.known.answers, self.labels, self.count, anchor)
        return self._banks[anchor]

    @cached_property
    def centred(self) -> list[Floats]:
        """The proposal's W, dense: outside the span of the pairs they are whatever the SVD picks."""
        members = [np.flatnonzero(self.labels == cluster) for cluster in range(self.count)]
        return [centred_seed(self.known.questions[rows], self.known.answers[rows]) for rows in members]

    # Who votes

    def shares(self, temperature: float, hits: int | None, prior: Floats | None = None) -> Floats:
        """(m, n) probabilities of question routing; zero beyond the top `hits`, None means all.

        `prior`: (n,) importance; None means that of the known examples.
        """
        return voting_shares(self.similarities, temperature, hits, self.known.priors if prior is None else prior)

    def by_questions(
        self, temperature: float, hits: int | None, final: float | None = None, prior: Floats | None = None
    ) -> Floats:
        """(m, K) cluster weights of question routing, with the proposal's final softmax if τ' is given."""
        weights: Floats = self.shares(temperature, hits, prior) @ np.eye(self.count)[self.labels]
        return weights if final is None else np.stack([final_softmax(row, final) for row in weights])

    def by_centroids(self, temperature: float, top: int) -> Floats:
        """(m, K) cluster weights of centroid routing."""
        centroids = mean_rows(self.known.questions, self.labels, self.count)
        return np.stack([route_by_centroids(query, centroids, top, temperature)[0] for query in self.asked.questions])

    # What the vote does

    def through_centred(self, weights: Floats) -> Floats:
        """(m, D) questions through the proposal's W."""
        moved = np.zeros_like(self.asked.questions)
        for cluster, matrix in enumerate(self.centred):
            moved += weights[:, cluster, None] * (self.asked.questions @ matrix)
        return moved

    def through_pairs(self, shares: Floats) -> Floats:
        """(m, D) questions through the rotations of single pairs."""
        moved = []
        for query, row in zip(self.asked.questions, shares, strict=True):
            used = np.flatnonzero(row)
            moved.append(project_by_pairs(query, self.known.questions[used], self.known.answers[used], row[used]))
        return np.stack(moved)

    # How well it finds

    def cosines(self, moved: Floats) -> Floats:
        """(m, s) cosine of moved questions (m, D) to the answers searched."""
        return np.asarray(unit_rows(moved) @ self.searched.answers.T)

    def scores(self, moved: Floats, lexical_weight: float) -> Floats:
        """(m, s) final scores: cosine and lexical term together."""
        cosines = self.cosines(moved)
        if lexical_weight == 0:
            return cosines
        best = np.maximum(cosines.max(axis=1, keepdims=True), 0.0)
        return np.asarray((1 - lexical_weight) * cosines + lexical_weight * best * self.lexical)

    def ranks(self, scores: Floats) -> NDArray[np.float64]:
        """(m,) rank of the wanted intent, each intent listed once, by its best answer."""
        return intent_ranks(scores, self.searched.intents, self.asked.intents)


def make_fold(
    known: Examples,
    asked: Examples,
    seed: int,
    rank_form: RankForm = "participation",
    max_clusters: int = MAX_CLUSTERS,
    searched: Examples | None = None,
) -> Fold:
    """Cluster the known side; the questions asked are not looked at. What is searched is the known side by default."""
    count = cluster_count(known.answers, rank_form, max_clusters)
    return Fold(
        known, asked, cluster_answers(known.answers, count, seed), count, known if searched is None else searched
    )


def unit_rows(rows: Floats) -> Floats:
    """Rows divided by their lengths."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
