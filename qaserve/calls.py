"""What can be asked of the HTTP API, each thing once: method, path, body and the record that comes back."""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import JsonValue

from qaserve.records import (
    AskRequest,
    AskResult,
    BuildInfo,
    BuildList,
    ClusterDetail,
    ClusterList,
    Health,
    PairsFound,
    Record,
)
from qaserve.replies import FeedbackKept, FeedbackRequest, IngestRequest, Job

T = TypeVar("T", bound=Record)


@dataclass(frozen=True)
class Call(Generic[T]):
    """One thing to ask of the API."""

    method: Literal["GET", "POST"]
    path: str
    reply: type[T]
    json: JsonValue = None
    repeatable: bool = True
    """Whether sending it twice does no harm: true of what reads and asks."""


def ask(request: AskRequest) -> Call[AskResult]:
    """Ask a question."""
    return Call("POST", "/v1/ask", AskResult, json=request.model_dump(mode="json", exclude_none=True))


def clusters() -> Call[ClusterList]:
    """Every cluster of the live build."""
    return Call("GET", "/v1/clusters", ClusterList)


def cluster(number: int) -> Call[ClusterDetail]:
    """One cluster with its pairs."""
    return Call("GET", f"/v1/clusters/{number}", ClusterDetail)


def pairs(identifier: str) -> Call[PairsFound]:
    """The pairs of a pair_id or of the id of a point."""
    return Call("GET", f"/v1/pairs/{quote(identifier, safe='')}", PairsFound)


def builds() -> Call[BuildList]:
    """Every build of the corpus."""
    return Call("GET", "/v1/builds", BuildList)


def activate(build: str) -> Call[BuildInfo]:
    """Make a build live. It may be said twice: the second time changes nothing."""
    return Call("POST", f"/v1/builds/{quote(build, safe='')}/activate", BuildInfo)


def feedback(request: FeedbackRequest) -> Call[FeedbackKept]:
    """Say whether a pair helped with a question."""
    body = request.model_dump(mode="json", exclude_none=True)
    return Call("POST", "/v1/feedback", FeedbackKept, json=body, repeatable=False)


def ingest(request: IngestRequest) -> Call[Job]:
    """Bring pairs in; gives a job."""
    return Call("POST", "/v1/ingest", Job, json=request.model_dump(mode="json"), repeatable=False)


def job(identifier: str) -> Call[Job]:
    """How far a job is, and what it did."""
    return Call("GET", f"/v1/jobs/{quote(identifier, safe='')}", Job)


def ready() -> Call[Health]:
    """Whether the API can answer questions; raises what keeps it from that."""
    return Call("GET", "/readyz", Health)
