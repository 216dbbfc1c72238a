"""What one does without the mouse, and what is copied, suggested and opened."""

from pathlib import Path

import axe_playwright_python
import httpx
import pytest
from playwright.sync_api import expect

from ui.theme import FOCUS

QUESTION = "How do I extract structured data from Markdown example files?"
PLACEHOLDER = "What do you want to know?"
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
PAIRS = 240
FOCUSED = "() => document.activeElement.closest('[class*=st-key]')?.className.match(/st-key-(\\w+)/)[1]"

pytestmark = [pytest.mark.browser, pytest.mark.corpus]


@pytest.fixture
def clipboard(tab):
    """What was copied last."""
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    return lambda: tab.evaluate("navigator.clipboard.readText()")


def test_keys_lead_to_the_box_through_the_answers_and_open_them(service, ask, tab):
    ask(QUESTION)
    box = tab.get_by_placeholder(PLACEHOLDER)
    box.blur()
    expect(box).not_to_be_focused()
    tab.keyboard.press("/")
    expect(box).to_be_focused()
    assert box.input_value() == QUESTION, "the key itself is not typed"
    box.blur()
    tab.keyboard.press("Control+k")
    expect(box).to_be_focused()
    assert tab.evaluate("getSelection().toString()") == QUESTION
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate(FOCUSED) == "card1"
    other = tab.locator("[class*=st-key-other]").first
    expect(other).to_be_attached()
    for _ in range(8):
        if "other" in tab.evaluate(FOCUSED):
            break
        tab.keyboard.press("ArrowDown")
    expect(other.locator("details")).not_to_have_attribute("open", "")
    tab.keyboard.press("o")
    expect(other.locator("details")).to_have_attribute("open", "")
    for _ in range(8):
        tab.keyboard.press("ArrowUp")
    expect(box).to_be_focused()
    box.press_sequentially("/")
    assert "/" in box.input_value(), "in the box it is a letter"


def test_who_asks_before_the_page_is_whole_keeps_the_focus(service, ask, tab):
    """A slow browser runs the home page's script after the question was asked."""
    ask(QUESTION)
    box = tab.get_by_placeholder(PLACEHOLDER)
    box.blur()
    tab.evaluate(FOCUS.strip().removeprefix("<script>").removesuffix("</script>"))
    tab.wait_for_timeout(1_000)
    expect(box).not_to_be_focused()


def test_code_answers_and_links_are_copied(service, ask, tab, clipboard):
    ask(QUESTION)
    card = tab.locator(".st-key-card1")
    answer = httpx.post(f"{service.api}/v1/ask", json={"question": QUESTION}, timeout=60).json()["answers"][0]
    if card.get_by_role("button", name="Show all").count():
        card.get_by_role("button", name="Show all").click()
        expect(card.get_by_role("button", name="Show all")).to_have_count(0)
    code = card.locator("p code, li code").first
    code.click()
    expect(code).to_have_attribute("data-copied", "true")
    assert clipboard() == code.inner_text()
    block = card.locator("[data-testid=stCode]").first
    block.hover()
    block.get_by_role("button").click()
    tab.wait_for_function(
        "async text => (await navigator.clipboard.readText()).trim() === text", arg=block.inner_text()
    )
    buttons = card.locator("button[data-copy]")
    for button, name, text in zip(
        buttons.all(), ("Copy answer", "Copy link"), (answer["answer"], tab.url), strict=True
    ):
        expect(button).to_have_text(name)
        button.click()
        expect(button).to_have_text("Copied")
        assert clipboard() == text
        expect(button).to_have_text(name)


def test_known_questions_are_suggested_while_one_types_and_a_chosen_one_is_asked(service, tab):
    tab.goto(service.page)
    box = tab.get_by_placeholder(PLACEHOLDER)
    box.press_sequentially("extract struc")
    offered = tab.locator("#qaserve-known option")
    known = httpx.get(f"{service.api}/v1/suggest", params={"q": "extract struc"}, timeout=60).json()["questions"]
    assert known
    expect(offered).to_have_count(len(known))
    assert offered.evaluate_all("options => options.map(option => option.value)") == known
    # Choosing from the browser's own list is this event; the list itself is no part of the page.
    box.evaluate(
        """(box, chosen) => {
            Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(box, chosen)
            box.dispatchEvent(new InputEvent("input", {bubbles: true, inputType: "insertReplacementText"}))
        }""",
        known[0],
    )
    expect(tab.get_by_text("Why these answers")).to_be_visible()
    expect(box).to_have_value(known[0])
    expect(offered).to_have_count(0)


def test_arrows_lead_to_the_answers_once_a_typed_question_is_asked(service, tab):
    tab.goto(service.page)
    box = tab.get_by_placeholder(PLACEHOLDER)
    box.press_sequentially("extract struc")
    expect(tab.locator("#qaserve-known option").first).to_be_attached()
    box.press("Enter")
    expect(tab.get_by_text("Why these answers")).to_be_visible()
    expect(tab.locator("[class*=st-key-card1], [class*=st-key-near_miss1]").first).to_be_attached()
    box.press("ArrowDown")
    expect(box).not_to_be_focused()
    assert tab.evaluate(FOCUSED) in ("card1", "near_miss1")


def test_the_document_of_a_skill_opens_with_its_sections(service, ask, tab):
    ask(QUESTION)
    tab.get_by_role("button", name="Read the document").first.click()
    panel = tab.get_by_role("dialog")
    document = httpx.get(f"{service.api}/v1/skills/skill_extract_records", timeout=60).json()["document"]
    expect(panel.get_by_role("heading", name=document["title"]).first).to_be_visible()
    sections = panel.locator("[class*=st-key-section]")
    expect(sections).to_have_count(len(document["sections"]))
    last = sections.last
    last.locator("summary").click()
    expect(last.locator("[data-testid=stMarkdown], [data-testid=stCode]").first).to_be_visible()
    tab.evaluate(AXE)
    violations = "async () => (await axe.run(document.querySelector('[role=dialog]'))).violations.map(one => one.id)"
    assert tab.evaluate(violations) == []
    tab.keyboard.press("Escape")
    expect(panel).to_have_count(0)


def test_a_rectangle_or_a_click_on_the_map_selects_answers_and_opens_one(service, tab):
    tab.goto(f"{service.page}/clusters")
    chart = tab.locator("[class*=st-key-clusters_map-] [data-testid=stVegaLiteChart]")
    dots = chart.locator("g.mark-symbol path")
    expect(dots.nth(100)).to_be_attached()
    place = chart.bounding_box()
    tab.keyboard.down("Shift")
    tab.mouse.move(place["x"] + 40, place["y"] + 40)
    tab.mouse.down()
    tab.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] - 40, steps=5)
    tab.mouse.up()
    tab.keyboard.up("Shift")
    expect(tab.get_by_text("selected on the map")).to_be_visible()
    assert 1 < selected(tab) < PAIRS
    tab.mouse.dblclick(place["x"] + 5, place["y"] + place["height"] - 10)
    expect(tab.get_by_text("selected on the map")).to_have_count(0)
    dot = dots.nth(100).bounding_box()
    tab.mouse.click(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
    expect(tab.get_by_text("1 selected on the map")).to_be_visible()
    answers = httpx.get(f"{service.api}/v1/map", timeout=60).json()["answers"]
    heading = tab.locator("[data-testid=stMain] h4").inner_text()
    assert heading in [one["question"] for one in answers]


def selected(tab):
    return int(tab.get_by_text("selected on the map").inner_text().split()[0])
