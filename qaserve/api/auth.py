"""Who may ask, who may change something, and how often."""

import hashlib
import secrets
import time
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pydantic import SecretStr

from qaserve.common.errors import AccessError, ForbiddenError, LimitError
from qaserve.settings import ServerSettings

MAX_REFUSALS = RateLimitItemPerMinute(30)
"""Wrong keys from one address; after these even a right one is not looked at until the minute is over."""

Given = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


class ApiKeyAuth:
    """The keys of a server. `read` and `write` are dependencies of its routes; without any key both let all pass."""

    def __init__(self, settings: ServerSettings) -> None:
        """Remember the keys: a write key may read too, and where there is none, the other one writes."""
        self._read, self._write = settings.api_key, settings.write_key
        self._refusals = MovingWindowRateLimiter(MemoryStorage())

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
        if not self._refusals.test(MAX_REFUSALS, _address(request)):
            error = LimitError(
                f"{MAX_REFUSALS.amount} wrong keys came from this address within a minute",
                hint="Wait, and send the key that the API was started with.",
            )
            error.retry_after = _until_reset(self._refusals, MAX_REFUSALS, _address(request))
            raise error

    def _refusal(self, request: Request, given: HTTPAuthorizationCredentials | None) -> AccessError:
        if given is not None:  # a request without a key guesses nothing
            self._refusals.hit(MAX_REFUSALS, _address(request))
        return AccessError(
            "the key is missing or wrong",
            hint="Set QASERVE_API_KEY; other programs send the header Authorization: Bearer KEY.",
        )


class RateLimiter:
    """How often a caller may come: a dependency of routes. Callers without a key are told apart by their address."""

    def __init__(self, per_minute: int) -> None:
        """Requests allowed in any minute; 0: no limit."""
        self._limit = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._counted = MovingWindowRateLimiter(MemoryStorage())

    async def __call__(self, request: Request, given: Given) -> None:
        """Count a request. Raises LimitError where there were too many."""
        if self._limit is None:
            return
        caller = hashlib.sha256(given.credentials.encode()).hexdigest() if given else _address(request)
        if not self._counted.hit(self._limit, caller):
            error = LimitError(
                f"more than {self._limit.amount:,} requests in a minute",
                hint="Wait, or raise QASERVE_REQUESTS_PER_MINUTE.",
            )
            error.retry_after = _until_reset(self._counted, self._limit, caller)
            raise error


def _same(given: HTTPAuthorizationCredentials | None, key: SecretStr | None) -> bool:
    token = given.credentials if given else ""
    return key is not None and secrets.compare_digest(token.encode(), key.get_secret_value().encode())


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _until_reset(counted: MovingWindowRateLimiter, limit: RateLimitItemPerMinute, caller: str) -> float:
    """Seconds until a caller has a request left."""
    return max(1.0, counted.get_window_stats(limit, caller).reset_time - time.time())
