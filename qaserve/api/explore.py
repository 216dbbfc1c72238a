"""What the live build holds: clusters and pairs, how good and how near they are, and what can be filtered by."""

from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Query

from qaserve.schemas.ask import AskRequest
from qaserve.schemas.builds import ClusterDetail, ClusterList
from qaserve.schemas.explore import (
    OVERLAP_THRESHOLD,
    ClusterView,
    CorpusMap,
    Facets,
    OverlapLimit,
    OverlapList,
    OverlapThreshold,
    PlacedAsk,
    QualityList,
    Suggestions,
)
from qaserve.schemas.pairs import PairsFound
from qaserve.search.engine import Engine
from qaserve.search.explore import Explorer
from qaserve.search.suggest import suggest
from qaserve.service.query_service import QueryService

TypedText = Annotated[str, Query(max_length=300, description="What has been typed so far.")]
SuggestionCount = Annotated[int, Query(ge=1, le=50)]


def routes(engine: Engine, desk: QueryService) -> APIRouter:
    """/v1/clusters, /v1/pairs, /v1/suggest, /v1/quality, /v1/overlaps, /v1/map and /v1/facets."""
    router = APIRouter(prefix="/v1", tags=["explore"])
    _what_there_is(router, engine)
    _from_above(router, Explorer(engine), desk)
    return router


def _what_there_is(router: APIRouter, engine: Engine) -> None:

    @router.get("/clusters")
    def clusters() -> ClusterList:
        """Every cluster of answers."""
        live = engine.load()
        return ClusterList(build=live.ref.build, clusters=live.clusters)

    @router.get("/clusters/{number}")
    def cluster(number: int) -> ClusterDetail:
        """One cluster with its pairs."""
        return engine.cluster(number)

    @router.get("/pairs/{identifier:path}")
    def pairs(identifier: str) -> PairsFound:
        """The pairs of a pair_id, or the one of a point's id."""
        return engine.pairs(identifier)

    @router.get("/suggest")
    def suggestions(q: TypedText, limit: SuggestionCount = 8) -> Suggestions:
        """Known questions that hold a text, to be shown while it is typed."""
        return suggest(engine.load(), q, limit)


def _from_above(router: APIRouter, explorer: Explorer, desk: QueryService) -> None:

    @router.get("/quality")
    def quality() -> QualityList:
        """How good every cluster is. The first call after a change of build computes it, which takes seconds."""
        return explorer.quality()

    @router.get("/quality/{number}")
    def cluster_quality(number: int) -> ClusterView:
        """One cluster: its neighbours, and where its questions are unsure."""
        return explorer.cluster(number)

    @router.get("/overlaps")
    def overlaps(threshold: OverlapThreshold = OVERLAP_THRESHOLD, limit: OverlapLimit = 100) -> OverlapList:
        """Intents whose questions or answers nearly coincide, with a suggested merge."""
        return explorer.overlaps(threshold, limit)

    @router.get("/facets")
    def facets() -> Facets:
        """What answers can be filtered by, with counts."""
        return explorer.facets()

    @router.get("/map")
    def corpus_map() -> CorpusMap:
        """Clusters and answers in two dimensions."""
        return explorer.map()

    @router.post("/map")
    async def place(request: AskRequest) -> PlacedAsk:
        """Answer a question, and place it, its hits and its answers on the map."""
        (outcome,) = await desk.search([request])
        return await anyio.to_thread.run_sync(explorer.place, outcome)
