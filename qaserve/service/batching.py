"""One call of the encoder for the questions of many callers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio
import anyio.to_thread
import numpy as np
from numpy.typing import NDArray

from qaserve.encoders.base import Encoder
from qaserve.service.metrics import Metrics

KEPT = 16
"""The latest questions whose vectors are kept: a page asks the same one in several ways."""


@dataclass(eq=False)
class _Waiting:
    """A question whose vector somebody waits for."""

    text: str
    done: anyio.Event = field(default_factory=anyio.Event)
    vector: NDArray[np.float32] | None = None
    error: Exception | None = None


class MicroBatcher:
    """Gathers questions into batches. `run` must be running, on the event loop that also calls `encode`."""

    def __init__(self, encoder: Encoder, most: int, metrics: Metrics) -> None:
        """Remember the parts.

        Args:
            encoder: Turns questions into vectors.
            most: Texts in a batch.
            metrics: Told the size of every batch.
        """
        self._encoder, self._most, self._metrics = encoder, most, metrics
        self._waiting: list[_Waiting] = []
        self._window = 0.0
        self._kept: dict[str, NDArray[np.float32]] = {}
        self._arrived, self._full = anyio.Event(), anyio.Event()

    async def encode(self, text: str, window: float) -> NDArray[np.float32]:
        """(D,) float32 unit vector of a question. A caller that is cancelled leaves no work behind.

        Args:
            text: The question.
            window: Seconds that the encoder, if it has nothing to do, may wait for a full batch.

        Raises:
            EncoderError: As the encoder does.
        """
        if (known := self._kept.get(text)) is not None:
            return known
        mine = _Waiting(text)
        self._waiting.append(mine)
        self._window = window
        self._arrived.set()
        if len(self._waiting) >= self._most:
            self._full.set()
        try:
            await mine.done.wait()
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)
        if mine.error is not None:
            raise mine.error
        assert mine.vector is not None  # noqa: S101 - a batch gives each of its texts one or the other
        return mine.vector

    async def run(self) -> None:
        """Encode what comes, until cancelled."""
        while True:
            await self._arrived.wait()
            with anyio.move_on_after(self._window):
                await self._full.wait()
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            if not self._waiting:
                self._arrived = anyio.Event()
            if len(self._waiting) < self._most:
                self._full = anyio.Event()
            if batch:
                await self._encode(batch)

    async def _encode(self, batch: Sequence[_Waiting]) -> None:
        texts = [one.text for one in batch]
        self._metrics.batch.observe(len(texts))
        try:
            vectors = await anyio.to_thread.run_sync(self._encoder.encode_questions, texts, abandon_on_cancel=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait for it must be told
            for one in batch:
                one.error = error
        else:
            for one, vector in zip(batch, vectors, strict=True):
                one.vector = vector
                self._kept[one.text] = vector
            for old in list(self._kept)[:-KEPT]:
                del self._kept[old]
        for one in batch:
            one.done.set()
