"""A small client of the HTTP API, sync and async. It raises the same errors as the code behind the API.

`qaserve.client.endpoints` lists the endpoints. How a reply is read, and when a call is sent again, stands once in
`_Api`; `Client` and `AsyncClient` differ only in how they send and wait.
"""

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable, Generator
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx
from pydantic import ValidationError

from qaserve.client import endpoints as calls
from qaserve.client.endpoints import Call
from qaserve.common.errors import TABLE, QaserveError, ServiceError
from qaserve.common.text import shorten
from qaserve.schemas.record import Record
from qaserve.schemas.service import ErrorReply

T = TypeVar("T", bound=Record)
P = ParamSpec("P")
Outcome = httpx.Response | httpx.HTTPError
ERRORS = {kind.code: error for error, kind in TABLE.items()}

RETRIES = 2
CONNECT_SECONDS = 5.0
MAX_PAUSE_SECONDS = 20.0
"""Told to wait longer, a call gives up at once: its caller has better things to do."""
TRY_AGAIN = frozenset({429, 503})
ERRNO = re.compile(r"\[Errno -?\d+\] ")
"""Says nothing to a person that the words after it do not say."""


class _Api:
    """What both clients know: where the API is, who asks, and how a call goes."""

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 30.0, retries: int = RETRIES) -> None:
        """Remember the address; nothing is sent yet.

        Args:
            url: Address of the API.
            key: What it asks its callers for.
            timeout: Seconds until a call is given up.
            retries: How often a question or a read is sent again when the API says to come back in a few seconds.
        """
        self.url = url.rstrip("/")
        self._retries = retries
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
        }

    def _talk(self, call: Call[T]) -> Generator[float, Outcome, T]:
        """A call from first to last: yields how many seconds to wait before sending it, and is told what came back."""
        pause, left = 0.0, self._retries if call.repeatable else 0
        while True:
            outcome = yield pause
            if isinstance(outcome, httpx.HTTPError):
                why = ERRNO.sub("", str(outcome)) or type(outcome).__name__
                raise ServiceError(
                    f"the API at {self.url} does not answer: {shorten(why, 160)}",
                    hint="Start it with `qaserve serve`, or correct QASERVE_API_URL.",
                ) from outcome
            if outcome.is_success:
                return self._read(outcome, call.reply)
            error = self._error(outcome)
            if not left or error.retry_after is None or error.retry_after > MAX_PAUSE_SECONDS:
                raise error
            pause, left = error.retry_after, left - 1

    def _error(self, response: httpx.Response) -> QaserveError:
        detail = self._read(response, ErrorReply).error
        error = ERRORS.get(detail.code, QaserveError)(detail.message, hint=detail.hint)
        if response.status_code in TRY_AGAIN:
            error.retry_after = _seconds(response.headers.get("Retry-After", ""))
        return error

    def _read(self, response: httpx.Response, kind: type[T]) -> T:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise ServiceError(
                f"{response.url} answered HTTP {response.status_code} with a body that is not the API's",
                hint="Is QASERVE_API_URL the address of a qaserve API of this version?",
            ) from error


def _seconds(text: str) -> float | None:
    """The seconds of a Retry-After header; None for none, and for the date that HTTP allows too."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _sync(make: Callable[P, Call[T]]) -> "Callable[Concatenate[Client, P], T]":
    """The method of `Client` that sends what `make` makes."""

    @wraps(make)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(make(*args, **kwargs))

    return method


def _async(make: Callable[P, Call[T]]) -> "Callable[Concatenate[AsyncClient, P], Awaitable[T]]":
    """The method of `AsyncClient` that sends what `make` makes."""

    @wraps(make)
    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(make(*args, **kwargs))

    return method


class Client(_Api):
    """Talks to one API. Close it, or use it as a context manager."""

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 30.0, retries: int = RETRIES) -> None:
        """Take what `_Api` does; nothing is sent yet."""
        super().__init__(url, key=key, timeout=timeout, retries=retries)
        self._http = httpx.Client(**self._options)

    def __enter__(self) -> Self:
        """Use as a context manager to close it for certain."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """Send a call and give its reply, or raise what the API raised."""
        talk = self._talk(call)
        pause = next(talk)
        while True:
            time.sleep(pause)
            try:
                outcome: Outcome = self._http.request(call.method, call.path, **call.body)
            except httpx.HTTPError as error:
                outcome = error
            try:
                pause = talk.send(outcome)
            except StopIteration as done:
                reply: T = done.value
                return reply

    ask = _sync(calls.ask)
    skills = _sync(calls.skills)
    skill_index = _sync(calls.skill_index)
    skill = _sync(calls.skill)
    document = _sync(calls.document)
    clusters = _sync(calls.clusters)
    cluster = _sync(calls.cluster)
    pairs = _sync(calls.pairs)
    builds = _sync(calls.builds)
    activate = _sync(calls.activate)
    say = _sync(calls.say)
    feedback = _sync(calls.feedback)
    ingest = _sync(calls.ingest)
    upload = _sync(calls.upload)
    preview = _sync(calls.preview)
    quality = _sync(calls.quality)
    cluster_quality = _sync(calls.cluster_quality)
    facets = _sync(calls.facets)
    corpus_map = _sync(calls.corpus_map)
    place = _sync(calls.place)
    reports = _sync(calls.reports)
    report = _sync(calls.report)
    jobs = _sync(calls.jobs)
    job = _sync(calls.job)
    cancel = _sync(calls.cancel)
    retry = _sync(calls.retry)
    ready = _sync(calls.ready)


class AsyncClient(_Api):
    """The same for asyncio."""

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 30.0, retries: int = RETRIES) -> None:
        """Take what `_Api` does; nothing is sent yet."""
        super().__init__(url, key=key, timeout=timeout, retries=retries)
        self._http = httpx.AsyncClient(**self._options)

    async def __aenter__(self) -> Self:
        """Use as a context manager to close it for certain."""
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """Send a call and give its reply, or raise what the API raised."""
        talk = self._talk(call)
        pause = next(talk)
        while True:
            await asyncio.sleep(pause)
            try:
                outcome: Outcome = await self._http.request(call.method, call.path, **call.body)
            except httpx.HTTPError as error:
                outcome = error
            try:
                pause = talk.send(outcome)
            except StopIteration as done:
                reply: T = done.value
                return reply

    ask = _async(calls.ask)
    skills = _async(calls.skills)
    skill_index = _async(calls.skill_index)
    skill = _async(calls.skill)
    document = _async(calls.document)
    clusters = _async(calls.clusters)
    cluster = _async(calls.cluster)
    pairs = _async(calls.pairs)
    builds = _async(calls.builds)
    activate = _async(calls.activate)
    say = _async(calls.say)
    feedback = _async(calls.feedback)
    ingest = _async(calls.ingest)
    upload = _async(calls.upload)
    preview = _async(calls.preview)
    quality = _async(calls.quality)
    cluster_quality = _async(calls.cluster_quality)
    facets = _async(calls.facets)
    corpus_map = _async(calls.corpus_map)
    place = _async(calls.place)
    reports = _async(calls.reports)
    report = _async(calls.report)
    jobs = _async(calls.jobs)
    job = _async(calls.job)
    cancel = _async(calls.cancel)
    retry = _async(calls.retry)
    ready = _async(calls.ready)
