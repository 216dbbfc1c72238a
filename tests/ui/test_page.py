"""The pages without a browser: what they ask of the API, and what they make of it."""

import json
import re
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import altair as alt
import pytest
import streamlit as st
from jsonschema import ValidationError
from streamlit.testing.v1 import AppTest

from ingest.builder import Builder
from ingest.jobs import Jobs
from ingest.pipeline import Ingest
from ingest.refit import add_student, refit
from qaserve.api import create_app
from qaserve.builds.titles import keep_title
from qaserve.client.http import Client
from qaserve.common.errors import ServiceError
from qaserve.schemas.ask import AskRequest, Filters
from qaserve.schemas.feedback import FeedbackRequest
from qaserve.schemas.jobs import IngestOptions
from qaserve.service.feedback import FeedbackLog
from qaserve.service.gaps import QuestionLog
from qaserve.settings import FitSettings, ReadSettings, ServerSettings, get_settings
from ui import api_cache, theme
from ui.pages import results

PAGE = Path(__file__).parents[2] / "ui" / "app" / "script.py"
SECONDS = 60


@pytest.fixture
def url(engine, serve_app, tmp_path):
    return serve_app(create_app(engine, ServerSettings(reports_dir=tmp_path / "reports")))


@pytest.fixture
def page(url, monkeypatch):
    monkeypatch.setenv("QASERVE_API_URL", url)
    get_settings.cache_clear()
    st.cache_data.clear()
    st.cache_resource.clear()
    yield AppTest.from_file(str(PAGE), default_timeout=SECONDS)
    api_cache.client().close()
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture
def ask(page):
    """Ask on the search page, with what the address says besides."""

    def asking(question, **address):
        for name, value in address.items():
            page.query_params[name] = value
        page.query_params["q"] = question
        page.run()
        assert not page.exception
        return text_of(page)

    return asking


def text_of(page):
    kinds = (page.markdown, page.caption, page.info, page.warning, page.error, page.code)
    text = "\n".join(str(element.value) for kind in kinds for element in kind)
    return re.sub(r":yellow-background\[(.*?)\]", r"\1", text)  # marked words


def test_the_first_thing_is_the_question_box_and_examples_follow(page):
    page.run()
    assert not page.exception
    assert page.text_input[0].key == "ask_q"
    examples = [button for button in page.button if (button.key or "").startswith("example")]
    assert len(examples) >= 4
    assert "24 question/answer pairs" in text_of(page)


def test_the_browser_has_time_to_draw_the_first_answer_once_for_each_question(page, monkeypatch):
    pauses = []
    monkeypatch.setattr("ui.theme.time", SimpleNamespace(sleep=pauses.append))
    page.run()
    assert pauses == []
    page.text_input(key="ask_q").set_value("how to make bread").run()
    assert len(pauses) == 1
    page.run()
    assert len(pauses) == 1, "the same page again"
    page.text_input(key="ask_q").set_value("how to make wine").run()
    assert pauses == [theme.DRAWING_SECONDS] * 2
    assert not page.exception


def test_a_question_gives_cards_and_a_short_reason(page, engine):
    page.run()
    page.text_input(key="ask_q").set_value("how to make bread").run()
    assert not page.exception
    text = text_of(page)
    assert "Take material for bread" in text
    assert "Why these answers" in text
    assert page.query_params["q"] == "how to make bread"
    result = engine.ask(AskRequest(question="how to make bread"))
    assert f"**{len(result.explained.hits)} known questions**" in text
    headings = [one.value for one in page.markdown if one.value.startswith("#### ")]
    skills = {answer.related_skills[0] for answer in result.answers}
    assert len(headings) == len(skills)
    lines = [one.label for one in page.expander if one.label[0].isdigit()]
    assert len(headings) + len(lines) == len(result.answers)


def test_a_question_asked_while_no_server_answers_is_kept(page, monkeypatch):
    page.run()
    page.text_input(key="ask_q").set_value("how to make bread").run()

    def refuse():
        raise ServiceError("the API does not answer", hint="Start it.")

    with monkeypatch.context() as patch:  # as when the builds that were read before are too old
        patch.setattr(api_cache, "live_build", refuse)
        page.text_input(key="ask_q").set_value("how to make wine").run()
        assert "does not answer" in text_of(page)
        assert page.query_params["q"] == "how to make wine"
    next(button for button in page.button if button.label == "Try again").click().run()
    assert page.text_input(key="ask_q").value == "how to make wine"
    assert "Take material for wine" in text_of(page)


def test_an_example_asks_itself(page):
    page.run()
    next(button for button in page.button if (button.key or "").startswith("example")).click().run()
    assert page.text_input(key="ask_q").value
    assert "Why these answers" in text_of(page)


def test_the_address_holds_question_options_and_filters(ask, page, engine):
    text = ask("how to make bread", topics="wine", top_k="2", routing="centroid")
    wanted = engine.ask(
        AskRequest(question="how to make bread", top_k=2, routing="centroid", filters=Filters(topics=("wine",)))
    )
    assert all(answer.answer in text for answer in wanted.answers)
    assert "for wine" in text
    assert "for bread" not in text
    assert "Nearest clusters of answers" in text
    assert [button.label for button in page.button if (button.key or "").startswith("drop")] == ["Topic: wine"]
    page.button(key="drop0").click().run()
    assert "topics" not in page.query_params
    assert "for bread" in text_of(page)


