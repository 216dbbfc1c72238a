"""What a student is taught: question routing and projection as one function of rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qaserve.projection import Bank
from qaserve.routing import Floats, final_softmax, softmax


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


def voting_shares(
    similarities: Floats, temperature: float, hits: int | None = None, prior: Floats | None = None
) -> Floats:
    """Probabilities of question routing for many questions at once.

    Args:
        similarities: (m, n) cosines of questions to known questions.
        temperature: τ.
        hits: How many of the nearest vote; None means all.
        prior: (n,) importance of each known question, positive; None means 1 for all.

    Returns:
        (m, n) shares, rows sum to 1; zero beyond the top `hits`.
    """
    if hits is None or hits >= similarities.shape[1]:
        return softmax(similarities, temperature, prior)
    top = np.argpartition(-similarities, hits - 1, axis=1)[:, :hits]
    voting = softmax(np.take_along_axis(similarities, top, axis=1), temperature, None if prior is None else prior[top])
    shares = np.zeros_like(similarities)
    np.put_along_axis(shares, top, voting, axis=1)
    return shares
