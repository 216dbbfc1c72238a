"""Clients of the HTTP API, sync and async; they raise the errors of the code behind it."""

from qaserve.client.http import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
