"""What the live build holds: clusters and pairs."""

from fastapi import APIRouter

from qaserve.engine import Engine
from qaserve.records import ClusterDetail, ClusterList, PairsFound


def routes(engine: Engine) -> APIRouter:
    """/v1/clusters and /v1/pairs."""
    router = APIRouter(prefix="/v1", tags=["explore"])

    @router.get("/clusters")
    def clusters() -> ClusterList:
        """Every cluster of answers."""
        live = engine.load()
        return ClusterList(build=live.info.build, clusters=live.clusters)

    @router.get("/clusters/{number}")
    def cluster(number: int) -> ClusterDetail:
        """One cluster with its pairs."""
        return engine.cluster(number)

    @router.get("/pairs/{identifier:path}")
    def pairs(identifier: str) -> PairsFound:
        """The pairs of a pair_id, or the one of a point's id."""
        return engine.pairs(identifier)

    return router
