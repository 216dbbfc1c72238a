"""What goes over the wire besides asking: feedback on answers, and jobs that bring pairs in."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from ingest.report import IngestReport
from qaserve.bundle import BuildId
from qaserve.records import ErrorDetail, Record
from qaserve.settings import HitCount, ProjectionName, RoutingName, Temperature, Weight

MAX_FEEDBACK_PAGE = 1_000
MAX_COMMENT_CHARS = 2_000
MAX_ID_CHARS = 512

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARS)]
JobState = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
JobId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
JOB_ENDS: frozenset[JobState] = frozenset({"done", "failed", "cancelled", "interrupted"})


class AskedWith(Record):
    """How the answer came about that is judged: the part of its trace that asking again needs."""

    routing: RoutingName | None = None
    projection: ProjectionName | None = None
    temperature: Temperature | None = None
    final_temperature: Temperature | None = None
    hits: HitCount | None = None
    lexical_weight: Weight | None = None
    priors: bool | None = None
    rank: Annotated[int, Field(ge=1)] | None = Field(None, description="Where the pair stood in the list.")
    score: Annotated[float, Field(allow_inf_nan=False)] | None = Field(None, description="Its score there.")


class FeedbackRequest(Record):
    """Whether a pair helped with a question."""

    question: str = Field(description="As it was asked.")
    pair: Identifier = Field(description="The answer's `id`, or its `pair_id`.")
    helpful: bool
    build: BuildId = Field(description="The build that answered, from the answer's document.")
    comment: Annotated[str, StringConstraints(max_length=MAX_COMMENT_CHARS)] = ""
    trace: AskedWith | None = None


class Feedback(Record):
    """A judgement as it is kept: one line of the corpus's file."""

    id: str
    created: str = Field(description="UTC time in ISO 8601.")
    corpus: str
    build: str
    question: str
    point: str = Field(description="Id of the pair's point.")
    pair_id: str
    cluster_id: str = Field(description="The author's intent of the pair.")
    helpful: bool
    comment: str = ""
    trace: AskedWith | None = None


class FeedbackKept(Record):
    """Said once a judgement is on the disk."""

    id: str


class FeedbackPage(Record):
    """Some of what was said, oldest first."""

    corpus: str
    feedback: tuple[Feedback, ...]
    unreadable: int = Field(description="Lines among these that are no judgements and were left out.")
    next: int | None = Field(description="What to give as `after` for the next page; null: this is the last.")


class IngestOptions(Record):
    """How a job brings pairs in; as the options of `qaserve ingest`."""

    replace: bool = Field(False, description="Make the corpus exactly these pairs.")
    dry_run: bool = Field(False, description="Do all but write, and say what would be done.")
    force: bool = Field(False, description="Make the result live even if it finds less than the live build.")


class IngestRequest(IngestOptions):
    """Pairs to bring in, each in one of the shapes that `qaserve ingest` reads."""

    pairs: Annotated[list[dict[str, Any]], Field(min_length=1)]


class JobStage(Record):
    """A stage of a job and how far it is."""

    name: str
    done: int
    total: int | None = Field(description="Null: not known beforehand.")


class Job(Record):
    """An ingest through the API."""

    id: JobId
    corpus: str
    source: str = Field(description="Name of the file that was sent.")
    options: IngestOptions
    state: JobState
    created: str = Field(description="UTC times in ISO 8601.")
    started: str | None = None
    finished: str | None = None
    stages: tuple[JobStage, ...] = ()
    planned: IngestReport | None = Field(
        None, description="While it runs: what changes, as soon as that is known, without the lists of pairs."
    )
    report: IngestReport | None = Field(None, description="What was done; null until then, and in a list of jobs.")
    error: ErrorDetail | None = Field(None, description="Why it failed; null unless it did.")

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in JOB_ENDS


class JobList(Record):
    """The jobs of a corpus, newest first, without their reports."""

    corpus: str
    jobs: tuple[Job, ...]