@pytest.mark.parametrize(
    "address",
    [
        {"top_k": "many"},
        {"top_k": "99999"},
        {"temperature": "nan"},
        {"hits": "-5"},
        {"cluster": "x"},
        {"routing": "psychic"},
        {"topics": ["x" * 5_000]},
    ],
)
def test_a_value_of_the_address_that_cannot_be_used_is_ignored_and_said(ask, page, address):
    text = ask("bread", **address)
    assert "Why these answers" in text
    (name,) = address
    assert f"because it is invalid: {name}".replace("_", "\\_") in text
    assert name not in page.query_params


def test_a_question_of_control_characters_is_ignored(page):
    page.query_params["q"] = "\0"
    page.run()
    assert not page.exception
    assert "because it is invalid: q" in text_of(page)


def test_an_address_may_ask_for_more_answers_than_the_slider_offers(ask, page):
    ask("bread", top_k="50")
    page.session_state["options"] = True
    page.run()
    assert not page.exception
    assert page.slider(key="ask_top_k").value == 50


def test_a_question_that_fails_reaches_the_address_and_is_not_offered_again(page):
    page.run()
    page.text_input(key="ask_q").set_value("how to make bread").run()
    long = "bread " * 1_000
    page.text_input(key="ask_q").set_value(long).run()
    assert not page.exception
    assert "characters" in page.error[0].value
    assert page.query_params["q"] in (long.strip(), [long.strip()])
    assert "Try again" not in [button.label for button in page.button]


def test_the_first_question_takes_the_title_away_at_once(page):
    page.run()
    assert any(one.value.startswith("# ") for one in page.markdown)
    page.text_input(key="ask_q").set_value("how to make bread").run()
    assert not any(one.value.startswith("# ") for one in page.markdown)


def test_a_value_that_the_api_refuses_is_said_with_a_way_out(ask, page):
    text = ask("wine", routing="centroid", projection="pair")
    assert "Needs known questions that vote" in text or "needs known questions that vote" in text
    page.button[-1].click().run()
    assert "routing" not in page.query_params
    assert "Why these answers" in text_of(page)


def test_a_server_that_is_gone_is_said_and_can_be_tried_again(page, monkeypatch, unused_port):
    monkeypatch.setenv("QASERVE_API_URL", f"http://127.0.0.1:{unused_port - 1}")
    get_settings.cache_clear()
    page.run()
    assert "does not answer" in page.error[0].value
    assert "Errno" not in page.error[0].value
    assert [button.label for button in page.button] == ["Try again"]


def test_hostile_text_is_shown_as_text(edge, encoder, make_ingest, write_rows, ask, page):
    hostile = {
        "question": "<script>alert(1)</script> ![x](http://evil/x.png) $a$ :red[b]",
        "answer": "<img src=http://evil/y.png> ![x](http://evil/x.png) costs $1 or $2",
        "related_skills": ["**bold**<b>.md"],
        "related_docs": ["`x`<i>"],
    }
    make_ingest(edge, encoder).run([write_rows([hostile], "hostile.jsonl")], replace=True)
    text = ask("script alert")
    assert "![" not in text
    assert "\\<script\\>" in text
    assert all(not element.allow_html for element in page.markdown)


def test_a_notice_of_the_operator_is_on_top(page, monkeypatch):
    monkeypatch.setenv("QASERVE_NOTICE", "This is the sample corpus.")
    get_settings.cache_clear()
    page.run()
    assert "sample corpus" in page.info[0].value


def test_the_home_page_says_what_is_searched(page, monkeypatch, tmp_path):
    page.run()
    assert page.markdown[0].value == "# Search things"
    keep_title(tmp_path / "models", "things", "How *things* are made")
    st.cache_data.clear()
    page.run()
    assert page.markdown[0].value == "# Search How \\*things\\* are made"
    monkeypatch.setenv("QASERVE_TITLE", "UnifyWeaver *skills*")
    get_settings.cache_clear()
    page.run()
    assert page.markdown[0].value == "# Search UnifyWeaver \\*skills\\*"


def test_skills_with_documents_are_there_to_browse_and_open(edge, encoder, make_ingest, tmp_path, page):
    page.run()
    assert "All clusters" in [link.label for link in page.get("page_link")]
    assert not [one for one in page.button if (one.key or "").startswith("browse")]
    (tmp_path / "documents").mkdir()
    text = "# Bread\n\n## When to Use\n\n- To bake with `oven/2`\n\n## Steps\n\nKnead it."
    (tmp_path / "documents" / "skill_bread.md").write_text(text)
    make_ingest(edge, encoder).run([], documents=tmp_path / "documents")
    st.cache_data.clear()
    page.run()
    (shown,) = [one for one in page.button if (one.key or "").startswith("browse")]
    assert (shown.label, shown.help) == ("bread (4)", "To bake with \\`oven/2\\`")
    shown.click().run()
    assert not page.exception
    assert "Knead it." in text_of(page)
    assert "## Steps" not in text_of(page), "the label says it"
    assert [one.label for one in page.expander] == ["Introduction", "When to Use", "Steps"]
    page.text_input(key="ask_q").set_value("how to make bread").run()
    assert "To bake with `oven/2`" in [one.value for one in page.caption]


