"""The connection to a Qdrant server: keys, its version, requests that are tried again, and its errors as ours."""

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential,
    wait_random,
)

from qaserve.common.errors import (
    BuildNotFoundError,
    QaserveError,
    StoreError,
    StoreRefusedError,
    StoreUnreachableError,
)
from qaserve.common.text import shorten
from qaserve.settings import StoreSettings

OLDEST = (1, 16)
"""The first version that keeps a collection's metadata, in which a build says how it was made."""
MAY_REPEAT = {
    "GET": re.compile(r""),
    "POST": re.compile(r"/collections/[^/]+/(facet|points(/scroll|/query|/query/batch|/count)?)$"),
    "PUT": re.compile(r"/collections/[^/]+/points$"),
}
"""Requests that change nothing when they come twice: reads, and upserts of whole points."""
FIRST_WAIT, LONGEST_WAIT, JITTER = 0.1, 2.0, 0.1
"""Seconds between attempts: doubled from the first to the longest, and a random part, so that callers spread."""
LEAST_TIMEOUT = 0.1
REFUSED = frozenset({401, 403})
GONE = re.compile(r"Collection \S+ (not found|doesn't exist)")

Send = Callable[[httpx.Request], httpx.Response]


def connect(settings: StoreSettings, *, read_only: bool = False) -> QdrantClient:
    """Connect to the server of the settings; make sure that it answers and is new enough.

    Args:
        settings: Where it is, its keys, and how patient to be.
        read_only: Prefer the key that may only read; otherwise the other is preferred.

    Raises:
        StoreUnreachableError, StoreRefusedError, StoreError
    """
    url, keys = settings.qdrant_url or "", (settings.qdrant_api_key, settings.qdrant_read_api_key)
    key = next((one for one in (reversed(keys) if read_only else keys) if one is not None), None)
    with warnings.catch_warnings(), map_server_errors(url):
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        client = QdrantClient(
            url=url,
            api_key=key.get_secret_value() if key else None,
            timeout=settings.qdrant_timeout,
            check_compatibility=False,  # it would ask from a thread of its own, and only warn
        )
        client.http.client.add_middleware(Retries(settings.qdrant_attempts, settings.qdrant_budget))
        try:
            client.get_collections()  # needs the key, which asking for the version does not
            _check_version(url, client.info().version)
        except BaseException:
            client.close()
            raise
    return client


def _check_version(url: str, version: str) -> None:
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        raise StoreError(
            f"Qdrant at {url} is version {version}; qaserve needs {OLDEST[0]}.{OLDEST[1]} or later",
            hint="Update the server; docker-compose.yml names a version that works.",
        )


class Retries:
    """Middleware of qdrant-client: sends a failed request again, where that changes nothing.

    A connection that fails or breaks, a time-out, HTTP 429 and 5xx are tried again with growing waits, until the
    attempts or the seconds are spent; no attempt gets longer than what is left of these. What may not come twice (a
    collection made or deleted, an alias moved) is sent once: the caller looks up whether it was done.
    """

    def __init__(self, attempts: int, budget: float) -> None:
        """At most this many attempts, and seconds for all of them."""
        self._attempts, self._budget = attempts, budget

    def __call__(self, request: httpx.Request, send: Send) -> httpx.Response:
        """Send a request, perhaps several times; raises and gives what the last attempt did."""
        pattern = MAY_REPEAT.get(request.method)
        if pattern is None or not pattern.search(request.url.path):
            return send(request)
        attempts = Retrying(
            stop=stop_after_attempt(self._attempts) | stop_before_delay(self._budget),
            wait=wait_exponential(FIRST_WAIT, LONGEST_WAIT) + wait_random(0, JITTER),
            retry=retry_if_exception(_is_passing) | retry_if_result(_is_busy),
            before=lambda state: self._bound(request, state),
            retry_error_callback=_last_outcome,
        )
        return attempts(send, request)

    def _bound(self, request: httpx.Request, state: RetryCallState) -> None:
        left = max(self._budget - (time.monotonic() - state.start_time), LEAST_TIMEOUT)
        limits = request.extensions["timeout"]
        request.extensions["timeout"] = {part: min(limit or left, left) for part, limit in limits.items()}


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, ResponseHandlingException) and isinstance(error.source, httpx.TransportError)


def _is_busy(response: httpx.Response) -> bool:
    return response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error


def _last_outcome(state: RetryCallState) -> httpx.Response:
    assert state.outcome is not None  # noqa: S101 - tenacity calls this after an attempt
    response: httpx.Response = state.outcome.result()
    return response


@contextmanager
def map_server_errors(where: str) -> Iterator[None]:
    """Turn what qdrant-client raises into our errors.

    Args:
        where: The server's address, for the message.

    Raises:
        StoreUnreachableError, StoreRefusedError, BuildNotFoundError, StoreError
    """
    try:
        yield
    except UnexpectedResponse as error:
        raise _answered(where, error) from error
    except (ResponseHandlingException, httpx.HTTPError) as error:
        raise StoreUnreachableError(
            f"Qdrant at {where} does not answer: {shorten(str(error), 160)}",
            hint="Start it, or correct QASERVE_QDRANT_URL; unset it to use the embedded Qdrant.",
        ) from error
    except ApiException as error:
        raise StoreError(
            f"Qdrant at {where}: {shorten(str(error), 200)}", hint="The server's log says more."
        ) from error
    except ValueError as error:  # qdrant-client in memory
        if not GONE.search(str(error)):
            raise
        raise _deleted(where) from error


def _answered(where: str, error: UnexpectedResponse) -> QaserveError:
    text = str(error.content, errors="replace")
    if error.status_code == httpx.codes.NOT_FOUND and GONE.search(text):
        return _deleted(where)
    if error.status_code in REFUSED:
        return StoreRefusedError(
            f"Qdrant at {where} refuses the key (HTTP {error.status_code})",
            hint="Set QASERVE_QDRANT_API_KEY to the key that the server was started with. "
            "QASERVE_QDRANT_READ_API_KEY may only read.",
        )
    return StoreError(
        f"Qdrant at {where} answered HTTP {error.status_code}: {shorten(text, 200)}",
        hint="The server's log says more.",
    )


def _deleted(where: str) -> BuildNotFoundError:
    return BuildNotFoundError(
        f"a build has been deleted from {where} while it was read", hint="List the builds to see which there are."
    )
