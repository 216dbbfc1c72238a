"""The experiment behind `qaserve bench latency`: the time of a question, compared with its bare parts."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from qaserve.common.progress import Advance
from qaserve.encoders.base import Encoder
from qaserve.schemas.ask import AskRequest, Timings
from qaserve.schemas.record import Record
from qaserve.search.engine import Engine
from qaserve.search.ranking import FIRST_LOOK
from qaserve.store.points import nearest_answers, nearest_questions

WARM_UP = 5


class LatencyReport(Record):
    """Medians in milliseconds."""

    build: str
    pairs: int
    questions: int
    engine: Timings
    bare_encode: float
    bare_searches: float
    over_bare: float
    """Total of the engine over bare encoder and two bare Qdrant searches; 1.3 means 30% on top."""
    bank_bytes: int
    dense_bank_bytes: int


def run(engine: Engine, encoder: Encoder, questions: Sequence[str], advance: Advance) -> LatencyReport:
    """Ask every question through the engine, and then encode and search without it.

    Args:
        engine: A loaded engine.
        encoder: Its encoder.
        questions: What to ask; the first few are asked once more beforehand, unmeasured.
        advance: Told 1 after each question.
    """
    live = engine.load()
    hits = live.bundle.manifest.hyperparameters.search.hits
    for question in questions[:WARM_UP]:
        engine.ask(AskRequest(question=question))
    asked: list[Timings] = []
    encode: list[float] = []
    search: list[float] = []
    for question in questions:
        asked.append(engine.ask(AskRequest(question=question)).timings_ms)
        with _timed(encode):
            (vector,) = encoder.encode_questions([question])
        with _timed(search):
            nearest_questions(live.points, vector, hits)
            nearest_answers(live.points, vector, FIRST_LOOK)
        advance(1)
    middle = {name: round(median(getattr(one, name) for one in asked), 3) for name in Timings.model_fields}
    bare_encode, bare_searches = median(encode), median(search)
    bank = live.bundle.model.bank
    return LatencyReport(
        build=live.ref.build,
        pairs=live.metadata.pairs,
        questions=len(questions),
        engine=Timings(**middle),
        bare_encode=round(bare_encode, 3),
        bare_searches=round(bare_searches, 3),
        over_bare=round(middle["total"] / (bare_encode + bare_searches), 3),
        bank_bytes=bank.nbytes,
        dense_bank_bytes=bank.dense_nbytes,
    )


@contextmanager
def _timed(times: list[float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    times.append(1e3 * (time.perf_counter() - started))
