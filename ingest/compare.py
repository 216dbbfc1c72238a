"""Which pairs are new, edited, unchanged or gone: the ids of points, and the difference between two sets of them."""

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from qaserve.records import Pair
from qaserve.text import digest, fold

NAMESPACE = uuid.UUID("6f2d3c1e-2f0b-5f0e-9d57-0b8a7f6c1a35")


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


def point_ids(corpus: str, pairs: Sequence[Pair]) -> list[str]:
    """UUIDv5 of (corpus, pair_id, folded question, ordinal among the rows equal in these).

    No row is lost to another, the same rows give the same ids, and an edited answer keeps the id of its pair.
    """
    seen: Counter[tuple[str, str]] = Counter()
    ids = []
    for pair in pairs:
        key = (pair.pair_id, fold(pair.question))
        ids.append(str(uuid.uuid5(NAMESPACE, json.dumps([corpus, *key, seen[key]]))))
        seen[key] += 1
    return ids


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
    return digest(*(part for point in sorted(pairs) for part in (point, _canonical(pairs[point]))))


def _canonical(pair: Pair) -> str:
    """Equal pairs give equal texts, whatever the order of their extra fields."""
    return json.dumps(pair.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
