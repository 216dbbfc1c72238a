"""Which pairs are new, edited, unchanged or gone: the ids of points, and the difference between two sets of them."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import count, pairwise
from typing import TypeVar

import numpy as np

from ingest.pairs import PairLog, PairTable, point_id
from qaserve.common.text import digest_of, fold

COMPARED_CHARS = 2_000
"""Of an answer, to tell which of several it is an edit of."""
T = TypeVar("T")


@dataclass
class Changes:
    """How the wanted pairs differ from the live ones, by point id."""

    added: set[str] = field(default_factory=set)
    updated: set[str] = field(default_factory=set)
    unchanged: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether anything changes."""
        return bool(self.added or self.updated or self.removed)


def point_ids(corpus: str, rows: PairLog, live: PairTable | None = None) -> list[str]:
    """`point_id` of every row, or the id that its pair has in the live build.

    No row is lost to another, the same rows give the same ids, and an edited answer keeps the id of its pair. Where
    live pairs are equal in these, a row takes the id of the one with its answer, else of the one whose answer is most
    like its own: a file that brings only the second of two does not overwrite the first. Texts are read only there.

    Args:
        corpus: Their corpus.
        rows: In the order they were read.
        live: The live pairs.
    """
    new = rows.figures["key"]
    known, points = (np.empty(0, new.dtype), []) if live is None else (live.figures["key"], list(live))
    order, known_order = np.argsort(new, kind="stable"), np.argsort(known, kind="stable")
    keys, starts = np.unique(new[order], return_index=True)
    places = [np.searchsorted(known[known_order], keys, side).tolist() for side in ("left", "right")]
    ids = [""] * len(new)
    for key, (start, end), first, last in zip(keys, pairwise([*starts.tolist(), len(order)]), *places, strict=True):
        group, equals = order[start:end].tolist(), [points[at] for at in known_order[first:last]]
        if len(group) == 1 and len(equals) <= 1:
            ids[group[0]] = equals[0] if equals else str(uuid.UUID(bytes=key.ljust(16, b"\0")))
            continue
        pair = rows[group[0]]
        left = {} if live is None else {point: live[point].answer for point in equals}
        found = _ids_of_equals(corpus, (pair.pair_id, fold(pair.question)), [rows[row].answer for row in group], left)
        for row, point in zip(group, found, strict=True):
            ids[row] = point
    return ids


def _ids_of_equals(corpus: str, key: tuple[str, str], answers: Sequence[str], left: dict[str, str]) -> list[str]:
    """Ids of rows with one key. `left`: answers of the live pairs with that key, by id; those taken leave it."""
    ids: dict[int, str] = {}
    with_answer: dict[str, list[str]] = {}
    for point in sorted(left, reverse=True):
        with_answer.setdefault(left[point], []).append(point)
    for row, answer in enumerate(answers):
        if with_answer.get(answer):
            ids[row] = with_answer[answer].pop()
            del left[ids[row]]
    taken = set(ids.values())
    ordinals = (str(point_id(corpus, *key, number)) for number in count())
    for row, answer in enumerate(answers):
        if row in ids:
            continue
        if left:
            ids[row] = max(sorted(left), key=lambda point: _likeness(left[point], answer))
            del left[ids[row]]
        else:
            ids[row] = next(point for point in ordinals if point not in taken)
        taken.add(ids[row])
    return [ids[row] for row in range(len(answers))]


def _likeness(text: str, other: str) -> float:
    return SequenceMatcher(None, text[:COMPARED_CHARS], other[:COMPARED_CHARS], autojunk=False).quick_ratio()


def compare(wanted: Mapping[str, T], live: Mapping[str, T], *, replace: bool) -> Changes:
    """What it takes to get from the live pairs to the wanted ones; without `replace`, live pairs are only added to.

    Args:
        wanted: What stands for the content of each pair, by point id.
        live: The same of the live pairs.
        replace: Whether the wanted pairs are to be all.
    """
    changes = Changes(removed=set(live) - set(wanted) if replace else set())
    for point, content in wanted.items():
        if point not in live:
            changes.added.add(point)
        elif live[point] != content:
            changes.updated.add(point)
        else:
            changes.unchanged.add(point)
    return changes


def corpus_hash(pairs: PairTable) -> str:
    """SHA-256 over ids and digests of contents, in the order of ids."""
    contents = pairs.column("content")
    return digest_of(part for point in sorted(contents) for part in (point, contents[point].hex()))
