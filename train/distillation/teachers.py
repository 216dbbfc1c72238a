"""What a student is taught: question routing and projection as one function of rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qaserve.core.projection import Bank
from qaserve.core.routing import Floats, final_softmax, voting_shares


@dataclass(frozen=True)
class RoutedTeacher:
    """x → Σ_k w_k(x) · x W_k, with the weights that question routing gives x.

    Asked at a known question, that question votes for itself, as it does when somebody asks it.
    """

    questions: Floats
    """(n, D) unit rows: the known questions."""
    labels: NDArray[np.int64]
    """(n,) cluster of each."""
    bank: Bank
    temperature: float
    """τ."""
    hits: int | None
    """N; None: all known questions vote."""
    final_temperature: float | None = None
    """τ' of a final softmax; None: without one."""
    prior: Floats | None = None
    """(n,) importance of the known questions; None means 1 for all."""

    def weights(self, rows: NDArray[np.floating]) -> Floats:
        """(m, K) cluster weights of unit rows (m, D)."""
        shares = voting_shares(rows @ self.questions.T, self.temperature, self.hits, self.prior)
        weights: Floats = shares @ np.eye(len(self.bank))[self.labels]
        if self.final_temperature is None:
            return weights
        return np.stack([final_softmax(row, self.final_temperature) for row in weights])

    def __call__(self, rows: NDArray[np.floating]) -> Floats:
        """(m, D) unit rows → (m, D) projected rows, not normalised."""
        return self.bank.project_rows(np.asarray(rows, dtype=np.float64), self.weights(rows))
