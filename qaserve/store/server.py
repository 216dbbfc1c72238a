"""What only a Qdrant server needs: patience with it, a look at its version, and how it lays out a collection."""

import re
import time
import warnings
from collections.abc import Callable
from typing import Any

import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException
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

from qaserve.common.errors import StoreError
from qaserve.settings import StoreSettings
from qaserve.store.locks import translated

OLDEST = (1, 16)
"""The first version that keeps a collection's metadata, in which a build says how it was made."""
MAY_REPEAT = {
    "GET": re.compile(r""),
    "POST": re.compile(r"/collections/[^/]+/points(/scroll|/query|/count)?$"),
    "PUT": re.compile(r"/collections/[^/]+/points$"),
}
"""Requests that change nothing when they come twice: reads, and upserts of whole points."""
FIRST_WAIT, LONGEST_WAIT, JITTER = 0.1, 2.0, 0.1
"""Seconds between attempts: doubled from the first to the longest, and a random part, so that callers spread."""
LEAST_TIMEOUT = 0.1
INDEXED = ("cluster", "cluster_id", "pair_id", "topics", "tags", "related_skills", "source_file", "content_hash")

Send = Callable[[httpx.Request], httpx.Response]


def connect_server(settings: StoreSettings) -> QdrantClient:
    """Connect to the server of the settings, make sure that it answers and that it is new enough.

    Raises:
        StoreUnreachableError, StoreRefusedError, StoreError
    """
    url, key = settings.qdrant_url or "", settings.qdrant_api_key
    with warnings.catch_warnings(), translated(url):
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        client = QdrantClient(
            url=url,
            api_key=key.get_secret_value() if key else None,
            timeout=settings.qdrant_timeout,
            check_compatibility=False,  # it would ask from a thread of its own, and only warn
        )
        client.http.client.add_middleware(Patience(settings.qdrant_attempts, settings.qdrant_budget))
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
            hint="Update the server; docker-compose.yml names a version that is known to do.",
        )


class Patience:
    """Middleware of qdrant-client: sends a request again that failed for a moment, where that changes nothing.

    A connection that fails or breaks, a time-out, HTTP 429 and 5xx are tried again with growing waits, until the
    attempts or the seconds are spent; no attempt gets longer than what is left of these. What may not come twice (a
    collection made or deleted, an alias moved) is sent once: the caller looks up whether it was done.
    """

    def __init__(self, attempts: int, budget: float) -> None:
        """Bound it: so many attempts, and so many seconds for all of them."""
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


def layout(settings: StoreSettings) -> dict[str, Any]:
    """How a server is told to lay out a collection; what is not set is left to it."""
    quantized = models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8))
    chosen = {
        "shard_number": settings.qdrant_shards,
        "replication_factor": settings.qdrant_replicas,
        "write_consistency_factor": settings.qdrant_write_consistency,
        "on_disk_payload": True if settings.qdrant_on_disk else None,
        "quantization_config": quantized if settings.qdrant_quantized else None,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def index_payload(client: QdrantClient, name: str) -> None:
    """Have a server index the fields of a collection's payload that are searched by."""
    for field in INDEXED:
        schema = models.PayloadSchemaType.INTEGER if field == "cluster" else models.PayloadSchemaType.KEYWORD
        client.create_payload_index(name, field, field_schema=schema)


def wait_until_green(client: QdrantClient, name: str, seconds: float) -> None:
    """Wait until a server has indexed a collection.

    Raises:
        StoreError: It has not within so many seconds, or it failed.
    """
    until = time.monotonic() + seconds
    pause = FIRST_WAIT
    while (status := client.get_collection(name).status) != models.CollectionStatus.GREEN:
        if status == models.CollectionStatus.RED:
            raise StoreError(f"collection {name} is red: it failed on the server", hint="The server's log says more.")
        if time.monotonic() > until:
            raise StoreError(
                f"collection {name} is still {status} after {seconds:g} seconds of indexing",
                hint="Give it longer with QASERVE_QDRANT_GREEN. The live build is untouched.",
            )
        if status == models.CollectionStatus.GREY:  # after a restart nothing is indexed until something is changed
            client.update_collection(name, optimizers_config=models.OptimizersConfigDiff())
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_WAIT)
