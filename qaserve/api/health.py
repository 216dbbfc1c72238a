"""Whether the service runs and can answer."""

from fastapi import APIRouter

from qaserve import __version__
from qaserve.api.errors import REPLIES
from qaserve.engine import Engine
from qaserve.records import Health


def routes(engine: Engine) -> APIRouter:
    """/healthz and /readyz, open to everybody."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    def healthz() -> Health:
        """The process runs."""
        return Health(version=__version__)

    @router.get("/readyz", responses={503: REPLIES[503]})
    def readyz() -> Health:
        """Questions can be answered: store, model and encoder are there."""
        live = engine.load()
        return Health(version=__version__, corpus=engine.corpus, build=live.info.build)

    return router
