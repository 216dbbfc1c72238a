"""Logs on stderr: a line or a JSON object for each request, with its id. Never the text of a question, unless asked."""

import logging

from asgi_correlation_id import CorrelationIdFilter
from pythonjsonlogger.json import JsonFormatter

from qaserve.settings import ServerSettings

LINE = "%(asctime)s %(levelname)s %(name)s [%(correlation_id)s] %(message)s"
QUIET = ("httpx", "mcp", "sentence_transformers")


def configure(settings: ServerSettings) -> None:
    """Have this process log as the settings say."""
    handler = logging.StreamHandler()
    handler.addFilter(CorrelationIdFilter(default_value="-"))
    names = {"asctime": "time", "levelname": "level", "name": "logger", "correlation_id": "request_id"}
    handler.setFormatter(JsonFormatter(LINE, rename_fields=names) if settings.log_json else logging.Formatter(LINE))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
