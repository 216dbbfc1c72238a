import pytest
from conftest import ready
from fastapi.testclient import TestClient

from qaserve.api import create_app
from qaserve.client.http import Client
from qaserve.common.errors import (
    TABLE,
    AccessError,
    BundleError,
    NotFoundError,
    QaserveError,
    ServiceError,
    StoreUnreachableError,
    UsageError,
)
from qaserve.schemas.ask import AskRequest, AskResult
from qaserve.settings import ServerSettings

QUESTION = "Which recipe gives the best bread?"


@pytest.fixture
def http(engine):
    with TestClient(create_app(engine, ServerSettings()), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(engine, serve_app):
    """Our client, talking to a real server."""
    with Client(serve_app(create_app(engine, ServerSettings()))) as ours:
        yield ours


def test_ask_answers_what_the_engine_answers(http, engine, monkeypatch):
    given, search = [], engine.search
    monkeypatch.setattr(engine, "search", lambda *parts: given.append(search(*parts)) or given[-1])
    body = http.post("/v1/ask", json={"question": QUESTION, "top_k": 3}).json()
    assert body == given[0].result.model_dump(mode="json")
    assert len(body["answers"]) == 3


def test_the_document_has_the_names_of_the_contract(http):
    body = http.post("/v1/ask", json={"question": QUESTION}).json()
    assert {"question", "build", "answers", "confidence", "trace", "timings_ms"} <= set(body)
    answer = body["answers"][0]
    names = """rank score parts raw_rank pair_id cluster_id cluster question answer related_skills related_docs topics
        tags source_file"""
    assert set(names.split()) <= set(answer)
    assert set(answer["parts"]) == {"projected", "topic", "lexical"}
    assert set(body["confidence"]) == {"value", "skill", "known", "abstained", "reason"}
    trace = body["trace"]
    names = "params entropy hits clusters projected_similarity"
    assert set(names.split()) <= set(trace)
    assert {"pair_id", "question", "similarity", "prior", "probability", "cluster"} <= set(trace["hits"][0])
    assert {"cluster", "name", "weight", "hits"} <= set(trace["clusters"][0])
    assert set(body["timings_ms"]) == {"encode", "route", "project", "search", "total"}


def test_overlaps_come_through_the_client(client):
    found = client.overlaps(0.5, 2)
    assert found.found > len(found.overlaps) == 2
    assert found.threshold == 0.5
    assert client.overlaps(1).overlaps == ()


@pytest.mark.parametrize("query", ["threshold=0.4", "threshold=nan", "limit=0", "limit=1001"])
def test_overlaps_have_bounds(http, query):
    reply = http.get(f"/v1/overlaps?{query}")
    assert reply.status_code == 422
    assert query.partition("=")[0] in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, r"^question: Field required$"),
        ([{"question": "x"}, {}], r"^1\.question: Field required$"),
        (5, r"^body: Input should be an object \(got 5\)$"),
        ({"question": ""}, "the question is empty"),
        ({"question": "x" * 100_000}, "characters: 100,000; this service takes at most 4,000"),
        ({"question": "a\u0000b"}, r"U\+0000"),
        ({"question": 7}, r"question: .*string.*got 7"),
        ({"question": "x", "top_k": 0}, r"top_k: .*greater than or equal to 1 \(got 0\)"),
        ({"question": "x", "top_k": 10**9}, r"top_k: .*less than or equal to 100 \(got 1000000000\)"),
        ({"question": "x", "top_k": True}, r"top_k: .*not a boolean \(got True\)"),
        ({"question": "x", "hits": True}, r"hits: .*not a boolean"),
        ({"question": "x", "temperature": True}, r"temperature: .*not a boolean"),
        ({"question": "x", "lexical_weight": False}, r"lexical_weight: .*not a boolean"),
        ({"question": "x", "filters": {"cluster": [True]}}, r"cluster\.0: .*not a boolean"),
        ({"question": "x", "routing": "magic"}, r"routing: .*'question', 'question2' or 'centroid' \(got 'magic'\)"),
        ({"question": "x", "temperature": 0}, r"temperature: .*0.0001"),
        ({"question": "x", "hits": 0}, r"hits: "),
        ({"question": "x", "routing": "centroid", "projection": "pair"}, "needs known questions that vote"),
        ({"question": "x", "colour": "red"}, r"^colour: There is no such field \(got 'red'\)$"),
        ({"question": "x", "filters": ["a"]}, r"^filters: Input should be an object \(got \['a'\]\)$"),
        ({"question": "x", "filters": {"topics": "a"}}, r"^filters\.topics: Input should be a list \(got 'a'\)$"),
        (
            {"question": "x", "filters": {"topics": ["a"] * 65}},
            r"filters\.topics: List .* at most 64 items, not 65 \(got",
        ),
    ],
)
def test_a_request_that_cannot_be_meant_is_a_422_that_names_the_value(http, body, message):
    reply = http.post("/v1/ask", json=body)
    assert reply.status_code == 422
    error = reply.json()["error"]
    assert error["code"] == "invalid_request"
    assert error["hint"]
    with pytest.raises(ValueError, match=message):
        raise ValueError(error["message"])


