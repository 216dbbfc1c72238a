import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from fastapi.testclient import TestClient

from ingest.judgements import read_judgements
from qaserve.api import create_app
from qaserve.client.http import Client
from qaserve.common.errors import NotFoundError, UsageError
from qaserve.schemas.ask import AskRequest
from qaserve.schemas.feedback import AnswerContext, Feedback, FeedbackRequest
from qaserve.service.feedback import FeedbackLog, the_log
from qaserve.settings import ReadSettings, ServerSettings

QUESTION = "Which recipe gives the best bread?"
WRITER = """
import sys
from pathlib import Path
from qaserve.service.feedback import FeedbackLog
from qaserve.schemas.ask import AskRequest
from qaserve.schemas.feedback import AnswerContext, Feedback, FeedbackRequest

log, name, number = FeedbackLog(Path(sys.argv[1]), "things"), sys.argv[2], 0
while True:
    number += 1
    log.append(Feedback(id=f"{name}-{number}", created="now", corpus="things", build="b", question="q" * 9000,
                        point="p", pair_id="p", cluster_id="c", helpful=True))
    print(f"{name}-{number}", flush=True)
"""


def record(name="one", **changed):
    given = {
        "id": name, "created": "2026-01-01T00:00:00+00:00", "corpus": "things", "build": "0" * 12,
        "question": "How?", "point": "0-0", "pair_id": "bread_q0", "cluster_id": "make_bread", "helpful": True,
    }  # fmt: skip
    return Feedback.model_validate(given | changed)


def ids(log):
    return [one.id for one in log.page().feedback]


@pytest.fixture
def log(tmp_path):
    return FeedbackLog(tmp_path / "data", "things")


@pytest.fixture
def http(engine, log):
    with TestClient(create_app(engine, ServerSettings(), log=log), raise_server_exceptions=False) as client:
        yield client


def test_what_is_kept_comes_back_in_order(log):
    assert log.page().feedback == ()
    for name in ("first", "second", "third"):
        log.append(record(name, comment="a\nb \u2028 “c”"))
    page = log.page()
    assert [one.id for one in page.feedback] == ["first", "second", "third"]
    assert page.feedback[0] == record("first", comment="a\nb \u2028 “c”")
    assert (page.next, page.unreadable) == (None, 0)


def test_pages_follow_each_other(log):
    for number in range(7):
        log.append(record(str(number)))
    found, after = [], 0
    while after is not None:
        page = log.page(after, 3)
        found.append([one.id for one in page.feedback])
        after = page.next
    assert found == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    with pytest.raises(UsageError, match="after=8 is not the number of a record of corpus 'things'"):
        log.page(8)
    with pytest.raises(UsageError, match="after=999999 is not"):
        log.page(999_999)


def test_a_record_that_cannot_be_read_is_counted(log):
    log.append(record("first"))
    with closing(sqlite3.connect(log.path)) as other, other:
        other.execute("INSERT INTO feedback (record) VALUES ('{\"colour\": \"red\"}'), ('not json')")
    log.append(record("last"))
    page = log.page()
    assert ([one.id for one in page.feedback], page.unreadable) == (["first", "last"], 2)


def test_the_file_of_version_01_is_imported_once_and_left(log):
    old = log.path.with_suffix(".jsonl")
    old.parent.mkdir(parents=True)
    lines = [
        record("first", comment="a\u2028b").model_dump_json(),
        '{"colour": "red"}',
        record("second").model_dump_json(),
    ]
    written = "\n".join(lines).encode() + b'\n{"id": "half a line, never acknowledged'
    old.write_bytes(written)
    page = log.page()
    assert ([one.id for one in page.feedback], page.unreadable) == (["first", "second"], 1)
    assert page.feedback[0].comment == "a\u2028b"
    log.append(record("third"))
    assert ids(FeedbackLog(log.path.parents[1], "things")) == ["first", "second", "third"]
    assert old.read_bytes() == written


def test_reading_creates_nothing(log):
    assert log.page().feedback == ()
    assert not log.path.parent.exists()


def test_threads_and_logs_of_one_file_do_not_mix_lines(tmp_path):
    def write(name):
        own = FeedbackLog(tmp_path, "things")
        for number in range(20):
            own.append(record(f"{name}-{number}", comment=name * 500))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = ids(FeedbackLog(tmp_path, "things"))
    assert sorted(found) == sorted(f"{name}-{number}" for name in "abcd" for number in range(20))


def test_what_was_acknowledged_outlives_kill_9(tmp_path, rng):
    """Two processes append to one file and are killed in the middle, again and again."""
    acknowledged = []
    for turn in range(6):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(tmp_path), f"{turn}{name}"], stdout=subprocess.PIPE, text=True
            )
            for name in "ab"
        ]
        acknowledged += [writer.stdout.readline().strip() for writer in writers]  # they have begun
        time.sleep(rng.uniform(0, 0.05))
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        for writer in writers:
            acknowledged += [line.strip() for line in writer.stdout if line.endswith("\n")]
            writer.stdout.close()
            assert writer.wait() == -signal.SIGKILL
    log = FeedbackLog(tmp_path, "things")
    log.append(record("the last"))
    page = log.page()
    found = [one.id for one in page.feedback]
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found))
    assert found[-1] == "the last"
    assert page.unreadable == 0


