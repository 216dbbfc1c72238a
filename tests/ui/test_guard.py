"""What the page says to browsers about itself, and whose websockets it takes."""

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from ui.guard import PageGuard

OWN = "http://page.example:8501"
STREAM = "ws://page.example:8501/stream"
OTHERS = ["http://evil.example", "http://page.example:9999", "http://localhost:8501", "null", ""]


async def page(_):
    return PlainTextResponse("page")


async def stream(socket):
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


@pytest.fixture
def browser():
    app = Starlette(routes=[Route("/", page), WebSocketRoute("/stream", stream)])
    return TestClient(PageGuard(app, frozenset({"https://portal.example"})), base_url=OWN)


def test_every_reply_says_that_it_is_not_framed_and_loads_nothing_of_another_host(browser):
    headers = browser.get("/").headers
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "connect-src 'self' ws://page.example:8501 wss://page.example:8501;" in policy
    assert "http:" not in policy


@pytest.mark.parametrize("host", ["a; script-src *", "a b", ""])
def test_a_host_that_is_none_adds_nothing_to_the_policy(browser, host):
    policy = browser.get("/", headers={"Host": host}).headers["Content-Security-Policy"]
    assert "connect-src 'self';" in policy


@pytest.mark.parametrize("origin", [OWN, "https://portal.example", None])
def test_a_websocket_of_the_page_itself_or_of_a_program_is_taken(browser, origin):
    with browser.websocket_connect(STREAM, headers={"Origin": origin} if origin else {}) as socket:
        assert socket.receive_text() == "hello"


@pytest.mark.parametrize("origin", OTHERS)
def test_a_websocket_of_another_origin_is_refused(browser, origin):
    with pytest.raises(WebSocketDisconnect) as refused, browser.websocket_connect(STREAM, headers={"Origin": origin}):
        pass
    assert (refused.value.code, refused.value.reason) == (1008, "another origin")