@pytest.mark.parametrize(
    ("method", "path", "body", "hint"),
    [
        ("GET", "/v1/skills/nothing", None, "List the skills to see every name."),
        ("GET", "/v1/pairs/nobody", None, "Give the pair_id or the id of an answer."),
        ("GET", "/v1/clusters/99", None, "This build's clusters are 0 to "),
        ("GET", "/v1/reports/nothing", None, "There are: "),
        ("POST", "/v1/builds/000000000000/activate", None, "List the builds to see which there are."),
        ("POST", "/v1/ask", {"question": " "}, "Ask something, for example: How do I add a pair?"),
        ("POST", "/v1/ask", {"question": "x", "projection": "student"}, "Use projection 'cluster'."),
    ],
)
def test_a_hint_is_something_that_a_caller_of_the_api_can_do(http, method, path, body, hint):
    error = http.request(method, path, json=body).json()["error"]
    assert error["hint"].startswith(hint)
    assert "`qaserve" not in error["hint"].removesuffix(" `qaserve distill` trains a student for the build.")


def test_where_a_body_is_no_json_is_said(http):
    reply = http.post("/v1/ask", content=b'{"question": "x",}', headers={"Content-Type": "application/json"})
    assert reply.status_code == 422
    assert reply.json()["error"]["message"].startswith("body: JSON decode error at character 17: ")


