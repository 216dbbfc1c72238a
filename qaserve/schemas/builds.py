"""Builds, their encoders and their clusters."""

import math
from typing import Literal

from pydantic import Field

from qaserve.schemas.pairs import StoredPair
from qaserve.schemas.params import EncoderBackend
from qaserve.schemas.record import Record

LEAST_AGREEMENT = 0.9999
"""Vectors of two backends of one model are comparable when the cosine of the same text is at least this."""


Precision = Literal["float32", "bfloat16"]


class EncoderIdentity(Record):
    """Everything about an encoder that its vectors depend on."""

    id: str
    revision: str = Field(description="SHA-256 of the weights, or a commit of the model hub.")
    dimension: int = Field(ge=2, description="D.")
    question_prompt: str = ""
    answer_prompt: str = ""
    normalized: bool = True
    # Builds of version 0.1 do not say their backend: it was torch, in float32.
    backend: EncoderBackend = "torch"
    precision: Precision = "float32"
    agreement: float = Field(
        1.0, ge=-1, le=1, description="Lowest cosine to torch in float32 on the fixed texts, rounded down."
    )

    def __str__(self) -> str:
        """Short form for messages."""
        return f"{self.id} (D {self.dimension}, revision {self.revision[:12]}, {self.backend} {self.precision})"

    def cosine_bound(self, other: "EncoderIdentity") -> float:
        """A lower bound of the cosine between the two encoders' vectors of a fixed text; -1 for different models.

        Each vector is at most an angle arccos(agreement) away from torch's; two are at most the sum of both apart.
        """
        same = {"backend": other.backend, "precision": other.precision, "agreement": other.agreement}
        if self.model_copy(update=same) != other:
            return -1.0
        if (self.backend, self.precision) == (other.backend, other.precision):
            return 1.0
        return math.cos(min(math.pi, math.acos(self.agreement) + math.acos(other.agreement)))

    def comparable(self, other: "EncoderIdentity") -> bool:
        """Whether a question encoded by one may be asked of vectors made by the other."""
        return self.cosine_bound(other) >= LEAST_AGREEMENT


class ClusterInfo(Record):
    """A cluster of answers, in words."""

    cluster: int
    name: str
    terms: tuple[str, ...] = Field(description="Words that set it apart, best first.")
    skills: tuple[str, ...] = Field(description="Its most frequent related skills.")
    size: int = Field(description="Pairs in it.")


class BuildInfo(Record):
    """A build of a corpus."""

    build: str
    corpus: str
    live: bool
    complete: bool = Field(description="Collection and bundle are both there; an incomplete one is a crash's orphan.")
    created: str = Field(description="UTC time in ISO 8601.")
    pairs: int
    clusters: int
    encoder: str
    sources: tuple[str, ...]
    prior: str | None = Field(
        None, description="Which importance of the pairs their priors are; uniform: all are 1. Null: unknown."
    )
    student: bool = Field(False, description="Whether it has a student, so that the projection `student` works.")
    metrics: dict[str, float] = Field(
        default_factory=dict, description="As its manifest has them; none where that is broken."
    )


class ClusterList(Record):
    """Every cluster of the live build, by number."""

    build: str
    clusters: tuple[ClusterInfo, ...]


class ClusterDetail(Record):
    """A cluster with its pairs."""

    build: str
    cluster: ClusterInfo
    pairs: tuple[StoredPair, ...]


class BuildList(Record):
    """Every build of a corpus, newest first."""

    corpus: str
    title: str = Field("", description="What the corpus is called on the page; empty: it has only its name.")
    builds: tuple[BuildInfo, ...]
    may_change: bool = Field(
        True, description="Whether who asks for this may also change something: bring pairs in, judge, go back."
    )
    keeps_questions: bool = Field(False, description="Whether questions that find no answer are kept.")
    keep_days: int = Field(0, description="For how many days.")
