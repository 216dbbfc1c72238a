import asyncio
import threading

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from ingest.jobs import Jobs
from qaserve.api import create_app
from qaserve.client import endpoints
from qaserve.client.endpoints import Call
from qaserve.client.http import MAX_PAUSE_SECONDS, AsyncClient, Client
from qaserve.common.errors import TABLE, AccessError, BusyError, LimitError, NotFoundError, QaserveError, ServiceError
from qaserve.schemas.ask import AskRequest, Filters
from qaserve.schemas.feedback import FeedbackRequest
from qaserve.schemas.jobs import IngestRequest
from qaserve.schemas.params import SearchParams
from qaserve.schemas.service import Health
from qaserve.search.engine import Engine
from qaserve.service.feedback import FeedbackLog
from qaserve.settings import ServerSettings

QUESTION = "Which recipe gives the best bread?"


@pytest.fixture(params=["sync", "async"])
def talk(request):
    """Call a method of the sync or of the async client."""

    def sync(url, name, *arguments, **options):
        with Client(url, **options) as client:
            return getattr(client, name)(*arguments)

    def asynchronous(url, name, *arguments, **options):
        async def run():
            async with AsyncClient(url, **options) as client:
                return await getattr(client, name)(*arguments)

        return asyncio.run(run())

    return sync if request.param == "sync" else asynchronous


@pytest.fixture
def scripted(serve_app):
    """An API that answers a health check with one (status, code, headers) after the other; the last one stays."""

    def start(*replies):
        app, seen = FastAPI(), []

        @app.api_route("/readyz", methods=["GET", "POST"])
        def readyz():
            status, code, headers = replies[min(len(seen), len(replies) - 1)]
            seen.append(status)
            body = {"version": "1"} if status == 200 else {"error": {"code": code, "message": "m", "hint": "h"}}
            return JSONResponse(body, status_code=status, headers=headers)

        return serve_app(app), seen

    return start


BUSY = (503, "busy", {"Retry-After": "0"})
FULL = (429, "rate_limited", {"Retry-After": "0.01"})
READY = (200, "", {})


def test_both_clients_return_the_records_of_the_engine(talk, engine, serve_app):
    url = serve_app(create_app(engine, ServerSettings()))
    live = engine.load()
    result = talk(url, "ask", AskRequest(question=QUESTION, top_k=2, filters=Filters(topics=("bread",))))
    assert result.answers[0].pair_id.startswith("bread")
    assert result.explained.filters.topics == ("bread",)
    assert talk(url, "clusters").clusters == live.clusters
    assert talk(url, "cluster", 0) == engine.cluster(0)
    assert talk(url, "pairs", "bread_q0") == engine.pairs("bread_q0")
    assert talk(url, "builds").builds[0].build == live.ref.build
    assert talk(url, "ready").corpus == "things"
    with pytest.raises(NotFoundError, match="no pair 'a/b'") as raised:
        talk(url, "pairs", "a/b")
    assert raised.value.hint
    assert raised.value.retry_after is None


def test_what_a_request_leaves_out_comes_from_the_build(talk, engine, serve_app, tmp_path):
    own = SearchParams(temperature=0.3, hits=7, lexical_weight=0.4, topic_weight=0.2, second_share=0.1, priors=False)
    other = Engine(engine.store, engine.encoder, tmp_path / "models", "things", own)
    url = serve_app(create_app(other, ServerSettings()))
    params = talk(url, "ask", AskRequest(question=QUESTION)).explained.params
    assert {name: getattr(params, name) for name in own.given} == own.given
    params = talk(url, "place", AskRequest(question=QUESTION, hits=3)).result.explained.params
    assert {name: getattr(params, name) for name in own.given} == own.given | {"hits": 3}


@pytest.mark.parametrize("endpoint", [endpoints.ask, endpoints.place])
def test_only_the_parameters_that_are_given_are_sent(endpoint):
    request = AskRequest(question="bread", temperature=0.05, filters={"topics": ["wine"]})
    assert endpoint(request).json == {"question": "bread", "temperature": 0.05, "filters": {"topics": ["wine"]}}


def test_both_clients_change_what_may_be_changed(
    talk, engine, encoder, make_ingest, write_rows, rows, serve_app, tmp_path
):
    before = engine.load().ref.build
    ingest = make_ingest(engine.store, encoder)
    log = FeedbackLog(tmp_path / "data", "things")
    with Jobs(tmp_path / "data", "things", lambda _: ingest, waiting=3) as jobs:
        url = serve_app(create_app(engine, ServerSettings(), log=log, jobs=jobs))
        job = talk(url, "ingest", IngestRequest(pairs=rows(["tea"])))
        while not job.ended:
            job = talk(url, "job", job.id)
        assert job.report.added == 4
        assert talk(url, "activate", before).live
        said = FeedbackRequest(question=QUESTION, pair="bread_q0", helpful=True, build=before)
        kept = talk(url, "say", said)
    assert [record.id for record in log.page().feedback] == [kept.id]


