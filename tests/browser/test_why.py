"""Why: the story of a question, and what would happen otherwise."""

import httpx
import pytest
from playwright.sync_api import expect

QUESTION = "How do I extract structured data from Markdown example files?"

pytestmark = [pytest.mark.browser, pytest.mark.corpus]


def answer_of(service, **options):
    return httpx.post(f"{service.api}/v1/ask", json={"question": QUESTION, **options}, timeout=60).json()


def test_the_story_is_one_click_away_and_has_four_steps(service, ask, tab):
    ask(QUESTION)
    tab.get_by_role("link", name="See every step").click()
    for step in ("are like yours", "vote for these clusters", "moves your question by", "These answers are nearest"):
        expect(tab.get_by_text(step).first).to_be_visible()
    expect(tab.get_by_text("Your question on the map")).to_be_visible()
    expect(tab.get_by_text("answered in other ways")).to_be_visible()
    expect(tab.locator("[data-testid=stVegaLiteChart]")).to_have_count(7)
    assert "/why" in tab.url
    assert "q=" in tab.url
    trace = answer_of(service)["trace"]
    expect(tab.get_by_text(f"gets most: {trace['clusters'][0]['weight']:.0%}").first).to_be_visible()
    tab.get_by_role("link", name="Back to the answers").click()
    expect(tab.get_by_text("Why these answers")).to_be_visible()


def test_another_temperature_moves_the_weights_to_what_the_api_computes(service, tab):
    tab.goto(f"{service.page}/why?q={QUESTION.replace(' ', '+').replace('?', '%3F')}")
    slider = tab.get_by_role("slider", name="How much does similarity decide?")
    expect(slider).to_be_visible()
    slider.focus()
    for _ in range(3):
        slider.press("ArrowRight")
    chosen = 0.15
    assert answer_of(service)["trace"]["params"]["temperature"] == 0.05, "three steps below"
    tab.wait_for_url(f"**temperature={chosen}")
    trace = answer_of(service, temperature=chosen)["trace"]
    expect(tab.get_by_text(f"gets most: {trace['clusters'][0]['weight']:.0%}").first).to_be_visible()
    expect(tab.get_by_text(f"τ = {chosen:g}").first).to_be_visible()
    expect(tab.get_by_text("What your changes do")).to_be_visible()
    tab.get_by_role("button", name="Reset to default").click()
    expect(tab.get_by_text("What your changes do")).to_have_count(0)
    tab.wait_for_url(lambda url: "temperature" not in url)


@pytest.mark.parametrize("options", ["routing=question2", "routing=centroid", "projection=pair", "projection=none"])
def test_every_way_has_its_story(service, tab, options):
    tab.goto(f"{service.page}/why?q=parse+records&{options}")
    expect(tab.get_by_text("These answers are nearest")).to_be_visible()
    expect(tab.get_by_text("answered in other ways")).to_be_visible()
    assert tab.get_by_text("The request failed").count() == 0


def test_going_back_undoes_an_option(service, tab):
    tab.goto(f"{service.page}/why?q={QUESTION.replace(' ', '+').replace('?', '%3F')}")
    expect(tab.get_by_text("answered in other ways")).to_be_visible()
    before = tab.url
    slider = tab.get_by_role("slider", name="How much does similarity decide?")
    slider.focus()
    slider.press("ArrowRight")
    expect(tab.get_by_text("What your changes do")).to_be_visible()
    tab.wait_for_url("**temperature=**")
    tab.go_back()
    expect(tab.get_by_text("What your changes do")).to_have_count(0)
    assert tab.url == before
    expect(slider).to_have_attribute("aria-valuetext", "0.05")