def test_how_sure_an_answer_is_stands_above_it(edge, encoder, make_ingest, write_rows, rows, page):
    page.run()
    page.text_input(key="ask_q").set_value("bread").run()
    assert "too few pairs" in text_of(page), "a small build is not calibrated, and says so"
    many = write_rows(rows([f"thing{number} part{number % 7}" for number in range(40)]), "many.jsonl")
    make_ingest(edge, encoder).run([many], replace=True)
    st.cache_data.clear()
    page.text_input(key="ask_q").set_value("good steps for thing7 part0").run()
    assert "-badge[The right skill: " in text_of(page)
    assert "-badge[This very answer: " in text_of(page)
    page.text_input(key="ask_q").set_value("unrelated nonsense everywhere").run()
    assert not page.exception
    assert "No answer here" in text_of(page)
    assert len(page.warning) == 1
    misses = [one.label for one in page.expander]
    assert len(misses) == 3
    assert all("similarity" in label and "\n" not in label for label in misses)
    assert not [one.value for one in page.markdown if one.value.startswith("#### ")], "no card is open"
    assert {"Browse", "Add this pair", "See every step"} <= {link.label for link in page.get("page_link")}
    assert "Rephrase" in [button.label for button in page.button]
    known = many.read_text().splitlines()[0]
    page.text_input(key="ask_q").set_value(json.loads(known)["question"].upper()).run()
    assert "Matches a known question" in text_of(page)
    assert "No answer here" not in text_of(page)


@pytest.fixture
def noting(edge, encoder, make_ingest, write_rows, rows, engine, serve_app, tmp_path, monkeypatch):
    """Ask what has no answer on a page that is served with settings; gives it and what is kept of the question."""
    many = write_rows(rows([f"thing{number} part{number % 7}" for number in range(40)]), "many.jsonl")
    make_ingest(edge, encoder).run([many], replace=True)

    def asking(**settings):
        served = ServerSettings(**settings)
        kept = QuestionLog(tmp_path / "data", "things", **served.keeping)
        monkeypatch.setenv("QASERVE_API_URL", serve_app(create_app(engine, served, kept=kept)))
        monkeypatch.setenv("QASERVE_API_KEY", settings.get("api_key", ""))
        get_settings.cache_clear()
        st.cache_data.clear()
        st.cache_resource.clear()
        page = AppTest.from_file(str(PAGE), default_timeout=SECONDS)
        page.query_params["q"] = "unrelated nonsense everywhere"
        page.run()
        assert not page.exception
        assert "No answer here" in text_of(page)
        return page, [one.question for one in kept.newest(5)[0]]

    yield asking
    api_cache.client().close()
    st.cache_data.clear()
    st.cache_resource.clear()


NOTED = "Noted under Unanswered questions"


def test_a_question_without_an_answer_is_noted_with_a_way_to_the_list(noting):
    page, kept = noting(keep_questions=True)
    assert kept == ["unrelated nonsense everywhere"]
    (link,) = [one for one in page.get("page_link") if one.label == NOTED]
    assert link.query_string == "ingest_tab=To+improve"
    page.session_state["ingest_tab"] = "To improve"
    opened(page, "ingest")
    assert "## Unanswered questions (1)" in text_of(page)


def test_who_may_only_ask_is_told_that_a_question_is_noted(noting):
    page, kept = noting(keep_questions=True, api_key="asks", write_key="changes")
    assert kept == ["unrelated nonsense everywhere"]
    assert "Noted as an unanswered question" in text_of(page)
    assert NOTED not in [one.label for one in page.get("page_link")]


def test_nothing_is_said_to_be_noted_where_it_is_not(noting):
    page, kept = noting()
    assert kept == []
    assert "Noted" not in " ".join([text_of(page), *(one.label for one in page.get("page_link"))])


def test_a_long_answer_is_folded_until_it_is_opened(edge, encoder, make_ingest, write_rows, ask, page):
    row = {"question": "how to bake bread", "answer": "\n".join(f"Step {number}." for number in range(20))}
    make_ingest(edge, encoder).run([write_rows([row], "long.jsonl")], replace=True)
    ask("how to bake bread")
    (button,) = [one for one in page.button if one.label == "Show all"]
    button.click().run()
    assert not page.exception
    assert "Show all" not in [one.label for one in page.button]


def test_questions_of_the_session_are_offered_again(ask, page):
    ask("how to make bread")
    page.text_input(key="ask_q").set_value("wine").run()
    page.text_input(key="ask_q").set_value("").run()
    recent = [one for one in page.button if (one.key or "").startswith("recent")]
    assert [one.label for one in recent] == ["wine", "how to make bread"]
    recent[1].click().run()
    assert page.query_params["q"] in ("how to make bread", ["how to make bread"])


def test_a_question_without_an_answer_can_become_a_pair(page):
    opened(page, "ingest", question="how to shear sheep")
    assert page.text_input(key="pair_question").value == "how to shear sheep"


def test_a_rerun_repeats_no_request(ask, page, monkeypatch):
    ask("how to make bread")
    sent = []
    real = api_cache.client().send
    monkeypatch.setattr(api_cache.client(), "send", lambda call: sent.append(call.path) or real(call))
    page.run()
    assert sent == []


def test_a_question_is_one_request(page, monkeypatch):
    page.query_params["q"] = "how to make bread"
    page.run()
    sent = []
    real = api_cache.client().send
    monkeypatch.setattr(api_cache.client(), "send", lambda call: sent.append(call.path) or real(call))
    page.text_input(key="ask_q").set_value("how to make wine").run()
    assert "Take material for wine" in text_of(page)
    assert sent == ["/v1/ask"]


