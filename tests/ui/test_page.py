from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from qaserve.api import create_app
from qaserve.settings import ServerSettings, get_settings
from ui import data

PAGE = Path(__file__).parents[2] / "ui" / "app.py"
SECONDS = 60


@pytest.fixture
def url(engine, serve_app):
    return serve_app(create_app(engine, ServerSettings()))


@pytest.fixture
def page(url, monkeypatch):
    monkeypatch.setenv("QASERVE_API_URL", url)
    get_settings.cache_clear()
    st.cache_data.clear()
    st.cache_resource.clear()
    yield AppTest.from_file(str(PAGE), default_timeout=SECONDS)
    data.client().close()
    st.cache_data.clear()
    st.cache_resource.clear()


def text_of(page):
    kinds = (page.markdown, page.caption, page.info, page.warning, page.error, page.code)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def test_the_first_thing_is_the_question_box_and_examples_follow(page):
    page.run()
    assert not page.exception
    widgets = [element for element in page.main if hasattr(element, "label")]
    assert widgets[0].key == "q"
    assert len(page.button) == 4
    assert "24 question/answer pairs" in text_of(page)


def test_an_answer_comes_with_every_reason(page, engine):
    page.run()
    page.text_input(key="q").set_value("how to make bread").run()
    assert not page.exception
    text = text_of(page)
    assert "Take material for bread" in text
    assert "skill\\_bread" in text
    assert "These known questions are most like yours" in text
    assert "Words in common with the first answer: `bread`" in text
    hits, clusters, raw = (table.value for table in page.dataframe)
    from qaserve.records import AskRequest

    trace = engine.ask(AskRequest(question="how to make bread")).trace
    assert hits["vote"].tolist() == pytest.approx([hit.probability for hit in trace.hits[: len(hits)]], rel=1e-4)
    assert clusters["weight"].tolist() == pytest.approx(
        [vote.weight for vote in trace.clusters[: len(clusters)]], rel=1e-4
    )
    assert raw["answers the question"].tolist() == [answer.question for answer in trace.raw_answers]


def test_an_example_asks_itself(page):
    page.run()
    example = page.button[0]
    example.click().run()
    assert page.text_input(key="q").value
    assert "Why these answers" in text_of(page)


@pytest.mark.parametrize("routing", ["question", "question2", "centroid"])
def test_every_routing_is_drawn(page, routing):
    page.run()
    page.text_input(key="q").set_value("wine")
    page.selectbox(key="routing").set_value(routing).run()
    assert not page.exception
    assert ("These known questions are most like yours" in text_of(page)) == (routing != "centroid")
    assert ("Their votes add up to the weight" in text_of(page)) == (routing == "question")
    assert ("a final softmax over the sums" in text_of(page)) == (routing == "question2")


def test_without_projection_the_page_says_so(page):
    page.run()
    page.text_input(key="q").set_value("wine")
    page.selectbox(key="projection").set_value("none").run()
    assert not page.exception
    assert "Your question is not moved" in text_of(page)


def test_a_contradiction_is_an_error_with_a_way_out(page):
    page.run()
    page.text_input(key="q").set_value("wine")
    page.selectbox(key="routing").set_value("centroid")
    page.selectbox(key="projection").set_value("pair").run()
    assert "needs known questions that vote" in page.error[0].value


def test_a_server_that_is_gone_is_said_and_can_be_tried_again(page, monkeypatch, unused_port):
    monkeypatch.setenv("QASERVE_API_URL", f"http://127.0.0.1:{unused_port - 1}")
    get_settings.cache_clear()
    page.run()
    assert "does not answer" in page.error[0].value
    assert [button.label for button in page.button] == ["Try again"]


def test_hostile_text_is_shown_as_text(memory, encoder, make_ingest, write_rows, rows, page):
    hostile = {
        "question": "<script>alert(1)</script> ![x](http://evil/x.png) $a$ :red[b]",
        "answer": "<img src=http://evil/y.png> ![x](http://evil/x.png) costs $1 or $2",
        "related_skills": ["**bold**<b>.md"],
        "related_docs": ["`x`<i>"],
    }
    make_ingest(memory, encoder).run([write_rows([hostile], "hostile.jsonl")], replace=True)
    page.run()
    page.text_input(key="q").set_value("script alert").run()
    assert not page.exception
    text = text_of(page)
    assert "![" not in text
    assert "\\<script\\>" in text
    assert all(not element.allow_html for element in page.markdown)


def test_a_notice_of_the_operator_is_on_top(page, monkeypatch):
    monkeypatch.setenv("QASERVE_NOTICE", "This is the sample corpus.")
    get_settings.cache_clear()
    page.run()
    assert "sample corpus" in page.info[0].value


def test_how_sure_an_answer_is_stands_above_it(memory, encoder, make_ingest, write_rows, rows, page):
    page.run()
    page.text_input(key="q").set_value("bread").run()
    assert "too few pairs" in text_of(page), "a small build is not calibrated, and says so"
    many = write_rows(rows([f"thing{number} part{number % 7}" for number in range(40)]), "many.jsonl")
    make_ingest(memory, encoder).run([many], replace=True)
    st.cache_data.clear()
    page.text_input(key="q").set_value("steps for good thing7 part0").run()
    assert "Confidence **" in text_of(page)
    assert "#### Answers" in text_of(page)
    page.text_input(key="q").set_value("unrelated nonsense everywhere").run()
    assert not page.exception
    assert "Nothing here seems to answer this" in page.warning[0].value
    assert "#### Nearest pairs" in text_of(page)
