"""The experiment behind `qaserve bench load`: many clients of an API at once, compared with one client."""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from pydantic import Field

from qaserve.common.progress import Advance
from qaserve.schemas.record import Record

MEMORY = "process_resident_memory_bytes"
TIMEOUT = 60.0
WARM_UP = 5
ALONE = 60.0
"""Seconds that tell well enough how fast one caller is served; the many may be watched for longer."""
BARE = 5.0
"""Seconds that tell well enough how fast HTTP alone is."""


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
    bare: Load = Field(description="The many again, but they ask only whether the API is alive: what HTTP costs here.")
    ratio: float = Field(description="Answers per second of many over those of one.")
    memory_before: int | None = Field(description="Bytes of the API's process before the many; null: it does not say.")
    memory_after: int | None


class _Reply(NamedTuple):
    ok: bool
    milliseconds: float
    text: str


class _Caller:
    """One client and its connection, of the standard library: httpx with many connections costs more than the API."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection, self._path = kind(parts.netloc, timeout=TIMEOUT), parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def call(self, path: str, question: str | None = None) -> _Reply:
        started, text, ok = time.perf_counter(), "", False
        body = None if question is None else json.dumps({"question": question})
        try:
            self._connection.request("GET" if body is None else "POST", self._path + path, body, self._headers)
            reply = self._connection.getresponse()
            text, ok = reply.read().decode(), reply.status < 400
        except (OSError, HTTPException):
            self._connection.close()  # the next call connects again
        return _Reply(ok, 1e3 * (time.perf_counter() - started), text)


def run(
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
    turn: Iterator[str] = itertools.cycle(questions)
    callers = [_Caller(url, key) for _ in range(clients)]

    def ask(caller: _Caller) -> _Reply:
        return caller.call("/v1/ask", next(turn))

    for _ in range(WARM_UP):
        ask(callers[0])
    one = _calling(ask, callers[:1], min(seconds, ALONE), advance)
    before = _memory(callers[0])
    many = _calling(ask, callers, seconds, advance)
    after = _memory(callers[0])
    bare = _calling(lambda caller: caller.call("/healthz"), callers, min(seconds, BARE), advance)
    ratio = many.per_second / one.per_second if one.per_second else 0.0
    return LoadReport(
        url=url, one=one, many=many, bare=bare, ratio=round(ratio, 2), memory_before=before, memory_after=after
    )


def _calling(call: Callable[[_Caller], _Reply], callers: Sequence[_Caller], seconds: float, advance: Advance) -> Load:
    replies: list[_Reply] = []
    started = time.perf_counter()

    def work(caller: _Caller) -> None:
        while time.perf_counter() - started < seconds:
            replies.append(call(caller)._replace(text=""))
            advance(1)

    with ThreadPoolExecutor(len(callers)) as pool:
        list(pool.map(work, callers))
    took = time.perf_counter() - started
    answered = [one.milliseconds for one in replies if one.ok]
    p50, p99 = np.percentile(answered, [50, 99]) if answered else (0.0, 0.0)
    return Load(
        clients=len(callers),
        requests=len(replies),
        failed=len(replies) - len(answered),
        seconds=round(took, 2),
        per_second=round(len(answered) / took, 2),
        p50_ms=round(float(p50), 1),
        p99_ms=round(float(p99), 1),
    )


def _memory(caller: _Caller) -> int | None:
    """Resident bytes of the API's process, as it says itself."""
    lines = caller.call("/metrics").text.splitlines()
    return next((int(float(line.split()[1])) for line in lines if line.startswith(f"{MEMORY} ")), None)