def test_an_answer_of_another_build_has_the_builds_read_again(ask, page, edge, encoder, make_ingest, write_rows):
    assert "24 question/answer pairs" in ask("how to make bread")
    row = {"pair_id": "new", "question": "how to make cheese", "answer": "Curdle it."}
    make_ingest(edge, encoder).run([write_rows([row], "more.jsonl")])
    page.text_input(key="ask_q").set_value("how to make cheese").run()
    assert "Curdle it" in text_of(page)
    page.run()
    assert not page.exception
    assert "25 question/answer pairs" in text_of(page)


def test_only_what_is_given_is_sent_so_that_the_build_decides_the_rest(page, monkeypatch):
    sent = []
    real = api_cache.client().send
    monkeypatch.setattr(api_cache.client(), "send", lambda call: sent.append(call) or real(call))
    opened(page, "why", q="how to make bread", temperature="0.3")
    bodies = [call.json for call in sent if call.path in ("/v1/ask", "/v1/map") and call.json]
    bodies = [body for body in bodies if body["question"] == "how to make bread"]  # examples are tried too
    usual = {"question": "how to make bread", "top_k": 5, "filters": {}}
    assert bodies[0] == usual
    assert usual | {"temperature": 0.3} in bodies
    assert all("hits" not in body for body in bodies)


# Why


@pytest.fixture
def why(page):
    def story(question, **address):
        return opened(page, "why", q=question, **address)

    return story


def tables_of(page):
    return [element.value for element in page.dataframe]


@pytest.mark.parametrize("routing", ["question", "question2", "centroid"])
def test_the_story_has_the_figures_of_the_api(why, page, engine, routing):
    text = why("how to make bread", routing=routing)
    trace = engine.ask(AskRequest(question="how to make bread", routing=routing)).trace
    for words in ("clusters", "your question by", "These answers are nearest"):
        assert words in text
    assert ("These known questions are like yours" in text) == bool(trace.hits)
    clusters = next(table for table in tables_of(page) if "weight" in table)
    assert (clusters["weight"] / 100).tolist() == pytest.approx([vote.weight for vote in trace.clusters], rel=1e-4)
    if trace.hits:
        hits = next(table for table in tables_of(page) if "known question" in table)
        assert (hits["share"] / 100).tolist() == pytest.approx([hit.probability for hit in trace.hits], rel=1e-4)


def test_a_control_asks_otherwise_and_says_what_changed(why, page, engine):
    text = why("how to make bread")
    assert "What your changes do" not in text
    assert "The pale wide bars" not in text
    assert "The W of each cluster" in text
    assert "The W of each cluster" not in why("how to make bread", projection="pair")
    del page.query_params["projection"]
    page.run()
    page.select_slider(key="ask_temperature").set_value(0.5).run()
    assert not page.exception
    assert page.query_params["temperature"] == "0.5"
    trace = engine.ask(AskRequest(question="how to make bread", temperature=0.5)).trace
    text = text_of(page)
    assert "What your changes do" in text
    assert "τ = 0.5" in text
    assert f"gets most: {trace.clusters[0].weight:.0%}" in text
    assert text.count("The pale wide bars are the default.") == 2
    table = next(table for table in tables_of(page) if {"default", "now", "cluster"} <= set(table))
    assert table["now"].sum() == pytest.approx(100)
    assert table["now"].iloc[0] == pytest.approx(100 * trace.clusters[0].weight)


def test_options_that_contradict_each_other_can_be_changed_on_why(why, page):
    text = why("how to make bread", routing="centroid", projection="pair")
    assert "eeds known questions that vote" in text
    page.selectbox(key="ask_projection").set_value("").run()
    assert not page.exception
    assert "projection" not in page.query_params
    assert "These answers are nearest" in text_of(page)


@pytest.mark.parametrize("options", [{}, {"temperature": "0.5"}, {"routing": "centroid"}])
def test_charts_are_valid(why, page, options):
    why("how to make bread", **options)
    found = [json.loads(chart.proto.spec) for chart in page.get("vega_lite_chart")]
    assert len(found) >= 5
    for spec in found:
        alt.LayerChart.from_dict(spec)
    with pytest.raises(ValidationError, match="no mark"):
        alt.LayerChart.from_dict({**spec, "layer": [{"mark": "no mark"}]})


WAYS = ("Plain search", "Clusters' centres", "Known questions", "Single pairs")


def ranks_of(page):
    return next(table for table in tables_of(page) if "Plain search" in table)


def test_ways_side_by_side_and_no_student_where_there_is_none(why, page):
    text = why("how to make bread")
    for way in WAYS:
        assert f"**{way}**" in text
    assert "**Student**" not in text
    assert "this build has no student" in text
    assert list(ranks_of(page))[1:] == list(WAYS)


def test_the_student_stands_beside_the_others_where_there_is_one(
    why, page, engine, edge, encoder, make_builder, tmp_path
):
    add_student(make_builder(edge, encoder), "slots-8", tmp_path / "training")
    text = why("how to make bread")
    for way in (*WAYS, "Student"):
        assert f"**{way}**" in text
    assert "no student" not in text
    ranks = ranks_of(page)
    assert list(ranks)[1:] == [*WAYS, "Student"]
    answers = engine.ask(AskRequest(question="how to make bread", projection="student")).answers
    questions = {answer.question: str(answer.rank) for answer in answers}
    shown = {intent: rank for intent, rank in zip(ranks.iloc[:, 0], ranks["Student"], strict=True) if rank != "–"}
    assert sorted(shown.values()) == [str(rank) for rank in range(1, len(answers) + 1)]
    assert {intent: rank for intent, rank in shown.items() if intent in questions}.items() <= questions.items()


