"""What builds are made of: the pairs of one to be with their vectors, and the live one before it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qaserve.bundle import UNIFORM, Defaults, FittedFeedback, Manifest, Tuning
from qaserve.calibration import Calibration
from qaserve.records import Pair
from qaserve.store import CollectionInfo, PairVectors
from train.folds import Examples


@dataclass(frozen=True)
class Corpus:
    """All pairs of a build to be, by point id, with their vectors and priors in the same order."""

    pairs: dict[str, Pair]
    questions: NDArray[np.float32]
    answers: NDArray[np.float32]
    priors: NDArray[np.float64]
    prior: str = UNIFORM
    """Which importance the priors are."""

    @property
    def examples(self) -> Examples:
        """The same as what is fitted on."""
        priors = None if (self.priors == 1).all() else self.priors
        vectors = self.questions.astype(np.float64), self.answers.astype(np.float64)
        return Examples(list(self.pairs.values()), *vectors, priors)


@dataclass(frozen=True)
class ExtraRows:
    """Further rows for W to be fitted on; they are no pairs of the build."""

    questions: NDArray[np.float32]
    """(m, D) unit rows."""
    answers: NDArray[np.float32]
    """(m, D) unit rows."""
    labels: NDArray[np.int64]
    """(m,) cluster of each."""
    said: FittedFeedback
    """Where they come from, for the manifest."""


@dataclass(frozen=True)
class Choice:
    """The numbers of a build to be, how they were chosen, and how sure its answers are."""

    anchor: float
    defaults: Defaults
    tuning: Tuning | None
    calibration: Calibration | None


@dataclass(frozen=True)
class LiveBuild:
    """What is live before the next build."""

    info: CollectionInfo
    manifest: Manifest | None
    """None where its bundle is broken."""
    points: dict[str, PairVectors]
    """By id, in the order of ids."""

    @property
    def prior(self) -> str:
        """Which importance its priors are."""
        return UNIFORM if self.manifest is None else self.manifest.prior

    @property
    def pairs(self) -> dict[str, Pair]:
        """Its pairs by point id."""
        return {point: row.stored.pair for point, row in self.points.items()}

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) cluster of every pair."""
        return np.array([row.stored.cluster for row in self.points.values()], dtype=np.int64)

    @property
    def by_point(self) -> dict[str, int]:
        """The cluster of every pair, by point id."""
        return {point: row.stored.cluster for point, row in self.points.items()}

    @property
    def cluster_names(self) -> tuple[str, ...]:
        """The names of its clusters; none where its bundle is broken."""
        return () if self.manifest is None else tuple(cluster.name for cluster in self.manifest.clusters)

    @property
    def corpus(self) -> Corpus:
        """Its pairs, vectors and priors."""
        rows = self.points.values()
        return Corpus(
            self.pairs,
            np.stack([vectors.question for vectors in rows]),
            np.stack([vectors.answer for vectors in rows]),
            np.array([vectors.stored.prior for vectors in rows]),
            self.prior,
        )
