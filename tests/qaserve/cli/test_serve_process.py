"""Processes with the real MiniLM: an API that is killed and started again, and many that read while one writes."""

import asyncio
import json
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
from conftest import Silent
from mcp import Client as AgentClient
from mcp import StdioServerParameters

from ingest.builder import Builder
from ingest.pipeline import Ingest
from qaserve.builds.catalog import prune
from qaserve.client.http import Client
from qaserve.encoders.serving import ServingEncoder
from qaserve.schemas.ask import AskRequest
from qaserve.settings import EncoderSettings, FitSettings, ReadSettings
from qaserve.store import EdgeStore

PATIENCE = 120
CALLERS = 4
KILLS = 2
QUESTION = "How do I make bread?"
SWAPS = 20


@pytest.fixture
def environment(tmp_path, unused_port, write_rows, rows, exports):
    """A small corpus, ingested by a process of its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("QASERVE_")}
    own |= {
        "QASERVE_DATA_DIR": str(tmp_path / "data"),
        "QASERVE_MODELS_DIR": str(tmp_path / "models"),
        "QASERVE_PORT": str(unused_port),
        "QASERVE_CORPUS": "things",
    }
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "encoders").symlink_to(exports)
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


# Several workers


def workers_of(process):
    """The processes that a supervisor started, by its own word to the kernel."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in found.split()]


def runs(number):
    with suppress(FileNotFoundError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(true):
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ask_anew(url):
    """Over a connection of its own, which any worker may take."""
    reply = httpx.post(f"{url}/v1/ask", json={"question": QUESTION}, timeout=PATIENCE)
    assert reply.json()["answers"][0]["cluster_id"] == "make_bread"


def asked(url):
    found = [
        line.rpartition(" ")[2]
        for line in httpx.get(f"{url}/metrics").text.splitlines()
        if line.startswith("qaserve_requests_total{") and '"/v1/ask"' in line
    ]
    return sum(map(float, found))


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at the processes of Linux")


@linux
def test_workers_answer_when_one_is_killed_and_share_jobs_and_figures(environment):
    with served(environment | {"QASERVE_WORKERS": "2"}) as (process, url):
        first = workers_of(process)
        assert len(first) == 2
        for _ in range(10):
            ask_anew(url)
        sent = {"pairs": [{"question": "What is an anvil?", "answer": "A block to forge on.", "pair_id": "anvil"}]}
        job = httpx.post(f"{url}/v1/ingest", json=sent).json()["id"]
        seen = [httpx.get(f"{url}/v1/jobs/{job}").json()["id"] for _ in range(10)]
        assert seen == [job] * 10
        assert httpx.get(f"{url}/v1/jobs/{'0' * 32}").status_code == 404
        os.kill(first[0], signal.SIGKILL)
        until(lambda: not runs(first[0]))
        for _ in range(10):
            ask_anew(url)
        until(lambda: len(workers_of(process)) == 2 and first[0] not in workers_of(process))
        until(lambda: httpx.get(f"{url}/v1/jobs/{job}").json()["state"] == "done")
        assert asked(url) == 20
        last = workers_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert not any(runs(number) for number in [*first, *last])


@linux
def test_workers_end_when_their_supervisor_was_killed(environment):
    with served(environment | {"QASERVE_WORKERS": "2"}) as (process, _):
        started = workers_of(process)
        process.kill()
        until(lambda: not any(runs(number) for number in started))


# Many readers and a writer


class Readers:
    """Threads that ask until they are stopped, each in its own way; what they got is (build, first answer)."""

    def __init__(self) -> None:
        self.got: dict[str, list[tuple[str, str]]] = {"api": [], "command": [], "agent": []}
        self.failed: list[BaseException] = []
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, ask, name) -> None:
        def until_stopped() -> None:
            try:
                ask(self.got[name], self.stopping)
            except BaseException as error:  # noqa: BLE001 - told by the test
                self.failed.append(error)

        self._threads.append(threading.Thread(target=until_stopped))
        self._threads[-1].start()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def ask_api(url):
    def ask(got, stopping):
        with Client(url) as client:
            while not stopping.is_set():
                result = client.ask(AskRequest(question=QUESTION))
                got.append((result.build, result.answers[0].answer))

    return ask


def ask_command(environment):
    def ask(got, stopping):
        command = [sys.executable, "-m", "qaserve", "ask", QUESTION, "--json"]
        while not stopping.is_set():
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            result = json.loads(done.stdout)
            got.append((result["build"], result["answers"][0]["answer"]))

    return ask


def ask_agent(environment):
    def ask(got, stopping):
        async def talk() -> None:
            server = StdioServerParameters(command=sys.executable, args=["-m", "qaserve", "mcp"], env=environment)
            async with AgentClient(server) as client:
                while not stopping.is_set():
                    result = await client.call_tool("search_skills", {"question": QUESTION})
                    assert not result.is_error, result.content[0].text
                    found = result.structured_content
                    got.append((found["build"], found["answers"][0]["answer"]))

        asyncio.run(talk())

    return ask


def test_all_read_while_one_writes_and_every_answer_is_of_the_build_it_names(environment, tmp_path, write_rows, rows):
    """Each build holds another edition of the answers; old builds are pruned at once."""
    store, encoder = (
        EdgeStore(tmp_path / "data"),
        ServingEncoder(EncoderSettings(), tmp_path / "data" / "encoders", Silent()),
    )
    builder = Builder(store, encoder.identity, tmp_path / "models", "things", fit=FitSettings(), reporter=Silent())
    edition_of = {store.live("things").build: rows()[0]["answer"][:30]}
    readers = Readers()
    with served(environment) as (_, url):
        readers.start(ask_api(url), "api")
        readers.start(ask_command(environment), "command")
        readers.start(ask_agent(environment), "agent")
        try:
            for number in range(SWAPS):
                edited = [row | {"answer": f"Edition {number}: {row['answer']}"} for row in rows(["bread"])]
                report = Ingest(builder, encoder, ReadSettings()).run([write_rows(edited)], replace=True, force=True)
                edition_of[report.build] = f"Edition {number}: "
                prune(store, tmp_path / "models", "things", keep=0)
            deadline = time.monotonic() + PATIENCE
            while not all(got and got[-1][0] == report.build for got in readers.got.values()):
                assert not readers.failed
                assert time.monotonic() < deadline, {name: len(got) for name, got in readers.got.items()}
                time.sleep(0.05)
        finally:
            readers.stop()
    assert readers.failed == []
    assert len(edition_of) == 1 + SWAPS
    for name, got in readers.got.items():
        for build, answer in got:
            assert answer.startswith(edition_of[build]), name
        assert len({build for build, _ in got}) > 1, name
    assert store.names("things") == [report.build]
