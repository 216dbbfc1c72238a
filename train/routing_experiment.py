"""The experiment behind `qaserve bench routing`: every routing with every projection, on held-out phrasings."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qaserve.bundle import Defaults
from qaserve.progress import Advance
from qaserve.records import Pair, Record
from qaserve.routing import Floats
from train.fitting import choose, ranks_of
from train.folds import Examples, Fold, make_fold
from train.metrics import Interval, mean_cosine, paired_bootstrap, summarize
from train.peers import reciprocal_rank_fusion
from train.splits import phrasing_split

SEED_TEMPERATURE = 0.1
"""Temperature and top-k of the proposal's own recipe."""
SEED_CENTROIDS = 10
LEXICAL_WEIGHTS = (0.05, 0.1, 0.2, 0.5)
REFERENCE = "raw answers"
CHOSEN = "the product: numbers chosen on the training side"


class Result(Record):
    """A method's figures, mean over the seeds."""

    method: str
    metrics: dict[str, float]
    gain: Interval | None = Field(description=f"Difference in MRR to {REFERENCE!r}, over all questions of all seeds.")


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


Method = Callable[[Fold], Floats]


def methods(defaults: Defaults, anchor: float) -> dict[str, Method]:
    """What is compared, by name: how each method moves the queries.

    Where no number of hits is named all questions vote; centroid routing blends the top 10, as the proposal does, and
    `question2` is question routing with its final softmax.
    """
    t, hits, final = defaults.temperature, defaults.hits, defaults.final_temperature
    seed_t, top = SEED_TEMPERATURE, SEED_CENTROIDS

    def anchored(fold: Fold, weights: Floats) -> Floats:
        return fold.bank(anchor).project_rows(fold.asked.questions, weights)

    return {
        "raw answers": lambda fold: fold.asked.questions,
        f"seed W, centroid τ={seed_t}": lambda fold: fold.through_centred(fold.by_centroids(seed_t, top)),
        f"seed W, question τ={seed_t}": lambda fold: fold.through_centred(fold.by_questions(seed_t, None)),
        f"seed W, question2 τ={seed_t}": lambda fold: fold.through_centred(fold.by_questions(seed_t, None, seed_t)),
        f"anchored W, centroid τ={seed_t}": lambda fold: anchored(fold, fold.by_centroids(seed_t, top)),
        f"anchored W, question τ={t:g}": lambda fold: anchored(fold, fold.by_questions(t, None)),
        f"anchored W, question τ={t:g}, {hits} hits": lambda fold: anchored(fold, fold.by_questions(t, hits)),
        f"anchored W, question2 τ={t:g}": lambda fold: anchored(fold, fold.by_questions(t, None, final)),
        f"per-pair W, τ={seed_t}": lambda fold: fold.through_pairs(fold.shares(seed_t, None)),
        f"per-pair W, τ={t:g}, {hits} hits": lambda fold: fold.through_pairs(fold.shares(t, hits)),
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
    reciprocal: dict[str, list[Floats]] = {}
    folds = []
    examples = Examples(pairs, np.asarray(questions, np.float64), np.asarray(answers, np.float64))
    for seed in seeds:
        split = phrasing_split(pairs, seed)
        fold = make_fold(examples.take(split.train), examples.take(split.test), seed)
        folds.append((len(fold.asked), fold.count))
        for name, ranks, more in _judge(fold, anchor, seed):
            figures.setdefault(name, []).append(summarize(ranks) | more)
            reciprocal.setdefault(name, []).append(1 / ranks)
            advance(1)
    means = {
        name: {metric: float(np.mean([row[metric] for row in rows])) for metric in rows[0]}
        for name, rows in figures.items()
    }
    pooled = {name: np.concatenate(values) for name, values in reciprocal.items()}
    gains = {name: paired_bootstrap(values, pooled[REFERENCE]) for name, values in pooled.items() if name != REFERENCE}
    return RoutingReport(
        encoder=encoder,
        dimension=questions.shape[1],
        pairs=len(pairs),
        seeds=tuple(seeds),
        queries=float(np.mean([queries for queries, _ in folds])),
        clusters=float(np.mean([clusters for _, clusters in folds])),
        anchor=anchor,
        results=tuple(Result(method=name, metrics=metrics, gain=gains.get(name)) for name, metrics in means.items()),
    )


def steps(seeds: Sequence[int]) -> int:
    """How often `run` will call `advance`."""
    return len(seeds) * (len(methods(Defaults(), 1.0)) + len(SCORINGS) + len(LEXICAL_WEIGHTS) + 1)


SCORINGS: dict[str, Method] = {
    "raw questions": lambda fold: fold.similarities,
    "BM25 over question and answer": lambda fold: fold.lexical,
    "reciprocal rank fusion of raw answers and BM25": lambda fold: reciprocal_rank_fusion(
        fold.cosines(fold.asked.questions), fold.lexical
    ),
}
"""What is compared without moving the question: (m, n) scores."""


def _judge(fold: Fold, anchor: float, seed: int) -> Iterator[tuple[str, Floats, dict[str, float]]]:
    """Name, ranks (m,), and what else there is to say of each method."""
    for name, score in SCORINGS.items():
        yield name, fold.ranks(score(fold)), {}
    for name, move in methods(Defaults(), anchor).items():
        moved = move(fold)
        yield name, fold.ranks(fold.cosines(moved)), {"cosine": mean_cosine(moved, fold.asked.answers)}
    t, hits = Defaults().temperature, Defaults().hits
    moved = fold.bank(anchor).project_rows(fold.asked.questions, fold.by_questions(t, hits))
    for weight in LEXICAL_WEIGHTS:
        yield (
            f"anchored W, question τ={t:g}, {hits} hits, words β={weight:g}",
            fold.ranks(fold.scores(moved, weight)),
            {},
        )
    tuning = choose(fold.known, seed=seed, rank_form="participation", advance=lambda _: None)
    if tuning is not None:
        chosen = tuning.chosen
        numbers = {"anchor": chosen.anchor, "temperature": chosen.temperature, "lexical_weight": chosen.lexical_weight}
        yield CHOSEN, ranks_of(fold, chosen), numbers
