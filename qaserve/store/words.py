"""The words of a text as a sparse vector.

Qdrant's own BM25 (Robertson & Zaragoza 2009): a document's weight for a word of frequency f in a text of length L is
`f (k+1) / (f + k (1 - b + b L/avg))`; a query's is 1; the engine multiplies by `idf = ln(1 + (N - n + ½) / (n + ½))`.
Words are lower-cased, stemmed, and stop words dropped. The same class runs for both stores, so scores agree.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from qdrant_edge import Bm25, Bm25Config, SparseVector, TokenizerType

from qaserve.schemas.record import Record

_COMPOUND = re.compile(r"[\w+#]+(?:[-.][\w+#]+)*")
_BETWEEN = re.compile(r"[-._]+")
_OPTION = re.compile(r"(?<![^\s`'\"(\[])--?$")
"""What stands before the word of an option."""
_CAPITAL_INSIDE = re.compile(r"[a-z0-9][A-Z]")


class Bm25Params(Record):
    """What the words of a build were made with."""

    k: float = Field(1.2, ge=0, description="How soon repeating a word stops counting.")
    b: float = Field(0.75, ge=0, le=1, description="How much a long text is held back.")
    average_length: float = Field(gt=0, description="Mean number of words of the build's texts.")
    language: str = Field("english", description="Whose stemmer and stop words.")


class Sparse(NamedTuple):
    """A sparse vector."""

    indices: list[int]
    values: list[float]


class WordEncoder:
    """Turns texts into sparse vectors."""

    def __init__(self, params: Bm25Params) -> None:
        """Build the model. Raises ValueError where the language is not known."""
        config = Bm25Config(
            k=params.k,
            b=params.b,
            avg_len=params.average_length,
            language=params.language,
            tokenizer=TokenizerType.Whitespace,
        )
        self._model = Bm25(config)

    def document(self, text: str) -> Sparse:
        """A text that is searched; empty where it has no words."""
        return _sparse(self._model.embed_document(_tokenized(text)))

    def query(self, text: str) -> Sparse:
        """A question."""
        return _sparse(self._model.embed_query(_tokenized(text)))

    def query_term(self, term: str) -> Sparse:
        """One of a question's `terms`; empty where it is a stop word."""
        return _sparse(self._model.embed_query(term))


class WordCounter:
    """Counts the words of texts, for `Bm25Params.average_length`."""

    def __init__(self, language: str = "english") -> None:
        """Build it: with b = 0 and a very large k, a word's weight is its frequency."""
        self._model = Bm25(Bm25Config(k=1e9, b=0.0, language=language, tokenizer=TokenizerType.Whitespace))

    def __call__(self, text: str) -> int:
        """Number of words, without stop words, each as often as it occurs."""
        return round(sum(self._model.embed_document(_tokenized(text)).values))


def bm25_params(texts: Iterable[str]) -> Bm25Params:
    """The parameters for a build of these texts."""
    return bm25_params_of(list(map(WordCounter(), texts)))


def bm25_params_of(lengths: Sequence[int]) -> Bm25Params:
    """The parameters for a build of texts of these numbers of words."""
    return Bm25Params(average_length=round(max(1.0, float(np.mean(lengths))), 3) if len(lengths) else 1.0)


class BM25Index:
    """BM25 of a few thousand texts in memory, as the engine computes it over a build of them."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Index texts; one without words is there and scores 0."""
        self._encoder, self._count = WordEncoder(bm25_params(texts)), len(texts)
        vectors = [self._encoder.document(text) for text in texts]
        rows = np.repeat(np.arange(len(vectors)), [len(vector.indices) for vector in vectors])
        words = np.array([index for vector in vectors for index in vector.indices], dtype=np.int64)
        weights = np.array([value for vector in vectors for value in vector.values], dtype=np.float64)
        order = np.argsort(words, kind="stable")
        self._rows, self._words = rows[order], words[order]
        found = np.searchsorted(self._words, self._words, "right") - np.searchsorted(self._words, self._words, "left")
        idf = np.log1p((self._count - found + 0.5) / (found + 0.5))
        self._weights = weights[order] * idf

    def scores(self, question: str) -> NDArray[np.float64]:
        """(n,) BM25 of every text, ≥ 0; 0 where no word is shared."""
        query, scores = self._encoder.query(question), np.zeros(self._count)
        for word, weight in zip(query.indices, query.values, strict=True):
            start, end = np.searchsorted(self._words, word, "left"), np.searchsorted(self._words, word, "right")
            scores[self._rows[start:end]] += weight * self._weights[start:end]
        return scores

    def relative(self, question: str) -> NDArray[np.float64]:
        """(n,) `scores` divided by the best of them: 0 to 1, all 0 where no word is known."""
        scores = self.scores(question)
        best = scores.max(initial=0.0)
        return scores / best if best > 0 else scores


def terms(text: str) -> Iterator[str]:
    """The words of a text, in order. A compound name counts as its parts and as a whole.

    `--file-filter` gives file, filter and file-filter; `generate_json_reader` gives generate, json, reader and itself;
    `extract_records.pl` gives extract, records, pl and itself.
    """
    for compound in _COMPOUND.findall(text):
        parts = _parts(compound)
        yield from parts
        if len(parts) > 1:
            yield compound


class Kind(Enum):
    """What a word of a text is by its spelling."""

    NAME = "name"
    """As code spells names: `generate_json_reader`, `extract_records.pl`, `--file-filter`."""
    COMPOUND = "compound"
    """As code and prose spell: `type-safe`, `WebAssembly`."""
    WORD = "word"


def words_by_kind(text: str) -> Iterator[tuple[str, Kind]]:
    """The words of a text, in order and in lower case, compound names whole; each with its kind."""
    for match in _COMPOUND.finditer(text):
        word = match[0]
        parts = _parts(word)
        named = any(len(part) > 1 and not part.isdecimal() for part in parts)  # neither `e.g` nor `3.11`
        kind = Kind.WORD
        if named and ("_" in word.strip("_") or "." in word or _OPTION.search(text, 0, match.start())):
            kind = Kind.NAME
        elif named and (len(parts) > 1 or _CAPITAL_INSIDE.search(word)):
            kind = Kind.COMPOUND
        yield word.lower(), kind


def _parts(compound: str) -> list[str]:
    return [part for part in _BETWEEN.split(compound) if part]


def _tokenized(text: str) -> str:
    return " ".join(terms(text))


def _sparse(vector: SparseVector) -> Sparse:
    return Sparse(vector.indices, vector.values)
