"""The experiment behind `qaserve bench load`: many clients of an API at once, compared with one client."""

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import anyio
import httpx
import numpy as np
from pydantic import Field

from qaserve.common.progress import Advance
from qaserve.schemas.record import Record

MEMORY = "process_resident_memory_bytes"
WARM_UP = 5
ALONE = 60.0
"""Seconds that tell well enough how fast one caller is served; the many may be watched for longer."""


class Load(Record):
    """What one way of asking gave."""

    clients: int
    requests: int
    failed: int = Field(description="Requests without an answer, whatever the reason.")
    seconds: float
    per_second: float
    p50_ms: float
    p99_ms: float


class LoadReport(Record):
    """Many clients compared with one, the same questions."""

    url: str
    one: Load
    many: Load
    ratio: float = Field(description="Answers per second of many over those of one.")
    memory_before: int | None = Field(description="Bytes of the API's process before the many; null: it does not say.")
    memory_after: int | None


class _Asked(NamedTuple):
    ok: bool
    milliseconds: float


async def run(
    url: str, key: str | None, questions: Sequence[str], *, clients: int, seconds: float, advance: Advance
) -> LoadReport:
    """Ask an API for a while, of at most a minute, by one client, then by many.

    Args:
        url: Address of the API.
        key: What it asks callers for.
        questions: What to ask, in turn.
        clients: How many at once; each asks its next question when it has its answer.
        seconds: How long the many ask.
        advance: Told 1 for every request.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, limits=limits) as http:
        for question in questions[:WARM_UP]:
            await _ask(http, question)
        one = await _asking(http, questions, 1, min(seconds, ALONE), advance)
        before = await _memory(http)
        many = await _asking(http, questions, clients, seconds, advance)
        after = await _memory(http)
    ratio = many.per_second / one.per_second if one.per_second else 0.0
    return LoadReport(url=url, one=one, many=many, ratio=round(ratio, 2), memory_before=before, memory_after=after)


async def _asking(
    http: httpx.AsyncClient, questions: Sequence[str], clients: int, seconds: float, advance: Advance
) -> Load:
    asked: list[_Asked] = []
    turn: Iterator[str] = itertools.cycle(questions)
    started = time.perf_counter()

    async def client() -> None:
        while time.perf_counter() - started < seconds:
            asked.append(await _ask(http, next(turn)))
            advance(1)

    async with anyio.create_task_group() as group:
        for _ in range(clients):
            group.start_soon(client)
    took = time.perf_counter() - started
    answered = [one.milliseconds for one in asked if one.ok]
    p50, p99 = np.percentile(answered, [50, 99]) if answered else (0.0, 0.0)
    return Load(
        clients=clients,
        requests=len(asked),
        failed=len(asked) - len(answered),
        seconds=round(took, 2),
        per_second=round(len(answered) / took, 2),
        p50_ms=round(float(p50), 1),
        p99_ms=round(float(p99), 1),
    )


async def _ask(http: httpx.AsyncClient, question: str) -> _Asked:
    started = time.perf_counter()
    try:
        response = await http.post("/v1/ask", json={"question": question})
    except httpx.HTTPError:
        return _Asked(ok=False, milliseconds=0.0)
    return _Asked(ok=response.is_success, milliseconds=1e3 * (time.perf_counter() - started))


async def _memory(http: httpx.AsyncClient) -> int | None:
    response = await http.get("/metrics")
    lines = response.text.splitlines() if response.is_success else []
    return next((int(float(line.split()[1])) for line in lines if line.startswith(f"{MEMORY} ")), None)
