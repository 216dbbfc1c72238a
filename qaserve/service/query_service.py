"""Where questions wait their turn: places are bounded, encoding is shared, and nothing blocks the event loop.

A question takes a place, its text joins those of other callers in one call of the encoder, and a worker thread does the
rest. A caller that hangs up, or waits too long, gives its place back at once: what has not begun is not begun.
"""

import math
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import anyio
import anyio.to_thread

from qaserve.common.errors import BuildNotFoundError, BundleError, BusyError, TooLargeError, UsageError
from qaserve.schemas.ask import AskRequest, AskResult
from qaserve.search.engine import Engine
from qaserve.search.outcome import Outcome, Query
from qaserve.service.batching import MicroBatcher
from qaserve.service.gaps import QuestionLog
from qaserve.service.metrics import Metrics
from qaserve.settings import LimitSettings

T = TypeVar("T")

WARM_UP = "the first forward pass is slow"
SERVER_WORKERS = 16
"""Threads that wait for a Qdrant server. Embedded Qdrant computes here: more threads than cores gain nothing."""


class QueryService:
    """Takes questions for an engine; `run` must be running, on the event loop that also calls `ask`."""

    def __init__(
        self, engine: Engine, limits: LimitSettings, metrics: Metrics, kept: QuestionLog | None = None
    ) -> None:
        """Remember the parts; nothing is encoded before `run`. `kept` gets the questions that are abstained on."""
        self._engine, self._limits, self._metrics, self._kept = engine, limits, metrics, kept
        self._shared = MicroBatcher(engine.encoder, limits.batch, metrics)
        workers = min(os.cpu_count() or 1, 2) if engine.store.embedded else SERVER_WORKERS
        self._workers = anyio.CapacityLimiter(workers)
        self._inside = 0
        self._warm = False
        metrics.queue.set_function(lambda: self._inside)

    async def run(self) -> None:
        """Load the model, then encode for all who ask; ends when it is cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._shared.run)
            await self._shared.encode(WARM_UP, 0.0)
            self._warm = True

    def check_ready(self) -> None:
        """Raise BusyError while the encoder is still being read."""
        if not self._warm:
            error = BusyError("the encoder is still being read", hint="Ask again in a few seconds.")
            error.retry_after = 2.0
            raise error

    async def ask(self, requests: Sequence[AskRequest]) -> list[AskResult]:
        """Answer some questions, in their order and from one build.

        Raises:
            UsageError: A question or parameter is invalid, or there are too many.
            BusyError: Too many are asking, or it takes too long.
        """
        results = [outcome.result for outcome in await self.search(requests)]
        if self._kept is not None and self._kept.keeps:
            await anyio.to_thread.run_sync(self._kept.keep_abstained, results)  # no worker waits for the file
        return results

    async def search(self, requests: Sequence[AskRequest]) -> list[Outcome]:
        """As `ask`, with the vectors that led to the results."""
        self._check(requests)
        with self._places(len(requests)):
            try:
                with anyio.fail_after(self._limits.request_seconds):
                    try:
                        return await self._from_one_build(requests)
                    except (BuildNotFoundError, BundleError):  # pruned meanwhile: all again, from the new live build
                        return await self._from_one_build(requests)
            except TimeoutError as error:
                raise BusyError(
                    f"there was no answer within {self._limits.request_seconds:g} seconds",
                    hint="The service is busy or its Qdrant is slow: ask again later, or fewer questions at once.",
                ) from error

    async def _from_one_build(self, requests: Sequence[AskRequest]) -> list[Outcome]:
        queries = await self._in_thread(lambda: self._engine.prepare_all(requests))
        if len(queries) == 1:
            return [await self._one(queries[0])]
        outcomes: dict[int, Outcome] = {}

        async def one(number: int) -> None:
            outcomes[number] = await self._one(queries[number])

        await _together(one, len(queries))
        return [outcomes[number] for number in range(len(queries))]

    def _check(self, requests: Sequence[AskRequest]) -> None:
        limits = self._limits
        if not requests:
            raise UsageError("there is no question in the list", hint="/docs describes the request.")
        if len(requests) > limits.max_questions:
            raise TooLargeError(
                f"{len(requests)} questions in one request; this service takes {limits.max_questions}",
                hint="Send them in several requests.",
            )
        for request in requests:
            for name, value, most in (
                ("question: characters", len(request.question), limits.max_asked_chars),
                ("top_k", request.top_k, limits.max_top_k),
                ("hits", request.given.get("hits", 0), limits.max_hits),
            ):
                if value > most:
                    raise UsageError(f"{name}: {value:,}; this service takes at most {most:,}", hint="Ask for fewer.")

    @contextmanager
    def _places(self, count: int) -> Iterator[None]:
        if self._inside + count > self._limits.queue:
            error = BusyError(
                f"{self._inside} questions are waiting or being answered; this service takes {self._limits.queue}",
                hint="Ask again in a moment.",
            )
            error.retry_after = float(math.ceil(1 + self._inside / 100))
            raise error
        self._inside += count
        try:
            yield
        finally:
            self._inside -= count

    async def _one(self, query: Query) -> Outcome:
        started = time.perf_counter()
        window = 1e-3 * self._limits.batch_window_ms if self._inside > 1 else 0.0
        vector = await self._shared.encode(query.question, window)
        encode_ms = 1e3 * (time.perf_counter() - started)
        outcome = await self._in_thread(lambda: self._engine.search(query, vector, encode_ms))
        self._metrics.answered(outcome.result)
        return outcome

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._workers, abandon_on_cancel=True)


async def _together(one: Callable[[int], Coroutine[object, object, None]], count: int) -> None:
    """Run `one` for 0 … count-1 at once; the first error, alone, is raised."""
    try:
        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(one, number)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
