"""The lexical term: BM25 over the words of pairs, for the exact names that embeddings blur.

BM25 in the form of Lucene (Robertson & Zaragoza 2009; bm25s, Lù 2024), over the pair's question and answer. It joins
the final ranking as

    score_i = (1-β) · cos(x', a_i) + β · m · bm25_i / max_j bm25_j,    m = max(0, max_j cos(x', a_j)),

so that both terms are on the scale of a cosine.
"""

import re
import unicodedata
import uuid
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import bm25s
import numpy as np
from bm25s.tokenization import Tokenized
from numpy.typing import NDArray

from qaserve.schemas.pairs import Pair

_COMPOUND = re.compile(r"[\w+#]+(?:[-.][\w+#]+)*")
_IDENTIFIER = re.compile(r"[\w+#]+")


def words(text: str) -> list[str]:
    """Words of a text, without case, in their order.

    A compound name counts as a whole and in its parts: `--file-filter` is file-filter, file and filter,
    `generate_json_reader` is itself, generate, json and reader, `suggest_folder.py` is itself, suggest_folder, suggest,
    folder and py.
    """
    found: list[str] = []
    for compound in _COMPOUND.findall(unicodedata.normalize("NFKC", text).casefold()):
        found += dict.fromkeys([compound, *_parts(compound)])
    return found


def _parts(compound: str) -> Iterator[str]:
    for identifier in _IDENTIFIER.findall(compound):
        yield identifier
        yield from filter(None, identifier.split("_"))


def pair_text(pair: Pair) -> str:
    """What of a pair is indexed."""
    return f"{pair.question}\n{pair.answer}"


class Lexicon:
    """BM25 scores of every word in every pair of a build."""

    def __init__(self, ids: Sequence[str], vocabulary: Sequence[str], scores: Mapping[str, NDArray[Any]]) -> None:
        """Check that the parts fit together.

        Args:
            ids: (n,) ids of the points.
            vocabulary: (V,) words.
            scores: A sparse matrix of words by pairs: `data` float32, `indices` int32 rows of pairs, ascending within a
                word, and `indptr` (V+1,) int64, where each word begins.

        Raises:
            ValueError: The parts contradict each other.
        """
        data, indices, indptr = scores["data"], scores["indices"], scores["indptr"]
        if indptr.shape != (len(vocabulary) + 1,) or not len(data) == len(indices) == int(indptr[-1]):
            raise ValueError(
                f"{len(vocabulary)} words, {len(data)} scores and {len(indptr)} bounds do not fit together"
            )
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(ids):
            raise ValueError(f"a score is of pair {int(indices.max())}; there are {len(ids)}")
        self.ids = list(ids)
        self._rows = {point: row for row, point in enumerate(self.ids)}
        self._index = bm25s.BM25()
        self._index.vocab_dict = {word: number for number, word in enumerate(vocabulary)}
        self._index.nonoccurrence_array = None
        self._index.scores = {"data": data, "indices": indices, "indptr": indptr, "num_docs": len(self.ids)}

    @classmethod
    def fit(cls, ids: Sequence[str], texts: Iterable[str]) -> "Lexicon":
        """Index texts by the ids of their points. Texts without any word are there and score 0.

        A text is looked at once and not held; what is held of it are its words, as numbers of four bytes.
        """
        seen: dict[str, int] = {}
        rows = [array("i", [seen.setdefault(word, len(seen)) for word in words(text)]) for text in texts]
        vocabulary = sorted(seen)
        numbers = {word: number for number, word in enumerate(vocabulary)}
        number_of = np.array([numbers[word] for word in seen], dtype=np.int32)
        if not vocabulary:
            empty: dict[str, NDArray[Any]] = {
                "data": np.empty(0, np.float32),
                "indices": np.empty(0, np.int32),
                "indptr": np.zeros(1, np.int64),
            }
            return cls(ids, [], empty)
        for at, row in enumerate(rows):
            rows[at] = array("i", number_of[row].tobytes())
        index = bm25s.BM25(method="lucene")
        index.index(
            Tokenized(rows, numbers),
            create_empty_token=False,
            show_progress=False,
        )
        arrays: dict[str, NDArray[Any]] = {
            "data": np.asarray(index.scores["data"], np.float32),
            "indices": np.asarray(index.scores["indices"], np.int32),
            "indptr": np.asarray(index.scores["indptr"], np.int64),
        }
        return cls(ids, vocabulary, arrays)

    def scores(self, question: str) -> NDArray[np.float32]:
        """(n,) BM25 of every pair, ≥ 0, in the order of `ids`; a word that the question repeats counts as often."""
        known = [word for word in words(question) if word in self._index.vocab_dict]
        if not known:
            return np.zeros(len(self.ids), dtype=np.float32)
        return np.asarray(self._index.get_scores(known), dtype=np.float32)

    def relative(self, question: str) -> NDArray[np.float32]:
        """(n,) `scores` divided by the best of them: 0 to 1, all 0 where no word is known."""
        found = self.scores(question)
        best = found.max(initial=0.0)
        return np.asarray(found / best if best > 0 else found, dtype=np.float32)

    def rows(self, points: Iterable[str]) -> NDArray[np.intp]:
        """Where the points are in `ids` and in `scores`."""
        return np.array([self._rows[point] for point in points], dtype=np.intp)

    def shared(self, question: str, point: str) -> tuple[str, ...]:
        """Words of the question that the pair holds, those that count most first."""
        row, counts = self._rows[point], {}
        data, indices, indptr = (self._index.scores[name] for name in ("data", "indices", "indptr"))
        for word in dict.fromkeys(words(question)):
            number = self._index.vocab_dict.get(word)
            if number is not None:
                start, end = int(indptr[number]), int(indptr[number + 1])
                at = start + int(np.searchsorted(indices[start:end], row))
                if at < end and indices[at] == row:
                    counts[word] = float(data[at])
        return tuple(sorted(counts, key=lambda word: -counts[word]))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The lexicon as plain arrays; equal ones give equal arrays."""
        return {
            "data": self._index.scores["data"],
            "indices": self._index.scores["indices"],
            "indptr": self._index.scores["indptr"],
            "words": np.frombuffer("\n".join(self._index.vocab_dict).encode(), dtype=np.uint8),
            "ids": np.frombuffer(b"".join(uuid.UUID(point).bytes for point in self.ids), np.uint8).reshape(-1, 16),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "Lexicon":
        """The lexicon of `tensors`. Raises KeyError or ValueError where they are not of one."""
        text = tensors["words"].tobytes().decode()
        ids = [str(uuid.UUID(bytes=row.tobytes())) for row in tensors["ids"]]
        return cls(
            ids, text.split("\n") if text else [], {name: tensors[name] for name in ("data", "indices", "indptr")}
        )
