"""Every error as a document with its HTTP status: no traceback, no path of the machine."""

import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from qaserve.common.errors import QaserveError
from qaserve.common.validation import fault
from qaserve.schemas.service import ErrorDetail, ErrorReply

REPLIES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply, "description": text}
    for status, text in {
        401: "The key is missing or wrong.",
        403: "The key may ask, but change nothing; or a page of another origin sent the request.",
        404: "It is not there.",
        409: "It does not go with what is there or going on now, such as vectors of another encoder.",
        413: "The request has more bytes or questions than are taken.",
        415: "The body has a type that is not taken.",
        421: "The service is not known by the name in the Host header.",
        422: "Invalid request.",
        429: "This caller has asked too often; Retry-After says when to come back.",
        503: "The service is busy, or its store, model or encoder cannot be used now.",
        507: "The disk is full, read-only or failing.",
    }.items()
}

UNSAID = frozenset({"body", "one", "many"})
"""Parts of a place that the caller did not write."""
CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def handle_errors(app: FastAPI, hidden: tuple[str, ...]) -> None:
    """Have the application answer every error with an `ErrorReply`; no text of `hidden` appears in one."""

    @app.exception_handler(QaserveError)
    def ours(_: Request, error: QaserveError) -> JSONResponse:
        kind = error.kind
        after = {} if error.retry_after is None else {"Retry-After": str(math.ceil(error.retry_after))}
        return reply(kind.status, kind.code, without(error.message, hidden), without(error.hint, hidden), after)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            message = f"body: {first['msg']} at character {first['loc'][-1]}: {first['ctx']['error']}"
        else:
            message = fault(first, UNSAID)
        return reply(422, "invalid_request", message, "/docs describes the request.")

    @app.exception_handler(HTTPException)
    def http(_: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:  # FastAPI's word for a body that is not even text
            return reply(422, "invalid_request", str(error.detail), "/docs describes the request.")
        code = CODES.get(error.status_code, "http_error")
        return reply(
            error.status_code, code, str(error.detail), "/docs lists what there is.", dict(error.headers or {})
        )

    @app.exception_handler(Exception)
    def unforeseen(_request: Request, _error: Exception) -> JSONResponse:
        # A bug must not show its insides to a caller; the server logs the traceback.
        return reply(500, "internal", "something went wrong inside", "The server's log says more.")


def reply(status: int, code: str, message: str, hint: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as the answer to a request."""
    body = ErrorReply(error=ErrorDetail(code=code, message=message, hint=hint))
    return JSONResponse(body.model_dump(), status_code=status, headers=headers)


def without(text: str, hidden: tuple[str, ...]) -> str:
    """A text with each of the hidden ones left out."""
    for secret in hidden:
        text = text.replace(secret, "…")
    return text
