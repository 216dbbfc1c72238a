"""Builds: which there are, and which is live."""

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends

from qaserve.api.auth import ApiKeyAuth, Given
from qaserve.schemas.builds import BuildInfo, BuildList
from qaserve.schemas.params import BuildId
from qaserve.search.engine import Engine
from qaserve.settings import ServerSettings

ACTIVATIONS = 32
"""How many activations may wait for the corpus at once; more wait for one of these."""


def routes(engine: Engine, access: ApiKeyAuth, settings: ServerSettings) -> APIRouter:
    """/v1/builds."""
    router = APIRouter(prefix="/v1", tags=["builds"])
    threads = anyio.CapacityLimiter(ACTIVATIONS)
    """Apart from the threads that other endpoints need, for activations wait up to QASERVE_LOCK_WAIT."""

    @router.get("/builds")
    def builds(given: Given) -> BuildList:
        """Every build of the corpus, newest first, and whether the caller may make another one live."""
        return BuildList(
            corpus=engine.corpus,
            title=engine.title(),
            builds=tuple(engine.builds()),
            may_change=access.may_write(given),
            keeps_questions=settings.keep_questions,
            keep_days=settings.keep_days,
        )

    @router.post("/builds/{build}/activate", dependencies=[Depends(access.write)])
    async def activate(build: BuildId) -> BuildInfo:
        """Check a build and make it live; the next question is answered from it. The one that was live stays."""
        return await anyio.to_thread.run_sync(engine.activate, build, limiter=threads)

    return router
