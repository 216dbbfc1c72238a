"""The server of the page: Streamlit's own behind `PageGuard`. `streamlit run` finds `app` by its name and kind."""

from functools import cache
from pathlib import Path

import anyio.to_thread
import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from qaserve.client.http import Client
from qaserve.common.errors import QaserveError
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


app = st.App(
    Path(__file__).with_name("app") / "script.py",
    routes=[Route("/suggest", suggest)],
    middleware=[Middleware(PageGuard, origins=frozenset(get_settings().server.origins))],
)
