"""What can be asked of the HTTP API, each thing once: method, path, body and the record that comes back."""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import JsonValue

from qaserve.records import AskRequest, AskResult, BuildList, ClusterDetail, ClusterList, Health, PairsFound, Record

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


def ready() -> Call[Health]:
    """Whether the API can answer questions; raises what keeps it from that."""
    return Call("GET", "/readyz", Health)
