"""The application: which routes there are, and what lies around all of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

from qaserve import __version__
from qaserve.api import ask, builds, explore, health
from qaserve.api.access import Access, Allowance
from qaserve.api.desk import Desk
from qaserve.api.errors import REPLIES, handle_errors
from qaserve.api.guard import Guard
from qaserve.api.metrics import Metrics
from qaserve.engine import Engine
from qaserve.settings import LimitSettings, ServerSettings

REQUEST_ID = "X-Request-ID"


def create_app(
    engine: Engine, settings: ServerSettings, limits: LimitSettings | None = None, hidden: tuple[str, ...] = ()
) -> FastAPI:
    """The API over a loaded engine.

    Questions are answered by a `Desk`; other endpoints are plain functions, which FastAPI runs in its thread pool.
    Nothing blocks the event loop.

    Args:
        engine: Answers the questions.
        settings: The keys, if any are needed, and who may call.
        limits: What it takes at once.
        hidden: Texts, such as folders of this machine, that no message may show.
    """
    limits, metrics = limits or LimitSettings(), Metrics()
    desk = Desk(engine, limits, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(desk.run)
            yield
            group.cancel_scope.cancel()

    app = FastAPI(
        title="qaserve",
        version=__version__,
        description="Search over question/answer pairs that explains itself.",
        lifespan=lifespan,
    )
    access = Access(settings)
    checks = [Depends(access.read), Depends(Allowance(limits.requests_per_minute))]
    app.include_router(health.routes(engine, desk, metrics, access))
    for router in (
        ask.routes(desk, log_questions=settings.log_questions),
        explore.routes(engine),
        builds.routes(engine),
    ):
        app.include_router(router, prefix="/v1", dependencies=checks, responses=REPLIES)
    handle_errors(app, hidden)
    app.add_middleware(Guard, settings=settings, max_body_bytes=limits.max_body_bytes, metrics=metrics)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", REQUEST_ID],
            expose_headers=[REQUEST_ID, "Retry-After"],
        )
    app.add_middleware(CorrelationIdMiddleware, header_name=REQUEST_ID)
    return app
