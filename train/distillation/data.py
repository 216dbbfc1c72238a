"""What a student is taught: its inputs, what its teacher makes of them, and points between them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qaserve.common.errors import CorpusError
from qaserve.core.student import StudentSpec
from train.distillation.configs import Recipe

Teacher = Callable[[NDArray[np.float64]], NDArray[np.floating]]
"""(m, D) unit rows → (m, D) rows of any length."""

FEWEST_ROWS = 10
NEIGHBOURS = 10
"""A mixture's second question is one of this many nearest or any question, each half of the time."""
MIXTURE_NOISE = 0.05
"""Expected length of the noise on a mixture, before it is normalised."""


@dataclass(frozen=True)
class TrainingData:
    """What is taught, float64 but for the answers; checked."""

    inputs: NDArray[np.float64]
    targets: NDArray[np.float64]
    importance: NDArray[np.float64]
    teacher: Teacher
    answers: NDArray[np.float32] | None


def make_data(
    inputs: ArrayLike,
    teacher: Teacher,
    spec: StudentSpec,
    recipe: Recipe,
    answers: ArrayLike | None,
    importance: ArrayLike | None,
) -> TrainingData:
    """Check what `distill` was given, and ask the teacher at the inputs.

    Args:
        inputs: (n, D) unit rows; n at least 10.
        teacher: (m, D) → (m, D).
        spec: The student's shape; its D.
        recipe: Says whether answers are needed.
        answers: (N, D) unit rows, for the ranking loss.
        importance: (n,) ≥ 0, scaled to mean 1; None: all equal.

    Raises:
        CorpusError: Fewer than 10 inputs.
        ValueError: Shapes contradict each other, a value is not finite, or the ranking loss has no answers.
    """
    rows = _rows("inputs", inputs, spec.dimension, np.float64)
    if len(rows) < FEWEST_ROWS:
        raise CorpusError(
            f"{len(rows)} questions are too few to train a student, at least {FEWEST_ROWS} are needed",
            hint="Ingest more pairs; routing and projection work without a student.",
        )
    if recipe.loss == "ranking" and answers is None:
        raise ValueError("the ranking loss compares rankings of answers, and no answers are given")
    shares = np.ones(len(rows)) if importance is None else np.asarray(importance, dtype=np.float64)
    if shares.shape != (len(rows),) or not np.isfinite(shares).all() or (shares < 0).any() or not shares.any():
        raise ValueError(f"importance {shares.shape} must be ({len(rows)},), finite, not negative, and not all zero")
    ranked = None
    if recipe.loss == "ranking":
        ranked = _rows("answers", answers, spec.dimension, np.float32)
    return TrainingData(rows, ask(teacher, rows), shares / shares.mean(), teacher, ranked)


def ask(teacher: Teacher, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, D) the teacher's outputs at unit rows; ValueError where they are unusable."""
    outputs = np.asarray(teacher(rows), dtype=np.float64)
    if outputs.shape != rows.shape:
        raise ValueError(f"the teacher gave {outputs.shape} for inputs {rows.shape}")
    if not np.isfinite(outputs).all():
        raise ValueError("the teacher gave a value that is not finite")
    return outputs


def _rows(name: str, rows: ArrayLike | None, dimension: int, dtype: type) -> NDArray[Any]:
    values: NDArray[Any] = np.asarray(rows, dtype=dtype)
    if values.ndim != 2 or values.shape[1] != dimension:
        raise ValueError(f"{name} are {values.shape}; the student takes (n, {dimension})")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} hold a value that is not finite")
    return values


def neighbours(rows: NDArray[np.float64], block: int = 1024) -> NDArray[np.int64]:
    """(n, k) the k ≤ 10 nearest other rows of every row, by cosine, in no order; O(block · n) memory."""
    count = min(NEIGHBOURS, len(rows) - 1)
    found = np.empty((len(rows), count), dtype=np.int64)
    for start in range(0, len(rows), block):
        similar = rows[start : start + block] @ rows.T
        similar[np.arange(len(similar)), start + np.arange(len(similar))] = -np.inf
        found[start : start + block] = np.argpartition(-similar, count - 1, axis=1)[:, :count]
    return found


def mix(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    near: NDArray[np.int64],
    times: int,
    random: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """New points between questions, unit(a q_i + (1-a) q_j + noise) with a in [½, 1), and their weights.

    Args:
        rows: (n, D) unit rows q.
        weights: (n,).
        near: (n, k) neighbours to draw j from, half of the time.
        times: Mixtures per row.
        random: Draws them.
    """
    first = np.tile(np.arange(len(rows)), times)
    close = near[first, random.integers(near.shape[1], size=len(first))]
    second = np.where(random.random(len(first)) < 0.5, close, random.integers(len(rows), size=len(first)))
    share = random.uniform(0.5, 1.0, len(first))
    noise = random.normal(scale=MIXTURE_NOISE / math.sqrt(rows.shape[1]), size=(len(first), rows.shape[1]))
    mixed = share[:, None] * rows[first] + (1 - share)[:, None] * rows[second] + noise
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True), share * weights[first] + (1 - share) * weights[second]
