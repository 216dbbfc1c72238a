"""A small client of the HTTP API. It raises the same errors as the code behind the API."""

from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from qaserve.errors import TABLE, QaserveError, ServiceError
from qaserve.records import (
    AskRequest,
    AskResult,
    BuildList,
    ClusterDetail,
    ClusterList,
    ErrorReply,
    Health,
    PairsFound,
    Record,
)
from qaserve.text import shorten
from qaserve.views import ClusterView, CorpusMap, Facets, PlacedAsk, QualityList, ReportList, ReportView

T = TypeVar("T", bound=Record)
ERRORS = {kind.code: error for error, kind in TABLE.items()}


class Client:
    """Talks to one API. Close it, or use it as a context manager."""

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 30.0) -> None:
        """Remember the address; nothing is sent yet."""
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Timeout(timeout, connect=min(timeout, 5.0))
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=limits)

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

    def ask(self, request: AskRequest) -> AskResult:
        """Ask a question."""
        return self._call("POST", "/v1/ask", AskResult, json=request.model_dump(exclude_none=True))

    def clusters(self) -> ClusterList:
        """Every cluster of the live build."""
        return self._call("GET", "/v1/clusters", ClusterList)

    def cluster(self, number: int) -> ClusterDetail:
        """One cluster with its pairs."""
        return self._call("GET", f"/v1/clusters/{number}", ClusterDetail)

    def pairs(self, identifier: str) -> PairsFound:
        """The pairs of a pair_id or of the id of a point."""
        return self._call("GET", f"/v1/pairs/{quote(identifier, safe='')}", PairsFound)

    def builds(self) -> BuildList:
        """Every build of the corpus."""
        return self._call("GET", "/v1/builds", BuildList)

    def quality(self) -> QualityList:
        """How good every cluster is."""
        return self._call("GET", "/v1/quality", QualityList)

    def cluster_quality(self, number: int) -> ClusterView:
        """One cluster: its neighbours, and where its questions are unsure."""
        return self._call("GET", f"/v1/quality/{number}", ClusterView)

    def facets(self) -> Facets:
        """What answers can be filtered by."""
        return self._call("GET", "/v1/facets", Facets)

    def map(self) -> CorpusMap:
        """Clusters and answers in two dimensions."""
        return self._call("GET", "/v1/map", CorpusMap)

    def place(self, request: AskRequest) -> PlacedAsk:
        """Ask a question, and place it on the map."""
        return self._call("POST", "/v1/map", PlacedAsk, json=request.model_dump(exclude_none=True))

    def reports(self) -> ReportList:
        """The experiments that were measured."""
        return self._call("GET", "/v1/reports", ReportList)

    def report(self, name: str) -> ReportView:
        """What one experiment found."""
        return self._call("GET", f"/v1/reports/{quote(name, safe='')}", ReportView)

    def ready(self) -> Health:
        """Whether the API can answer questions; raises what keeps it from that."""
        return self._call("GET", "/readyz", Health)

    def _call(self, method: str, path: str, reply: type[T], **options: Any) -> T:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ServiceError(
                f"the API at {self.url} does not answer: {shorten(str(error) or type(error).__name__, 160)}",
                hint="Start it with `qaserve serve`, or correct QASERVE_API_URL.",
            ) from error
        try:
            if response.is_success:
                return reply.model_validate_json(response.content)
            detail = ErrorReply.model_validate_json(response.content).error
        except ValidationError as error:
            raise ServiceError(
                f"{self.url}{path} answered HTTP {response.status_code} with a body that is not the API's",
                hint="Is QASERVE_API_URL the address of a qaserve API of this version?",
            ) from error
        raise ERRORS.get(detail.code, QaserveError)(detail.message, hint=detail.hint)
