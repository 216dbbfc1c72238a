"""Which pairs are new, edited, unchanged or gone: the ids of points, and the difference between two sets of them."""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import count, pairwise

import numpy as np
from numpy.typing import NDArray

from ingest.spool import Indexed
from qaserve.common.text import digest_of, fold, short_digest
from qaserve.schemas.pairs import Pair

NAMESPACE = uuid.UUID("6f2d3c1e-2f0b-5f0e-9d57-0b8a7f6c1a35")
COMPARED_CHARS = 2_000
"""Of an answer, to tell which of several it is an edit of."""


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


def point_ids(corpus: str, pairs: Indexed[Pair], live: Mapping[str, Pair] | None = None) -> list[str]:
    """UUIDv5 of (corpus, pair_id, folded question, ordinal among the rows equal in these).

    No row is lost to another, the same rows give the same ids, and an edited answer keeps the id of its pair. Where
    live pairs are equal in these, a row takes the id of the one with its answer, else of the one whose answer is most
    like its own: a file that brings only the second of two does not overwrite the first.

    Args:
        corpus: Their corpus.
        pairs: The rows, in the order they were read.
        live: The live pairs by id.
    """
    rows, known, points = _keys(pairs), _keys((live or {}).values()), list(live or {})
    order, known_order = np.argsort(rows, kind="stable"), np.argsort(known, kind="stable")
    keys, starts = np.unique(rows[order], return_index=True)
    places = [np.searchsorted(known[known_order], keys, side) for side in ("left", "right")]
    ids = [""] * len(rows)
    for (start, end), first, last in zip(pairwise([*starts, len(order)]), *places, strict=True):
        group = order[start:end]
        equal = [pairs[row] for row in group]
        left = {points[at]: live[points[at]].answer for at in known_order[first:last]} if live else {}
        found = _ids_of_equals(corpus, _key(equal[0]), [pair.answer for pair in equal], left)
        for row, point in zip(group, found, strict=True):
            ids[row] = point
    return ids


def _key(pair: Pair) -> tuple[str, str]:
    return pair.pair_id, fold(pair.question)


def _keys(pairs: Iterable[Pair]) -> NDArray[np.bytes_]:
    """(n,) what pairs are told apart by, in 16 bytes each."""
    return np.fromiter((short_digest(*_key(pair)) for pair in pairs), dtype="S16")


def _ids_of_equals(corpus: str, key: tuple[str, str], answers: Sequence[str], left: dict[str, str]) -> list[str]:
    """Ids of rows with one key. `left`: answers of the live pairs with that key, by id; those taken leave it."""
    ids: dict[int, str] = {}
    for row, answer in enumerate(answers):
        same = next((point for point in sorted(left) if left[point] == answer), None)
        if same is not None:
            ids[row] = same
            del left[same]
    taken = set(ids.values())
    for row, answer in enumerate(answers):
        if row in ids:
            continue
        if left:
            ids[row] = max(sorted(left), key=lambda point: _likeness(left[point], answer))
            del left[ids[row]]
        else:
            ordinals = (str(uuid.uuid5(NAMESPACE, json.dumps([corpus, *key, number]))) for number in count())
            ids[row] = next(point for point in ordinals if point not in taken)
        taken.add(ids[row])
    return [ids[row] for row in range(len(answers))]


def _likeness(text: str, other: str) -> float:
    return SequenceMatcher(None, text[:COMPARED_CHARS], other[:COMPARED_CHARS], autojunk=False).quick_ratio()


def compare(wanted: Mapping[str, Pair], live: Mapping[str, Pair], *, replace: bool) -> Changes:
    """What it takes to get from the live pairs to the wanted ones; without `replace`, live pairs are only added to."""
    changes = Changes(removed=set(live) - set(wanted) if replace else set())
    for point, pair in wanted.items():
        if point not in live:
            changes.added.add(point)
        elif live[point] != pair:
            changes.updated.add(point)
        else:
            changes.unchanged.add(point)
    return changes


def corpus_hash(pairs: Mapping[str, Pair]) -> str:
    """SHA-256 over ids and contents, in the order of ids."""
    return digest_of(part for point in sorted(pairs) for part in (point, _canonical(pairs[point])))


def _canonical(pair: Pair) -> str:
    """Equal pairs give equal texts, whatever the order of their extra fields."""
    return json.dumps(pair.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
