"""What the page's server sends and refuses, asked as a browser would."""

import os
import socket
import subprocess
import sys
import time
from contextlib import closing

import httpx
import pytest

SECONDS = 120


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Host and port of `qaserve ui`; it needs no API for this."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {name: value for name, value in os.environ.items() if not name.startswith("QASERVE_")}
    log = tmp_path_factory.mktemp("page") / "log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-m", "qaserve", "ui"],
            env=own | {"QASERVE_UI_PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + SECONDS
            while not answers(f"http://127.0.0.1:{port}/_stcore/health"):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield "127.0.0.1", port
        finally:
            process.kill()


def answers(url):
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def status_of_websocket(page, origin, host=None):
    """The status of a handshake: 101 where the websocket opens."""
    lines = [
        "GET /_stcore/stream HTTP/1.1",
        f"Host: {host or f'{page[0]}:{page[1]}'}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *([] if origin is None else [f"Origin: {origin}"]),
    ]
    with closing(socket.create_connection(page, timeout=SECONDS)) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(connection.recv(4096).split()[1])


@pytest.mark.parametrize("path", ["/", "/why", "/_stcore/health", "/nothing/here.js"])
def test_every_response_has_frame_and_content_policies(page, path):
    headers = httpx.get(f"http://{page[0]}:{page[1]}{path}", timeout=SECONDS).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert (policy["frame-ancestors"], headers["x-frame-options"]) == ("'none'", "DENY")
    assert (policy["default-src"], policy["object-src"]) == ("'self'", "'none'")
    assert not any("http:" in sources or "*" in sources for sources in policy.values())
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


def test_the_websocket_opens_for_its_own_page_and_for_what_is_no_browser(page):
    host, port = page
    assert status_of_websocket(page, f"http://{host}:{port}") == 101
    assert status_of_websocket(page, f"http://localhost:{port}", f"localhost:{port}") == 101
    assert status_of_websocket(page, None) == 101


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost:9", "http://127.0.0.1", "null", "", "http://["]
)
def test_the_websocket_is_refused_to_a_page_of_another_origin(page, origin):
    assert status_of_websocket(page, origin) == 403


def test_the_websocket_is_refused_under_a_name_that_is_not_the_pages(page):
    assert status_of_websocket(page, "http://evil.example", "evil.example") == 403


def test_suggestions_are_a_route_of_the_page_and_none_without_an_api(page):
    reply = httpx.get(f"http://{page[0]}:{page[1]}/suggest", params={"q": "bread"}, timeout=30)
    assert (reply.status_code, reply.json()) == (200, [])
    assert "default-src 'self'" in reply.headers["content-security-policy"]


def test_nothing_is_warned_of_at_the_start(page, tmp_path_factory):
    log = next(tmp_path_factory.getbasetemp().glob("page*/log")).read_text()
    assert "No runtime found" not in log


def test_without_an_api_there_are_no_answers_for_the_map(page):
    reply = httpx.get(f"http://{page[0]}:{page[1]}/map_answers", params={"build": "b"}, timeout=30)
    assert reply.status_code == 503
    assert "does not answer" in reply.json()["error"]
    assert "cache-control" not in reply.headers
