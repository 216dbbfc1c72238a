"""Drift: whether pairs still lie as they did when they were last clustered.

The clusters of a build are kept for as long as they fit, so that their numbers and names mean the same from day to day.
Four measures say when they no longer do. Three compare with the day they were made, not with yesterday, so that a slow
drift is not missed; that day's figures travel from manifest to manifest (`qaserve.builds.manifest.Clustering`).

On the real corpus with all-MiniLM-L6-v2, when it lacks some intents and then gets them: a tenth of them new moves the
effective rank by 0.8%, the inertia by 6%, and 26% of the new pairs are far; a fifth 2.3%, 16%, 37%; two fifths 4.8%,
47%, 46%. New phrasings of known intents, up to two fifths of the corpus: at most 1.6%, 14%, 17%. So the thresholds of
rank, inertia and changes lie where about a fifth of what is known is new. Clusters kept up to there cost nothing: the
mean reciprocal rank of held-out phrasings stayed within 0.005 of that with the pairs clustered again.

Far pairs speak for topics that no cluster is near to, and were looked at over many draws. Held back and given again
were a random tenth (30 draws: 9% to 22% far, 14% in the middle), random pairs as few as 11 (84 draws), every topic of
11 to 264 pairs (84: from none to all, 42% in the middle: some topics lie where others do), and a tenth of all intents
(20: 23% to 48%, 29% in the middle). With the threshold below, far pairs alone say drift of random pairs in 0 of 114
draws, of topics in 49%, of a tenth of the intents in 10%. At 30% it would be 0, 52% and 45%, at 50% and ten pairs 0,
35% and 0. With all-mpnet-base-v2 and the threshold below: random tenths 0 of 30, topics 50%, intents 25%.
"""

import numpy as np
from numpy.typing import NDArray

from qaserve.builds.manifest import Clustering
from qaserve.core.chunked import distances, summed_rows
from qaserve.core.clustering import effective_rank
from qaserve.schemas.ingest import Drift
from qaserve.schemas.params import RankForm

RANK_DRIFT = 0.03
"""Relative change of the effective rank, which is what the number of clusters follows."""
INERTIA_DRIFT = 0.10
"""Relative rise of the mean squared distance of an answer to the mean of its cluster."""
FAR_DRIFT = 0.40
"""Share of the new answers that are farther from their cluster than `FAR_QUANTILE` of those it was made with."""
FAR_QUANTILE = 0.95
MIN_FAR = 8
"""Far answers in one ingest; fewer say little about a corpus, whatever their share."""
CHANGED_DRIFT = 0.20
"""Pairs that came, went or got another answer since, as a share of the pairs there are now."""


def centroids(vectors: NDArray[np.floating], labels: NDArray[np.integer], count: int) -> NDArray[np.float64]:
    """(K, D) mean of every cluster's rows, not normalised: the means of K-means; zero where a cluster is empty."""
    sums = summed_rows(vectors, labels, count)
    return np.asarray(sums / np.maximum(np.bincount(labels, minlength=count), 1)[:, None])


def clustering_of(
    answers: NDArray[np.floating], labels: NDArray[np.integer], count: int, rank_form: RankForm
) -> Clustering:
    """The figures of freshly made clusters, which later builds are compared with.

    Args:
        answers: (n, D) unit rows.
        labels: (n,) their clusters.
        count: K.
        rank_form: Which effective rank.
    """
    found = distances(answers, labels, centroids(answers, labels, count))
    return Clustering(
        effective_rank=round(effective_rank(answers, rank_form), 3),
        inertia=round(float(found.mean()), 6),
        far=round(float(np.quantile(found, FAR_QUANTILE)), 6),
        changed=0,
    )


def measure_drift(
    made: Clustering,
    answers: NDArray[np.floating],
    labels: NDArray[np.integer],
    means: NDArray[np.float64],
    new: NDArray[np.bool_],
    rank_form: RankForm,
) -> Drift:
    """How far from the day of `made`, if these labels stay.

    Args:
        made: The figures of that day; `changed` counts this ingest's changes already.
        answers: (n, D) unit rows: all pairs of the build to be.
        labels: (n,) live clusters; new answers are in the nearest.
        means: (K, D) mean answers of the live clusters, before the new ones joined.
        new: (n,) which answers are new.
        rank_form: Which effective rank.
    """
    count = len(means)
    found = distances(answers, labels, centroids(answers, labels, count))
    beyond = distances(answers, labels, means)[new] > made.far
    measures = {
        "rank": round(_relative(effective_rank(answers, rank_form), made.effective_rank), 4),
        "inertia": round(_relative(float(found.mean()), made.inertia), 4),
        "far": round(float(beyond.mean()), 4) if beyond.size else 0.0,
        "changed": round(made.changed / len(answers), 4),
    }
    reasons = {
        f"effective rank changed by {measures['rank']:+.1%}": abs(measures["rank"]) > RANK_DRIFT,
        f"inertia per pair rose by {measures['inertia']:.1%}": measures["inertia"] > INERTIA_DRIFT,
        f"{measures['far']:.0%} of the new answers are far from every cluster": (
            measures["far"] > FAR_DRIFT and int(beyond.sum()) >= MIN_FAR
        ),
        f"{made.changed:,} pairs changed since the clusters were made": measures["changed"] > CHANGED_DRIFT,
    }
    return Drift(**measures, reasons=tuple(said for said, beyond_it in reasons.items() if beyond_it))


def _relative(value: float, reference: float) -> float:
    return value / reference - 1 if reference > 0 else float(value > 0)
