import sqlite3
from contextlib import closing

import pytest

from qaserve.common.errors import NotFoundError
from qaserve.schemas.ask import AskRequest
from qaserve.service import gaps as module
from qaserve.service.gaps import Gaps, QuestionLog

BUILD = "0123456789ab"


@pytest.fixture
def log(tmp_path):
    return QuestionLog(tmp_path / "data", "things", keeps=True, days=30)


def test_nothing_is_kept_and_no_file_made_unless_it_is_said(tmp_path):
    log = QuestionLog(tmp_path / "data", "things", keeps=False, days=30)
    log.keep("secret?", "abstained", BUILD)
    assert log.newest(10) == ([], 0)
    assert log.delete() == 0
    assert not log.path.exists()


def test_questions_are_kept_newest_first_and_deleted_one_by_one_or_all(log):
    for number in range(4):
        log.keep(f"q{number}", "unhelpful" if number % 2 else "abstained", BUILD)
    found, count = log.newest(3)
    assert count == 4
    assert [(one.question, one.reason) for one in found] == [
        ("q3", "unhelpful"),
        ("q2", "abstained"),
        ("q1", "unhelpful"),
    ]
    assert log.delete(found[0].id) == 1
    with pytest.raises(NotFoundError, match=f"no question {found[0].id} is kept"):
        log.delete(found[0].id)
    assert log.delete() == 3
    assert log.newest(3) == ([], 0)


def test_old_questions_go_by_themselves(log):
    log.keep("old", "abstained", BUILD)
    with closing(sqlite3.connect(log.path)) as other, other:
        other.execute("UPDATE questions SET created = '2020-01-01T00:00:00.000000+00:00'")
    assert log.newest(10) == ([], 0)
    log.keep("new", "abstained", BUILD)
    assert [one.question for one in log.newest(10)[0]] == ["new"]


def test_only_the_newest_are_kept(log, monkeypatch):
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    for number in range(5):
        log.keep(f"q{number}", "abstained", BUILD)
    assert [one.question for one in log.newest(10)[0]] == ["q4", "q3", "q2"]


def test_a_deleted_question_is_not_in_the_file(log):
    log.keep("a most peculiar secret", "abstained", BUILD)
    log.delete()
    with closing(sqlite3.connect(log.path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"peculiar" not in log.path.read_bytes()


def test_a_question_that_cannot_be_kept_is_told_without_its_text(log, caplog):
    log.path.mkdir(parents=True)
    log.keep("a most peculiar secret", "abstained", BUILD)
    assert "questions could not be kept (1): " in caplog.text
    assert "peculiar" not in caplog.text


def test_alike_questions_are_a_theme_with_its_nearest_cluster(engine, log):
    for text in ("make bread now", "produce steel", "make bread today", "make bread"):
        log.keep(text, "abstained", BUILD)
    log.keep("make bread, please", "unhelpful", BUILD)
    gaps = Gaps(engine, log)
    found = gaps.themes()
    assert (found.questions, found.looked_at, found.keeps, found.days) == (5, 5, True, 30)
    first, second = found.themes
    assert (first.count, first.abstained) == (4, 3)
    assert first.question == "make bread"
    assert {one.question for one in first.questions} == {
        "make bread now",
        "make bread today",
        "make bread",
        "make bread, please",
    }
    assert second.question == "produce steel"
    stored = next(pair for pair in engine.pairs("bread_q0").pairs)
    assert "bread" in first.known
    assert first.cluster == stored.cluster
    assert first.cluster_name == engine.load().clusters[stored.cluster].name
    before = len(engine.encoder.encoded)
    gaps.themes()
    assert len(engine.encoder.encoded) == before, "a question is encoded once"


def test_without_questions_there_are_no_themes(engine, log):
    assert Gaps(engine, log).themes().themes == ()


def test_all_questions_of_a_request_are_kept_at_once(engine, log, monkeypatch):
    written, write = [], log._database.write
    monkeypatch.setattr(log._database, "write", lambda: written.append(1) or write())
    answered = engine.ask(AskRequest(question="How do I make bread?"))

    def result(question, *, abstained):
        confidence = answered.confidence.model_copy(update={"abstained": abstained})
        return answered.model_copy(update={"question": question, "confidence": confidence})

    log.keep_abstained([result("a", abstained=True), result("b", abstained=False), result("c", abstained=True)])
    log.keep_abstained([result("d", abstained=False)])
    assert len(written) == 1
    assert [one.question for one in log.newest(10)[0]] == ["c", "a"]
