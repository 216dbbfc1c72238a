"""What would make the corpus better: intents that overlap, and questions without an answer."""

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from qaserve.api import create_app
from qaserve.service.gaps import QuestionLog
from qaserve.settings import ServerSettings, get_settings
from ui import api_cache


def script():
    from ui import review

    review.draw()


@pytest.fixture
def draw(engine, serve_app, monkeypatch, tmp_path):
    """Draw the page of an API with these settings, over a log that holds one question."""
    log = QuestionLog(tmp_path / "data", "things", keeps=True, days=5)
    log.keep("polish *silver*", "abstained", "0123456789ab")

    def drawing(**settings):
        app = create_app(engine, ServerSettings(**settings), kept=log)
        monkeypatch.setenv("QASERVE_API_URL", serve_app(app))
        get_settings.cache_clear()
        st.cache_data.clear()
        st.cache_resource.clear()
        page = AppTest.from_function(script, default_timeout=120)
        page.run()
        assert not page.exception
        return page

    yield drawing
    api_cache.client().close()
    st.cache_data.clear()
    st.cache_resource.clear()


def headings(page):
    return [one.value for one in page.markdown]


def test_open_questions_are_shown_and_deleted_where_they_are_kept(draw):
    page = draw(keep_questions=True)
    assert "## Unanswered questions (1)" in headings(page)
    assert any("Nearest cluster" in one.value.columns for one in page.dataframe)
    page.button(key="gaps_delete").click().run()
    assert not page.exception
    assert "## Unanswered questions (0)" in headings(page)


def test_they_are_not_shown_where_none_are_kept(draw):
    page = draw()
    assert not any("Unanswered" in one for one in headings(page))
    assert any("QASERVE_KEEP_QUESTIONS" in one.value for one in page.caption)


def test_intents_that_overlap_are_shown(draw, rows, monkeypatch):
    from qaserve.client.http import Client

    real = Client.overlaps
    monkeypatch.setattr(Client, "overlaps", lambda self: real(self, 0.5))
    page = draw()
    (shown,) = (one.value for one in page.dataframe if "merge" in one.value.columns)
    assert f"## Similar intents ({len(shown)})" in headings(page)
    assert all(name.startswith("make_") for name in [*shown["keep"], *shown["merge"]])
    texts = {row[name] for row in rows() for name in ("question", "answer")}
    assert texts.issuperset([*shown["keep_text"], *shown["merge_text"]])


def test_without_overlaps_that_is_said(draw, monkeypatch):
    from qaserve.client.http import Client

    real = Client.overlaps
    monkeypatch.setattr(Client, "overlaps", lambda self: real(self, 1.0))
    page = draw()
    assert "## Similar intents (0)" in headings(page)
    assert not any("merge" in one.value.columns for one in page.dataframe)
