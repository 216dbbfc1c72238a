"""The real thing: `qaserve up` on rows of the real corpus with the real MiniLM, and a real Chromium."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
START_SECONDS = 600
PAIRS = 240
SHARED = Path(__file__).parents[3] / "shared"
SKILL = "skill_extract_records"
SECONDS = 30_000
PLACEHOLDER = "What do you want to know?"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def own_environment(folder, **more):
    """The environment without the caller's settings, with folders of the test's own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("QASERVE_")}
    return own | {"QASERVE_DATA_DIR": str(folder / "data"), "QASERVE_MODELS_DIR": str(folder / "models"), **more}


def start(command, environment, log):
    with log.open("a") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "qaserve", *map(str, command)],
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def wait_until(true, alive, log):
    deadline = time.monotonic() + START_SECONDS
    while not true():
        assert alive(), log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


class Service:
    """`qaserve up` as a child process; before it the same file is ingested with `documents`, if they are given."""

    def __init__(self, folder, *arguments, documents=None):
        ports = free_port(), free_port()
        self.api, self.page = (f"http://127.0.0.1:{port}" for port in ports)
        self.log = folder / "up.log"
        environment = own_environment(
            folder, QASERVE_PORT=str(ports[0]), QASERVE_UI_PORT=str(ports[1]), QASERVE_KEEP_QUESTIONS="true"
        )
        if documents is not None:
            ingest = start(["ingest", *arguments, "--documents", documents], environment, self.log)
            assert ingest.wait(START_SECONDS) == 0, self.log.read_text()
        self.process = start(["up", *arguments], environment, self.log)

    def wait(self):
        wait_until(lambda: "Ctrl-C stops both" in self.log.read_text(), lambda: self.process.poll() is None, self.log)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory):
    """The first rows of the real corpus: real text and the real MiniLM, in a fraction of the time."""
    source = SHARED / "corpus" / "skills_qa.jsonl"
    if not source.is_file():
        if os.environ.get("CI"):
            pytest.fail(f"CI needs {source}")
        pytest.skip(f"no real corpus at {source}")
    path = tmp_path_factory.mktemp("corpus") / "skills_qa.jsonl"
    path.write_text("".join(source.read_text(encoding="utf-8").splitlines(keepends=True)[:PAIRS]), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def documents(tmp_path_factory, corpus_file):
    """The document of the skill that the first rows name."""
    folder = tmp_path_factory.mktemp("documents")
    shutil.copy(SHARED / "skills" / f"{SKILL}.md", folder)
    return folder


@pytest.fixture(scope="session")
def service(tmp_path_factory, corpus_file, documents, exports):
    folder = tmp_path_factory.mktemp("service")
    (folder / "data").mkdir()
    (folder / "data" / "encoders").symlink_to(exports)
    running = Service(folder, corpus_file, documents=documents)
    try:
        running.wait()
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


@pytest.fixture(scope="module")
def browser():
    """A browser until the module ends: while it is open, Playwright runs an event loop in this thread."""
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs chromium")
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def tab(browser):
    context = browser.new_context(viewport={"width": 1440, "height": 1100})
    context.set_default_timeout(SECONDS)
    expect.set_options(timeout=SECONDS)
    yield context.new_page()
    context.close()


@pytest.fixture
def ask(service, tab):
    """Ask a question on the search page."""

    def asking(question):
        tab.goto(service.page)
        box = tab.get_by_placeholder(PLACEHOLDER)
        box.fill(question)
        box.press("Enter")
        expect(tab.get_by_text("Why these answers")).to_be_visible()
        expect(tab.locator("[data-testid=stApp]")).to_have_attribute("data-test-script-state", "notRunning")

    return asking


@pytest.fixture
def conftest():
    """What this file offers to tests that start processes of their own."""
    return sys.modules[__name__]
