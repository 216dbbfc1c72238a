"""`qaserve serve` as a process, with the real MiniLM: killed in the middle of asking and writing, and started again."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from qaserve.client.http import Client
from qaserve.schemas.ask import AskRequest

PATIENCE = 120
CALLERS = 4
KILLS = 2
QUESTION = "How do I make bread?"


@pytest.fixture
def environment(tmp_path, unused_port, write_rows, rows):
    """A small corpus, ingested by a process of its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("QASERVE_")}
    own |= {
        "QASERVE_DATA_DIR": str(tmp_path / "data"),
        "QASERVE_MODELS_DIR": str(tmp_path / "models"),
        "QASERVE_PORT": str(unused_port),
        "QASERVE_CORPUS": "things",
    }
    command = [sys.executable, "-m", "qaserve", "ingest", str(write_rows(rows()))]
    subprocess.run(command, env=own, check=True, capture_output=True)
    return own


@contextmanager
def served(environment):
    """The process, when it is ready, and its address; killed on leaving."""
    url, log = f"http://127.0.0.1:{environment['QASERVE_PORT']}", Path(environment["QASERVE_DATA_DIR"]) / "serve.log"
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "qaserve", "serve"], env=environment, stderr=file)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with suppress(httpx.HTTPError):
                if httpx.get(f"{url}/readyz").is_success:
                    break
            time.sleep(0.05)
        yield process, url
    finally:
        process.kill()
        process.wait()


def judge(url, build, name, acknowledged, stop):
    """Ask and judge until the service dies; remember what it acknowledged."""
    with httpx.Client(base_url=url, timeout=PATIENCE) as http, suppress(httpx.HTTPError):
        for number in range(10_000):
            if stop.is_set():
                return
            if number % 3 == 0:
                http.post("/v1/ask", json={"question": f"{QUESTION} {name} {number}"}).raise_for_status()
            body = {"question": f"{name} {number}", "pair": "bread_q0", "helpful": True, "build": build}
            reply = http.post("/v1/feedback", json=body)
            if reply.status_code == 201:
                acknowledged.append(reply.json()["id"])


def test_nothing_acknowledged_is_lost_when_it_is_killed_and_it_starts_again(environment, rng):
    acknowledged = []
    for _ in range(KILLS):
        with served(environment) as (process, url):
            with Client(url) as client:
                build = client.ask(AskRequest(question=QUESTION)).build
            stop, before = threading.Event(), len(acknowledged)
            callers = [
                threading.Thread(target=judge, args=(url, build, str(number), acknowledged, stop))
                for number in range(CALLERS)
            ]
            for caller in callers:
                caller.start()
            wanted = before + int(rng.integers(5, 60))
            deadline = time.monotonic() + PATIENCE
            while len(acknowledged) < wanted:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            for caller in callers:
                caller.join(PATIENCE)
                assert not caller.is_alive()
    assert len(acknowledged) >= 5 * KILLS
    with served(environment) as (_, url), Client(url) as client:
        assert client.ask(AskRequest(question=QUESTION)).answers[0].cluster_id == "make_bread"
        kept = httpx.get(f"{url}/v1/feedback", params={"limit": 1000}).json()
    assert kept["unreadable"] == 0
    assert set(acknowledged) <= {one["id"] for one in kept["feedback"]}


def test_it_ends_politely_and_says_so(environment):
    with served(environment) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) in {0, -signal.SIGTERM}
