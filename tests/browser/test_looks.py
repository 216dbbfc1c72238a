"""Every page in both themes, on a desk and on a phone: nothing sticks out, and a picture is taken to be looked at.

axe-core finds nothing on any of them that keeps people from using it.
"""

from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import expect

SCREENSHOTS = Path(__file__).parents[2] / "screenshots"
QUESTION = "?q=How+do+I+parse+records+from+markdown"
PAGES = {
    "welcome": ("/", "How an answer is found"),
    "search": (f"/{QUESTION}", "Why these answers"),
    "nothing": ("/?q=How+do+I+bake+bread", "Noted under Unanswered questions"),
    "why": (f"/why{QUESTION}", "Ranks as a table"),
    "whatif": (f"/why{QUESTION}&temperature=0.3&routing=question2", "Ranks as a table"),
    "clusters": ("/clusters", "Open a cluster"),
    "cluster": ("/clusters?open=3", "pairs"),
    "ingest": ("/ingest", "A file of questions and answers"),
    "improve": ("/ingest", "Similar intents", "To improve"),
    "builds": ("/ingest", "Every ingest that changes something", "Builds"),
    "results": ("/results", "What the terms mean"),
}
TALLEST = 5_000
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
FOUND = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations.flatMap(
    rule => rule.nodes.map(node => `${rule.id}: ${node.html.slice(0, 200)}`))"""

pytestmark = [pytest.mark.browser, pytest.mark.corpus]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("size", "width", "height"), [("desktop", 1440, 1000), ("phone", 390, 844)])
def test_nothing_sticks_out_in_any_theme_or_width(service, browser, scheme, size, width, height):
    SCREENSHOTS.mkdir(exist_ok=True)
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    context.set_default_timeout(60_000)
    tab = context.new_page()
    for name, (address, last, *opened) in PAGES.items():
        tab.set_viewport_size({"width": width, "height": height})
        tab.goto(f"{service.page}{address}")
        for one in opened:
            tab.get_by_role("tab", name=one).click()
        expect(tab.locator("[data-testid=stMain]").get_by_text(last).last).to_be_attached(timeout=60_000)
        expect(tab.locator("[data-testid=stSpinner]")).to_have_count(0, timeout=60_000)
        expect(tab.locator("[data-testid=stSkeleton]")).to_have_count(0, timeout=60_000)
        expect(tab.locator('section[role="presentation"][aria-label]')).to_have_count(0)  # browser.js has run
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, name
        sizes = "main => [main.scrollWidth, main.clientWidth]"
        needed, there = tab.locator("[data-testid=stMain]").evaluate(sizes)
        assert needed <= there, name
        tab.evaluate(AXE)
        assert tab.evaluate(FOUND) == [], name
        whole = tab.locator("[data-testid=stMain]").evaluate("main => main.scrollHeight")
        tab.set_viewport_size({"width": width, "height": max(height, min(whole + 20, TALLEST))})
        tab.wait_for_function("() => [...document.images].every(image => image.complete)")
        tab.screenshot(path=str(SCREENSHOTS / f"{name}-{size}-{scheme}.png"), animations="disabled")
    context.close()
