"""The application: which routes there are, and what lies around all of them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from ingest.jobs import Jobs
from ingest.jobs_server import RemoteJobs
from qaserve import __version__
from qaserve.api import ask, builds, explore, feedback, gaps, health, reports, skills
from qaserve.api import jobs as job_routes
from qaserve.api.auth import ApiKeyAuth, RateLimiter
from qaserve.api.errors import REPLIES, handle_errors
from qaserve.api.middleware import RequestMiddleware
from qaserve.search.engine import Engine
from qaserve.service.feedback import FeedbackLog
from qaserve.service.gaps import Gaps, QuestionLog
from qaserve.service.metrics import Metrics
from qaserve.service.query_service import QueryService
from qaserve.settings import LimitSettings, ServerSettings

if TYPE_CHECKING:
    from qaserve.api.mcp_endpoint import McpEndpoint

REQUEST_ID = "X-Request-ID"


def create_app(
    engine: Engine,
    settings: ServerSettings,
    limits: LimitSettings | None = None,
    hidden: tuple[str, ...] = (),
    *,
    log: FeedbackLog | None = None,
    kept: QuestionLog | None = None,
    jobs: Jobs | RemoteJobs | None = None,
) -> FastAPI:
    """The API over a loaded engine.

    Questions are answered by a `QueryService`; other endpoints are plain functions, which FastAPI runs in its thread
    pool. Nothing blocks the event loop.

    Args:
        engine: Answers the questions.
        settings: The keys, if any are needed, and who may call.
        limits: What it takes at once.
        hidden: Texts, such as folders of this machine, that no message may show.
        log: Keeps feedback; None: none is taken.
        kept: Keeps questions without an answer, if it does; None: there is no such log.
        jobs: Import pairs; None: importing is off.
    """
    limits, metrics = limits or LimitSettings(), Metrics()
    desk = QueryService(engine, limits, metrics, kept)
    access = ApiKeyAuth(settings)
    allowance = RateLimiter(limits.requests_per_minute, keyed=settings.api_key is not None)
    mcp = None
    if settings.mcp_http:
        from qaserve.api import mcp_endpoint as agents  # noqa: PLC0415 - slow to import, and few serve agents over HTTP

        mcp = agents.endpoint(agents.ServiceSource(engine, desk), jobs, access, allowance, settings, hidden)

    app = FastAPIOffline(  # its documentation loads nothing from another host
        title="qaserve",
        version=__version__,
        description="Search over question/answer pairs that explains itself.",
        lifespan=lambda _: _running(desk, mcp, jobs),
    )
    known = [Depends(access.read), Depends(allowance)]  # in this order: a key that is refused gets no share of its own
    app.include_router(health.routes(engine, desk, metrics, access))
    for router in (
        ask.routes(desk, log_questions=settings.log_questions),
        explore.routes(engine, desk),
        skills.routes(engine, desk),
        builds.routes(engine, access, settings),
        reports.routes(settings.reports_dir),
    ):
        app.include_router(router, dependencies=known, responses=REPLIES)
    if log is not None:
        app.include_router(feedback.routes(engine, log, access, kept), dependencies=known, responses=REPLIES)
    if kept is not None:
        found = gaps.routes(Gaps(engine, kept), access)
        app.include_router(found, dependencies=known, responses=REPLIES)
    if jobs is not None:
        uploads = job_routes.routes(jobs, access, limits, hidden)
        app.include_router(uploads, dependencies=known, responses=REPLIES)
    if mcp is not None:
        app.routes.append(mcp.route)
    handle_errors(app, hidden)
    _wrap(app, settings, limits, metrics)
    return app


@asynccontextmanager
async def _running(
    desk: QueryService, mcp: "McpEndpoint | None", jobs: Jobs | RemoteJobs | None
) -> AsyncIterator[None]:
    """While the application runs."""
    async with anyio.create_task_group() as group, AsyncExitStack() as stack:
        group.start_soon(desk.run)
        if mcp is not None:
            await stack.enter_async_context(mcp.running())
        yield
        group.cancel_scope.cancel()
    if jobs is not None:  # here, for a process that is told to end by a signal gets no further
        await anyio.to_thread.run_sync(jobs.close)


def _wrap(app: FastAPI, settings: ServerSettings, limits: LimitSettings, metrics: Metrics) -> None:
    """Put around the application what every request passes, the outermost last."""
    app.add_middleware(RequestMiddleware, settings=settings, max_body_bytes=limits.max_body_bytes, metrics=metrics)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", REQUEST_ID],
            expose_headers=[REQUEST_ID, "Retry-After"],
        )
    app.add_middleware(CorrelationIdMiddleware, header_name=REQUEST_ID)
