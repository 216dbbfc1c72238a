"""The MCP server at /mcp of the API, behind the same keys and limits."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio.from_thread
from fastapi import Request
from fastapi.security import HTTPBearer
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import INVALID_REQUEST, ErrorData, JSONRPCError
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ingest.jobs import Jobs
from ingest.jobs_server import RemoteJobs
from qaserve.api.auth import ApiKeyAuth, RateLimiter
from qaserve.api.errors import without
from qaserve.api.jobs import NO_SPACE
from qaserve.common.errors import AccessError, LimitError
from qaserve.common.files import writing
from qaserve.mcp import create_server
from qaserve.mcp.adding import done_by, lines
from qaserve.mcp.results import Added, NewPair
from qaserve.mcp.source import EngineSource
from qaserve.mcp.tools import told
from qaserve.schemas.ask import AskRequest, AskResult
from qaserve.schemas.jobs import IngestOptions
from qaserve.search.engine import Engine
from qaserve.service.query_service import QueryService
from qaserve.settings import ServerSettings

PATH = "/mcp"

Check = Callable[[Request], Awaitable[None]]


class ServiceSource(EngineSource):
    """The engine of the API, asked over its desk: agents share places and batches with everybody else."""

    def __init__(self, engine: Engine, desk: QueryService) -> None:
        """Remember both."""
        super().__init__(lambda: engine)
        self._desk = desk

    def ask(self, request: AskRequest) -> AskResult:
        """Answer a question; called in a thread of the event loop that the desk runs on."""
        return anyio.from_thread.run(self._desk.ask, (request,))[0]


class McpEndpoint:
    """Answers MCP requests while `running` is entered, and keeps nothing from one request to the next."""

    def __init__(self, server: MCPServer[Any], check: Check, security: TransportSecuritySettings) -> None:
        """Remember the server.

        Args:
            server: Has the tools.
            check: Raises AccessError or LimitError for a caller that is not let in.
            security: Which hosts and origins a request may name.
        """
        self._server, self._check, self._security = server, check, security
        self.route = Route(PATH, endpoint=self, include_in_schema=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer requests until this is left; it may be entered again."""
        self._server.streamable_http_app(stateless_http=True, json_response=True, transport_security=self._security)
        async with self._server.session_manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, unless its caller is not let in."""
        scope["route"] = self.route  # a plain route does not say so, and figures and logs ask for it
        try:
            await self._check(Request(scope))
        except (AccessError, LimitError) as error:
            await _refusal(error)(scope, receive, send)
        else:
            await self._server.session_manager.handle_request(scope, receive, send)


def endpoint(
    source: ServiceSource,
    jobs: Jobs | RemoteJobs | None,
    access: ApiKeyAuth,
    allowance: RateLimiter,
    settings: ServerSettings,
    hidden: tuple[str, ...],
) -> McpEndpoint:
    """The tools over the API's own engine and jobs; no text of `hidden` appears in what they say of errors."""
    bearer = HTTPBearer(auto_error=False)

    async def check(request: Request) -> None:
        given = await bearer(request)
        await (access.write if settings.mcp_write else access.read)(request, given)
        await allowance(request, given)

    add = partial(_add, jobs) if settings.mcp_write and jobs is not None else None
    server = create_server(source, add, lambda error: without(told(error), hidden))
    return McpEndpoint(server, check, _security(settings))


def _add(jobs: Jobs | RemoteJobs, pairs: Sequence[NewPair]) -> Added:
    """Import pairs by a job, queued behind those that wait."""
    with writing("the pairs cannot be written", NO_SPACE), jobs.receiving() as folder:
        path = folder / "agent.jsonl"
        path.write_text(lines(pairs), encoding="utf-8")
        job = jobs.submit(path, IngestOptions())
    return done_by(job, jobs.get)


def _security(settings: ServerSettings) -> TransportSecuritySettings:
    names = [f"[{name}]" if ":" in name else name for name in settings.host_names]
    hosts = [*names, *(f"{name}:*" for name in names)]
    own = [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts]
    return TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=[*settings.origins, *own])


def _refusal(error: AccessError | LimitError) -> Response:
    """The error in the protocol's own form: in the API's, an MCP client would not show what it says."""
    body = JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=INVALID_REQUEST, message=told(error)))
    return Response(
        body.model_dump_json(by_alias=True, exclude_unset=True),
        status_code=error.kind.status,
        media_type="application/json",
    )