def test_a_build_without_a_student_is_not_asked_for_it(why, monkeypatch):
    asked = []
    real = api_cache.client().send
    monkeypatch.setattr(api_cache.client(), "send", lambda call: asked.append(call) or real(call))
    why("how to make bread")
    assert [call.path for call in asked if call.path == "/v1/ask"]
    assert not any("student" in str(call.json) for call in asked)


def test_a_filter_that_an_address_repeats_counts_once(page):
    page.query_params["topics"] = ["wine", "wine"]
    page.session_state["filters"] = True
    page.query_params["q"] = "how to make bread"
    page.run()
    assert not page.exception
    assert [button.label for button in page.button if (button.key or "").startswith("drop")] == ["Topic: wine"]


def test_a_student_is_a_way_to_project_the_question(why, edge, encoder, make_builder, tmp_path):
    add_student(make_builder(edge, encoder), "slots-8", tmp_path / "training")
    text = why("how to make bread", projection="student")
    for words in ("A small network moved your question", "A small network moves your question by"):
        assert words in text


def test_without_a_student_asking_for_it_says_so(why):
    assert "has no student" in why("how to make bread", projection="student")


def test_a_build_without_priors_says_that_there_is_nothing_to_switch(why, page):
    text = why("how to make bread")
    toggle = page.toggle(key="no_priors")
    assert toggle.disabled
    assert "all its known questions count equally" in text
    assert "ask_priors" not in [one.key for one in page.toggle]


def test_priors_can_be_switched_off_and_the_votes_become_those_of_the_api(
    why, page, engine, edge, encoder, make_builder
):
    refit(make_builder(edge, encoder), "entropy")
    text = why("how to make bread")
    assert "no_priors" not in [one.key for one in page.toggle]
    assert page.toggle(key="ask_priors").value
    assert "multiplied by the question's importance" in text
    votes = [engine.ask(AskRequest(question="how to make bread", priors=priors)).trace.hits for priors in (True, False)]
    assert shares_shown(page) == pytest.approx([hit.probability for hit in votes[0]], rel=1e-4)
    page.toggle(key="ask_priors").set_value(False).run()
    assert not page.exception
    assert page.query_params["priors"] == "false"
    text = text_of(page)
    assert "all known questions count equally" in text
    assert "Largest change of a share of the vote" in text
    assert shares_shown(page) == pytest.approx([hit.probability for hit in votes[1]], rel=1e-4)
    page.toggle(key="ask_priors").set_value(True).run()
    assert "priors" not in page.query_params
    assert "What your changes do" not in text_of(page)


def test_priors_in_an_address_are_taken_over(why, page, edge, encoder, make_builder):
    refit(make_builder(edge, encoder), "entropy")
    assert "all known questions count equally" in why("how to make bread", priors="false")
    assert not page.toggle(key="ask_priors").value
    assert "What your changes do" not in why("how to make bread", priors="perhaps")


def shares_shown(page):
    return (next(table for table in tables_of(page) if "votes for" in table)["share"] / 100).tolist()


def test_the_story_begins_in_short(why, engine):
    text = why("how to make bread")
    vote = engine.ask(AskRequest(question="how to make bread")).trace.clusters[0]
    short = next(line for line in text.splitlines() if "**In short.**" in line)
    assert f"**{vote.weight:.0%}** of the vote" in short


def test_with_routing_by_centres_no_question_votes(why, ask, page):
    text = why("how to make bread", routing="centroid")
    assert "The nearest clusters are used" in text
    assert "projections of the nearest clusters" in text
    for words in ("They vote", "voted for"):
        assert words not in text
    assert "of the vote went to" not in opened(page, "search", q="how to make bread", routing="centroid")


def test_the_mechanics_have_the_weights_of_the_api(why, page, engine):
    text = why("how to make bread", temperature="0.2")
    trace = engine.ask(AskRequest(question="how to make bread", temperature=0.2)).trace
    assert "One strong match or many?" in text
    table = next(table for table in tables_of(page) if "free energy" in table)
    assert (table["share of the vote"] / 100).tolist() == pytest.approx(
        [vote.weight for vote in trace.clusters], rel=1e-4
    )
    assert table["hits (g)"].tolist() == [vote.hits for vote in trace.clusters]
    assert "the dashed line the τ = 0.2 of this answer" in text
    assert "the dashed line" not in why("how to make bread", temperature="0.05")


def test_a_temperature_at_which_weights_underflow_has_its_story(why, page):
    assert "One strong match or many?" in why("how to make bread", temperature="0.0001")


def test_the_mechanics_say_so_where_no_question_votes(why, edge, encoder, make_builder, tmp_path):
    add_student(make_builder(edge, encoder), "slots-8", tmp_path / "training")
    words = "so there is no energy to compare"
    assert f"No known question votes with this routing, {words}" in why("how to make bread", routing="centroid")
    assert f"A student answers without a vote, {words}" in why(
        "how to make bread", routing="question", projection="student"
    )


def test_one_known_question_is_one(why, page):
    text = why("how to make bread", hits="1")
    assert "The **1 known question** most like yours" in text
    assert "1 questions" not in text
    text = opened(page, "search", q="how to make bread", hits="1")
    assert "**1 known question** like yours" in text
    assert "1 known questions" not in text


def test_without_projection_the_story_says_so(why):
    assert "Your question is not projected" in why("wine", projection="none")


# The other pages


def opened(page, name, **address):
    page.run()
    page._page_hash = page.session_state["pages"][name]._script_hash
    for key, value in address.items():
        page.query_params[key] = value
    page.run()
    assert not page.exception
    return text_of(page)


