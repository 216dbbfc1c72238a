"""The server of the page: Streamlit's own behind `PageGuard`. `streamlit run` finds `app` by its name and kind."""

from functools import cache, lru_cache
from pathlib import Path

import anyio.to_thread
import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from qaserve.client.http import Client
from qaserve.common.errors import NotFoundError, QaserveError
from qaserve.settings import get_settings
from ui.guard import PageGuard

MOST_TYPED = 300


@cache
def _client() -> Client:
    """The one of this server: the page's own is Streamlit's to keep."""
    return Client(**get_settings().server.client)


async def suggest(request: Request) -> JSONResponse:
    """Known questions that hold what is typed. None where the API fails: asking will tell why."""
    typed = request.query_params.get("q", "")[:MOST_TYPED]
    try:
        found = await anyio.to_thread.run_sync(_client().suggest, typed)
    except QaserveError:
        return JSONResponse([])
    return JSONResponse(found.questions)


@lru_cache(maxsize=2)
def _answers(build: str) -> bytes:
    """All answers of the live build on the map, as JSON. Raises NotFoundError where another build is live."""
    from ui.map_layers import answers_frame  # noqa: PLC0415 - pandas is needed only where a map is shown

    found = _client().corpus_map()
    if found.build != build:
        raise NotFoundError(f"build {build} is not live", hint="Load the page again.")
    return answers_frame(found).to_json(orient="records").encode()


async def map_answers(request: Request) -> Response:
    """The answers of the map. They never change for a build, so the browser fetches them once."""
    try:
        rows = await anyio.to_thread.run_sync(_answers, request.query_params.get("build", ""))
    except QaserveError as error:
        return JSONResponse({"error": str(error)}, 404 if isinstance(error, NotFoundError) else 503)
    return Response(rows, media_type="application/json", headers={"Cache-Control": "private, max-age=86400, immutable"})


app = st.App(
    Path(__file__).with_name("app") / "script.py",
    routes=[Route("/suggest", suggest), Route("/map_answers", map_answers)],
    middleware=[Middleware(PageGuard, origins=frozenset(get_settings().server.origins))],
)
