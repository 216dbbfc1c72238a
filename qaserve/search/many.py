"""Many questions at once: encoded together, answered one by one. An error of one question leaves the others alone."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qaserve.common.errors import (
    BuildNotFoundError,
    BundleError,
    EncoderError,
    EncoderMismatchError,
    ExportError,
    QaserveError,
    UsageError,
)
from qaserve.schemas.ask import AskRequest, AskResult
from qaserve.search.engine import Engine
from qaserve.search.outcome import Query

Vector = NDArray[np.float32]


def ask_many(engine: Engine, requests: Sequence[AskRequest]) -> list[AskResult | QaserveError]:
    """Answer every question, or give the error of that question, in the order of the questions.

    Raises:
        QaserveError: Something is wrong that concerns every question, such as a missing build.
    """
    engine.load()
    found: dict[int, AskResult | QaserveError] = {}
    queries: dict[int, Query] = {}
    for number, request in enumerate(requests):
        try:
            queries[number] = engine.prepare(request)
        except UsageError as error:
            found[number] = error
    started = time.perf_counter()
    vectors = _encoded(engine, [query.question for query in queries.values()])
    each_ms = 1e3 * (time.perf_counter() - started) / max(1, len(queries))
    for (number, query), vector in zip(queries.items(), vectors, strict=True):
        found[number] = vector if isinstance(vector, EncoderError) else _answer(engine, query, vector, each_ms)
    return [found[number] for number in range(len(requests))]


def of_one_question(error: QaserveError) -> bool:
    """Whether an error may concern only the question that raised it."""
    return isinstance(error, UsageError | EncoderError) and not isinstance(error, EncoderMismatchError | ExportError)


def _encoded(engine: Engine, texts: list[str]) -> list[Vector | EncoderError]:
    """A vector for each text, or the error of a text for which the encoder has none."""
    try:
        return list(engine.encoder.encode_questions(texts))
    except EncoderError as error:
        if not of_one_question(error):
            raise
        if len(texts) == 1:
            return [error]
    return [vector for text in texts for vector in _encoded(engine, [text])]


def _answer(engine: Engine, query: Query, vector: Vector, encode_ms: float) -> AskResult:
    try:
        return engine.search(query, vector, encode_ms).result
    except (BuildNotFoundError, BundleError):  # pruned meanwhile: from the new live build
        return engine.ask(query.request)