def test_clusters_are_listed_searched_and_opened(page, engine):
    text = opened(page, "clusters")
    names = [cluster.name for cluster in engine.load().clusters]
    assert f"{len(names)} clusters" in text
    assert sorted(tables_of(page)[0]["cluster"]) == sorted(names)
    page.text_input(key="cluster_search").set_value("bread").run()
    found = tables_of(page)[0]["cluster"].tolist()
    assert found
    assert all("bread" in name for name in found)
    page.text_input(key="cluster_search").set_value("zyx").run()
    assert "No cluster matches" in text_of(page)


def test_a_cluster_shows_its_pairs_and_figures(page, engine):
    text = opened(page, "clusters", open="0")
    detail = engine.cluster(0)
    assert f"## Its {len(detail.pairs)} pairs" in text
    assert detail.pairs[0].pair.answer in text
    assert "All clusters" in [button.label for button in page.button]


def test_an_address_of_a_cluster_that_is_not_there_shows_all(page):
    assert "clusters. Click one" in opened(page, "clusters", open="99999")


@pytest.mark.parametrize("number", ["99999", "9" * 5_000, "-1", "x"])
def test_a_cluster_that_the_address_names_wrongly_is_said(page, number):
    assert "because it is invalid: open" in opened(page, "clusters", open=number)


def test_results_without_reports_are_those_of_the_public_corpus(page):
    text = opened(page, "results")
    assert "Measured on the public corpus." in text
    assert any(one.value.startswith("## For ") for one in page.markdown)


def test_results_are_read_from_the_folder_of_reports(page, tmp_path):
    source = PAGE.parents[2] / "train" / "published"
    (tmp_path / "reports").mkdir()
    for name in ("calibration.json", "calibration-reliability.png"):
        (tmp_path / "reports" / name).write_bytes((source / name).read_bytes())
    (tmp_path / "reports" / "routing.json").write_text("{}")
    text = opened(page, "results")
    view = api_cache.client().report("calibration")
    first, second = view.summary
    assert f"## {first}" in text.replace("\\", "")
    assert second in text.replace("\\", "")
    assert view.findings
    assert f"{len(view.findings)} findings in the terms of the experiment" in [one.label for one in page.expander]
    assert "is not a report of experiment" in text
    assert str(tmp_path) not in text
    assert "Measured on the public corpus" not in text
    assert "What the terms mean" in [one.label for one in page.expander]
    assert page.table


def test_results_begin_with_one_sentence_and_its_chart(page, tmp_path):
    source = PAGE.parents[2] / "train" / "published"
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "routing.json").write_bytes((source / "routing.json").read_bytes())
    told = api_cache.client().reports().headline
    opened(page, "results")
    headings = [one.value for one in page.markdown if one.value.startswith("## ")]
    assert headings[0].replace("\\", "") == f"## {told.sentence}"
    assert told.bars[0].label == "qaserve"
    (chart,) = page.get("vega_lite_chart")
    assert f"{told.bars[0].share:.0%}" in chart.proto.alt


@pytest.fixture
def asking_page(engine, serve_app, tmp_path, monkeypatch):
    """A page whose key is for asking only."""
    settings = ServerSettings(api_key="asks", write_key="changes")
    log = FeedbackLog(tmp_path / "data", "things")
    monkeypatch.setenv("QASERVE_API_URL", serve_app(create_app(engine, settings, log=log)))
    monkeypatch.setenv("QASERVE_API_KEY", "asks")
    get_settings.cache_clear()
    st.cache_data.clear()
    st.cache_resource.clear()
    yield AppTest.from_file(str(PAGE), default_timeout=SECONDS)
    api_cache.client().close()
    st.cache_data.clear()
    st.cache_resource.clear()


def test_a_page_that_may_only_ask_says_so_before_anything_is_filled_in(asking_page, edge, encoder, make_builder):
    refit(make_builder(edge, encoder), "entropy")
    page = asking_page
    page.query_params["q"] = "how to make bread"
    page.run()
    thumbs = [one for one in page.get("feedback") if one.key]
    assert thumbs
    assert all(one.proto.disabled for one in thumbs)
    assert "This page is read-only" in text_of(page)
    assert "This page is read-only" in opened(page, "ingest")
    assert not page.button
    assert not page.get("file_uploader")
    page.session_state["ingest_tab"] = "Builds"
    text = opened(page, "ingest")
    assert "Set QASERVE_WRITE_KEY to go back" in text
    assert text.count("pairs in") == 2, "both builds are listed"
    assert not page.button
    page.session_state["results_tab"] = "Feedback"
    assert "This page is read-only" in opened(page, "results")
    assert not page.error


def test_a_page_that_may_change_things_offers_to(page, edge, encoder, make_builder):
    refit(make_builder(edge, encoder), "entropy")
    page.query_params["q"] = "how to make bread"
    page.run()
    assert not any(one.proto.disabled for one in page.get("feedback"))
    page.session_state["ingest_tab"] = "Builds"
    opened(page, "ingest")
    assert "Make it live" in [button.label for button in page.button]


def test_a_job_that_is_not_there_is_said(page):
    opened(page, "ingest", job="0" * 32)
    assert page.error


# Importing pairs


