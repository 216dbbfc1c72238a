"""Ingest jobs."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from qaserve.schemas.ingest import IngestReport
from qaserve.schemas.record import Record
from qaserve.schemas.service import ErrorDetail

JobState = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]

FieldPath = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)]

JobId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]

JOB_ENDS: frozenset[JobState] = frozenset({"done", "failed", "cancelled", "interrupted"})


class IngestOptions(Record):
    """How a job brings pairs in; as the options of `qaserve ingest`."""

    replace: bool = Field(False, description="Make the corpus exactly these pairs.")
    dry_run: bool = Field(False, description="Do all but write, and say what would be done.")
    force: bool = Field(False, description="Make the result live even if it finds less than the live build.")
    fields: tuple[FieldPath, ...] = Field(
        (), description="FIELD=PATH: where the fields of pairs are. What was said once is kept with the corpus."
    )
    separator: str | None = Field(None, description="Between several questions in one cell. Kept too.")
    accept_guess: bool = Field(False, description="Where nothing says it, read fields by their usual names.")

    @field_validator("fields", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """A form says all of them in one text, separated by line breaks."""
        return value.split("\n") if isinstance(value, str) else value


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