@pytest.mark.parametrize("kind", TABLE)
def test_every_error_reaches_a_caller_as_itself(talk, scripted, kind):
    url, _ = scripted((TABLE[kind].status, TABLE[kind].code, {}))
    with pytest.raises(QaserveError, match="m") as raised:
        talk(url, "ready")
    assert type(raised.value) is kind
    assert raised.value.hint == "h"


def test_a_busy_api_is_asked_again_when_it_says(talk, scripted):
    url, seen = scripted(BUSY, FULL, READY)
    assert talk(url, "ready", retries=2).version == "1"
    assert seen == [503, 429, 200]


def test_the_number_of_retries_is_bounded(talk, scripted):
    url, seen = scripted(BUSY, BUSY, FULL)
    with pytest.raises(LimitError, match="m") as raised:
        talk(url, "ready", retries=2)
    assert seen == [503, 503, 429]
    assert raised.value.retry_after == 0.01


@pytest.mark.parametrize(
    ("reply", "kind", "seconds"),
    [
        ((503, "busy", {"Retry-After": str(MAX_PAUSE_SECONDS + 1)}), BusyError, MAX_PAUSE_SECONDS + 1),
        ((503, "busy", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), BusyError, None),
        ((503, "busy", {"Retry-After": "inf"}), BusyError, None),
        ((503, "busy", {"Retry-After": "nan"}), BusyError, None),
        ((503, "busy", {}), BusyError, None),
        ((404, "not_found", {"Retry-After": "0"}), NotFoundError, None),
    ],
)
def test_what_does_not_say_to_come_back_soon_is_raised_at_once(talk, scripted, reply, kind, seconds):
    url, seen = scripted(reply)
    with pytest.raises(kind, match="m") as raised:
        talk(url, "ready", retries=5)
    assert len(seen) == 1
    assert raised.value.retry_after == seconds


def test_no_retries_means_none(talk, scripted):
    url, seen = scripted(BUSY)
    with pytest.raises(BusyError, match="m"):
        talk(url, "ready", retries=0)
    assert len(seen) == 1


def test_what_changes_something_is_sent_once(talk, scripted):
    url, seen = scripted(BUSY)
    with pytest.raises(BusyError, match="m") as raised:
        talk(url, "send", Call("POST", "/readyz", Health, repeatable=False), retries=5)
    assert len(seen) == 1
    assert raised.value.retry_after == 0


def test_who_does_not_answer_or_talks_nonsense_is_named(talk, unused_port, http_server):
    with pytest.raises(ServiceError, match=f"the API at http://127.0.0.1:{unused_port} does not answer: [A-Z][a-z]"):
        talk(f"http://127.0.0.1:{unused_port}/", "ready")
    for status in (200, 301, 502):
        url = http_server(status=status, body=b"<html>proxy</html>", content_type="text/html")
        with pytest.raises(ServiceError, match=f"{url}/readyz answered HTTP {status} with a body that is not"):
            talk(url, "ready")


def test_an_answer_that_takes_too_long_is_given_up(talk, serve_app):
    app, stop = FastAPI(), threading.Event()

    @app.get("/readyz")
    def readyz() -> None:
        stop.wait()

    url = serve_app(app)
    try:
        with pytest.raises(ServiceError, match="does not answer"):
            talk(url, "ready", timeout=0.05)
    finally:
        stop.set()


def test_the_key_is_sent(talk, engine, serve_app):
    url = serve_app(create_app(engine, ServerSettings(api_key="the key")))
    assert talk(url, "builds", key="the key").corpus == "things"
    for key in (None, "another"):
        with pytest.raises(AccessError, match="missing or wrong"):
            talk(url, "builds", key=key)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("settings", "url", "key"),
    [
        ({}, "http://127.0.0.1:8000", None),
        ({"port": 8123, "host": "localhost"}, "http://localhost:8123", None),
        ({"api_url": "http://there:1/", "api_key": "asks"}, "http://there:1", "asks"),
        ({"api_url": "http://there:1", "api_key": "asks", "write_key": "writes"}, "http://there:1", "writes"),
    ],
)
def test_a_client_of_the_settings(kind, settings, url, key):
    client = kind(**ServerSettings(**settings, api_timeout=7).client)
    assert client.url == url
    assert client._http.headers.get("Authorization") == (key and f"Bearer {key}")
    assert client._http.timeout.read == 7
