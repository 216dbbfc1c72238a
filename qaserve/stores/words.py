"""The words of a text as a sparse vector.

Qdrant's own BM25 (Robertson & Zaragoza 2009): a document's weight for a word of frequency f in a text of length L is
`f (k+1) / (f + k (1 - b + b L/avg))`; a query's is 1; the engine multiplies by `idf = ln(1 + (N - n + ½) / (n + ½))`.
Words are lower-cased, stemmed, and stop words dropped. The same class runs for both stores, so scores agree.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import Field
from qdrant_edge import Bm25, Bm25Config, SparseVector, TokenizerType

from qaserve.schemas.record import Record

_COMPOUND = re.compile(r"[\w+#]+(?:[-.][\w+#]+)*")
_BETWEEN = re.compile(r"[-._]+")


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


def terms(text: str) -> Iterator[str]:
    """The words of a text, in order. A compound name counts as its parts and as a whole.

    `--file-filter` gives file, filter and file-filter; `generate_json_reader` gives generate, json, reader and itself;
    `extract_records.pl` gives extract, records, pl and itself.
    """
    for compound in _COMPOUND.findall(text):
        parts = [part for part in _BETWEEN.split(compound) if part]
        yield from parts
        if len(parts) > 1:
            yield compound


def _tokenized(text: str) -> str:
    return " ".join(terms(text))


def _sparse(vector: SparseVector) -> Sparse:
    return Sparse(vector.indices, vector.values)
