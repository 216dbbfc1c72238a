"""The pairs of an ingest: their texts on disk, and of each pair in memory what tells it apart.

A pair is looked at once when it comes, and its `FIGURES` are noted. Comparing, naming, hashing and reporting work on
them. So a text is read from disk again only to be encoded and to be written.
"""

import json
import uuid
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.spool import Texts
from qaserve.common.fences import has_late_fence
from qaserve.common.text import fold, short_digest
from qaserve.schemas.pairs import Pair, TopicText

NAMESPACE = uuid.UUID("6f2d3c1e-2f0b-5f0e-9d57-0b8a7f6c1a35")
TOPIC_TEXT = TopicText()

FIGURES = np.dtype(
    [
        ("key", "S16"),  # the id that it has where no other row is equal in pair_id and folded question
        ("pair_id", "S16"),  # this and the next are digests; of an empty topic: empty
        ("content", "S16"),
        ("asked", "S16"),  # of the folded question
        ("questions", "S16"),  # these three are called as in `Corpus`
        ("answers", "S16"),
        ("topics", "S16"),
        ("intent", "i4"),  # this and the next are numbers of `Names`
        ("source", "i4"),
        ("file", "i4"),  # where it was read, and in which line
        ("line", "i8"),
        ("late_fence", "?"),
    ]
)


class Names:
    """Texts that come often, each held once, by number."""

    def __init__(self) -> None:
        """Begin without any."""
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    def number(self, name: str) -> int:
        """The number of a name, a new one where it has none."""
        found = self._numbers.setdefault(name, len(self._names))
        if found == len(self._names):
            self._names.append(name)
        return found

    def __getitem__(self, number: int) -> str:
        """The name of a number."""
        return self._names[number]


class PairLog:
    """Pairs in the order they were added, texts on disk and `FIGURES` in memory. Not for two threads at once."""

    def __init__(self, corpus: str, names: Names, folder: Path | None, held: int = 0) -> None:
        """Begin an empty one.

        Args:
            corpus: Whose pairs they are; their ids follow from it.
            names: Shared by the logs of one table.
            folder: Where the file goes; None: the system's folder for such.
            held: Up to this number of pairs, those that were read stay in memory.

        Raises:
            StoreWriteError: There is no room for it; so do all methods.
        """
        self.names = names
        self._corpus, self._texts = corpus, Texts(folder)
        self._figures, self._linked, self._link_ends = bytearray(), array("i"), array("q", [0])
        self._held, self._most_held = dict[int, Pair](), held

    def __len__(self) -> int:
        """How many pairs."""
        return len(self._texts)

    def __getitem__(self, row: int) -> Pair:
        """The pair of a row, 0 … n-1."""
        pair = self._held.get(row) or Pair.model_validate_json(self._texts[row])
        if len(self) <= self._most_held:
            self._held[row] = pair
        return pair

    def append(self, pair: Pair, file: str = "", line: int = 0) -> None:
        """Add a pair, which was read in that line of that file."""
        self._texts.append(pair.model_dump_json().encode())
        number, folded, topic = self.names.number, fold(pair.question), TOPIC_TEXT.of(pair)
        row = (
            point_id(self._corpus, pair.pair_id, folded, 0).bytes,
            short_digest(pair.pair_id),
            short_digest(_canonical(pair)),
            short_digest(folded),
            short_digest(pair.question),
            short_digest(pair.answer),
            short_digest(topic) if topic else b"",
            number(pair.intent),
            number(pair.source_file),
            number(file),
            line,
            has_late_fence(pair.answer),
        )
        self._figures += np.array(row, FIGURES).tobytes()
        self._linked.extend(number(name) for name in {*pair.related_skills, *pair.related_docs})
        self._link_ends.append(len(self._linked))

    @property
    def figures(self) -> NDArray[Any]:
        """(n,) `FIGURES` of all so far."""
        return np.frombuffer(bytes(self._figures), FIGURES)

    def place(self, row: int) -> tuple[str, int]:
        """File and line where the pair of a row was read."""
        size = FIGURES.itemsize
        found = np.frombuffer(bytes(self._figures[row * size : (row + 1) * size]), FIGURES)[0]
        return self.names[found["file"]], int(found["line"])

    def links(self, rows: Iterable[int]) -> Counter[str]:
        """How many of these rows name each skill or document."""
        found = Counter[int]()
        for row in rows:
            found.update(self._linked[self._link_ends[row] : self._link_ends[row + 1]])
        return Counter({self.names[number]: count for number, count in found.items()})


