"""The README's main job, as its user meets it: `qaserve up` on the real corpus, and a real browser on the page."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
START_SECONDS = 600
PAIRS = 240
QUESTION = "How do I extract structured data from Markdown example files?"
SCREENSHOTS = Path(__file__).parents[2] / "screenshots"

pytestmark = [pytest.mark.browser, pytest.mark.corpus]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory):
    """The first rows of the real corpus: real text and the real MiniLM, in a fraction of the time."""
    source = Path(__file__).parents[3] / "shared" / "corpus" / "skills_qa.jsonl"
    if not source.is_file():
        if os.environ.get("CI"):
            pytest.fail(f"CI needs {source}")
        pytest.skip(f"no real corpus at {source}")
    path = tmp_path_factory.mktemp("corpus") / "skills_qa.jsonl"
    path.write_text("".join(source.read_text(encoding="utf-8").splitlines(keepends=True)[:PAIRS]), encoding="utf-8")
    return path


class Service:
    """`qaserve up` as a child process."""

    def __init__(self, folder, *arguments):
        self.api, self.page = (f"http://127.0.0.1:{port}" for port in (free_port(), free_port()))
        self.log = folder / "up.log"
        own = {name: value for name, value in os.environ.items() if not name.startswith("QASERVE_")}
        own |= {
            "QASERVE_DATA_DIR": str(folder / "data"),
            "QASERVE_MODELS_DIR": str(folder / "models"),
            "QASERVE_PORT": self.api.rpartition(":")[2],
            "QASERVE_UI_PORT": self.page.rpartition(":")[2],
        }
        with self.log.open("a") as log:
            command = [sys.executable, "-m", "qaserve", "up", *map(str, arguments)]
            self.process = subprocess.Popen(command, env=own, stdout=log, stderr=log, start_new_session=True)

    def wait(self):
        deadline = time.monotonic() + START_SECONDS
        while "Ctrl-C stops both" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def service(tmp_path_factory, corpus_file):
    running = Service(tmp_path_factory.mktemp("service"), corpus_file)
    try:
        running.wait()
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


@pytest.fixture(scope="module")
def browser():
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
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


def box(tab):
    return tab.get_by_placeholder("What do you want to know?")


def test_the_question_box_is_the_first_thing_and_asking_gives_answers_and_reasons(service, tab):
    elsewhere = []
    tab.on("request", lambda request: elsewhere.append(request.url) if service.page not in request.url else None)
    tab.goto(service.page)
    expect(tab.get_by_text(f"{PAIRS} question/answer pairs")).to_be_visible(timeout=60_000)
    expect(box(tab)).to_be_in_viewport()
    box(tab).fill(QUESTION)
    box(tab).press("Enter")
    expect(tab.get_by_text(f"1. {QUESTION}").first).to_be_visible(timeout=60_000)
    expect(tab.get_by_text("Why these answers")).to_be_visible()
    expect(tab.get_by_text("A plain search would have given these first")).to_be_visible()
    expect(tab.locator("[data-testid=stVegaLiteChart]")).to_have_count(2)
    expect(tab.locator("[data-testid=stDataFrame]")).to_have_count(3)
    answer = httpx.post(f"{service.api}/v1/ask", json={"question": QUESTION}, timeout=60).json()
    for card in answer["answers"]:
        expect(tab.get_by_text(f"{card['rank']}. {card['question']}", exact=True).first).to_be_attached()
    share = answer["trace"]["hits"][0]["probability"]
    expect(tab.get_by_text(re.compile(f"has {share:.0%} of the vote"))).to_be_visible()
    outside = [url for url in elsewhere if url.startswith("http")]
    assert not outside, outside


def test_an_address_with_a_question_is_a_search(service, tab):
    tab.goto(f"{service.page}/?q=parse+records+with+perl")
    expect(tab.get_by_text("Why these answers")).to_be_visible(timeout=60_000)
    expect(box(tab)).to_have_value("parse records with perl")


def test_an_example_and_another_routing_can_be_chosen(service, tab):
    tab.goto(service.page)
    tab.locator("[data-testid=stMain] button", has_text="?").first.click()
    expect(tab.get_by_text("These known questions are most like yours, and vote")).to_be_visible(timeout=60_000)
    assert "q=" in tab.url
    tab.get_by_test_id("stPopoverButton").click()
    tab.get_by_role("combobox").first.click()
    tab.get_by_text("nearest cluster centres").click()
    expect(tab.get_by_text("The clusters whose mean question is nearest are blended")).to_be_visible(timeout=60_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "width", "height"), [("desktop", 1440, 1100), ("phone", 390, 844)])
def test_nothing_sticks_out_in_any_theme_or_width(service, browser, scheme, name, width, height):
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    tab = context.new_page()
    tab.goto(f"{service.page}/?q=parse+records")
    expect(tab.locator("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg").first).to_be_attached(
        timeout=60_000
    )
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    SCREENSHOTS.mkdir(exist_ok=True)
    tab.screenshot(path=str(SCREENSHOTS / f"search-{name}-{scheme}.png"))
    context.close()


def test_the_same_file_again_starts_without_encoding_and_stops_cleanly(service, corpus_file):
    """Last in this file: it stops the service and starts it again on the same folders."""
    assert service.stop() == 0
    text = service.log.read_text()
    assert f"Corpus skills: {PAIRS} pairs, loaded." in text
    assert "Encoding" in text
    for url in (service.api, service.page):
        with pytest.raises(httpx.ConnectError, match="refused"):
            httpx.get(url)
    folder = service.log.parent
    service.log.unlink()
    service.__init__(folder, corpus_file)
    service.wait()
    text = service.log.read_text()
    assert f"Corpus skills: {PAIRS} pairs, unchanged." in text
    assert "Encoding" not in text
    assert httpx.get(f"{service.api}/readyz", timeout=30).json()["corpus"] == "skills"
    assert service.stop() == 0
    assert "Stopped." in service.log.read_text()
    assert "Traceback" not in service.log.read_text()
