"""Whether the service runs and can answer, and its figures."""

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST

from qaserve import __version__
from qaserve.api.auth import ApiKeyAuth
from qaserve.api.errors import REPLIES
from qaserve.schemas.service import Health
from qaserve.search.engine import Engine
from qaserve.service.metrics import Metrics
from qaserve.service.query_service import QueryService


def routes(engine: Engine, desk: QueryService, metrics: Metrics, access: ApiKeyAuth) -> APIRouter:
    """/healthz and /readyz, open to everybody, and /metrics."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    def healthz() -> Health:
        """The process runs; with the corpus that it serves, and the build that was read last."""
        return Health(version=__version__, corpus=engine.corpus, build=engine.loaded)

    @router.get("/readyz", responses={409: REPLIES[409], 503: REPLIES[503]})
    def readyz() -> Health:
        """Questions can be answered: store, model and encoder are there."""
        desk.check_ready()
        live = engine.load()
        return Health(version=__version__, corpus=engine.corpus, build=live.ref.build)

    @router.get(
        "/metrics",
        dependencies=[Depends(access.read)],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, 401: REPLIES[401]},
    )
    def figures() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router
