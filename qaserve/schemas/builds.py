"""Builds, their encoders and their clusters."""

from pydantic import Field

from qaserve.schemas.pairs import StoredPair
from qaserve.schemas.record import Record


class EncoderIdentity(Record):
    """Everything about an encoder that its vectors depend on. Vectors of unequal identities are not comparable."""

    id: str
    revision: str = Field(description="SHA-256 of the weights, or a commit of the model hub.")
    dimension: int = Field(ge=2, description="D.")
    question_prompt: str = ""
    answer_prompt: str = ""
    normalized: bool = True

    def __str__(self) -> str:
        """Short form for messages."""
        return f"{self.id} (D {self.dimension}, revision {self.revision[:12]})"


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
    builds: tuple[BuildInfo, ...]
    may_change: bool = Field(
        True, description="Whether who asks for this may also change something: bring pairs in, judge, go back."
    )
