"""The MCP server at /mcp of the API, behind the same keys."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

PATH = "/mcp"

Check = Callable[[HTTPAuthorizationCredentials | None], None]


class Agents:
    """The endpoint. It answers while `running` is entered, and keeps nothing from one request to the next."""

    def __init__(self, server: MCPServer[Any], check: Check, security: TransportSecuritySettings) -> None:
        """Remember the server, and what raises AccessError for a wrong key."""
        self._server, self._check, self._security = server, check, security
        self._bearer = HTTPBearer(auto_error=False)

    @property
    def route(self) -> Route:
        """Where it answers."""
        return Route(PATH, endpoint=self, include_in_schema=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer requests until this is left; it may be entered again."""
        self._server.streamable_http_app(
            stateless_http=True, json_response=True, transport_security=self._security, streamable_http_path=PATH
        )
        async with self._server.session_manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, unless its key is wrong."""
        self._check(await self._bearer(Request(scope)))
        await self._server.session_manager.handle_request(scope, receive, send)
