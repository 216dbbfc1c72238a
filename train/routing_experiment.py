"""The experiment behind `qaserve bench routing`: every routing with every projection, on held-out phrasings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ingest.labels import cluster_answers, cluster_count
from qaserve.bundle import Defaults
from qaserve.progress import Advance
from qaserve.projection import Bank, project_by_pairs
from qaserve.records import Pair, Record
from qaserve.routing import Floats, final_softmax, route_by_centroids, softmax
from train.metrics import intent_ranks, mean_cosine, summarize
from train.procrustes import centred_seed, fit_bank, mean_rows
from train.splits import phrasing_split

SEED_TEMPERATURE = 0.1
"""Temperature and top-k of the proposal's own recipe."""
SEED_CENTROIDS = 10
MAX_CLUSTERS = 2_000


class Result(Record):
    """A method's figures, mean over the seeds."""

    method: str
    metrics: dict[str, float]


class RoutingReport(Record):
    """What the experiment found."""

    encoder: str
    dimension: int
    pairs: int
    seeds: tuple[int, ...]
    queries: float
    clusters: float
    anchor: float
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Fold:
    """One split, with everything that is fitted on its training side."""

    pairs: Sequence[Pair]
    questions: NDArray[np.float64]
    answers: NDArray[np.float64]
    queries: NDArray[np.float64]
    targets: NDArray[np.float64]
    wanted: list[str]
    labels: NDArray[np.int64]
    count: int
    anchor: float

    @cached_property
    def anchored(self) -> Bank:
        """The product's W."""
        return fit_bank(self.questions, self.answers, self.labels, self.count, self.anchor)

    @cached_property
    def centred(self) -> list[Floats]:
        """The proposal's W, dense: outside the span of the pairs they are whatever the SVD picks."""
        members = [np.flatnonzero(self.labels == cluster) for cluster in range(self.count)]
        return [centred_seed(self.questions[rows], self.answers[rows]) for rows in members]

    @cached_property
    def similarities(self) -> Floats:
        """(m, n) cosine of every query to every known question."""
        return np.asarray(self.queries @ self.questions.T)

    def shares(self, temperature: float, hits: int | None) -> Floats:
        """(m, n) probabilities of question routing; zero beyond the top `hits`, None means all."""
        logits = self.similarities
        if hits is None or hits >= logits.shape[1]:
            return softmax(logits, temperature)
        top = np.argsort(-logits, axis=1, kind="stable")[:, :hits]
        shares = np.zeros_like(logits)
        np.put_along_axis(shares, top, softmax(np.take_along_axis(logits, top, axis=1), temperature), axis=1)
        return shares

    def by_questions(self, temperature: float, hits: int | None, final: float | None = None) -> Floats:
        """(m, K) cluster weights of question routing, with the proposal's final softmax if τ' is given."""
        weights = self.shares(temperature, hits) @ np.eye(self.count)[self.labels]
        return weights if final is None else np.stack([final_softmax(row, final) for row in weights])

    def by_centroids(self, temperature: float, top: int) -> Floats:
        """(m, K) cluster weights of centroid routing."""
        centroids = mean_rows(self.questions, self.labels, self.count)
        return np.stack([route_by_centroids(query, centroids, top, temperature)[0] for query in self.queries])

    def through_anchored(self, weights: Floats) -> Floats:
        """(m, D) queries through the product's bank."""
        return np.stack([self.anchored.project(query, row) for query, row in zip(self.queries, weights, strict=True)])

    def through_centred(self, weights: Floats) -> Floats:
        """(m, D) queries through the proposal's W."""
        moved = np.zeros_like(self.queries)
        for cluster, matrix in enumerate(self.centred):
            moved += weights[:, cluster, None] * (self.queries @ matrix)
        return moved

    def through_pairs(self, temperature: float, hits: int | None) -> Floats:
        """(m, D) queries through the rotations of single pairs."""
        moved = []
        for query, shares in zip(self.queries, self.shares(temperature, hits), strict=True):
            used = np.flatnonzero(shares)
            moved.append(project_by_pairs(query, self.questions[used], self.answers[used], shares[used]))
        return np.stack(moved)


Method = Callable[[Fold], Floats]


