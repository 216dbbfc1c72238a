"""Questions without an answer, over HTTP."""

import json
import logging

import pytest
from fastapi.testclient import TestClient

from qaserve.api import create_app
from qaserve.client.http import Client
from qaserve.common.errors import ForbiddenError, NotFoundError
from qaserve.schemas.ask import AskRequest, Confidence
from qaserve.search.confidence import Sureness
from qaserve.service.feedback import FeedbackLog
from qaserve.service.gaps import QuestionLog
from qaserve.settings import ServerSettings


@pytest.fixture(autouse=True)
def unsure(monkeypatch):
    """The engine abstains on what is about cheese."""
    from qaserve.search import engine

    def confidences_of(query, found, answers, ranked):
        sure = Confidence(value=0.1, abstained=len(asked) > 0 and "cheese" in asked[-1], reason="x")
        return Sureness(sure, [None] * len(ranked.names))

    asked = []
    real = engine.Engine.search

    def search(self, query, *given):
        asked.append(query.question)
        return real(self, query, *given)

    monkeypatch.setattr(engine.Engine, "search", search)
    monkeypatch.setattr(engine, "confidences_of", confidences_of)


@pytest.fixture
def serve(engine, tmp_path):
    def make(**settings):
        log = FeedbackLog(tmp_path / "data", "things")
        chosen = ServerSettings(**settings)
        kept = QuestionLog(tmp_path / "data", "things", **chosen.keeping)
        return create_app(engine, chosen, log=log, kept=kept)

    return make


def asked_and_judged(http):
    """A question that is answered, one that is not, and feedback of both kinds."""
    for question in ("how to make bread", "my cheese"):
        found = http.post("/v1/ask", json={"question": question}).json()
    for helpful in (True, False):
        body = {"question": f"helpful {helpful}", "pair": found["answers"][0]["id"], "helpful": helpful}
        assert http.post("/v1/feedback", json=body | {"build": found["build"]}).status_code == 201


def test_what_was_abstained_on_or_unhelpful_is_kept_and_can_be_deleted(serve, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    with TestClient(serve(keep_questions=True)) as http:
        asked_and_judged(http)
        found = http.get("/v1/gaps").json()
        kept = {one["question"]: one for theme in found["themes"] for one in theme["questions"]}
        assert {text: one["reason"] for text, one in kept.items()} == {
            "my cheese": "abstained",
            "helpful False": "unhelpful",
        }
        builds = http.get("/v1/builds").json()
        assert (builds["keeps_questions"], builds["keep_days"]) == (True, 90)
        assert http.delete(f"/v1/gaps/{kept['my cheese']['id']}").json() == {"deleted": 1}
        assert http.delete(f"/v1/gaps/{kept['my cheese']['id']}").status_code == 404
        assert http.delete("/v1/gaps").json() == {"deleted": 1}
        assert http.get("/v1/gaps").json()["questions"] == 0
    assert "my cheese" not in caplog.text


def test_nothing_is_kept_unless_it_is_set(serve, tmp_path):
    with TestClient(serve()) as http:
        asked_and_judged(http)
        assert http.get("/v1/gaps").json() | {"build": ""} == {
            "build": "",
            "keeps": False,
            "days": 90,
            "questions": 0,
            "looked_at": 0,
            "themes": [],
        }
        assert http.get("/v1/builds").json()["keeps_questions"] is False
    assert not (tmp_path / "data" / "gaps").exists()


def test_gaps_need_the_key_that_feedback_needs(serve, serve_app):
    url = serve_app(serve(keep_questions=True, api_key="reading", write_key="writing"))
    with Client(url, key="reading") as reader, Client(url, key="writing") as writer:
        reader.ask(AskRequest(question="my cheese"))
        for call in (reader.gaps, reader.delete_gaps):
            with pytest.raises(ForbiddenError):
                call()
        (theme,) = writer.gaps().themes
        assert json.loads(theme.skeleton())["questions"] == ["my cheese"]
        with pytest.raises(NotFoundError, match="no question 99 is kept"):
            writer.delete_gaps(99)
        assert writer.delete_gaps().deleted == 1
