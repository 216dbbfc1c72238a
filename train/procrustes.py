"""Fitting W: orthogonal Procrustes, anchored to the identity, in its exact low-rank form.

Orthogonal Procrustes (Schönemann 1966) asks for the orthogonal W that best takes rows S to rows T. With ten pairs in
hundreds of dimensions it is underdetermined: outside the span of the pairs the SVD picks an arbitrary rotation, and W
scrambles every query it did not see. The anchored form

    W = argmin_{WᵀW = I} ‖S W - T‖² + λ ‖W - I‖²  =  polar(SᵀT + λ I)

moves what the pairs tell it to move and leaves the rest alone. SᵀT + λI equals λI outside the span of the rows of S
and T, so with B an orthonormal basis of that span its polar factor is exactly

    W = I + B (polar(Bᵀ SᵀT B + λ I_r) - I_r) Bᵀ,

an SVD of r × r, r ≤ 2n, instead of D × D.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from qaserve.core.chunked import slices, summed_rows
from qaserve.core.projection import LowRankProjection, ProjectionBank
from qaserve.core.routing import Floats

MANY_ROWS = 4_096
"""Rows of a cluster beyond which their space is taken to be all of R^D, of which I is a basis: no SVD of all rows."""


def polar(matrix: ArrayLike) -> Floats:
    """Orthogonal polar factor of a square matrix: the orthogonal matrix nearest to it.

    Where the matrix is singular the factor is not unique; LAPACK's choice of singular vectors decides.
    """
    left, _, right = np.linalg.svd(np.asarray(matrix, dtype=np.float64))
    return np.asarray(left @ right)


def anchored(questions: ArrayLike, answers: ArrayLike, regularization: float) -> LowRankProjection:
    """Anchored W in its exact low-rank form.

    A pair with a = q leaves W at the identity. A pair with a = -q pulls straight against the identity: alone in its
    cluster it makes W reflect q for λ < 1 and leaves it alone for λ ≥ 1; it never turns anything else.

    Args:
        questions: (n, D) S, unit rows; n may be 0.
        answers: (n, D) T, unit rows.
        regularization: λ > 0. As λ → ∞, W → I.

    Returns:
        The rotation, float64, of rank r ≤ min(2n, D).

    Raises:
        ValueError: Shapes differ, a value is not finite, or λ is not above 0.
    """
    q, a = np.asarray(questions), np.asarray(answers)
    if q.shape != a.shape or q.ndim != 2:
        raise ValueError(f"questions {q.shape} and answers {a.shape} must be two arrays (n, D) of one shape")
    if not (np.isfinite(q).all() and np.isfinite(a).all()):
        raise ValueError("a vector is not finite")
    if not (np.isfinite(regularization) and regularization > 0):
        raise ValueError(f"regularization λ is {regularization}; it must be finite and above 0")
    if len(q) > max(MANY_ROWS, q.shape[1]):
        basis, inner = np.eye(q.shape[1]), _product(q, a)
    else:
        s, t = q.astype(np.float64), a.astype(np.float64)
        basis = _row_space(np.concatenate([s, t]))
        inner = (s @ basis).T @ (t @ basis)
    identity = np.eye(basis.shape[1])
    return LowRankProjection(basis, polar(inner + regularization * identity) - identity)


def _product(s: NDArray[np.floating], t: NDArray[np.floating]) -> Floats:
    """(D, D) SᵀT, some rows at a time."""
    total = np.zeros((s.shape[1], s.shape[1]))
    for part in slices(len(s)):
        total += np.asarray(s[part], dtype=np.float64).T @ np.asarray(t[part], dtype=np.float64)
    return total


def _row_space(rows: Floats) -> Floats:
    """(D, r) orthonormal basis of the rows, by SVD; directions below rounding error are dropped."""
    _, values, right = np.linalg.svd(rows, full_matrices=False)
    tolerance = max(rows.shape) * np.finfo(np.float64).eps * (values[0] if values.size else 0.0)
    return np.asarray(right[values > tolerance].T)


def fit_bank(
    questions: NDArray[np.floating],
    answers: NDArray[np.floating],
    labels: NDArray[np.integer],
    count: int,
    regularization: float,
    on_cluster: Callable[[int], None] | None = None,
) -> ProjectionBank:
    """Anchored W of every cluster.

    Args:
        questions: (n, D) unit rows.
        answers: (n, D) unit rows.
        labels: (n,) cluster of each pair, 0 … count-1; a cluster without pairs gets the identity.
        count: K.
        regularization: λ.
        on_cluster: Called with 1 after each cluster, for a progress bar.
    """

    def rotations() -> Iterator[LowRankProjection]:
        for cluster in range(count):
            members = np.flatnonzero(labels == cluster)
            yield anchored(questions[members], answers[members], regularization)
            if on_cluster is not None:
                on_cluster(1)

    return ProjectionBank.pack(rotations(), questions.shape[1])


def mean_rows(rows: NDArray[np.floating], labels: NDArray[np.integer], count: int) -> NDArray[np.float32]:
    """(K, D) normalised mean of every cluster's rows; zero where a cluster is empty or its rows cancel out."""
    sums = summed_rows(rows, labels, count)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0), dtype=np.float32)


def centred_reference(questions: ArrayLike, answers: ArrayLike) -> Floats:
    """The proposal's W, kept as a reference: orthogonal Procrustes on centred pairs, times the optimal scale.

    Args:
        questions: (n, D) S.
        answers: (n, D) T.

    Returns:
        (D, D) scale · rotation, scale = trace(Σ) / ‖S - mean‖² (1 where the pairs do not vary). With fewer than D + 1
        pairs Sᵀ T has a null space, in which any rotation is as good: there W is whatever the SVD's rounding makes it.
    """
    s, t = np.asarray(questions, dtype=np.float64), np.asarray(answers, dtype=np.float64)
    s, t = s - s.mean(axis=0), t - t.mean(axis=0)
    try:
        left, values, right = np.linalg.svd(s.T @ t)
    except np.linalg.LinAlgError:  # LAPACK's fast method gives up on a matrix now and then; the older one does not
        left, values, right = scipy.linalg.svd(s.T @ t, lapack_driver="gesvd")
    spread, pull = (s**2).sum(), values.sum()
    scale = pull / spread if spread > SPREAD_FLOOR and pull > SPREAD_FLOOR else 1.0
    return np.asarray(scale * (left @ right))


SPREAD_FLOOR = 1e-12
"""Below this the pairs of a cluster are one pair repeated, and a scale cannot be estimated."""


class DenseBank:
    """Any W as matrices, one per cluster: what a bank of low rank is compared with."""

    def __init__(self, matrices: Sequence[Floats]) -> None:
        """Take K matrices, (D, D) each."""
        self._matrices = matrices

    def __len__(self) -> int:
        """K."""
        return len(self._matrices)

    def project_rows(self, rows: Floats, weights: Floats) -> Floats:
        """(m, D) rows and (m, K) weights → (m, D) Σ_k w_k · x W_k, not normalised."""
        return np.asarray(sum(weights[:, [cluster]] * (rows @ matrix) for cluster, matrix in enumerate(self._matrices)))
