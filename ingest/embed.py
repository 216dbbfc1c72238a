"""Vectors of the pairs of a build to be: those that a build before it holds, and what the encoder makes of the rest."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingest.corpus import Corpus
from ingest.spool import Vectors
from qaserve.common.progress import Advance
from qaserve.common.text import short_digest
from qaserve.core.chunked import slices
from qaserve.encoders.base import Encoder
from qaserve.schemas.pairs import Pair, TopicText

TEXTS = 8_192
"""Texts that go to the encoder at once, which sorts them by length: more cost memory and gain nothing."""
TOPIC_TEXT = TopicText()
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
    missing: list[str]
    """The points whose text must be encoded: each text once, in the order of the pairs."""


def find_sources(pairs: Mapping[str, Pair], known: Corpus | None) -> tuple[Sources, ...]:
    """Where the vectors of each of `PARTS` come from.

    Args:
        pairs: Of the build to be.
        known: The build before it; None: everything is to be encoded.
    """
    return tuple(_sources(pairs, known, part) for part in PARTS)


def _sources(pairs: Mapping[str, Pair], known: Corpus | None, part: Part) -> Sources:
    rows = {} if known is None else _known_rows(known, part)
    held = 0 if known is None else len(known.pairs)
    missing: list[str] = []
    places = np.empty(len(pairs), dtype=np.int64)
    for at, (point, pair) in enumerate(pairs.items()):
        text = part.text(pair)
        name = short_digest(text)
        if text and name not in rows:
            rows[name] = held + len(missing)
            missing.append(point)
        places[at] = rows[name] if text else NOWHERE
    return Sources(part, places, missing)


def _known_rows(known: Corpus, part: Part) -> dict[bytes, int]:
    """By digest of its text, a row of the build before that has its vector."""
    there = ~np.isnan(getattr(known, part.vectors)[:, 0])
    return {short_digest(part.text(pair)): row for row, pair in enumerate(known.pairs.values()) if there[row]}


def embed(
    pairs: Mapping[str, Pair],
    known: Corpus | None,
    sources: tuple[Sources, ...],
    encoder: Encoder,
    scratch: Path | None,
    stage: Callable[[int], AbstractContextManager[Advance]],
) -> list[NDArray[np.float32]]:
    """(n, D) vectors of each of `PARTS` of all pairs, in the order of ids; NaN rows where a pair has none.

    Args:
        pairs: Of the build to be.
        known: The build before it.
        sources: As `find_sources` gives them.
        encoder: What the build before was made with, too.
        scratch: Where the vectors are kept.
        stage: Shows the progress of a number of texts; not entered without any.
    """
    dimension = encoder.identity.dimension
    encoded = [Vectors(dimension, scratch) for _ in sources]
    count = sum(len(source.missing) for source in sources)
    if count:
        with stage(count) as advance:
            for source, into in zip(sources, encoded, strict=True):
                encode = encoder.encode_questions if source.part.vectors == "questions" else encoder.encode_answers
                for start in range(0, len(source.missing), TEXTS):
                    texts = [source.part.text(pairs[point]) for point in source.missing[start : start + TEXTS]]
                    into.append(encode(texts, advance))
    order = np.array(sorted(range(len(pairs)), key=list(pairs).__getitem__), dtype=np.int64)
    return [
        _gathered(
            source.places[order],
            None if known is None else getattr(known, source.part.vectors),
            new.array(),
            Vectors(dimension, scratch),
        )
        for source, new in zip(sources, encoded, strict=True)
    ]


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
