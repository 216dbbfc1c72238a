"""The MCP server at /mcp of the API, behind the same keys."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from mcp.server.mcpserver import MCPServer
from mcp_types import INVALID_REQUEST, ErrorData, JSONRPCError
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from qaserve.api.access import Access
from qaserve.engine import Engine
from qaserve.errors import AccessError
from qaserve.mcp import create_server
from qaserve.mcp.source import EngineSource
from qaserve.mcp.tools import told
from qaserve.settings import ServerSettings

PATH = "/mcp"


class McpEndpoint:
    """Answers MCP requests while `running` is entered, and keeps nothing from one request to the next."""

    def __init__(
        self, server: MCPServer[Any], check: Callable[[HTTPAuthorizationCredentials | None], None], host: str
    ) -> None:
        """Remember the server.

        Args:
            server: Has the tools.
            check: Raises AccessError for a wrong key.
            host: Address that is listened on; on loopback, requests that name another host are refused.
        """
        self._server, self._check, self._host = server, check, host
        self._bearer = HTTPBearer(auto_error=False)
        self.route = Route(PATH, endpoint=self, include_in_schema=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer requests until this is left; it may be entered again."""
        self._server.streamable_http_app(stateless_http=True, json_response=True, host=self._host)
        async with self._server.session_manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, unless its key is wrong."""
        try:
            self._check(await self._bearer(Request(scope)))
        except AccessError as error:
            await _refusal(error)(scope, receive, send)
        else:
            await self._server.session_manager.handle_request(scope, receive, send)


def _refusal(error: AccessError) -> Response:
    """The error in the protocol's own form: in the API's, an MCP client would not show what it says."""
    body = JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=INVALID_REQUEST, message=told(error)))
    return Response(
        body.model_dump_json(by_alias=True, exclude_unset=True),
        status_code=error.kind.status,
        media_type="application/json",
    )


def endpoint(engine: Engine, access: Access, settings: ServerSettings) -> McpEndpoint:
    """The tools over the API's own engine."""
    server = create_server(EngineSource(lambda: engine))
    return McpEndpoint(server, access.write if settings.mcp_write else access.read, settings.host)
