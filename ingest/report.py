"""What an ingest did, or would do."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pydantic import Field

from ingest.compare import Changes
from ingest.outcomes import ClusterChanges, GateReport, NumberChanges
from ingest.readers import Located, Rejection
from ingest.rejected import REPORTED
from ingest.scratch import Indexed
from qaserve.records import Pair, Record
from qaserve.text import fold, short_digest, shorten

LISTED = 10_000
"""So many of a kind are listed; what is more than that is only counted, or a report would outgrow what it tells of."""
EDITS_KEPT = 50
"""Edited pairs whose texts the report shows."""
EDIT_CHARS = 400
CONTEXT_CHARS = 40
QUESTION_CHARS = 200


class Place(Record):
    """Where a row was read."""

    file: str
    line: int


class RepeatedQuestion(Record):
    """A question that several rows ask, by folded text."""

    question: str
    answers: int = Field(description="Different answers it leads to; more than 1 is a conflict.")
    rows: tuple[Place, ...]


class ListedPair(Record):
    """A pair that changes."""

    id: str = Field(description="Of its point.")
    pair_id: str
    question: str
    file: str = Field(description="Where it was read; of a pair that was not read now, its source_file.")
    line: int | None = Field(description="Null: it was not read now.")


class Edit(Record):
    """How a pair differs from the live one."""

    id: str
    pair_id: str
    question: str
    fields: tuple[str, ...] = Field(description="What differs.")
    before: str | None = Field(description="The live answer around what differs; null: the answer is the same.")
    after: str | None


class PairChanges(Record):
    """The pairs that change, in the order of ids: the first 10,000 of each kind; the report counts all."""

    added: tuple[ListedPair, ...] = ()
    updated: tuple[ListedPair, ...] = ()
    removed: tuple[ListedPair, ...] = ()


class FileCounts(Record):
    """What a file brought."""

    file: str
    read: int = Field(description="Pairs.")
    added: int
    updated: int
    unchanged: int
    rejected: int


class IngestReport(Record):
    """The contract's report."""

    build: str | None = Field(description="The live build afterwards, or what a dry run says it would be.")
    corpus: str
    dry_run: bool
    read: int = Field(description="Pairs read.")
    added: int
    updated: int
    unchanged: int
    removed: int
    rejected: tuple[Rejection, ...] = Field(description=f"The first {REPORTED:,}.")
    rejections: int = Field(description="How many there are in all.")
    rejected_file: str | None = Field(
        description="In the data folder: the rejected lines as they were read, to be corrected and ingested."
    )
    repeats: int = Field(description="Rows whose question an earlier row asks. They are kept.")
    conflicts: int = Field(description="Questions that lead to different answers. They are kept.")
    repeated_questions: tuple[RepeatedQuestion, ...] = Field(description=f"The first {LISTED:,}.")
    changes: PairChanges
    edits: tuple[Edit, ...] = Field(description=f"The first {EDITS_KEPT} of the updated pairs: what differs.")
    files: tuple[FileCounts, ...]
    encoded: int = Field(description="Texts that go through the encoder.")
    pairs: int = Field(description="Pairs in the build.")
    clusters: int | None = Field(description="Clusters in the build.")
    cluster_changes: ClusterChanges | None = Field(None, description="Null: no new build, or none before it.")
    numbers: NumberChanges | None = Field(None, description="What the build answers with; null: no new build.")
    metrics: dict[str, float] = Field(default_factory=dict, description="Of the new build, as its manifest has them.")
    gate: GateReport | None = Field(None, description="Null: no new build, or none before it to compare with.")
    encoder: str
    seconds: float
    stages: dict[str, float] = Field(description="Seconds by stage.")
    cleaned: tuple[str, ...] = Field((), description="Orphans of interrupted ingests that were, or would be, removed.")


class _Group(NamedTuple):
    """Rows that ask the same."""

    question: str
    answers: set[bytes]
    places: list[tuple[str, int]]