@pytest.fixture
def served(engine, encoder, serve_app, monkeypatch, tmp_path):
    """The page over an API that does jobs too."""

    def make(reporter):
        builder = Builder(
            engine.store, encoder.identity, tmp_path / "models", "things", fit=FitSettings(), reporter=reporter
        )
        return Ingest(builder, encoder, ReadSettings())

    with Jobs(tmp_path / "data", "things", make, waiting=3) as jobs:
        monkeypatch.setenv("QASERVE_API_URL", serve_app(create_app(engine, ServerSettings(), jobs=jobs)))
        get_settings.cache_clear()
        st.cache_data.clear()
        st.cache_resource.clear()
        yield AppTest.from_file(str(PAGE), default_timeout=SECONDS)
        api_cache.client().close()
        st.cache_data.clear()
        st.cache_resource.clear()


def settled(page):
    """The page once its job has ended: it asks again every second by itself, a test by running it."""
    deadline = time.monotonic() + SECONDS
    (number,) = page.query_params["job"] if isinstance(page.query_params["job"], list) else [page.query_params["job"]]
    while not api_cache.client().job(number).ended:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    page.run()
    assert not page.exception
    return text_of(page)


def look(page, rows):
    """What the page says to a look at a file of these rows."""
    opened(page, "ingest")
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    page.file_uploader[0].set_value(("pairs.jsonl", content, "application/jsonl")).run()
    button(page, "See what would change").click().run()
    return settled(page)


def button(page, label):
    found = [one for one in page.button if one.label.startswith(label)]
    assert found, [one.label for one in page.button]
    return found[0]


def shown_metrics(page):
    return {metric.label: metric.value for metric in page.metric}


def test_a_look_tells_of_clusters_quality_and_edits_and_changes_nothing(served, engine, rows):
    build = engine.load().ref.build
    edited = rows(["bread", "gold"])
    edited[0]["answer"] = edited[0]["answer"].replace("note 0", "note 99")
    said = look(served, edited)
    assert "What would change" in said
    assert {"Added": "4", "Changed": "1", "Unchanged": "3"}.items() <= shown_metrics(served).items()
    assert ":red-background[~~0~~] :green-background[99]" in said
    assert "Clusters: groups of similar answers" in said
    assert "The answers would be clustered again" in said or "The clusters would stay" in said
    assert "Quality: how well questions find their answers" in said
    assert any(one.label.startswith("Parameters: ") for one in served.expander)
    assert engine.load().ref.build == build
    button(served, "Import pairs").click().run()
    said = settled(served)
    assert "What was done" in said
    assert "The corpus holds 28 pairs" in said
    assert engine.load().ref.build != build


def test_a_look_says_that_the_gate_would_stop_it_and_the_pairs_can_be_imported_anyway(
    served, engine, make_ingest, encoder, write_rows, rows
):
    many = rows([f"thing{number}" for number in range(20)])
    answers = [row["answer"] for row in many]
    mixed = [row | {"answer": answer} for row, answer in zip(many, answers[40:] + answers[:40], strict=True)]
    build = make_ingest(engine.store, encoder).run([write_rows(many)], replace=True).build
    said = look(served, mixed)
    assert "The quality check would stop this import." in said
    assert served.metric[-2].label == "Mean reciprocal rank"
    assert served.metric[-2].delta.startswith("-0.")
    assert any(one.label == "Questions with a worse rank" for one in served.expander)
    assert button(served, "Import pairs").label.endswith("anyway")
    button(served, "Import pairs").click().run()
    said = settled(served)
    assert "The import was forced" in said
    assert engine.load().ref.build != build


def test_a_job_that_the_gate_stopped_can_be_done_anyway(served, engine, make_ingest, encoder, write_rows, rows):
    many = rows([f"thing{number}" for number in range(20)])
    build = make_ingest(engine.store, encoder).run([write_rows(many)], replace=True).build
    look(served, rows(["gold"]))
    answers = [row["answer"] for row in many]
    mixed = [row | {"answer": answer} for row, answer in zip(many, answers[40:] + answers[:40], strict=True)]
    content = "".join(json.dumps(row) + "\n" for row in mixed).encode()
    job = served.session_state["ingest_given"][0]
    served.session_state["ingest_given"] = (job, content, "pairs.jsonl", IngestOptions())  # the file is another by now
    served.run()
    button(served, "Import pairs").click().run()
    said = settled(served)
    assert "the new build finds less than the live one" in said
    assert engine.load().ref.build == build
    assert button(served, "Import pairs").label.endswith("anyway")
    button(served, "Import pairs").click().run()
    assert "The import was forced" in settled(served)
    assert engine.load().ref.build != build


def test_the_preview_of_another_file_is_no_offer_to_import_the_last_one(served, rows, engine):
    look(served, rows(["gold"]))
    first = served.query_params["job"]
    button(served, "New import").click().run()
    look(served, rows(["amber"]))
    served.query_params["job"] = first  # the browser's back
    served.run()
    assert "upload the file again" in text_of(served)
    assert not [one for one in served.button if one.label.startswith("Import")]


def test_a_job_that_ended_before_it_is_cancelled_is_said(served, rows, monkeypatch):
    look(served, rows(["gold"]))
    number = served.session_state["ingest_given"][0]
    running = api_cache.client().job(number).model_copy(update={"state": "running", "finished": None, "report": None})
    with monkeypatch.context() as patch:
        patch.setattr(Client, "job", lambda *_: running)
        served.run()
        button(served, "Cancel").click().run()
        assert not served.exception
        assert f"Job {number} is done already" in " ".join(one.value for one in served.error)

        def gone(*_):
            raise ServiceError("the API does not answer")

        patch.setattr(Client, "job", gone)
        served.run()
        assert not served.exception