def methods(defaults: Defaults) -> dict[str, Method]:
    """What is compared, by name: how each method moves the queries.

    Where no number of hits is named all questions vote; centroid routing blends the top 10, as the proposal does, and
    `question2` is question routing with its final softmax.
    """
    t, hits, final = defaults.temperature, defaults.hits, defaults.final_temperature
    seed_t, top = SEED_TEMPERATURE, SEED_CENTROIDS
    return {
        "raw answers": lambda fold: fold.queries,
        f"seed W, centroid τ={seed_t}": lambda fold: fold.through_centred(fold.by_centroids(seed_t, top)),
        f"seed W, question τ={seed_t}": lambda fold: fold.through_centred(fold.by_questions(seed_t, None)),
        f"seed W, question2 τ={seed_t}": lambda fold: fold.through_centred(fold.by_questions(seed_t, None, seed_t)),
        f"anchored W, centroid τ={seed_t}": lambda fold: fold.through_anchored(fold.by_centroids(seed_t, top)),
        f"anchored W, question τ={t:g}": lambda fold: fold.through_anchored(fold.by_questions(t, None)),
        f"anchored W, question τ={t:g}, {hits} hits": lambda fold: fold.through_anchored(fold.by_questions(t, hits)),
        f"anchored W, question2 τ={t:g}": lambda fold: fold.through_anchored(fold.by_questions(t, None, final)),
        f"per-pair W, τ={seed_t}": lambda fold: fold.through_pairs(seed_t, None),
        f"per-pair W, τ={t:g}, {hits} hits": lambda fold: fold.through_pairs(t, hits),
    }


def run(
    pairs: Sequence[Pair],
    questions: NDArray[np.floating],
    answers: NDArray[np.floating],
    *,
    encoder: str,
    seeds: Sequence[int],
    anchor: float,
    advance: Advance,
) -> RoutingReport:
    """Compare all methods on the phrasing split of each seed; nothing is tuned on the questions asked.

    Args:
        pairs: n pairs.
        questions: (n, D) unit rows.
        answers: (n, D) unit rows.
        encoder: Name, for the report.
        seeds: One split and one K-means each.
        anchor: λ.
        advance: Told 1 after each method of each seed.
    """
    figures: dict[str, list[dict[str, float]]] = {}
    folds = []
    for seed in seeds:
        fold = _fold(pairs, np.asarray(questions, np.float64), np.asarray(answers, np.float64), seed, anchor)
        folds.append((len(fold.queries), fold.count))
        for name, metrics in _judge(fold):
            figures.setdefault(name, []).append(metrics)
            advance(1)
    means = {
        name: {metric: float(np.mean([row[metric] for row in rows])) for metric in rows[0]}
        for name, rows in figures.items()
    }
    return RoutingReport(
        encoder=encoder,
        dimension=questions.shape[1],
        pairs=len(pairs),
        seeds=tuple(seeds),
        queries=float(np.mean([queries for queries, _ in folds])),
        clusters=float(np.mean([clusters for _, clusters in folds])),
        anchor=anchor,
        results=tuple(Result(method=name, metrics=metrics) for name, metrics in means.items()),
    )


def steps(seeds: Sequence[int]) -> int:
    """How often `run` will call `advance`."""
    return len(seeds) * (len(methods(Defaults())) + 1)


def _fold(
    pairs: Sequence[Pair],
    questions: NDArray[np.float64],
    answers: NDArray[np.float64],
    seed: int,
    anchor: float,
) -> Fold:
    split = phrasing_split(pairs, seed)
    count = cluster_count(answers[split.train], "participation", MAX_CLUSTERS)
    return Fold(
        pairs=[pairs[row] for row in split.train],
        questions=questions[split.train],
        answers=answers[split.train],
        queries=questions[split.test],
        targets=answers[split.test],
        wanted=[pairs[row].cluster_id for row in split.test],
        labels=cluster_answers(answers[split.train], count, seed),
        count=count,
        anchor=anchor,
    )


def _judge(fold: Fold) -> Iterator[tuple[str, dict[str, float]]]:
    intents = [pair.cluster_id for pair in fold.pairs]
    known = summarize(intent_ranks(fold.similarities, intents, fold.wanted))
    yield "raw questions", known
    for name, move in methods(Defaults()).items():
        moved = move(fold)
        scores = moved @ fold.answers.T
        yield (
            name,
            summarize(intent_ranks(scores, intents, fold.wanted)) | {"cosine": mean_cosine(moved, fold.targets)},
        )
