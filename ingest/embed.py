"""Vectors of the pairs of a build to be: those that a build before it holds, and what the encoder makes of the rest."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingest.corpus import Corpus
from ingest.names import Words
from ingest.pairs import TOPIC_TEXT, PairTable
from ingest.spool import Vectors
from qaserve.common.progress import Advance
from qaserve.core.chunked import slices
from qaserve.encoders.base import Encoder
from qaserve.schemas.pairs import Pair

PAIRS = 4_096
"""Pairs whose texts are read and go to the encoder at once, which sorts them by length: more cost memory and gain
nothing."""
NOWHERE = -1
"""Place of a vector that a pair does not have."""


class Part(NamedTuple):
    """What of a pair becomes a vector."""

    vectors: Literal["questions", "answers", "topics"]
    """Their name in a `Corpus`."""
    text: Callable[[Pair], str]
    """Of a pair; empty where it has no such vector."""


PARTS = (
    Part("questions", lambda pair: pair.question),
    Part("answers", lambda pair: pair.answer),
    Part("topics", TOPIC_TEXT.of),
)


@dataclass(frozen=True)
class Sources:
    """Where the vectors of one part of the pairs come from."""

    part: Part
    places: NDArray[np.int64]
    """(n,) row of each pair's vector in the build before; beyond its rows, in `missing`; or `NOWHERE`."""
    missing: NDArray[np.bool_]
    """(n,) whether a pair's text must be encoded: each text once."""


def find_sources(pairs: PairTable, known: Corpus | None) -> tuple[Sources, ...]:
    """Where the vectors of each of `PARTS` come from.

    Args:
        pairs: Of the build to be.
        known: The build before it; None: everything is to be encoded.
    """
    return tuple(_sources(pairs, known, part) for part in PARTS)


def _sources(pairs: PairTable, known: Corpus | None, part: Part) -> Sources:
    rows = {} if known is None else _known_rows(known, part)
    following = 0 if known is None else len(known.pairs)
    missing = np.zeros(len(pairs), dtype=bool)
    places = np.full(len(pairs), NOWHERE)
    for row, text in enumerate(pairs.figures[part.vectors].tolist()):
        if text and text not in rows:
            missing[row], rows[text] = True, following
            following += 1
        if text:
            places[row] = rows[text]
    return Sources(part, places, missing)


def _known_rows(known: Corpus, part: Part) -> dict[bytes, int]:
    """By digest of its text, a row of the build before that has its vector."""
    there = ~np.isnan(getattr(known, part.vectors)[:, 0])
    return {text: row for row, text in enumerate(known.pairs.figures[part.vectors].tolist()) if there[row]}


def embed(
    pairs: PairTable,
    known: Corpus | None,
    sources: tuple[Sources, ...],
    encoder: Encoder,
    scratch: Path | None,
    advance: Advance,
    on_pairs: Advance,
) -> tuple[list[NDArray[np.float32]], Words]:
    """(n, D) vectors of each of `PARTS`, NaN rows where a pair has none, and the words. Each pair is read once.

    Args:
        pairs: Of the build to be.
        known: The build before it.
        sources: As `find_sources` gives them.
        encoder: What the build before was made with, too.
        scratch: Where the vectors are kept.
        advance: Told of texts that were encoded.
        on_pairs: Told of pairs that were read.
    """
    dimension, words, points = encoder.identity.dimension, Words(), list(pairs)
    encoded = [Vectors(dimension, scratch) for _ in sources]
    for start in range(0, len(points), PAIRS):
        texts: list[list[str]] = [[] for _ in sources]
        for row, point in enumerate(points[start : start + PAIRS], start):
            pair = pairs[point]
            words.add(pair)
            for source, into in zip(sources, texts, strict=True):
                if source.missing[row]:
                    into.append(source.part.text(pair))
        for source, some, vectors in zip(sources, texts, encoded, strict=True):
            encode = encoder.encode_questions if source.part.vectors == "questions" else encoder.encode_answers
            if some:
                vectors.append(encode(some, advance))
        on_pairs(len(points[start : start + PAIRS]))
    gathered = [
        _gathered(
            source.places,
            None if known is None else getattr(known, source.part.vectors),
            new.array(),
            Vectors(dimension, scratch),
        )
        for source, new in zip(sources, encoded, strict=True)
    ]
    return gathered, words


def _gathered(
    places: NDArray[np.int64], before: NDArray[np.float32] | None, new: NDArray[np.float32], into: Vectors
) -> NDArray[np.float32]:
    """(n, D) the rows at these places, of the build before and beyond it the new ones."""
    known = 0 if before is None else len(before)
    for part in slices(len(places)):
        at = places[part]
        rows = np.full((len(at), new.shape[1]), np.nan, dtype=np.float32)
        held, fresh = (at >= 0) & (at < known), at >= known
        if before is not None:
            rows[held] = before[at[held]]
        rows[fresh] = new[at[fresh] - known]
        into.append(rows)
    return into.array()
