"""A map of answers in two dimensions.

The clusters' mean answers are laid out by t-SNE (van der Maaten & Hinton 2008); any other vector stands among the
clusters that it is most similar to, by one rule for questions and answers alike.
"""

import numpy as np
from numpy.typing import NDArray

from qaserve.core.routing import Floats, softmax

AMONG = 6
"""How many of the nearest clusters say where a vector stands."""
SHARPNESS = 0.06
"""Temperature of their say."""
PERPLEXITY = 12.0
SEED = 0


def layout(means: NDArray[np.floating]) -> Floats:
    """Where clusters stand: like ones near each other.

    Args:
        means: (K, D) unit rows.

    Returns:
        (K, 2) in a square from -1 to 1; the same input gives the same map on the same machine.
    """
    count = len(means)
    if count < 4:
        angles = 2 * np.pi * np.arange(count) / max(count, 1)
        return np.column_stack([np.cos(angles), np.sin(angles)]) * min(1.0, count - 1)
    from sklearn.manifold import TSNE  # noqa: PLC0415 - takes a second to import, and only a map needs it

    perplexity = min(PERPLEXITY, (count - 1) / 3)
    placed = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=SEED).fit_transform(means)
    centred = placed.astype(np.float64) - placed.mean(axis=0)
    return np.asarray(centred / np.abs(centred).max())


def place(vectors: NDArray[np.floating], means: NDArray[np.floating], positions: Floats) -> Floats:
    """Where vectors stand among the clusters.

    Args:
        vectors: (m, D), of any positive length.
        means: (K, D) unit rows.
        positions: (K, 2) of `layout`.

    Returns:
        (m, 2): the mean of the positions of the nearest clusters, weighed by a softmax over their similarities.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similarities = rows @ np.asarray(means, dtype=np.float64).T
    nearest = np.argsort(-similarities, axis=1, kind="stable")[:, :AMONG]
    shares = softmax(np.take_along_axis(similarities, nearest, axis=1), SHARPNESS)
    return np.asarray(np.einsum("mk,mkd->md", shares, positions[nearest]))
