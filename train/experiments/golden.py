"""The measurement behind `qaserve bench golden`: how the live build answers questions that people judged."""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from ingest.judgements import BadLine, Judged, KnownPairs, said, unknown_line
from qaserve.common.errors import CorpusError
from qaserve.common.progress import Advance
from qaserve.core.metrics import summarize
from qaserve.schemas.ask import AskRequest
from qaserve.schemas.ingest import REPORTED
from qaserve.schemas.pairs import StoredPair
from qaserve.schemas.params import MAX_TOP_K
from qaserve.schemas.record import Record
from qaserve.search.engine import Engine
from qaserve.store.points import to_pair

ANSWERS = Field(description=f"Among the first {MAX_TOP_K} answers; null: there are no such judgements.")


class Found(Record):
    """How questions were answered whose answer is known."""

    questions: int
    mrr: float
    hit1: float
    hit3: float
    hit5: float
    ndcg10: float
    abstained: float = Field(description="Share of them where nothing was said to answer, though something does.")


class StillFirst(Record):
    """How often a pair comes first that was said not to help."""

    questions: int
    first: int
    share: float


class GoldenReport(Record):
    """The live build, judged by a file of judgements."""

    build: str
    corpus: str
    file: str
    helpful: Found | None = ANSWERS
    unhelpful: StillFirst | None = ANSWERS
    unknown: int = Field(description="Judgements of pairs that the live build does not have; they are left out.")
    unknown_lines: tuple[BadLine, ...] = Field((), description=f"The first {REPORTED:,} of them.")
    bad: tuple[BadLine, ...] = Field(description="Lines that are no judgements.")


def run(engine: Engine, judged: Judged, file: str, advance: Advance) -> GoldenReport:
    """Ask every question and see where the intent of its pair comes.

    Args:
        engine: Over the live build.
        judged: What people said.
        file: Name of the file that says so, for the report.
        advance: Told 1 after each question.

    Raises:
        CorpusError: The live build has none of the pairs.
    """
    live = engine.load()
    build, known = live.ref.build, KnownPairs(map(to_pair, live.points.scroll(vectors=())))
    ranks: list[float] = []
    abstained: list[bool] = []
    first: list[bool] = []
    unknown = list[BadLine]()
    for judgement, line in zip(judged.judgements, judged.lines, strict=True):
        pairs = known.of(judgement)
        if not pairs:
            unknown.append(unknown_line(judgement, file, line))
        elif judgement.helpful:
            rank, silent = _asked(engine, judgement.question, pairs)
            ranks.append(rank)
            abstained.append(silent)
        else:
            answers = engine.ask(AskRequest(question=judgement.question, top_k=1, explain=False)).answers
            first.append(answers[0].id in {stored.id for stored in pairs})
        advance(1)
    if not ranks and not first:
        raise CorpusError(
            f"build {build} of corpus {engine.corpus!r} has none of the {len(unknown)} pairs that {file} names; "
            f"{said(unknown[0])}",
            hint="Is QASERVE_CORPUS the corpus that these judgements are on?",
        )
    return GoldenReport(
        build=build,
        corpus=engine.corpus,
        file=file,
        helpful=_found(ranks, abstained) if ranks else None,
        unhelpful=StillFirst(questions=len(first), first=sum(first), share=sum(first) / len(first)) if first else None,
        unknown=len(unknown),
        unknown_lines=tuple(unknown[:REPORTED]),
        bad=judged.bad,
    )


def _asked(engine: Engine, question: str, pairs: Sequence[StoredPair]) -> tuple[float, bool]:
    """Rank of the first answer of a relevant intent, infinite without one, and whether the engine abstained."""
    relevant = {stored.pair.intent for stored in pairs}
    result = engine.ask(AskRequest(question=question, top_k=MAX_TOP_K, explain=False))
    ranks = (float(answer.rank) for answer in result.answers if answer.cluster_id in relevant)
    return next(ranks, math.inf), result.confidence.abstained


def _found(ranks: Sequence[float], abstained: Sequence[bool]) -> Found:
    figures = {name: round(value, 6) for name, value in summarize(np.array(ranks)).items()}
    return Found(questions=len(ranks), **figures, abstained=round(sum(abstained) / len(abstained), 6))
