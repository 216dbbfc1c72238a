"""The service itself: health and errors."""

from typing import Literal

from qaserve.schemas.record import Record


class Health(Record):
    """Whether the service runs, and with what."""

    status: Literal["ok"] = "ok"
    version: str
    corpus: str | None = None
    build: str | None = None


class ErrorDetail(Record):
    """What happened and what to do."""

    code: str
    message: str
    hint: str


class ErrorReply(Record):
    """The body of every answer that is an error."""

    error: ErrorDetail