def test_what_is_told_of_another_build_is_not_kept_for_the_one_before(
    page, engine, make_ingest, encoder, write_rows, rows
):
    page.run()
    before = engine.load().ref.build
    assert api_cache.live_build().build == before
    make_ingest(engine.store, encoder).run([write_rows(rows(["amber", "cedar"]))])
    assert "2 clusters" not in opened(page, "clusters")
    now = engine.load().ref.build
    assert api_cache.live_build().build == now
    engine.activate(before)
    st.cache_data.clear()
    assert {one(before).build for one in (api_cache.corpus_map, api_cache.quality, api_cache.facets)} == {before}


def test_all_feedback_is_counted_and_the_newest_listed(engine, serve_app, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "JUDGEMENTS", 3)
    (pair,) = engine.pairs("bread_q0").pairs
    build = engine.load().ref.build
    app = create_app(engine, ServerSettings(), log=FeedbackLog(tmp_path / "data", "things"))
    monkeypatch.setenv("QASERVE_API_URL", serve_app(app))
    get_settings.cache_clear()
    st.cache_data.clear()
    st.cache_resource.clear()
    for number in range(5):
        said = FeedbackRequest(question=f"question {number}", pair=pair.id, helpful=number < 4, build=build)
        api_cache.client().say(said)
    page = AppTest.from_file(str(PAGE), default_timeout=SECONDS)
    page.session_state["results_tab"] = "Feedback"
    opened(page, "results")
    assert shown_metrics(page) == {"Judgements": "5", "Helpful": "4", "Not helpful": "1"}
    assert list(tables_of(page)[0]["question"]) == ["question 4", "question 3", "question 2"]
    api_cache.client().close()
    st.cache_data.clear()
    st.cache_resource.clear()


def test_a_look_at_what_is_there_already_says_that_nothing_changes(served, rows):
    assert "No changes." in look(served, rows())
    assert "Clusters: groups" not in text_of(served)


def test_a_table_of_other_fields_is_shown_as_it_would_be_read_and_read_as_the_form_says(served):
    opened(served, "ingest")
    table = b"prompt;reply;kind\nWhy is amber yellow?;It is resin.;stones\n"
    served.file_uploader[0].set_value(("faq.csv", table, "text/csv")).run()
    assert [(one.label, one.value) for one in served.selectbox[:3]] == [
        ("Question", "prompt"),
        ("Answer", "reply"),
        ("Topics", "(none)"),
    ]
    served.selectbox[2].set_value("kind").run()
    assert served.dataframe[0].value.to_dict("records") == [
        {"line": 2, "question": "Why is amber yellow?", "answer": "It is resin.", "topics": "stones"}
    ]
    assert "semicolon between cells" in text_of(served)
    button(served, "See what would change").click().run()
    assert "What would change" in settled(served)
    assert shown_metrics(served)["Added"] == "1"


def test_a_file_without_a_good_line_says_what_is_wrong_with_its_lines_and_what_a_line_looks_like(served):
    said = look(served, [{"question": "no answer"}, {"answer": "no question"}])
    assert "line 1, field answer" in said.replace("\\", "")
    assert "line 2, field question" in said.replace("\\", "")
    assert '{"question": "How do I …?"' in said
    assert "qaserve ingest" not in said
    assert "/uploads/" not in said


def test_headings_that_give_no_pair_are_shown_with_their_lines(served):
    opened(served, "ingest")
    served.file_uploader[0].set_value(("faq.md", b"# Why amber?\nResin.\n# Sizes\nMany.\n", "text/markdown")).run()
    button(served, "See what would change").click().run()
    assert "Their text is in no pair." in settled(served)
    assert "No pair: 1 heading without a question mark" in [one.label for one in served.expander]
    assert {"file": "faq.md", "line": 3, "heading": "Sizes"} in served.dataframe[-1].value.to_dict("records")


def test_a_zip_of_documents_is_shown_before_it_is_imported(served, engine):
    opened(served, "ingest")
    served.segmented_control[0].set_value("Upload documents").run()
    buffer = BytesIO()
    with ZipFile(buffer, "w") as made:
        made.writestr("docs/skill_bread.md", "# Bread")
        made.writestr("docs/skill_salt.md", "")
    served.file_uploader[0].set_value(("docs.zip", buffer.getvalue(), "application/zip")).run()
    button(served, "See what would change").click().run()
    said = settled(served)
    assert "1 document, 1 skill: 1 added." in said
    assert "No changes." not in said
    labels = [one.label for one in served.expander]
    assert {"Changed documents (1)", "Rejected documents (1)"} <= set(labels)
    assert "Names in pairs that lead to no document (5)" in labels
    button(served, "Import docs").click().run()
    assert "What was done" in settled(served)
    assert engine.skill("skill_bread").document.title == "Bread"


def test_a_code_fence_in_the_middle_of_a_line_is_reported(served):
    look(served, [{"pair_id": "fence", "question": "late fence", "answer": "Write: ```sh\nls\n```"}])
    assert "1 pair with a code fence in the middle of a line" in [fold.label for fold in served.expander]


def test_hostile_names_of_clusters_are_shown_as_text(served, engine, make_ingest, encoder, write_rows, rows):
    hostile = rows([f"thing{number}" for number in range(12)])
    for row in hostile:
        row["topics"] = ["<b>x</b> [y](javascript:z)"]
    make_ingest(engine.store, encoder).run([write_rows(hostile)])
    said = look(served, rows(["gold", "amber", "brass"]))
    assert "[y](javascript:z)" not in said
