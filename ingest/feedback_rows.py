"""Questions that people judged, as further rows that W is fitted on. They become no points and cast no votes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingest.builder import Builder
from ingest.corpus import ExtraRows, LiveBuild, points_of
from ingest.judgements import Judgement, KnownPairs
from qaserve.builds.manifest import FittedFeedback
from qaserve.common.text import fold
from qaserve.encoders.base import Encoder


@dataclass(frozen=True)
class Extra:
    """What people said, and what encodes their questions."""

    judgements: Sequence[Judgement]
    encoder: Encoder


class _Chosen(NamedTuple):
    """A question, and the row and the answer's vector of the pair that answers it."""

    question: str
    row: int
    answer: NDArray[np.float32]


def extra_rows(extra: Extra, live: LiveBuild, labels: NDArray[np.int64], builder: Builder) -> ExtraRows:
    """Rows out of the judgements of pairs that helped: the question's vector, the pair's answer and cluster.

    A pair that the build lacks gives none; neither does a question that is the pair's own, for that row is there.

    Args:
        extra: What people said.
        live: The build that is fitted again.
        labels: (n,) cluster of each of its pairs.
        builder: Shows the progress.
    """
    helpful = [judgement for judgement in extra.judgements if judgement.helpful]
    chosen, unknown = _chosen(helpful, live)
    with builder.stage("encode", "Encoding (judged questions)", len(chosen)) as advance:
        questions = extra.encoder.encode_questions([one.question for one in chosen], advance)
    answers = np.array([one.answer for one in chosen], dtype=np.float32).reshape(questions.shape)
    rows = np.array([one.row for one in chosen], dtype=np.int64)
    said = FittedFeedback(rows=len(chosen), repeated=len(helpful) - unknown - len(chosen), unknown=unknown)
    return ExtraRows(questions, answers, labels[rows], said)


def _chosen(helpful: Sequence[Judgement], live: LiveBuild) -> tuple[list[_Chosen], int]:
    """What gives a row, and how many judgements are of pairs that the build lacks."""
    known = KnownPairs(vectors.stored for vectors in points_of(live.corpus, live.labels))
    places = {point: row for row, point in enumerate(live.pairs)}
    chosen: list[_Chosen] = []
    unknown = 0
    for judgement in helpful:
        pairs = known.of(judgement)
        if not pairs:
            unknown += 1
        elif fold(judgement.question) not in {fold(stored.pair.question) for stored in pairs}:
            row = places[pairs[0].id]
            chosen.append(_Chosen(judgement.question, row, live.corpus.answers[row]))
    return chosen, unknown
