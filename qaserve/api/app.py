"""The application: which routes there are, and what lies around all of them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import Depends, FastAPI

from qaserve import __version__
from qaserve.api import agents, ask, builds, explore, health
from qaserve.api.access import Access
from qaserve.api.errors import REPLIES, handle_errors
from qaserve.engine import Engine
from qaserve.settings import ServerSettings


def create_app(engine: Engine, settings: ServerSettings, hidden: tuple[str, ...] = ()) -> FastAPI:
    """The API over a loaded engine.

    Endpoints are plain functions: FastAPI runs them in its thread pool, so nothing blocks the event loop.

    Args:
        engine: Answers the questions.
        settings: The keys, if any are needed.
        hidden: Texts, such as folders of this machine, that no message may show.
    """
    access = Access(settings)
    mcp = agents.endpoint(engine, access, settings) if settings.mcp_http else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if mcp is not None:
                await stack.enter_async_context(mcp.running())
            yield

    app = FastAPI(
        title="qaserve",
        version=__version__,
        description="Search over question/answer pairs that explains itself.",
        lifespan=lifespan,
    )
    if mcp is not None:
        app.routes.append(mcp.route)
    app.include_router(health.routes(engine))
    for router in (ask.routes(engine), explore.routes(engine), builds.routes(engine)):
        app.include_router(router, prefix="/v1", dependencies=[Depends(access.read)], responses=REPLIES)
    handle_errors(app, hidden)
    return app