class PairTable(Mapping[str, Pair]):
    """Pairs by point id, out of one log or two."""

    def __init__(self, places: Mapping[str, int], *logs: PairLog) -> None:
        """Remember the parts.

        Args:
            places: By point id, in the order of the table, the row in the logs, one after the other.
            logs: They share their names.
        """
        self.places, self.logs = places, logs
        self._first = len(logs[0])

    @classmethod
    def of(cls, pairs: Mapping[str, Pair], corpus: str = "") -> "PairTable":
        """A table of pairs that are at hand, of a corpus."""
        log = PairLog(corpus, Names(), None)
        for pair in pairs.values():
            log.append(pair)
        return cls({point: row for row, point in enumerate(pairs)}, log)

    def __len__(self) -> int:
        """How many pairs."""
        return len(self.places)

    def __iter__(self) -> Iterator[str]:
        """The ids of the points, in order."""
        return iter(self.places)

    def __contains__(self, point: object) -> bool:
        """Whether it is the id of a point; nothing is read."""
        return point in self.places

    def __getitem__(self, point: str) -> Pair:
        """The pair of a point."""
        log, row = self._find(self.places[point])
        return log[row]

    def take(self, points: Iterable[str]) -> "PairTable":
        """These points of it, in the order given; nothing is read."""
        return PairTable({point: self.places[point] for point in points}, *self.logs)

    def over(self, other: "PairTable") -> "PairTable":
        """The pairs of this table and of another, each of one log; where both have a point, the other counts."""
        shifted = {point: self._first + row for point, row in other.places.items()}
        return PairTable({**self.places, **shifted}, *self.logs, *other.logs)

    @property
    def figures(self) -> NDArray[Any]:
        """(n,) `FIGURES` of every pair."""
        rows = np.fromiter(self.places.values(), dtype=np.int64, count=len(self))
        return np.concatenate([log.figures for log in self.logs])[rows]

    def column(self, name: str) -> dict[str, Any]:
        """One of `FIGURES` by point id."""
        return dict(zip(self, self.figures[name].tolist(), strict=True))

    def named(self, column: str) -> list[str]:
        """(n,) the names of a column that holds their numbers."""
        names = self.logs[0].names
        return [names[number] for number in self.figures[column].tolist()]

    def place(self, point: str) -> tuple[str, int]:
        """File and line where the pair of a point was read."""
        log, row = self._find(self.places[point])
        return log.place(row)

    @property
    def links(self) -> Counter[str]:
        """How many pairs name each skill or document."""
        rows: list[list[int]] = [[] for _ in self.logs]
        for place in self.places.values():
            rows[place >= self._first].append(place - self._first * (place >= self._first))
        return sum((log.links(some) for log, some in zip(self.logs, rows, strict=True)), Counter[str]())

    def _find(self, place: int) -> tuple[PairLog, int]:
        return (self.logs[0], place) if place < self._first else (self.logs[1], place - self._first)


def point_id(corpus: str, pair_id: str, folded: str, ordinal: int) -> uuid.UUID:
    """UUIDv5 of (corpus, pair_id, folded question, ordinal among the rows equal in these)."""
    return uuid.uuid5(NAMESPACE, json.dumps([corpus, pair_id, folded, ordinal]))


def _canonical(pair: Pair) -> str:
    """Equal pairs give equal texts, whatever the order of their extra fields."""
    return json.dumps(pair.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