def repeated_questions(rows: Indexed[Located]) -> tuple[RepeatedQuestion, ...]:
    """The questions that more than one row asks, most rows first."""
    asked = Counter(short_digest(fold(row.pair.question)) for row in rows)
    groups: dict[bytes, _Group] = {}
    for row in rows:
        key = short_digest(fold(row.pair.question))
        if asked[key] > 1:
            group = groups.setdefault(key, _Group(row.pair.question, set(), []))
            group.answers.add(short_digest(row.pair.answer))
            group.places.append((row.file, row.line))
    return tuple(
        RepeatedQuestion(
            question=group.question,
            answers=len(group.answers),
            rows=tuple(Place(file=file, line=line) for file, line in group.places),
        )
        for group in sorted(groups.values(), key=lambda group: len(group.places), reverse=True)
    )


def list_changes(changes: Changes, rows: Mapping[str, Located], before: Mapping[str, Pair]) -> PairChanges:
    """The pairs that change, with where they come from.

    Args:
        changes: Which.
        rows: The rows that were read, by point id.
        before: The live pairs.
    """
    return PairChanges(
        added=tuple(_read(point, rows[point]) for point in sorted(changes.added)[:LISTED]),
        updated=tuple(_read(point, rows[point]) for point in sorted(changes.updated)[:LISTED]),
        removed=listed(sorted(changes.removed)[:LISTED], before),
    )


def list_edits(updated: Iterable[str], before: Mapping[str, Pair], after: Mapping[str, Pair]) -> tuple[Edit, ...]:
    """What differs in the first of the updated pairs."""
    return tuple(_edit(point, before[point], after[point]) for point in sorted(updated)[:EDITS_KEPT])


def count_by_file(changes: Changes, files: Mapping[str, str], rejected: Counter[str]) -> tuple[FileCounts, ...]:
    """What every file brought, in the order of the files.

    Args:
        changes: What its pairs do.
        files: Where the pairs were read, by point id.
        rejected: Rejections by file.
    """
    kinds = {
        kind: Counter(files[point] for point in points if point in files)
        for kind, points in (
            ("added", changes.added),
            ("updated", changes.updated),
            ("unchanged", changes.unchanged),
        )
    }
    read = Counter(files.values())
    return tuple(
        FileCounts(
            file=file,
            read=read[file],
            rejected=rejected[file],
            **{kind: counts[file] for kind, counts in kinds.items()},
        )
        for file in dict.fromkeys([*read, *rejected])
    )


def _read(point: str, row: Located) -> ListedPair:
    pair = row.pair
    question = shorten(pair.question, QUESTION_CHARS)
    return ListedPair(id=point, pair_id=pair.pair_id, question=question, file=row.file, line=row.line)


def listed(points: Iterable[str], pairs: Mapping[str, Pair]) -> tuple[ListedPair, ...]:
    """Pairs that no file was read for, in the order of ids."""
    return tuple(
        ListedPair(
            id=point,
            pair_id=pairs[point].pair_id,
            question=shorten(pairs[point].question, QUESTION_CHARS),
            file=pairs[point].source_file,
            line=None,
        )
        for point in sorted(points)
    )


def _edit(point: str, before: Pair, after: Pair) -> Edit:
    fields = tuple(name for name in Pair.model_fields if getattr(before, name) != getattr(after, name))
    old, new = _around(before.answer, after.answer) if "answer" in fields else (None, None)
    question = shorten(after.question, QUESTION_CHARS)
    return Edit(id=point, pair_id=after.pair_id, question=question, fields=fields, before=old, after=new)


def _around(before: str, after: str) -> tuple[str, str]:
    """Two different texts without what they share at both ends, but for a little context, and cut to a few hundred."""
    shortest = min(len(before), len(after))
    head = next((at for at in range(shortest) if before[at] != after[at]), shortest)
    rest = shortest - head
    tail = next((at for at in range(rest) if before[-1 - at] != after[-1 - at]), rest)
    return _cut(before, head, tail), _cut(after, head, tail)


def _cut(text: str, head: int, tail: int) -> str:
    start, end = max(0, head - CONTEXT_CHARS), min(len(text), len(text) - tail + CONTEXT_CHARS)
    shown = ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")
    return shown if len(shown) <= EDIT_CHARS else shown[: EDIT_CHARS - 1] + "…"
