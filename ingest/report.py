"""What an ingest did, or would do."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ingest.compare import Changes
from ingest.pairs import PairLog, PairTable
from qaserve.builds.manifest import Manifest
from qaserve.common.text import shorten
from qaserve.schemas.ingest import (
    CONTEXT_CHARS,
    EDIT_CHARS,
    EDITS_KEPT,
    LISTED,
    QUESTION_CHARS,
    BuildParams,
    Edit,
    FileCounts,
    ListedPair,
    PairChanges,
    ParamChanges,
    Place,
    RepeatedQuestion,
)
from qaserve.schemas.pairs import Pair


class Repeated(NamedTuple):
    """The questions that more than one row asks."""

    listed: tuple[RepeatedQuestion, ...]
    """The first `LISTED`, most rows first."""
    repeats: int
    """Rows beyond the first of each question."""
    conflicts: int
    """Questions with several answers."""


def repeated_questions(rows: PairLog) -> Repeated:
    """The questions that more than one row asks, by folded text."""
    figures = rows.figures
    first, counts = np.unique(figures["asked"], return_index=True, return_counts=True)[1:]
    by_question, starts = np.argsort(figures["asked"], kind="stable"), np.cumsum(counts) - counts
    repeated = [
        by_question[starts[at] : starts[at] + counts[at]]
        for at in np.lexsort((first, -counts)).tolist()
        if counts[at] > 1
    ]
    answers = [len(np.unique(figures["answers"][group])) for group in repeated]
    listed = tuple(
        RepeatedQuestion(
            question=rows[int(group[0])].question,
            answers=count,
            rows=tuple(Place(file=rows.names[row["file"]], line=row["line"]) for row in figures[group]),
        )
        for group, count in zip(repeated[:LISTED], answers, strict=False)
    )
    return Repeated(listed, sum(len(group) - 1 for group in repeated), sum(count > 1 for count in answers))


def list_changes(changes: Changes, rows: PairTable, before: Mapping[str, Pair]) -> PairChanges:
    """The pairs that change, with where they come from.

    Args:
        changes: Which.
        rows: The pairs that were read.
        before: The live pairs.
    """
    return PairChanges(
        added=list_pairs(changes.added, rows),
        updated=list_pairs(changes.updated, rows),
        removed=listed(sorted(changes.removed)[:LISTED], before),
    )


def list_pairs(points: Iterable[str], rows: PairTable) -> tuple[ListedPair, ...]:
    """The first of some pairs, with where they were read."""
    return tuple(_read(point, rows[point], *rows.place(point)) for point in sorted(points)[:LISTED])


def list_edits(updated: Iterable[str], before: Mapping[str, Pair], after: Mapping[str, Pair]) -> tuple[Edit, ...]:
    """What differs in the first of the updated pairs."""
    return tuple(_edit(point, before[point], after[point]) for point in sorted(updated)[:EDITS_KEPT])


def count_by_file(
    changes: Changes, files: Mapping[str, str], rejected: Counter[str], formats: Mapping[str, str]
) -> tuple[FileCounts, ...]:
    """What every file brought, in the order of the files.

    Args:
        changes: What its pairs do.
        files: Where the pairs were read, by point id.
        rejected: Rejections by file.
        formats: Of the files, in words.
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
            format=formats.get(file, ""),
            read=read[file],
            rejected=rejected[file],
            **{kind: counts[file] for kind, counts in kinds.items()},
        )
        for file in dict.fromkeys([*read, *rejected])
    )


def _read(point: str, pair: Pair, file: str, line: int) -> ListedPair:
    question = shorten(pair.question, QUESTION_CHARS)
    return ListedPair(id=point, pair_id=pair.pair_id, question=question, file=file, line=line)


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
    if start:
        start = max(start, text.find(" ", start, head) + 1)  # a whole word
    if end < len(text):
        end = max(text.rfind(" ", len(text) - tail, end), 0) or end
    shown = ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")
    if len(shown) > EDIT_CHARS:
        shown = shown[: EDIT_CHARS - 1]
        shown = (shown.rpartition(" ")[0] or shown) + "…"
    return shown


def param_changes(live: Manifest | None, new: Manifest) -> ParamChanges:
    """How the parameters of a build differ from those of the live one."""
    before = None if live is None else _build_params(live)
    return ParamChanges(tuning=new.tuning, live=before, new=_build_params(new))


def _build_params(manifest: Manifest) -> BuildParams:
    calibration = manifest.calibration
    return BuildParams(
        **dict(manifest.hyperparameters), threshold=None if calibration is None else calibration.threshold
    )
