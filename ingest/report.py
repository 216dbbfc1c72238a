"""What an ingest did, or would do."""

from collections import defaultdict
from collections.abc import Sequence

from pydantic import Field

from ingest.readers import Located, Rejection
from qaserve.records import Record
from qaserve.text import fold


class Place(Record):
    """Where a row was read."""

    file: str
    line: int


class RepeatedQuestion(Record):
    """A question that several rows ask, by folded text."""

    question: str
    answers: int = Field(description="Different answers it leads to; more than 1 is a conflict.")
    rows: tuple[Place, ...]


class IngestReport(Record):
    """The contract's report."""

    build: str | None = Field(description="The live build afterwards; null for a dry run that would make a new one.")
    corpus: str
    dry_run: bool
    read: int = Field(description="Pairs read.")
    added: int
    updated: int
    unchanged: int
    removed: int
    rejected: tuple[Rejection, ...]
    repeats: int = Field(description="Rows whose question an earlier row asks. They are kept.")
    conflicts: int = Field(description="Questions that lead to different answers. They are kept.")
    repeated_questions: tuple[RepeatedQuestion, ...]
    encoded: int = Field(description="Texts that went through the encoder.")
    pairs: int = Field(description="Pairs in the build.")
    clusters: int | None = Field(description="Clusters in the build; null for a dry run that would make a new one.")
    encoder: str
    seconds: float
    stages: dict[str, float] = Field(description="Seconds by stage.")
    cleaned: tuple[str, ...] = Field((), description="Orphans of interrupted ingests that were removed.")


def repeated_questions(rows: Sequence[Located]) -> tuple[RepeatedQuestion, ...]:
    """The questions that more than one row asks, most rows first."""
    groups: dict[str, list[Located]] = defaultdict(list)
    for row in rows:
        groups[fold(row.pair.question)].append(row)
    repeated = [group for group in groups.values() if len(group) > 1]
    return tuple(
        RepeatedQuestion(
            question=group[0].pair.question,
            answers=len({row.pair.answer for row in group}),
            rows=tuple(Place(file=row.file, line=row.line) for row in group),
        )
        for group in sorted(repeated, key=len, reverse=True)
    )