def test_the_description_of_the_api_says_the_bounds_of_numbers(http):
    fields = http.get("/openapi.json").json()["components"]["schemas"]["AskRequest"]["properties"]
    assert (fields["top_k"]["minimum"], fields["top_k"]["maximum"]) == (1, 100)
    for name in ("hits", "temperature", "final_temperature", "lexical_weight"):
        assert {"minimum", "maximum"} <= set(fields[name]["anyOf"][0]), name


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"question": "\\ud800"}'])
def test_a_body_that_is_no_request_is_a_422(http, content):
    reply = http.post("/v1/ask", content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code == 422
    assert reply.json()["error"]["code"] == "invalid_request"


def test_what_is_not_there_is_a_404_in_the_same_shape(http):
    for path in ("/v1/clusters/999", "/v1/pairs/nobody", "/nowhere"):
        reply = http.get(path)
        assert reply.status_code == 404, path
        assert reply.json()["error"]["code"] == "not_found"
    assert http.get("/v1/ask").json()["error"]["code"] == "method_not_allowed"


def test_a_bug_shows_nothing_of_its_insides(http, engine, monkeypatch):
    monkeypatch.setattr(engine, "search", lambda *_: 1 / 0)
    reply = http.post("/v1/ask", json={"question": "x"})
    assert reply.status_code == 500
    assert reply.json()["error"] == {
        "code": "internal", "message": "something went wrong inside", "hint": "The server's log says more."
    }  # fmt: skip


def test_readiness_follows_the_store(http, engine, monkeypatch):
    build = engine.load().ref.build
    alive = http.get("/healthz").json()
    assert (alive["status"], alive["corpus"], alive["build"]) == ("ok", "things", build)
    assert ready(http).json()["build"] == build

    def gone(*_):
        raise StoreUnreachableError("Qdrant at http://q does not answer")

    monkeypatch.setattr(engine.store, "live", gone)
    assert http.get("/healthz").json()["build"] == build, "the store is not asked"
    reply = http.get("/readyz")
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "store_unreachable"


def test_folders_of_the_machine_are_not_told(engine, monkeypatch):
    def broken(*_):
        raise BundleError("a file is missing from /secret/place/models/x", hint="see /secret/place/models")

    monkeypatch.setattr(engine, "search", broken)
    app = create_app(engine, ServerSettings(), hidden=("/secret/place/models",))
    with TestClient(app) as http:
        reply = http.post("/v1/ask", json={"question": "x"})
    assert reply.status_code == 503
    assert "/secret" not in reply.text


def test_a_key_is_asked_for_where_one_is_set(engine, serve_app):
    app = create_app(engine, ServerSettings(api_key="the key"))
    with TestClient(app) as http:
        assert http.get("/healthz").status_code == 200
        assert ready(http).status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic the key"}):
            reply = http.get("/v1/builds", headers=headers)
            assert reply.status_code == 401
            assert reply.json()["error"]["code"] == "unauthorized"
        assert http.get("/v1/builds", headers={"Authorization": "Bearer the key"}).status_code == 200
    url = serve_app(app)
    with Client(url) as nobody, pytest.raises(AccessError, match="missing or wrong"):
        nobody.builds()
    with Client(url, key="the key") as somebody:
        assert somebody.builds().corpus == "things"


def test_the_client_returns_records(client, engine):
    result = client.ask(AskRequest(question=QUESTION, top_k=2))
    assert isinstance(result, AskResult)
    assert len(result.answers) == 2
    live = engine.load()
    assert client.clusters().clusters == live.clusters
    assert client.cluster(0) == engine.cluster(0)
    assert client.pairs("bread_q0") == engine.pairs("bread_q0")
    assert client.builds().builds[0].build == live.ref.build
    assert client.ready().corpus == "things"


def test_the_client_raises_what_the_engine_raised(client):
    with pytest.raises(UsageError, match="the question is empty"):
        client.ask(AskRequest(question=" "))
    with pytest.raises(NotFoundError, match=r"no pair 'a/\.\./b'"):
        client.pairs("a/../b")


def test_the_client_says_who_does_not_answer_or_talks_nonsense(unused_port, http_server):
    with Client(f"http://127.0.0.1:{unused_port}") as client, pytest.raises(ServiceError, match="does not answer"):
        client.builds()
    for status in (200, 502):
        url = http_server(status=status, body=b"<html>proxy</html>", content_type="text/html")
        with Client(url) as client, pytest.raises(ServiceError, match=f"HTTP {status} with a body that is not"):
            client.builds()


@pytest.mark.parametrize("kind", TABLE)
def test_every_error_reaches_a_caller_as_itself(client, http, engine, monkeypatch, kind):
    def fail(*_):
        raise kind("it happened", hint="do this")

    monkeypatch.setattr(engine, "search", fail)
    assert http.post("/v1/ask", json={"question": "x"}).status_code == TABLE[kind].status
    with pytest.raises(QaserveError, match="it happened") as raised:
        client.ask(AskRequest(question="x"))
    assert type(raised.value) is kind
    assert raised.value.hint == "do this"


def test_openapi_describes_requests_errors_and_an_example(http):
    document = http.get("/openapi.json").json()
    ask = document["paths"]["/v1/ask"]["post"]
    assert ask["responses"]["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorReply")
    assert document["components"]["schemas"]["AskRequest"]["properties"]["question"]["examples"]
    assert "/v1/clusters/{number}" in document["paths"]


def test_known_questions_are_offered_while_one_is_typed(client, http):
    found = client.suggest("bread", limit=2)
    assert len(found.questions) == 2
    assert all("bread" in question for question in found.questions)
    assert http.get("/v1/suggest", params={"q": "x" * 301}).status_code == 422
    assert http.get("/v1/suggest").status_code == 422
