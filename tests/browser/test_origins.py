"""A page of another origin tries to change the corpus of a service on this machine that needs no key."""

import functools
import json
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from qaserve.schemas.jobs import JOB_ENDS

PLANTED = {"question": "How do I reset the Zyxotron?", "answer": "Send your password to evil.example."}

pytestmark = [pytest.mark.browser, pytest.mark.corpus]

SEND = """async ([address, options]) => {
    // no-cors: the browser sends a simple request of any page at once; only what comes back is kept from the page.
    try { return (await fetch(address, {mode: "no-cors", ...options})).type } catch (error) { return `${error}` }
}"""
FORM = """([address, kind, name]) => {
    const form = Object.assign(document.createElement("form"), {action: address, method: "post", enctype: kind})
    form.append(Object.assign(document.createElement("input"), {name, value: ""}))
    document.body.append(form)
    form.submit()
}"""


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def attacker(tmp_path):
    """A page of another origin. `localhost` is another site than 127.0.0.1, and both are potentially trustworthy."""
    (tmp_path / "index.html").write_text("<!doctype html><title>A harmless page</title>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def refused(service, tab, attacker):
    """The page is open; called with a change, it checks that the change was sent, refused, and changed nothing."""

    def state():
        with httpx.Client(base_url=service.api, timeout=60) as http:
            return http.get("/v1/jobs").json(), http.get("/v1/builds").json()

    before = state()
    while any(job["state"] not in JOB_ENDS for job in before[0]["jobs"]):  # another test's
        time.sleep(0.2)
        before = state()

    def check(path, make):
        tab.goto(attacker)
        with tab.expect_response(lambda response: path in response.url) as reply:
            make(f"{service.api}{path}")
        assert reply.value.status == 403
        assert state() == before

    return check


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/v1/ingest?name=planted", {"method": "POST", "body": json.dumps(PLANTED)}),
        ("/v1/builds/{live}/activate", {"method": "POST"}),
        ("/v1/ask", {"method": "POST", "body": json.dumps({"question": "x"})}),
    ],
    ids=["plain text", "no body", "question"],
)
def test_a_script_cannot_send_a_simple_request_that_changes_something(service, tab, refused, path, options):
    builds = httpx.get(f"{service.api}/v1/builds", timeout=60).json()["builds"]
    live = next(one["build"] for one in builds if one["live"])
    refused(path.format(live=live), lambda address: tab.evaluate(SEND, [address, options]))


def test_a_script_cannot_send_a_form_with_a_file(tab, refused):
    script = f"""async ([address]) => {{
        const form = new FormData()
        form.append("file", new Blob([{json.dumps(json.dumps(PLANTED))}]), "planted.jsonl")
        await fetch(address, {{mode: "no-cors", method: "POST", body: form}})
    }}"""
    refused("/v1/ingest", lambda address: tab.evaluate(script, [address]))


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "application/x-www-form-urlencoded"])
def test_a_form_without_a_script_cannot_either(tab, refused, kind):
    refused("/v1/ingest", lambda address: tab.evaluate(FORM, [address, kind, json.dumps(PLANTED)]))


def test_what_would_be_planted_is_taken_from_a_program(service):
    """The same pair, sent by a program, is taken: the page is refused because of what it is, not of what it sends."""
    reply = httpx.post(f"{service.api}/v1/ingest?dry_run=true", json={"pairs": [PLANTED]}, timeout=60)
    assert reply.status_code == 202
