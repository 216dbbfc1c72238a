"""Labels: how many clusters of answers there are, and which answer is in which."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qaserve.core.chunked import gram
from qaserve.schemas.params import RankForm

KMEANS_STARTS = 4
MANY = 20_000
"""Answers beyond which they are clustered in batches (Sculley 2010), each step seeing some of them only."""
BATCH = 4_096


def effective_rank(vectors: NDArray[np.floating], form: RankForm = "participation") -> float:
    """Effective rank of a matrix, from its singular values σ.

    participation: (Σσ)² / Σσ². entropy: exp(H(σ / Σσ)), Roy & Vetterli 2007.

    Args:
        vectors: (n, D), not centred.
        form: Which of the two.

    Returns:
        Between 1 and min(n, D); 0 for a matrix of zeros.
    """
    values = _singular_values(vectors)
    total = values.sum()
    if total == 0:
        return 0.0
    if form == "participation":
        return float(total**2 / (values**2).sum())
    shares = values[values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _singular_values(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """From the smaller Gram matrix: D × D work for any n, accurate enough for a number that is rounded."""
    return np.asarray(np.sqrt(np.clip(np.linalg.eigvalsh(gram(vectors)), 0.0, None)))


def cluster_count(vectors: NDArray[np.floating], form: RankForm, limit: int) -> int:
    """K: the effective rank, rounded, at least 1, at most `limit` and at most the number of different vectors."""
    wanted = min(limit, round(effective_rank(vectors, form)))
    different: set[bytes] = set()
    for row in vectors:
        if len(different) >= wanted:
            break
        different.add((np.asarray(row, dtype=np.float32) + 0.0).tobytes())  # -0.0 is 0.0
    return max(1, len(different))


def clustered(answers: NDArray[np.floating]) -> NDArray[np.floating]:
    """Answers (n, D) as K-means sees them: float64; where there are many float32, as they are held, without a copy."""
    return np.asarray(answers, dtype=np.float32 if len(answers) > MANY else np.float64)


def cluster_answers(answers: NDArray[np.floating], count: int, seed: int) -> NDArray[np.int64]:
    """K-means on unit answer vectors, in batches where there are many; labels numbered by size, largest first.

    Args:
        answers: (n, D) unit rows.
        count: K ≤ n.
        seed: Same rows, K and seed give the same labels.

    Returns:
        (n,) labels from 0 on without holes: K of them, or fewer where some got no answer. Ties in size are broken by
        the first member, so the numbering is reproducible.
    """
    raw = kmeans_labels(answers, count, seed)
    found, first, sizes = np.unique(raw, return_index=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    renumber = np.empty(count, dtype=np.int64)
    renumber[found[order]] = np.arange(len(found))
    return np.asarray(renumber[raw])


def kmeans_labels(
    answers: NDArray[np.floating], count: int, seed: int, start: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """(n,) labels 0 … K-1 of K-means, in batches where there are many answers; of some, no answer may be.

    Args:
        answers: (n, D) unit rows.
        count: K ≤ n.
        seed: Same rows, K, seed and start give the same labels.
        start: (K, D) means to start from; without them, the best of several starts by k-means++.
    """
    starts: dict[str, Any] = {"n_init": KMEANS_STARTS} if start is None else {"init": start, "n_init": 1}
    from sklearn.cluster import KMeans, MiniBatchKMeans  # noqa: PLC0415 - slow to import; an API does without

    if len(answers) > MANY:
        kmeans = MiniBatchKMeans(count, batch_size=BATCH, random_state=seed, **starts)
    else:
        kmeans = KMeans(count, random_state=seed, **starts)
    return np.asarray(kmeans.fit(clustered(answers)).labels_, dtype=np.int64)
