"""A fold: a training side, queries held out of it, and the candidates among which their answers are searched."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from qaserve.core.clustering import cluster_answers, cluster_count
from qaserve.core.metrics import intent_ranks
from qaserve.core.pipeline import Bank, Neighbors, Pipeline, Projected, nearest_neighbors
from qaserve.core.projection import FixedRows, ProjectionBank
from qaserve.core.routing import Floats
from qaserve.core.scoring import Scores, combine
from qaserve.core.splits import Split
from qaserve.schemas.pairs import Pair, skill_names
from qaserve.schemas.params import Hyperparameters, RankForm, SearchParams
from qaserve.store.points import pair_text
from qaserve.store.words import BM25Index
from train.procrustes import DenseBank, centred_reference, fit_bank, mean_rows
from train.whitening import fit_whitening

MAX_CLUSTERS = 2_000


@dataclass(frozen=True)
class Examples:
    """Pairs with their vectors: questions, answers and topics (n, D), unit rows, in the order of the pairs."""

    pairs: Sequence[Pair]
    questions: Floats
    answers: Floats
    topics: Floats | None = None
    """NaN rows where a pair has no topic; None: no pair has one."""
    priors: Floats | None = None
    """(n,) importance of each in the routing softmax; None means 1 for all."""

    def __len__(self) -> int:
        """How many pairs."""
        return len(self.pairs)

    def take(self, rows: NDArray[np.integer]) -> "Examples":
        """Some of the rows."""
        topics, priors = (None if part is None else part[rows] for part in (self.topics, self.priors))
        return Examples([self.pairs[row] for row in rows], self.questions[rows], self.answers[rows], topics, priors)

    def in_single_precision(self) -> "Examples":
        """The same with vectors in float32."""
        questions, answers = (cast("Floats", part.astype(np.float32)) for part in (self.questions, self.answers))
        topics = None if self.topics is None else cast("Floats", self.topics.astype(np.float32))
        return Examples(self.pairs, questions, answers, topics, self.priors)

    @property
    def intents(self) -> list[str]:
        """The author's intent of every pair."""
        return [pair.intent for pair in self.pairs]


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
    def skills(self) -> list[str]:
        """Every skill that a candidate names."""
        return sorted({name for pair in self.candidates.pairs for name in skill_names(pair.related_skills)})

    def named(self, examples: Examples) -> NDArray[np.bool_]:
        """(n, S) which of `skills` each pair names."""
        column = {name: number for number, name in enumerate(self.skills)}
        found = np.zeros((len(examples), len(column)), dtype=bool)
        for row, pair in enumerate(examples.pairs):
            found[row, [column[name] for name in skill_names(pair.related_skills) if name in column]] = True
        return found

    @cached_property
    def lexical(self) -> Floats:
        """(m, c) BM25 of every query and candidate, over the query's best; 0 without any."""
        index = BM25Index([pair_text(pair) for pair in self.candidates.pairs])
        found = np.empty((len(self.queries), len(self.candidates)), dtype=self.queries.questions.dtype)
        for row, pair in enumerate(self.queries.pairs):
            found[row] = index.relative(pair.question)
        return found

    @cached_property
    def topics(self) -> Floats | None:
        """(m, c) cosine of every query to every candidate's topic, NaN without a topic; None: no candidate has one."""
        found = self.candidates.topics
        return None if found is None else np.asarray(self.queries.questions @ found.T)

    @cached_property
    def _banks(self) -> dict[float, ProjectionBank]:
        return {}

    def bank(self, regularization: float) -> ProjectionBank:
        """Anchored W of λ."""
        if regularization not in self._banks:
            train = self.train
            self._banks[regularization] = fit_bank(
                train.questions, train.answers, self.labels, self.count, regularization
            )
        return self._banks[regularization]

    @cached_property
    def reference_bank(self) -> DenseBank:
        """The proposal's W: outside the span of the pairs they are whatever the SVD picks."""
        members = [np.flatnonzero(self.labels == cluster) for cluster in range(self.count)]
        return DenseBank([centred_reference(self.train.questions[rows], self.train.answers[rows]) for rows in members])

    @cached_property
    def mean_questions(self) -> NDArray[np.float32]:
        """(K, D) unit rows: mean training question of every cluster."""
        return mean_rows(self.train.questions, self.labels, self.count)

    @cached_property
    def whitening(self) -> NDArray[np.float32]:
        """(D, D) G of the training side."""
        return fit_whitening(self.train.questions, self.train.answers, self.train.intents)

    def pipeline(self, params: SearchParams, bank: Bank) -> Pipeline:
        """How a build of the training side answers with these parameters and projections."""
        means = self.mean_questions if params.routing == "centroid" else None
        return Pipeline(params, bank, means, whitening=self.whitening if params.whitening else None)

    def neighbors(self, hits: int, prior: Floats | None = None) -> Neighbors:
        """The nearest training questions of every query.

        Args:
            hits: N.
            prior: (n,) importance of every training question; None means that of the training examples.
        """
        if prior is None:
            if hits not in self._own_neighbors:
                self._own_neighbors[hits] = self._nearest(hits, self.train.priors)
            return self._own_neighbors[hits]
        return self._nearest(hits, prior)

    @cached_property
    def _own_neighbors(self) -> dict[int, Neighbors]:
        return {}

    def _nearest(self, hits: int, priors: Floats | None) -> Neighbors:
        vectors = self.train.questions, self.train.answers
        return nearest_neighbors(self.similarities, hits, self.labels, priors, vectors)

    def weights(self, params: SearchParams, prior: Floats | None = None) -> Floats:
        """(m, K) cluster weights of the queries."""
        pipeline = self.pipeline(params, self.bank(Hyperparameters().regularization))
        return pipeline.route(self.queries.questions, self.neighbors(params.hits, prior)).weights

    def project(self, hyperparameters: Hyperparameters, prior: Floats | None = None) -> Projected:
        """The queries, projected as a build with these hyperparameters does it."""
        return self.through(hyperparameters.search, self._queries_through(hyperparameters.regularization), prior)

    @cached_property
    def _fixed(self) -> dict[float, FixedRows]:
        return {}

    def _queries_through(self, regularization: float) -> FixedRows:
        """The bank of λ over this fold's queries."""
        if regularization not in self._fixed:
            self._fixed[regularization] = FixedRows(self.bank(regularization), self.queries.questions)
        return self._fixed[regularization]

    def through(self, params: SearchParams, bank: Bank, prior: Floats | None = None) -> Projected:
        """The queries, routed and projected with these parameters and projections."""
        return self.pipeline(params, bank).project(self.queries.questions, self.neighbors(params.hits, prior))

    @cached_property
    def _latest(self) -> dict[Hyperparameters, Floats]:
        return {}

    @cached_property
    def _latest_projected(self) -> dict[Hyperparameters, Floats]:
        return {}

    def cosines_of(self, hyperparameters: Hyperparameters) -> Floats:
        """`cosines` of the queries as `project` gives them; kept until another routing or projection is asked for."""
        weightless = _with(hyperparameters, lexical_weight=0.0, topic_weight=0.0, second_share=0.0)
        if weightless not in self._latest:
            projected = self._projected(_with(weightless, whitening=0.0))
            pipeline = self.pipeline(hyperparameters.search, self.bank(hyperparameters.regularization))
            self._latest.clear()
            self._latest[weightless] = self.cosines(pipeline.whiten(projected))
        return self._latest[weightless]

    def _projected(self, hyperparameters: Hyperparameters) -> Floats:
        if hyperparameters not in self._latest_projected:
            self._latest_projected.clear()
            self._latest_projected[hyperparameters] = self.project(hyperparameters).vectors
        return self._latest_projected[hyperparameters]

    # How well it finds

    def cosines(self, projected: Floats) -> Floats:
        """(m, c) cosine of projected queries (m, D) to the candidates' answers."""
        return np.asarray(unit_rows(projected) @ self.candidates.answers.T)

    def scores(self, projected: Floats, params: SearchParams) -> Floats:
        """(m, c) scores of the candidates."""
        return self.parts(self.cosines(projected), params).total

    def parts(self, cosines: Floats, params: SearchParams) -> Scores:
        """Scores of the candidates and their parts, (m, c) each, from `cosines`."""
        words = self.lexical if params.lexical_weight else None
        topics = self.topics if params.topic_weight else None
        return combine(params, cosines, topics, words)

    def ranks(self, scores: Floats, second_share: float = 0.0) -> Floats:
        """(m,) rank of the relevant intent, each intent listed once, by its score; see `intent_scores`."""
        return intent_ranks(scores, self.candidates.intents, self.queries.intents, second_share)

    def ranks_by(self, cosines: Floats, params: SearchParams) -> Floats:
        """(m,) rank of the relevant intent, from `cosines`."""
        return self.ranks(self.parts(cosines, params).total, params.second_share)


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


