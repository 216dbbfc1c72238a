"""What an ingest did, or would do."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field

from ingest.compare import Changes
from ingest.outcomes import ClusterChanges, GateReport, NumberChanges
from ingest.readers import Located, Rejection
from ingest.rejected import REPORTED
from qaserve.records import Pair, Record
from qaserve.text import fold, shorten

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
    """Every pair that changes, in the order of ids."""

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
    repeated_questions: tuple[RepeatedQuestion, ...]
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


def list_changes(changes: Changes, rows: Mapping[str, Located], before: Mapping[str, Pair]) -> PairChanges:
    """Every pair that changes, with where it comes from.

    Args:
        changes: Which.
        rows: The rows that were read, by point id.
        before: The live pairs.
    """
    return PairChanges(
        added=tuple(_read(point, rows[point]) for point in sorted(changes.added)),
        updated=tuple(_read(point, rows[point]) for point in sorted(changes.updated)),
        removed=listed(changes.removed, before),
    )


def list_edits(updated: Iterable[str], before: Mapping[str, Pair], after: Mapping[str, Pair]) -> tuple[Edit, ...]:
    """What differs in the first of the updated pairs."""
    return tuple(_edit(point, before[point], after[point]) for point in sorted(updated)[:EDITS_KEPT])


def count_by_file(changes: Changes, rows: Mapping[str, Located], rejected: Counter[str]) -> tuple[FileCounts, ...]:
    """What every file brought, in the order of the files.

    Args:
        changes: What its pairs do.
        rows: The rows that were read, by point id.
        rejected: Rejections by file.
    """
    kinds = {
        kind: Counter(rows[point].file for point in points if point in rows)
        for kind, points in (
            ("added", changes.added),
            ("updated", changes.updated),
            ("unchanged", changes.unchanged),
        )
    }
    read = Counter(row.file for row in rows.values())
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
