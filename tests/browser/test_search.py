"""Search, as its user meets it."""

import httpx
import pytest
from playwright.sync_api import expect

PAIRS = 240
QUESTION = "How do I extract structured data from Markdown example files?"
PLACEHOLDER = "What do you want to know?"

pytestmark = [pytest.mark.browser, pytest.mark.corpus]


def test_the_question_box_has_the_focus_and_asking_gives_answers_and_reasons(service, tab):
    elsewhere = []
    tab.on("request", lambda request: elsewhere.append(request.url) if service.page not in request.url else None)
    tab.goto(service.page)
    box = tab.get_by_placeholder(PLACEHOLDER)
    expect(tab.get_by_text(f"{PAIRS} question/answer pairs")).to_be_visible()
    expect(box).to_be_focused()
    tab.keyboard.type(QUESTION)
    tab.keyboard.press("Enter")
    expect(tab.get_by_text(f"1. {QUESTION}").first).to_be_visible()
    expect(tab.get_by_text("Why these answers")).to_be_visible()
    answer = httpx.post(f"{service.api}/v1/ask", json={"question": QUESTION}, timeout=60).json()
    for card in answer["answers"]:
        expect(tab.get_by_text(f"{card['rank']}. {card['question']}", exact=True).first).to_be_attached()
    expect(tab.get_by_text("Matches a known question").first).to_be_visible()
    expect(tab.locator("[data-testid=stCode]").first).to_be_visible()
    outside = [url for url in elsewhere if url.startswith("http")]
    assert not outside, outside


def test_an_address_with_a_question_and_options_is_a_search(service, tab):
    tab.goto(f"{service.page}/?q=parse+records+with+perl&top_k=2&projection=none")
    expect(tab.get_by_text("Why these answers")).to_be_visible()
    expect(tab.get_by_placeholder(PLACEHOLDER)).to_have_value("parse records with perl")
    expect(tab.get_by_text("Options (changed)")).to_be_visible()
    shown = tab.locator("[class*=st-key-card] h4").count() + tab.locator("[class*=st-key-other] summary").count()
    assert shown == 2


def test_an_example_asks_itself_and_the_browser_goes_back(service, tab):
    tab.goto(service.page)
    tab.locator("[data-testid=stMain] button", has_text="?").first.click()
    expect(tab.get_by_text("Why these answers")).to_be_visible()
    tab.wait_for_url("**q=*")


def test_a_chip_filters_and_its_filter_can_be_taken_away(service, ask, tab):
    ask(QUESTION)
    tab.locator(".st-key-card1 button[data-variant=pills]").first.click()
    expect(tab.get_by_text("Filters (1)")).to_be_visible()
    tab.wait_for_url("**related_skills=*")
    skill = tab.url.partition("related_skills=")[2].partition("&")[0]
    body = {"question": QUESTION, "filters": {"related_skills": [skill]}}
    for card in httpx.post(f"{service.api}/v1/ask", json=body, timeout=60).json()["answers"]:
        expect(tab.get_by_text(f"{card['rank']}. {card['question']}", exact=True).first).to_be_attached()
        assert skill in card["related_skills"]
    tab.get_by_role("button", name="Skill:").click()
    expect(tab.get_by_text("Filters (1)")).to_have_count(0)
    tab.wait_for_url(lambda url: "related_skills" not in url)


def test_filters_show_how_many_pairs_have_a_value(service, ask, tab):
    ask("records")
    facets = httpx.get(f"{service.api}/v1/facets", timeout=60).json()
    first = facets["topics"][0]
    tab.get_by_role("button", name="Filters").click()
    tab.get_by_label("Topic").click()
    expect(tab.get_by_text(f"{first['label']} ({first['count']:,})").first).to_be_visible()


def test_filters_and_options_of_an_address_are_shown_when_they_are_opened_and_stay(service, ask, tab):
    ask(QUESTION)
    tab.locator(".st-key-card1 button[data-variant=pills]").first.click()
    tab.wait_for_url("**related_skills=*")
    address = f"{tab.url}&top_k=3"
    tab.goto(address)
    tab.get_by_role("button", name="Filters (1)").click()
    expect(tab.get_by_label("Skill").locator("xpath=ancestor::*[@data-testid='stMultiSelect']")).to_contain_text("(")
    tab.keyboard.press("Escape")
    tab.get_by_role("button", name="Options", exact=True).click()
    slider = tab.locator("[data-testid=stPopoverBody] [data-testid=stSlider]")
    expect(slider.get_by_text("3", exact=True).first).to_be_visible()
    tab.keyboard.press("Escape")
    tab.get_by_role("button", name="Filters (1)").click()
    expect(tab.get_by_text("Filters (1)")).to_be_visible()
    assert tab.url == address


def test_a_question_about_something_else_is_told_so(service, ask, tab):
    ask("How do I bake sourdough bread with a thick crust?")
    expect(tab.get_by_role("heading", name="No answer here")).to_be_visible()
    expect(tab.locator("[class*=st-key-near_miss]")).to_have_count(3)
    tab.get_by_role("button", name="Rephrase").click()
    expect(tab.get_by_placeholder(PLACEHOLDER)).to_be_focused()
    expect(tab.get_by_role("link", name="Browse")).to_be_visible()


def test_a_question_without_an_answer_is_noted_and_leads_to_the_list_of_them(service, ask, tab):
    question = "How do I knit a scarf from wool?"
    ask(question)
    tab.get_by_role("link", name="Noted under Unanswered questions").click()
    expect(tab.get_by_role("heading", name="Unanswered questions")).to_be_visible()
    themes = httpx.get(f"{service.api}/v1/gaps", timeout=60).json()["themes"]
    assert question in [one["question"] for theme in themes for one in theme["questions"]]


def test_a_judgement_is_kept(service, ask, tab):
    ask(QUESTION)
    tab.locator(".st-key-card1").get_by_role("radio", name="Thumbs up").click()
    expect(tab.get_by_text("Your feedback is saved")).to_be_visible()
    found = httpx.get(f"{service.api}/v1/feedback", timeout=60).json()["feedback"]
    assert (found[-1]["question"], found[-1]["helpful"]) == (QUESTION, True)
