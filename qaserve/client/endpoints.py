"""What can be asked of the HTTP API, each thing once: method, path, body and the record that comes back."""

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote, urlencode

from pydantic import JsonValue

from qaserve.schemas.ask import AskRequest, AskResult
from qaserve.schemas.builds import BuildInfo, BuildList, ClusterDetail, ClusterList
from qaserve.schemas.documents import DocumentDetail, SkillDetail, SkillIndex, SkillsFound
from qaserve.schemas.explore import (
    OVERLAP_THRESHOLD,
    ClusterView,
    CorpusMap,
    Facets,
    OverlapList,
    PlacedAsk,
    QualityList,
    ReportList,
    ReportView,
    Suggestions,
)
from qaserve.schemas.feedback import FeedbackKept, FeedbackPage, FeedbackRequest
from qaserve.schemas.gaps import GapList, GapsDeleted
from qaserve.schemas.ingest import Preview
from qaserve.schemas.jobs import IngestOptions, IngestRequest, Job, JobList
from qaserve.schemas.pairs import PairsFound
from qaserve.schemas.record import Record
from qaserve.schemas.service import Health

T = TypeVar("T", bound=Record)
LINES = "application/x-ndjson"


@dataclass(frozen=True)
class Call(Generic[T]):
    """One thing to ask of the API."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    reply: type[T]
    json: JsonValue = None
    repeatable: bool = True
    """Whether sending it twice does no harm: true of what reads and asks."""
    lines: bytes | None = None
    """JSON Lines as the body, instead of `json`."""

    @property
    def body(self) -> dict[str, Any]:
        """The body as httpx takes it."""
        if self.lines is None:
            return {"json": self.json}
        return {"content": self.lines, "headers": {"Content-Type": LINES}}


def ask(request: AskRequest) -> Call[AskResult]:
    """Ask a question."""
    return Call("POST", "/v1/ask", AskResult, json=request.to_json())


def skills(question: str, top_k: int = 5) -> Call[SkillsFound]:
    """Find the skills for a question."""
    return Call("GET", f"/v1/skills?{urlencode({'question': question, 'top_k': top_k})}", SkillsFound)


def skill_index() -> Call[SkillIndex]:
    """Every skill, with when to use it."""
    return Call("GET", "/v1/skill-index", SkillIndex)


def skill(name: str) -> Call[SkillDetail]:
    """A skill with its document, pairs and neighbours."""
    return Call("GET", f"/v1/skills/{quote(name, safe='')}", SkillDetail)


def document(path: str) -> Call[DocumentDetail]:
    """A document, by its path in the build."""
    return Call("GET", f"/v1/documents/{quote(path)}", DocumentDetail)


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


def quality() -> Call[QualityList]:
    """How good every cluster is."""
    return Call("GET", "/v1/quality", QualityList)


def cluster_quality(number: int) -> Call[ClusterView]:
    """One cluster: its neighbours, and where its questions are unsure."""
    return Call("GET", f"/v1/quality/{number}", ClusterView)


def overlaps(threshold: float = OVERLAP_THRESHOLD, limit: int = 100) -> Call[OverlapList]:
    """Intents whose questions or answers nearly coincide."""
    return Call("GET", f"/v1/overlaps?{urlencode({'threshold': threshold, 'limit': limit})}", OverlapList)


def facets() -> Call[Facets]:
    """What answers can be filtered by."""
    return Call("GET", "/v1/facets", Facets)


def suggest(text: str, limit: int = 8) -> Call[Suggestions]:
    """Known questions that hold a text."""
    return Call("GET", f"/v1/suggest?{urlencode({'q': text, 'limit': limit})}", Suggestions)


def corpus_map() -> Call[CorpusMap]:
    """Clusters and answers in two dimensions."""
    return Call("GET", "/v1/map", CorpusMap)


def place(request: AskRequest) -> Call[PlacedAsk]:
    """Ask a question, and place it on the map."""
    return Call("POST", "/v1/map", PlacedAsk, json=request.to_json())


def reports() -> Call[ReportList]:
    """The experiments that were measured."""
    return Call("GET", "/v1/reports", ReportList)


def report(name: str) -> Call[ReportView]:
    """What one experiment found."""
    return Call("GET", f"/v1/reports/{quote(name, safe='')}", ReportView)


def say(request: FeedbackRequest) -> Call[FeedbackKept]:
    """Say whether a pair helped with a question."""
    return Call(
        "POST", "/v1/feedback", FeedbackKept, json=request.model_dump(mode="json", exclude_unset=True), repeatable=False
    )


def feedback(limit: int = 100, after: int = 0) -> Call[FeedbackPage]:
    """What was said, oldest first; `after` is `next` of the page before."""
    return Call("GET", f"/v1/feedback?{urlencode({'limit': limit, 'after': after})}", FeedbackPage)


def gaps() -> Call[GapList]:
    """Questions that found no answer, in themes."""
    return Call("GET", "/v1/gaps", GapList)


def delete_gaps(number: int | None = None) -> Call[GapsDeleted]:
    """Delete one of the kept questions, or all."""
    return Call("DELETE", "/v1/gaps" if number is None else f"/v1/gaps/{number}", GapsDeleted, repeatable=False)


def ingest(request: IngestRequest) -> Call[Job]:
    """Import pairs; gives the job that does it."""
    return Call("POST", "/v1/ingest", Job, json=request.model_dump(mode="json"), repeatable=False)


def upload(name: str, lines: bytes, options: IngestOptions | None = None) -> Call[Job]:
    """Bring in the pairs of a file; its name says the format. Gives the job that does it."""
    return Call("POST", f"/v1/ingest?{_said(name, options)}", Job, repeatable=False, lines=lines)


def preview(name: str, lines: bytes, options: IngestOptions | None = None) -> Call[Preview]:
    """How the first rows of a file would be read; nothing is kept."""
    return Call("POST", f"/v1/ingest/preview?{_said(name, options)}", Preview, repeatable=False, lines=lines)


def _said(name: str, options: IngestOptions | None) -> str:
    return urlencode(
        (options or IngestOptions()).model_dump(mode="json", exclude_none=True) | {"name": name}, doseq=True
    )


def jobs() -> Call[JobList]:
    """Every job, newest first, without its report."""
    return Call("GET", "/v1/jobs", JobList)


def job(identifier: str) -> Call[Job]:
    """How far a job is, and what it did."""
    return Call("GET", f"/v1/jobs/{quote(identifier, safe='')}", Job)


def cancel(identifier: str) -> Call[Job]:
    """Cancel a job."""
    return Call("DELETE", f"/v1/jobs/{quote(identifier, safe='')}", Job, repeatable=False)


def retry(identifier: str) -> Call[Job]:
    """Run a failed or interrupted job again."""
    return Call("POST", f"/v1/jobs/{quote(identifier, safe='')}/retry", Job, repeatable=False)


def ready() -> Call[Health]:
    """Whether the API can answer questions; raises what keeps it from that."""
    return Call("GET", "/readyz", Health)
