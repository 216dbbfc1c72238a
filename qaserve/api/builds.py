"""Builds: which there are."""

from fastapi import APIRouter

from qaserve.engine import Engine
from qaserve.records import BuildList


def routes(engine: Engine) -> APIRouter:
    """/v1/builds."""
    router = APIRouter(prefix="/v1", tags=["builds"])

    @router.get("/builds")
    def builds() -> BuildList:
        """Every build of the corpus, newest first."""
        return BuildList(corpus=engine.corpus, builds=tuple(engine.builds()))

    return router
