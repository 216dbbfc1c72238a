"""Projection: carrying a question from question space into answer space. Pure NumPy.

Rows are unit vectors and are multiplied from the left, x' = x W. Every W here is the identity plus a term of low rank,
so a projection costs O(D · r) and a bank of K of them is stored in the space of their pairs, not of K dense matrices.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qaserve.core.routing import Floats

SAME_DIRECTION = 1e-9
"""Below this sine, question and answer point the same way or opposite ways, and no plane is defined by them."""


class LowRankProjection(NamedTuple):
    """W = I + B C Bᵀ. B has orthonormal columns; W is orthogonal."""

    basis: NDArray[np.floating]
    """(D, r) B."""
    core: NDArray[np.floating]
    """(r, r) C."""

    def apply(self, x: ArrayLike) -> Floats:
        """X W for x of shape (..., D)."""
        rows = np.asarray(x, dtype=np.float64)
        return np.asarray(rows + ((rows @ self.basis) @ self.core) @ self.basis.T)

    def dense(self) -> Floats:
        """(D, D) W, for tests and comparisons."""
        return self.apply(np.eye(self.basis.shape[0]))


class ProjectionBank:
    """One rotation per cluster, packed into two arrays."""

    def __init__(self, basis: NDArray[np.float32], cores: NDArray[np.float32], ranks: NDArray[np.int64]) -> None:
        """Check that the arrays fit together.

        Args:
            basis: (R, D) the columns of every B, one cluster after the other, as rows; R = Σ r_k.
            cores: (Σ r_k²,) every C, row by row.
            ranks: (K,) r_k.

        Raises:
            ValueError: The shapes contradict each other.
        """
        self.basis, self.cores, self.ranks = basis, cores, ranks
        squares = ranks**2
        if basis.ndim != 2 or basis.shape[0] != ranks.sum() or cores.shape != (int(squares.sum()),):
            raise ValueError(
                f"basis {basis.shape}, cores {cores.shape} and ranks of sum {ranks.sum()} do not fit together"
            )
        self._rows = np.concatenate([[0], np.cumsum(ranks)])
        self._cells = np.concatenate([[0], np.cumsum(squares)])
        self._effective: dict[int, float] = {}

    @classmethod
    def pack(cls, rotations: Iterable[LowRankProjection], dimension: int) -> "ProjectionBank":
        """Pack rotations of one dimension, in the order of their clusters; each is let go once it is packed."""
        basis, cores, ranks = bytearray(), bytearray(), []
        for part in rotations:
            basis += np.ascontiguousarray(part.basis.T, dtype=np.float32).tobytes()
            cores += np.ascontiguousarray(part.core, dtype=np.float32).tobytes()
            ranks.append(part.core.shape[0])
        return cls(
            np.frombuffer(basis, dtype=np.float32).reshape(-1, dimension),
            np.frombuffer(cores, dtype=np.float32),
            np.array(ranks, dtype=np.int64),
        )

    def __len__(self) -> int:
        """K."""
        return len(self.ranks)

    def __getitem__(self, cluster: int) -> LowRankProjection:
        """W of a cluster, as views."""
        rank = int(self.ranks[cluster])
        rows = self.basis[self._rows[cluster] : self._rows[cluster + 1]]
        core = self.cores[self._cells[cluster] : self._cells[cluster + 1]].reshape(rank, rank)
        return LowRankProjection(rows.T, core)

    def _rows_and_core(self, cluster: int) -> tuple[Floats, NDArray[np.float32]]:
        """(r, D) Bᵀ and (r, r) C of a cluster; in float64 once, for a product would convert it every time."""
        basis, core = self[cluster]
        return basis.T.astype(np.float64), core

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return int(self.basis.nbytes + self.cores.nbytes + self.ranks.nbytes)

    @property
    def dense_nbytes(self) -> int:
        """Bytes that K dense float32 matrices would take."""
        return int(len(self) * self.basis.shape[1] ** 2 * 4)

    def angle(self, x: ArrayLike, cluster: int) -> float:
        """Degrees between x (D,) and x W of a cluster: 2 asin(‖x W - x‖ / 2‖x‖), as W is orthogonal."""
        query = np.asarray(x, dtype=np.float64)
        rows, core = self._rows_and_core(cluster)
        change = (rows @ query) @ core
        half = math.sqrt(change @ change) / (2 * math.sqrt(query @ query))
        return math.degrees(2 * math.asin(min(1.0, half)))

    def effective_rank(self, cluster: int) -> float:
        """The exp of the entropy of the singular values σ / Σσ of W - I (Roy and Vetterli, 2007); 0 for I."""
        if cluster not in self._effective:
            values = np.linalg.svd(self[cluster].core.astype(np.float64), compute_uv=False)
            shares = values[values > 0] / values.sum() if values.any() else values[:0]
            self._effective[cluster] = float(np.exp(-(shares * np.log(shares)).sum())) if shares.size else 0.0
        return self._effective[cluster]

    def project(self, x: ArrayLike, weights: ArrayLike) -> Floats:
        """Blend of the clusters' projections, x' = Σ_k w_k · x W_k.

        Args:
            x: (D,) unit vector.
            weights: (K,) cluster weights that sum to 1. All zero (no votes): x is returned.

        Returns:
            (D,) float64, not normalised: the less the clusters agree, the shorter it is.
        """
        query = np.asarray(x, dtype=np.float64)
        blend = np.asarray(weights, dtype=np.float64)
        moved = query.copy()
        for cluster in np.flatnonzero(blend).tolist():
            rows, core = self._rows_and_core(cluster)
            moved += (blend[cluster] * ((rows @ query) @ core)) @ rows
        return moved

    def project_rows(self, rows: Floats, weights: Floats) -> Floats:
        """`project` for many questions at once.

        Args:
            rows: (m, D) unit rows.
            weights: (m, K) cluster weights of each.

        Returns:
            (m, D), not normalised.
        """
        if len(rows) == 1:  # no rows to choose
            return self.project(rows[0], weights[0])[None, :]
        moved = rows.copy()
        for cluster in np.flatnonzero(weights.any(axis=0)).tolist():
            basis, core = self[cluster]
            voted = np.flatnonzero(weights[:, cluster])
            turned = ((rows[voted] @ basis) @ core) @ basis.T
            moved[voted] += weights[voted, cluster, None] * turned
        return moved


class FixedRows:
    """A bank over rows that are projected again and again with other weights: what does not depend on them is kept."""

    def __init__(self, bank: ProjectionBank, rows: Floats) -> None:
        """Compute (x B_k) C_k of every row and cluster.

        Args:
            bank: K projections.
            rows: (m, D) unit rows.
        """
        self._bank, self._rows = bank, rows
        self._moves = np.asarray(rows @ bank.basis.T)
        end = 0
        for cluster, rank in enumerate(bank.ranks.tolist()):
            start, end = end, end + rank
            self._moves[:, start:end] = self._moves[:, start:end] @ bank[cluster].core

    def __len__(self) -> int:
        """K."""
        return len(self._bank)

    def project_rows(self, rows: Floats, weights: Floats) -> Floats:
        """As `ProjectionBank.project_rows`. Raises ValueError where the rows are not those it was made for."""
        if rows is not self._rows:
            raise ValueError("these are other rows than those that were fixed")
        shares = np.repeat(weights.astype(self._moves.dtype), self._bank.ranks, axis=1)
        return np.asarray(rows + (self._moves * shares) @ self._bank.basis)


def project_by_pairs(x: ArrayLike, questions: ArrayLike, answers: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Blend of the minimal rotations of single pairs, x' = Σ_i p_i · x W_i, in O(N · D).

    W_i turns the plane of q_i and a_i so that q_i W_i = a_i, and leaves everything orthogonal to it alone: with
    c = q_i · a_i, u_i = unit(a_i - c q_i), s = √(1 - c²),

        x W_i = x + ((c-1)(x·q_i) - s (x·u_i)) q_i + (s (x·q_i) + (c-1)(x·u_i)) u_i.

    Where a_i = q_i, W_i is the identity. Where a_i = -q_i, every plane through q_i is minimal; the one towards the
    coordinate axis that q_i leans on least is taken, so that the result is defined and the same everywhere.

    Args:
        x: (D,) unit vector.
        questions: (N, D) q, any positive length: normalised here.
        answers: (N, D) a, any positive length: normalised here.
        probabilities: (N,) p, summing to 1. Empty: x is left where it is.

    Returns:
        (D,) float64, not normalised.
    """
    query = np.asarray(x, dtype=np.float64)
    shares = np.asarray(probabilities, dtype=np.float64)
    if shares.size == 0:
        return query.copy()
    q, a = _unit(questions), _unit(answers)
    cosine = np.clip((q * a).sum(axis=1), -1.0, 1.0)
    across = a - cosine[:, None] * q
    # Once more: where a is near ±q, what rounding left along q is not small beside the rest.
    across -= (across * q).sum(axis=1, keepdims=True) * q
    sine = np.linalg.norm(across, axis=1)
    flat = sine < SAME_DIRECTION
    across[flat] = _least_axis(q[flat])
    u = _unit(across)
    sine = np.where(flat, 0.0, sine)
    along_q, along_u = q @ query, u @ query
    to_q = (cosine - 1) * along_q - sine * along_u
    to_u = sine * along_q + (cosine - 1) * along_u
    return np.asarray(query + (shares * to_q) @ q + (shares * to_u) @ u)


def _unit(rows: ArrayLike) -> Floats:
    values = np.asarray(rows, dtype=np.float64)
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True))


def _least_axis(q: Floats) -> Floats:
    axes = np.zeros_like(q)
    axes[np.arange(len(q)), np.abs(q).argmin(axis=1)] = 1.0
    return np.asarray(axes - (axes * q).sum(axis=1, keepdims=True) * q)