def test_the_log_is_found_without_the_store(tmp_path):
    with pytest.raises(NotFoundError, match="there is no feedback in"):
        the_log(tmp_path, None)
    FeedbackLog(tmp_path, "things").append(record())
    assert the_log(tmp_path, None).corpus == "things"
    with pytest.raises(NotFoundError, match="there is no feedback on corpus 'other'"):
        the_log(tmp_path, "other")
    (tmp_path / "feedback" / "other.jsonl").write_text(record().model_dump_json() + "\n")  # of version 0.1
    assert ids(the_log(tmp_path, "other")) == ["one"]
    with pytest.raises(UsageError, match="several corpora: other, things"):
        the_log(tmp_path, None)


# Through the API


def asked(http, **changed):
    result = http.post("/v1/ask", json={"question": QUESTION}).json()
    return {
        "question": QUESTION, "pair": result["answers"][0]["id"], "helpful": True, "build": result["build"],
    } | changed  # fmt: skip


def test_feedback_is_kept_and_listed(http, log):
    trace = {"routing": "question", "projection": "cluster", "temperature": 0.05, "rank": 1, "score": 0.9}
    reply = http.post("/v1/feedback", json=asked(http, comment="yes", trace=trace))
    assert reply.status_code == 201, reply.text
    (kept,) = log.page().feedback
    assert kept.id == reply.json()["id"]
    assert (kept.question, kept.helpful, kept.comment) == (QUESTION, True, "yes")
    assert kept.trace.temperature == 0.05
    assert kept.cluster_id == "make_bread"
    second = http.post("/v1/feedback", json=asked(http, pair="wine_q1", helpful=False)).json()["id"]
    page = http.get("/v1/feedback?limit=1").json()
    assert [one["id"] for one in page["feedback"]] == [kept.id]
    page = http.get(f"/v1/feedback?limit=1&after={page['next']}").json()
    assert [one["id"] for one in page["feedback"]] == [second]
    assert page["next"] is None
    assert page["feedback"][0]["pair_id"] == "wine_q1"


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"pair": "nobody"}, 404, "no pair 'nobody' in build"),
        ({"pair": "00000000-0000-0000-0000-000000000000"}, 404, "no pair"),
        ({"build": "0" * 12}, 404, "no build '000000000000' of corpus 'things'"),
        ({"build": "../../x"}, 422, "build: "),
        ({"pair": ""}, 422, "pair: "),
        ({"pair": "x" * 600}, 422, "pair: "),
        ({"question": ""}, 422, "the question is empty"),
        ({"question": "x" * 5000}, 422, "5,000 characters"),
        ({"question": "\ud800"}, 422, ""),
        ({"comment": "\ud800"}, 422, ""),
        ({"comment": "x" * 2001}, 422, "comment: "),
        ({"helpful": "perhaps"}, 422, "helpful: "),
        ({"trace": {"temperature": -1}}, 422, "trace.temperature: "),
        ({"trace": {"colour": "red"}}, 422, "trace.colour: "),
        ({"colour": "red"}, 422, "colour: There is no such field (got 'red')"),
    ],
)
def test_feedback_that_cannot_be_meant_is_refused(http, log, changed, status, message):
    body = json.dumps(asked(http, **changed))
    reply = http.post("/v1/feedback", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == status, reply.text
    assert message in reply.json()["error"]["message"]
    assert reply.json()["error"]["hint"]
    assert log.page().feedback == ()


def test_a_pair_id_of_several_intents_must_be_told_apart(edge, encoder, make_ingest, write_rows, rows, engine, log):
    twice = [row | {"pair_id": "same"} for row in rows(["amber", "brass"])]
    make_ingest(edge, encoder).run([write_rows(twice, "twice.jsonl")])
    with TestClient(create_app(engine, ServerSettings(), log=log)) as http:
        reply = http.post("/v1/feedback", json=asked(http, pair="same"))
    assert reply.status_code == 422
    assert "'same' names 8 pairs of different intents" in reply.json()["error"]["message"]


def test_reading_and_writing_feedback_need_the_write_key(engine, log):
    settings = ServerSettings(api_key="reader", write_key="writer")
    with TestClient(create_app(engine, settings, log=log)) as http:
        headers = {"Authorization": "Bearer writer"}
        result = http.post("/v1/ask", json={"question": QUESTION}, headers=headers).json()
        body = {"question": QUESTION, "pair": "bread_q0", "helpful": True, "build": result["build"]}
        assert http.post("/v1/feedback", json=body).status_code == 401
        assert http.post("/v1/feedback", json=body, headers={"Authorization": "Bearer reader"}).status_code == 403
        assert http.get("/v1/feedback", headers={"Authorization": "Bearer reader"}).status_code == 403
        assert http.post("/v1/feedback", json=body, headers=headers).status_code == 201
        assert len(http.get("/v1/feedback", headers=headers).json()["feedback"]) == 1


def test_what_is_exported_is_a_file_of_judgements(http, log, tmp_path):
    http.post("/v1/feedback", json=asked(http))
    http.post("/v1/feedback", json=asked(http, pair="wine_q1", helpful=False))
    exported = tmp_path / "said.jsonl"
    exported.write_text("".join(one.model_dump_json() + "\n" for one in log.page().feedback))
    found = read_judgements(exported, ReadSettings())
    assert [(one.question, one.helpful) for one in found.judgements] == [(QUESTION, True), (QUESTION, False)]
    assert found.bad == ()


def test_the_client_says_and_lists(engine, log, serve_app):
    with Client(serve_app(create_app(engine, ServerSettings(), log=log))) as client:
        result = client.ask(AskRequest(question=QUESTION))
        given = FeedbackRequest(
            question=QUESTION, pair=result.answers[0].id, helpful=True, build=result.build, trace=AnswerContext(rank=1)
        )
        kept = client.say(given)
        page = client.feedback(limit=1)
    assert [one.id for one in page.feedback] == [kept.id]
    assert page == log.page()
