"""Who may ask, who may change something, and how often."""

import hashlib
import secrets
import time
from collections import OrderedDict, deque
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from qaserve.common.errors import AccessError, ForbiddenError, LimitError
from qaserve.settings import ServerSettings

MINUTE = 60.0
MAX_REFUSALS = 30
"""Wrong keys from one address; after these even a right one is not looked at until the minute is over."""

Given = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


class Recent:
    """How often each caller came within the last minute. Used on the event loop only.

    The package `limits` does this too, but starts a thread on each call, and the event loop waits until it runs.
    """

    def __init__(self, most: int) -> None:
        """Calls that each may make in any minute."""
        self._most = most
        self._calls: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, caller: str) -> float:
        """Seconds until a caller has a call left; 0.0: it has one now."""
        calls = self._calls.get(caller)
        if calls is None or len(calls) < self._most:
            return 0.0
        return max(0.0, calls[0] + MINUTE - time.monotonic())

    def count(self, caller: str) -> None:
        """Count a call, and forget callers that have not come for a minute."""
        now = time.monotonic()
        self._calls.setdefault(caller, deque(maxlen=self._most)).append(now)
        self._calls.move_to_end(caller)
        while next(iter(self._calls.values()))[-1] <= now - MINUTE:
            self._calls.popitem(last=False)


class ApiKeyAuth:
    """The keys of a server. `read` and `write` are dependencies of its routes; without any key both let all pass."""

    def __init__(self, settings: ServerSettings) -> None:
        """Remember the keys: a write key may read too, and where there is none, the other one writes."""
        self._read, self._write = settings.api_key, settings.write_key
        self._refusals = Recent(MAX_REFUSALS)

    async def read(self, request: Request, given: Given) -> None:
        """Raise AccessError unless the caller may ask, LimitError after too many wrong keys."""
        if self._read is None:
            return
        self._check_refusals(request)
        if not any(_same(given, key) for key in (self._read, self._write)):
            raise self._refusal(request, given)

    def may_write(self, given: Given) -> bool:
        """Whether the caller may change something."""
        key = self._write or self._read
        return key is None or _same(given, key)

    async def write(self, request: Request, given: Given) -> None:
        """Raise as `read` unless the caller may change something, ForbiddenError where it may only ask."""
        await self.read(request, given)
        if not self.may_write(given):
            raise ForbiddenError(
                "this key may ask, but change nothing", hint="Use the key that QASERVE_WRITE_KEY is set to."
            )

    def _check_refusals(self, request: Request) -> None:
        """Raise LimitError, before any key is looked at, where this address has sent too many wrong keys."""
        if wait := self._refusals.wait(_address(request)):
            error = LimitError(
                f"{MAX_REFUSALS} wrong keys came from this address within a minute",
                hint="Wait, and send the key that the API was started with.",
            )
            error.retry_after = max(1.0, wait)
            raise error

    def _refusal(self, request: Request, given: HTTPAuthorizationCredentials | None) -> AccessError:
        if given is not None:  # a request without a key guesses nothing
            self._refusals.count(_address(request))
        return AccessError(
            "the key is missing or wrong",
            hint="Set QASERVE_API_KEY; other programs send the header Authorization: Bearer KEY.",
        )


class RateLimiter:
    """How often a caller may come: a dependency of routes. Callers without a key are told apart by their address."""

    def __init__(self, per_minute: int, *, keyed: bool) -> None:
        """Requests allowed in any minute; 0: no limit. Not `keyed`: the server has no key, so none tells who calls."""
        self._most, self._calls, self._keyed = per_minute, Recent(per_minute), keyed

    async def __call__(self, request: Request, given: Given) -> None:
        """Count a request. Raises LimitError where there were too many."""
        if not self._most:
            return
        caller = hashlib.sha256(given.credentials.encode()).hexdigest() if given and self._keyed else _address(request)
        if wait := self._calls.wait(caller):
            error = LimitError(
                f"more than {self._most:,} requests in a minute", hint="Wait, or raise QASERVE_REQUESTS_PER_MINUTE."
            )
            error.retry_after = max(1.0, wait)
            raise error
        self._calls.count(caller)


def _same(given: HTTPAuthorizationCredentials | None, key: SecretStr | None) -> bool:
    token = given.credentials if given else ""
    return key is not None and secrets.compare_digest(token.encode(), key.get_secret_value().encode())


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
