"""Search, as its user meets it."""

import json

import httpx
import pytest
from playwright.sync_api import expect

from qaserve.search.names import RARE
from qaserve.store.words import Kind, terms, words_by_kind

PAIRS = 240
BATCH = 32
SKILL = "skill_extract_records"
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


def test_a_name_that_few_pairs_hold_finds_them(service, ask, tab):
    ask("--file-filter")
    expect(tab.get_by_text("The first answer holds file-filter.")).to_be_visible()
    expect(tab.get_by_role("heading", name="No answer here")).to_have_count(0)
    expect(tab.locator(".st-key-card1").get_by_text("--file-filter").first).to_be_visible()


def test_most_names_that_few_pairs_hold_find_one_of_these_first(service, corpus_file, capsys):
    pairs = [json.loads(line) for line in corpus_file.read_text(encoding="utf-8").splitlines()]
    holders = {}
    for pair in pairs:
        text = f"{pair['question']}\n{pair['answer']}"
        held = {term.lower() for term in terms(text)}
        for name in (word for word, kind in words_by_kind(text) if kind is Kind.NAME and word in held):
            holders.setdefault(name, set()).add(pair["pair_id"])
    names = sorted(name for name, ids in holders.items() if len(ids) <= RARE and not name.isalpha())
    first = {"default": 0, "as any question": 0}
    for way, more in zip(first, ({}, {"lexical_weight": 0.25}), strict=True):
        for part in (names[start : start + BATCH] for start in range(0, len(names), BATCH)):
            asked = [{"question": name, "top_k": 1, "explain": False} | more for name in part]
            found = httpx.post(f"{service.api}/v1/ask", json=asked, timeout=60).raise_for_status().json()
            for name, result in zip(part, found, strict=True):
                first[way] += result["answers"][0]["pair_id"] in holders[name]
    with capsys.disabled():
        print(f"\nof {len(names)} rare names a pair that holds it comes first: {first}")  # noqa: T201
    assert len(names) > 80
    assert first["default"] >= 0.95 * len(names)
    assert first["default"] > first["as any question"] + 0.1 * len(names)


def test_a_skill_that_is_named_is_there_with_its_document(service, ask, tab):
    ask(SKILL)
    head = tab.locator(f"[class*='st-key-skill_head'][class*='{SKILL}']").first
    expect(head.get_by_text("Named in your question")).to_be_visible()
    head.get_by_role("button", name="Read the document").click()
    expect(tab.get_by_role("dialog")).to_be_visible()


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
