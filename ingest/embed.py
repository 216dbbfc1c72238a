"""Vectors of the pairs of a build to be: those that a build before it holds, and what the encoder makes of the rest."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ingest.corpus import Corpus
from ingest.spool import Vectors
from qaserve.common.progress import Advance
from qaserve.common.text import short_digest
from qaserve.core.chunked import slices
from qaserve.encoders.base import Encoder
from qaserve.schemas.pairs import Pair

Part = Literal["question", "answer"]
TEXTS = 8_192
"""So many go to the encoder at once, which sorts them by length: more would cost memory and gain nothing."""


@dataclass(frozen=True)
class Sources:
    """Where the vectors of one part of the pairs come from."""

    part: Part
    places: NDArray[np.int64]
    """(n,) row of each pair's vector in the build before; beyond its rows, in `missing`."""
    missing: list[str]
    """The points whose text must be encoded: each text once, in the order of the pairs."""


def find_sources(pairs: Mapping[str, Pair], known: Corpus | None) -> tuple[Sources, Sources]:
    """Where the vectors of questions and of answers come from.

    Args:
        pairs: Of the build to be.
        known: The build before it; None: everything is to be encoded.
    """
    return _sources(pairs, known, "question"), _sources(pairs, known, "answer")


def _sources(pairs: Mapping[str, Pair], known: Corpus | None, part: Part) -> Sources:
    before = () if known is None else known.pairs.values()
    rows = {short_digest(getattr(pair, part)): row for row, pair in enumerate(before)}
    missing: list[str] = []
    places = np.empty(len(pairs), dtype=np.int64)
    for at, (point, pair) in enumerate(pairs.items()):
        text = short_digest(getattr(pair, part))
        if text not in rows:
            rows[text] = len(before) + len(missing)
            missing.append(point)
        places[at] = rows[text]
    return Sources(part, places, missing)


def embed(
    pairs: Mapping[str, Pair],
    known: Corpus | None,
    sources: tuple[Sources, Sources],
    encoder: Encoder,
    scratch: Path | None,
    stage: Callable[[int], AbstractContextManager[Advance]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, D) questions and answers of all pairs, in the order of ids.

    Args:
        pairs: Of the build to be.
        known: The build before it.
        sources: As `find_sources` gives them.
        encoder: What the build before was made with, too.
        scratch: Where the vectors are kept.
        stage: Shows the progress of so many texts; not entered without any.
    """
    questions, answers = sources
    encoded = [Vectors(encoder.identity.dimension, scratch) for _ in sources]
    count = len(questions.missing) + len(answers.missing)
    if count:
        with stage(count) as advance:
            for part, into, encode in zip(
                sources, encoded, (encoder.encode_questions, encoder.encode_answers), strict=True
            ):
                for start in range(0, len(part.missing), TEXTS):
                    points = part.missing[start : start + TEXTS]
                    into.append(encode([getattr(pairs[point], part.part) for point in points], advance))
    order = np.array(sorted(range(len(pairs)), key=list(pairs).__getitem__), dtype=np.int64)
    held = (None, None) if known is None else (known.questions, known.answers)
    first, second = (
        _gathered(part.places[order], before, new.array(), Vectors(encoder.identity.dimension, scratch))
        for part, before, new in zip(sources, held, encoded, strict=True)
    )
    return first, second


def _gathered(
    places: NDArray[np.int64], before: NDArray[np.float32] | None, new: NDArray[np.float32], into: Vectors
) -> NDArray[np.float32]:
    """(n, D) the rows at these places, of the build before and beyond it the new ones."""
    known = 0 if before is None else len(before)
    for part in slices(len(places)):
        at = places[part]
        rows = np.empty((len(at), new.shape[1]), dtype=np.float32)
        held = at < known
        if before is not None:
            rows[held] = before[at[held]]
        rows[~held] = new[at[~held] - known]
        into.append(rows)
    return into.array()
