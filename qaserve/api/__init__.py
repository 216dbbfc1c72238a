"""The HTTP API. /docs shows it, /openapi.json describes it."""

from qaserve.api.app import create_app

__all__ = ["create_app"]