def split_fold(
    examples: Examples,
    split: Split,
    seed: int,
    rank_form: RankForm = "participation",
    max_clusters: int = MAX_CLUSTERS,
    *,
    whole: bool = False,
) -> Fold:
    """The fold of a split.

    Args:
        examples: All pairs.
        split: Rows of the training side and of the queries.
        seed: Of K-means.
        rank_form: As of `FitSettings`.
        max_clusters: As of `FitSettings`.
        whole: Search the answers of all pairs. The questions of those that are not fitted on stay unknown: they
            add no words and no vote.
    """
    train, queries, candidates = examples.take(split.train), examples.take(split.test), None
    if whole:
        fitted = set(split.train.tolist())
        unasked = [
            pair if row in fitted else pair.model_copy(update={"question": ""})
            for row, pair in enumerate(examples.pairs)
        ]
        candidates = replace(examples, pairs=unasked)
    return make_fold(train, queries, seed, rank_form, max_clusters, candidates)


def _with(hyperparameters: Hyperparameters, **search: float) -> Hyperparameters:
    changed = hyperparameters.search.override(SearchParams.model_validate(search))
    return Hyperparameters(regularization=hyperparameters.regularization, search=changed)


def unit_rows(rows: Floats) -> Floats:
    """Rows divided by their lengths."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
