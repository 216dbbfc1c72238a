"""What a student is taught: question routing and projection as one function of rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qaserve.core.pipeline import Pipeline, nearest_neighbors
from qaserve.core.routing import Floats


@dataclass(frozen=True)
class RoutedTeacher:
    """x → Σ_k w_k(x) · x W_k, with the weights that routing gives x.

    Asked at a known question, that question votes for itself, as it does when somebody asks it.
    """

    questions: Floats
    """(n, D) unit rows: the known questions."""
    labels: NDArray[np.int64]
    """(n,) cluster of each."""
    pipeline: Pipeline
    prior: Floats | None = None
    """(n,) importance of the known questions; None means 1 for all."""

    def __call__(self, rows: NDArray[np.floating]) -> Floats:
        """(m, D) unit rows → (m, D) projected rows, not normalised."""
        queries = np.asarray(rows, dtype=np.float64)
        hits = self.pipeline.params.hits
        neighbors = nearest_neighbors(queries @ self.questions.T, hits, self.labels, self.prior)
        return self.pipeline.project(queries, neighbors).vectors
