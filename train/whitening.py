"""Fitting G: what questions and answers of one intent differ in says nothing about the intent, and counts less.

Σ is the covariance of all questions and answers around the mean of their intent. A projected question x' is compared
with an answer a by x' G aᵀ, G = c Σ⁻¹: the metric of linear discriminant analysis (Fisher 1936), in retrieval known as
within-class covariance normalisation (Hatch et al. 2006). Whitening both sides by Σ^(-1/2) is the same product; with G
on one side only the question is changed, and the answers are stored as they are. A corpus has fewer pairs than Σ has
entries, so Σ is shrunk towards a multiple of the identity (Ledoit & Wolf 2004, here with a fixed share).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qaserve.core.chunked import slices

SHRINKAGE = 0.1
MAX_PAIRS = 100_000
"""Of a larger corpus every k-th intent is read, so that the means of the intents stay in memory."""


def fit_whitening(
    questions: NDArray[np.floating], answers: NDArray[np.floating], intents: Sequence[str]
) -> NDArray[np.float32]:
    """G of these pairs.

    Args:
        questions: (n, D) unit rows.
        answers: (n, D) unit rows.
        intents: (n,) the intent of every pair.

    Returns:
        (D, D) G, symmetric and positive definite, so scaled that answers a G are of length 1 in the quadratic mean. The
        identity where all questions and answers of every intent are one vector.
    """
    numbers = np.unique(np.asarray(intents), return_inverse=True)[1]
    every = max(1, -(-len(numbers) // MAX_PAIRS))
    rows = np.flatnonzero(numbers % every == 0)
    numbers, dimension = numbers[rows] // every, questions.shape[1]
    covariance, spread = np.zeros((dimension, dimension)), np.zeros((dimension, dimension))
    means = _means(questions, answers, rows, numbers)
    for part in slices(len(rows)):
        q, a = (np.asarray(vectors[rows[part]], dtype=np.float64) for vectors in (questions, answers))
        spread += a.T @ a / len(rows)
        for centred in (q - means[numbers[part]], a - means[numbers[part]]):
            covariance += centred.T @ centred / (2 * len(rows))
    variance = np.trace(covariance) / dimension
    if variance <= np.finfo(np.float32).eps ** 2:
        return np.eye(dimension, dtype=np.float32)
    inverse = np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * variance * np.eye(dimension))
    scale = np.sqrt(np.trace(inverse @ spread @ inverse))
    return np.asarray(inverse / scale, dtype=np.float32)


def _means(
    questions: NDArray[np.floating],
    answers: NDArray[np.floating],
    rows: NDArray[np.intp],
    numbers: NDArray[np.intp],
) -> NDArray[np.float64]:
    """(I, D) mean of the questions and answers of every intent."""
    count = int(numbers.max()) + 1
    sums = np.zeros((count, questions.shape[1]))
    for part in slices(len(rows)):
        for vectors in (questions, answers):
            np.add.at(sums, numbers[part], vectors[rows[part]])
    return sums / (2 * np.bincount(numbers, minlength=count))[:, None]
