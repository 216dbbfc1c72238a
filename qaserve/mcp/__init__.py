"""The MCP server: search, and its reasons, as tools of an agent."""

from qaserve.mcp.server import create_server

__all__ = ["create_server"]
