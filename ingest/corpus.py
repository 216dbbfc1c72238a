"""What builds are made of: the pairs of one to be with their vectors, and the live one before it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingest.names import Words
from ingest.pairs import PairTable
from qaserve.builds.manifest import UNIFORM, DocumentsInfo, FittedFeedback, Manifest
from qaserve.common.text import digest_of
from qaserve.core.calibration import Calibration
from qaserve.schemas.documents import Section
from qaserve.schemas.pairs import StoredPair
from qaserve.schemas.params import Hyperparameters, Tuning
from qaserve.store import BuildMetadata
from qaserve.store.points import PairVectors
from train.folds import Examples


@dataclass(frozen=True)
class Corpus:
    """All pairs of a build to be, by point id, with their vectors and priors in the same order."""

    pairs: PairTable
    questions: NDArray[np.float32]
    answers: NDArray[np.float32]
    topics: NDArray[np.float32]
    """NaN rows where a pair has no topic."""
    priors: NDArray[np.float64]
    prior: str = UNIFORM
    """Which importance the priors are."""
    words: Words | None = None
    """Of its pairs, where they were counted already."""

    def take(self, rows: NDArray[np.int64]) -> "Corpus":
        """Some of its rows, ascending, with their vectors in memory."""
        points = list(self.pairs)
        pairs = self.pairs.take(points[row] for row in rows)
        vectors = self.questions[rows], self.answers[rows], self.topics[rows]
        return Corpus(pairs, *vectors, self.priors[rows], self.prior)

    @property
    def examples(self) -> Examples:
        """The same as what is fitted on."""
        priors = None if (self.priors == 1).all() else self.priors
        topics = None if np.isnan(self.topics[:, 0]).all() else self.topics.astype(np.float64)
        vectors = self.questions.astype(np.float64), self.answers.astype(np.float64)
        return Examples(list(self.pairs.values()), *vectors, topics, priors)


class Documents(NamedTuple):
    """All sections of a build to be, with their vectors in the same order."""

    sections: tuple[Section, ...] = ()
    vectors: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)
    """(s, D) unit rows."""

    @property
    def info(self) -> DocumentsInfo | None:
        """What the manifest says of them; None where there are none."""
        if not self.sections:
            return None
        texts = (section.model_dump_json() for section in self.sections)
        paths = {section.path for section in self.sections}
        return DocumentsInfo(documents=len(paths), sections=len(self.sections), content_hash=digest_of(texts))


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
    """The hyperparameters of a new build, how they were tuned, and how sure its answers are."""

    hyperparameters: Hyperparameters
    tuning: Tuning | None
    calibration: Calibration | None


@dataclass(frozen=True)
class LiveBuild:
    """What is live before the next build."""

    metadata: BuildMetadata
    manifest: Manifest | None
    """None where its bundle is broken."""
    corpus: Corpus
    """Its pairs in the order of ids, with their vectors and priors."""
    labels: NDArray[np.int64]
    """(n,) cluster of every pair."""
    documents: Documents

    @property
    def pairs(self) -> PairTable:
        """Its pairs by point id."""
        return self.corpus.pairs

    @property
    def prior(self) -> str:
        """Which importance its priors are."""
        return self.corpus.prior

    @property
    def by_point(self) -> dict[str, int]:
        """The cluster of every pair, by point id."""
        return dict(zip(self.pairs, self.labels.tolist(), strict=True))

    @property
    def cluster_names(self) -> tuple[str, ...]:
        """The names of its clusters; none where its bundle is broken."""
        return () if self.manifest is None else tuple(cluster.name for cluster in self.manifest.clusters)


def points_of(corpus: Corpus, labels: NDArray[np.int64]) -> Iterator[PairVectors]:
    """The points of a build of these pairs, with these clusters (n,)."""
    for row, (point, pair) in enumerate(corpus.pairs.items()):
        stored = StoredPair(id=point, pair=pair, cluster=int(labels[row]), prior=float(corpus.priors[row]))
        topic = corpus.topics[row]
        yield PairVectors(stored, corpus.questions[row], corpus.answers[row], None if np.isnan(topic[0]) else topic)
