"""Adding pairs: what is written down, and how a job that brings them in is waited for."""

import time
from collections.abc import Callable, Sequence

from qaserve.client.http import ERRORS, Client
from qaserve.common.errors import ConflictError, QaserveError
from qaserve.mcp.results import Added, NewPair
from qaserve.schemas.jobs import IngestRequest, Job

WAIT_SECONDS = 50.0
"""Clients of MCP commonly give a call up after a minute."""
POLL_SECONDS = 0.5


def lines(pairs: Sequence[NewPair]) -> str:
    """The pairs as JSON Lines, as an ingest reads them."""
    return "".join(pair.model_dump_json(exclude_none=True) + "\n" for pair in pairs)


def over_api(client: Client, pairs: Sequence[NewPair]) -> Added:
    """Have an API bring the pairs in."""
    documents = [pair.model_dump(mode="json", exclude_none=True) for pair in pairs]
    return done_by(client.ingest(IngestRequest(pairs=documents)), client.job)


def done_by(job: Job, again: Callable[[str], Job]) -> Added:
    """What a job did; where it takes long, that it goes on.

    Args:
        job: As it is now.
        again: Gives it as it is later, by its id.

    Raises:
        QaserveError: What the job failed with.
        ConflictError: It was cancelled or interrupted.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while not job.ended and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        job = again(job.id)
    if job.error is not None:
        raise ERRORS.get(job.error.code, QaserveError)(job.error.message, hint=job.error.hint)
    if job.ended and job.report is None:
        raise ConflictError(f"job {job.id} was {job.state}: nothing was added", hint="Add the pairs again.")
    return Added.of(job.report)
