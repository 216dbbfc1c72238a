"""How well a ranking finds what is relevant: ranks for tuning and the gate, summaries, and intervals."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qaserve.core.scoring import intent_scores
from qaserve.schemas.ingest import Interval

HITS = (1, 3, 5)
NDCG_AT = 10


def intent_ranks(
    scores: NDArray[np.floating], intents: Sequence[str], relevant: Sequence[str], second_share: float = 0.0
) -> NDArray[np.float64]:
    """Rank of the relevant intent, when every intent is listed once, by its score.

    Args:
        scores: (m, n) score of every answer for every query; higher is better.
        intents: (n,) intent of every answer.
        relevant: (m,) intent of every query.
        second_share: σ of `intent_scores`.

    Returns:
        (m,) ranks from 1; infinite where no answer has the relevant intent.
    """
    names, best = intent_scores(scores, intents, second_share)
    places = {name: place for place, name in enumerate(names)}
    ranks = np.full(len(scores), np.inf)
    for query, name in enumerate(relevant):
        if name in places:
            ranks[query] = 1 + np.count_nonzero(best[query] > best[query, places[name]])
    return ranks


def summarize(ranks: NDArray[np.float64]) -> dict[str, float]:
    """Mean reciprocal rank, Hit@k and nDCG@10 (one relevant intent, so nDCG is 1 / log2(1 + rank))."""
    found = np.where(ranks <= NDCG_AT, 1 / np.log2(1 + np.minimum(ranks, NDCG_AT)), 0.0)
    return {
        "mrr": float((1 / ranks).mean()),
        **{f"hit{k}": float((ranks <= k).mean()) for k in HITS},
        "ndcg10": float(found.mean()),
    }


def paired_bootstrap(
    values: NDArray[np.float64],
    reference: NDArray[np.float64],
    groups: Sequence[str],
    resamples: int = 5_000,
    seed: int = 0,
) -> Interval:
    """Mean of `values - reference` with its 95% percentile interval (Efron 1979).

    Whole groups of queries are resampled (Davison & Hinkley 1997, 3.8): phrasings of one intent, asked in one split or
    in several, are found or missed together, and resampling them one by one would promise too narrow an interval.

    Args:
        values: (m,) a figure per query, for example the reciprocal rank.
        reference: (m,) the same of what it is compared with, same queries in the same order.
        groups: (m,) which group each query is of: its intent.
        resamples: How many bootstrap samples.
        seed: Of the resampling.
    """
    differences = values - reference
    _, numbers = np.unique(np.array(groups), return_inverse=True)
    sums, counts = np.bincount(numbers, weights=differences), np.bincount(numbers)
    random = np.random.default_rng(seed)
    drawn = [random.integers(0, len(sums), len(sums)) for _ in range(resamples)]
    means = [sums[rows].sum() / counts[rows].sum() for rows in drawn]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(low=float(low), mean=float(differences.mean()), high=float(high))


def mean_cosine(vectors: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """Mean cosine of rows (m, D) to unit rows (m, D)."""
    lengths = np.linalg.norm(vectors, axis=1)
    return float(((vectors * targets).sum(axis=1) / lengths).mean())
