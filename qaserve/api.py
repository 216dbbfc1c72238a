"""The HTTP API. /docs shows it, /openapi.json describes it."""

import secrets
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from qaserve import __version__
from qaserve.engine import Engine
from qaserve.errors import AccessError, QaserveError
from qaserve.records import (
    AskRequest,
    AskResult,
    BuildList,
    ClusterDetail,
    ClusterList,
    ErrorDetail,
    ErrorReply,
    Health,
    PairsFound,
)
from qaserve.settings import ServerSettings
from qaserve.text import shorten

REPLIES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply, "description": text}
    for status, text in {
        401: "The key is missing or wrong.",
        404: "It is not there.",
        422: "The request cannot be meant.",
        503: "The store, the model or the encoder cannot be used now.",
    }.items()
}


def create_app(engine: Engine, settings: ServerSettings, hidden: tuple[str, ...] = ()) -> FastAPI:
    """The API over a loaded engine.

    Endpoints are plain functions: FastAPI runs them in its thread pool, so nothing blocks the event loop.

    Args:
        engine: Answers the questions.
        settings: The key, if one is needed.
        hidden: Texts, such as folders of this machine, that no message may show.
    """
    app = FastAPI(
        title="qaserve", version=__version__, description="Search over question/answer pairs that explains itself."
    )
    app.include_router(_open_routes(engine))
    app.include_router(_routes(engine), prefix="/v1", dependencies=[Depends(_key_check(settings))], responses=REPLIES)
    _handle_errors(app, hidden)
    return app


def _open_routes(engine: Engine) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    def healthz() -> Health:
        """The process runs."""
        return Health(version=__version__)

    @router.get("/readyz", responses={503: REPLIES[503]})
    def readyz() -> Health:
        """Questions can be answered: store, model and encoder are there."""
        live = engine.load()
        return Health(version=__version__, corpus=engine.corpus, build=live.info.build)

    return router


def _routes(engine: Engine) -> APIRouter:
    router = APIRouter()

    @router.post("/ask", tags=["search"])
    def ask(request: AskRequest) -> AskResult:
        """Answer a question, and say why."""
        return engine.ask(request)

    @router.get("/clusters", tags=["explore"])
    def clusters() -> ClusterList:
        """Every cluster of answers."""
        live = engine.load()
        return ClusterList(build=live.info.build, clusters=live.clusters)

    @router.get("/clusters/{number}", tags=["explore"])
    def cluster(number: int) -> ClusterDetail:
        """One cluster with its pairs."""
        return engine.cluster(number)

    @router.get("/pairs/{identifier:path}", tags=["explore"])
    def pairs(identifier: str) -> PairsFound:
        """The pairs of a pair_id, or the one of a point's id."""
        return engine.pairs(identifier)

    @router.get("/builds", tags=["builds"])
    def builds() -> BuildList:
        """Every build of the corpus, newest first."""
        return BuildList(corpus=engine.corpus, builds=tuple(engine.builds()))

    return router


def _key_check(settings: ServerSettings) -> Callable[..., None]:
    expected = settings.api_key
    bearer = HTTPBearer(auto_error=False)

    def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        if expected is None:
            return
        token = given.credentials if given else ""
        if not secrets.compare_digest(token.encode(), expected.get_secret_value().encode()):
            raise AccessError(
                "the key is missing or wrong",
                hint="Set QASERVE_API_KEY; other programs send the header Authorization: Bearer KEY.",
            )

    return check


def _handle_errors(app: FastAPI, hidden: tuple[str, ...]) -> None:
    @app.exception_handler(QaserveError)
    def ours(_: Request, error: QaserveError) -> JSONResponse:
        kind = error.kind
        return _reply(kind.status, kind.code, _without(error.message, hidden), _without(error.hint, hidden))

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        value = f" (got {shorten(repr(first['input']), 80)})" if "input" in first and where != "body" else ""
        return _reply(422, "invalid_request", f"{where}: {first['msg']}{value}", "/docs describes the request.")

    @app.exception_handler(HTTPException)
    def http(_: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return _reply(
            error.status_code, code, str(error.detail), "/docs lists what there is.", dict(error.headers or {})
        )

    @app.exception_handler(Exception)
    def unforeseen(_request: Request, _error: Exception) -> JSONResponse:
        # A bug must not show its insides to a caller; the server logs the traceback.
        return _reply(500, "internal", "something went wrong inside", "The server's log says more.")


def _reply(status: int, code: str, message: str, hint: str, headers: dict[str, str] | None = None) -> JSONResponse:
    body = ErrorReply(error=ErrorDetail(code=code, message=message, hint=hint))
    return JSONResponse(body.model_dump(), status_code=status, headers=headers)


def _without(text: str, hidden: tuple[str, ...]) -> str:
    for secret in hidden:
        text = text.replace(secret, "…")
    return text
