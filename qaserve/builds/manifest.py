"""The manifest of a bundle: what it is, how it was made, and the hash of every file."""

import hashlib
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from qaserve.core.calibration import Calibration
from qaserve.core.student import StudentSpec
from qaserve.schemas.builds import ClusterInfo, EncoderIdentity
from qaserve.schemas.pairs import TopicText
from qaserve.schemas.params import BuildId, CorpusName, Hyperparameters, RankForm, Tuning
from qaserve.schemas.record import Record
from qaserve.store.words import Bm25Params

UNIFORM = "uniform"
"""The importance of pairs that all weigh 1."""

FORMAT: Literal[7] = 7


class FileEntry(Record):
    """A file of the bundle."""

    sha256: str
    size: int


class StudentInfo(Record):
    """What a student is, and how it was taught."""

    spec: StudentSpec
    recipe: dict[str, float | int | str]
    importance: str = Field(UNIFORM, description="How the pairs were weighed in the loss.")
    seed: int
    epochs: int = Field(description="Epochs run.")
    train_loss: float = Field(description="Of the epoch that was kept.")
    validation_cosine: float = Field(
        description="Mean cosine of student and teacher on known questions kept apart, in that epoch."
    )


class Clustering(Record):
    """How the answers lay when the clusters were made, in this build or in one before it: what drift is measured by."""

    effective_rank: float
    inertia: float = Field(description="Mean squared distance of an answer to the mean of its cluster.")
    far: float = Field(description="95th percentile of those distances.")
    changed: int = Field(description="Pairs that came, went or got another answer since.")


class FittedFeedback(Record):
    """What people said of answers, as further rows that W was fitted on."""

    rows: int = Field(description="Questions that W was fitted on beside the pairs' own.")
    repeated: int = Field(description="Judgements of a pair's own question, which gave no row.")
    unknown: int = Field(description="Judgements of pairs that the build does not have, which gave no row.")


class DocumentsInfo(Record):
    """The documents of a build: a second set of points, one for each section."""

    documents: int
    sections: int
    content_hash: str = Field(description="SHA-256 over the sections, in their order.")


class Manifest(Record):
    """What a bundle is. Holds no time and no path: the same input gives the same bytes."""

    format: Literal[7] = FORMAT
    build: BuildId
    corpus: CorpusName
    corpus_hash: str = Field(description="SHA-256 over the pairs' ids and contents, in the order of ids.")
    encoder: EncoderIdentity
    pairs: int = Field(ge=1)
    hyperparameters: Hyperparameters = Field(description="λ, and how a question is answered by default.")
    regularization_setting: float | None = Field(None, description="λ as it was set; null: it was chosen.")
    rank_form: RankForm
    max_clusters: int
    seed: int
    precision: float = Field(description="As it was set; see its setting.")
    effective_rank: float
    prior: str = Field(UNIFORM, description="Which importance of the pairs their priors are.")
    tuning: Tuning | None = Field(
        None, description="Null: too few pairs to try on, or the numbers of an earlier build."
    )
    calibration: Calibration | None = Field(None, description="Null: too few pairs to calibrate on.")
    feedback: FittedFeedback | None = Field(None, description="Null: W was fitted on the pairs alone.")
    documents: DocumentsInfo | None = Field(None, description="Null: it has none.")
    student: StudentInfo | None = Field(None, description="Null: none was trained for this build.")
    topic_text: TopicText = Field(TopicText(), description="What the topic of a pair is the vector of.")
    bm25: Bm25Params = Field(description="What the words of the pairs were encoded with.")
    metrics: dict[str, float] = Field(
        default_factory=dict, description="Sizes, and how well held-out phrasings and golden questions are answered."
    )
    clustering: Clustering | None = Field(None, description="Null: made before drift was measured.")
    clusters: tuple[ClusterInfo, ...]
    files: dict[Annotated[str, StringConstraints(pattern=r"^[a-z]+\.[a-z]+$")], FileEntry]


def entry_for(data: bytes) -> FileEntry:
    """The manifest's line for a file of these bytes."""
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest as written to disk."""
    return (manifest.model_dump_json(indent=1) + "\n").encode()
