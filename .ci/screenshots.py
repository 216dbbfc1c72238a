"""Take the README's pictures in Chromium, and print how fast the page is. Run it by `make screenshots`.

The corpus that is there is served; if there is none, the public one. The last line is JSON: medians in milliseconds.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT
from statistics import median
from urllib.parse import urlencode

import httpx
from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))
from conftest import FLAGS, PLACEHOLDER, free_port, start, wait_until  # noqa: E402 - how the tests start a service

QUESTION = "How do I find a misplaced mindmap?"
PICTURES = {"search.png": "/", "why.png": "/why"}
SIZE = {"width": 1440, "height": 1000}
COLOURS = 128
TIMES = 9
QUIET = 1_500
"""Milliseconds after which a page that was not touched has nothing left to do."""
IDLE = "() => document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'"
FIRST_CARD = "() => document.querySelector('.st-key-card1 h4, .st-key-near_miss1')?.innerText ?? ''"
FIRST_STEP = """() => [...document.querySelectorAll('[data-testid=stMain] p')].map(one => one.innerText)
    .find(text => text.includes('divides a question')) ?? ''"""


@contextmanager
def served() -> Iterator[tuple[str, str]]:
    """`qaserve up` until the end; gives the addresses of API and page."""
    ports = free_port(), free_port()
    environment = os.environ | {"QASERVE_PORT": str(ports[0]), "QASERVE_UI_PORT": str(ports[1])}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        process = start(["up"], environment, log)
        try:
            wait_until(lambda: "Ctrl-C stops both" in log.read_text(), lambda: process.poll() is None, log)
            yield f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        finally:
            process.send_signal(SIGINT)
            process.wait()


def taken(tab: Page, page: str) -> None:
    """The pictures, with few colours."""
    for name, path in PICTURES.items():
        tab.goto(f"{page}{path}?{urlencode({'q': QUESTION})}")
        tab.get_by_text("Why these answers" if path == "/" else "Ranks as a table").wait_for()
        tab.wait_for_timeout(QUIET)
        with tempfile.NamedTemporaryFile(suffix=".png") as raw:
            tab.screenshot(path=raw.name, animations="disabled")
            with Image.open(raw.name) as image:
                few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(ROOT / "docs" / name, optimize=True)


def until_changed(tab: Page, what: str, act: Callable[[], None]) -> float:
    """Milliseconds from an act until a text is another one, not empty."""
    before = tab.evaluate(what)
    begun = time.perf_counter()
    act()
    tab.wait_for_function(f"before => ![before, ''].includes(({what})())", arg=before, polling=5)
    return 1_000 * (time.perf_counter() - begun)


def measured(tab: Page, page: str, questions: list[str]) -> dict[str, list[float]]:
    """Milliseconds of each kind of wait."""
    found: dict[str, list[float]] = {"first paint": [], "question to first card": [], "why": [], "what-if step": []}
    for _ in range(TIMES):
        begun = time.perf_counter()
        tab.goto(page)
        tab.get_by_placeholder(PLACEHOLDER).wait_for()
        found["first paint"].append(1_000 * (time.perf_counter() - begun))
        quiet(tab)
    box = tab.get_by_placeholder(PLACEHOLDER)
    for question in questions:
        box.fill(question)
        quiet(tab)
        found["question to first card"].append(until_changed(tab, FIRST_CARD, lambda: box.press("Enter")))
        quiet(tab)
    for question in questions:
        tab.goto(f"{page}/?{urlencode({'q': question})}")
        link = tab.get_by_role("link", name="See every step").last
        link.wait_for()
        quiet(tab)
        found["why"].append(until_changed(tab, FIRST_STEP, link.click))
        quiet(tab)
        slider = tab.get_by_role("slider", name="How much does similarity decide?")
        found["what-if step"].append(until_changed(tab, FIRST_STEP, lambda one=slider: moved(one)))
        quiet(tab)
    return found


def moved(slider: Locator) -> None:
    """One step to the right."""
    slider.press("ArrowRight")


def quiet(tab: Page) -> None:
    """Wait until nothing happens any more."""
    tab.wait_for_function(IDLE)
    tab.wait_for_timeout(QUIET)


def main() -> None:
    """Take the pictures, then the times."""
    with served() as (api, page), sync_playwright() as playwright:
        clusters = range(1, TIMES + 1)
        pairs = [httpx.get(f"{api}/v1/clusters/{one}", timeout=60).json()["pairs"][0] for one in clusters]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        tab = browser.new_page(viewport=SIZE)
        tab.set_default_timeout(60_000)
        taken(tab, page)
        found = measured(tab, page, [one["pair"]["question"] for one in pairs])
        browser.close()
    lines = [f"{name}: {median(times):.0f} ms ({min(times):.0f} to {max(times):.0f})" for name, times in found.items()]
    medians = json.dumps({name: round(median(times)) for name, times in found.items()})
    sys.stdout.write("\n".join([*lines, medians]) + "\n")


main()
