"""What lies around every request: keys, hosts, origins, sizes, numbers of requests, headers, figures and logs."""

import asyncio
import json
import re

import pytest
from fastapi import Request
from fastapi.security import HTTPAuthorizationCredentials
from fastapi.testclient import TestClient

from qaserve.api import create_app
from qaserve.api.auth import ApiKeyAuth
from qaserve.api.logs import configure
from qaserve.common.errors import AccessError, ForbiddenError
from qaserve.service.feedback import FeedbackLog
from qaserve.settings import LimitSettings, ServerSettings

ASK = {"question": "Which recipe gives the best bread?"}


@pytest.fixture
def serve(engine):
    """A client of an application with these settings."""

    def make(limits=None, **settings):
        return TestClient(create_app(engine, ServerSettings(**settings), LimitSettings(**(limits or {}))))

    return make


def given(token):
    return HTTPAuthorizationCredentials(scheme="Bearer", credentials=token) if token is not None else None


def passes(check, token):
    try:
        asyncio.run(check(Request({"type": "http", "client": None}), given(token)))
    except AccessError as error:
        return type(error)
    return True


@pytest.mark.parametrize(
    ("keys", "token", "reads", "writes"),
    [
        ({}, None, True, True),
        ({"api_key": "a"}, None, AccessError, AccessError),
        ({"api_key": "a"}, "b", AccessError, AccessError),
        ({"api_key": "a"}, "a", True, True),
        ({"api_key": "a", "write_key": "w"}, "a", True, ForbiddenError),
        ({"api_key": "a", "write_key": "w"}, "w", True, True),
        ({"api_key": "a", "write_key": "w"}, "ä", AccessError, AccessError),
        ({"api_key": "a", "write_key": "w"}, "", AccessError, AccessError),
    ],
)
def test_a_key_opens_what_it_is_for(keys, token, reads, writes):
    access = ApiKeyAuth(ServerSettings(**keys))
    assert passes(access.read, token) == reads
    assert passes(access.write, token) == writes
    assert access.may_write(given(token)) == (writes is True), "the page is told what it would be refused"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:8000", "[::1]:8000", "LOCALHOST", "api.example", "API.example:99"]
)
def test_it_answers_to_its_own_names(serve, host):
    with serve(allowed_hosts=" api.example , ") as http:
        assert http.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "",
        "[::2]",
        "localhost@evil",
        "127.0.0.1:1@evil.com",
        "127.0.0.1:80:80",
        "127.0.0.1/evil",
        "[::1].evil",
    ],
)
def test_it_answers_to_no_other_name(serve, host):
    with serve(allowed_hosts="") as http:
        reply = http.post("/v1/ask", json=ASK, headers={"Host": host})
    assert reply.status_code == 421
    assert reply.json()["error"]["code"] == "wrong_host"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_no_other_origin_may_call_unless_it_is_named(serve):
    asks = {"Origin": "https://site.example", "Access-Control-Request-Method": "POST"}
    with serve() as http:
        assert "access-control-allow-origin" not in http.options("/v1/ask", headers=asks).headers
        assert "access-control-allow-origin" not in http.post("/v1/ask", json=ASK, headers=asks).headers
    with serve(cors_origins="https://site.example") as http:
        reply = http.options("/v1/ask", headers=asks)
        assert reply.headers["access-control-allow-origin"] == "https://site.example"
        assert "access-control-allow-credentials" not in reply.headers
        other = asks | {"Origin": "https://other.example"}
        assert "access-control-allow-origin" not in http.options("/v1/ask", headers=other).headers


CHANGES = [
    ("POST", "/v1/builds/{build}/activate", {}),
    ("POST", "/v1/ingest?name=x", {"content": b"{}", "headers": {"Content-Type": "application/x-ndjson"}}),
    ("POST", "/v1/ingest", {"files": {"file": ("x.jsonl", b"{}")}}),
    ("POST", "/v1/feedback", {"json": {}}),
    ("POST", "/mcp", {"json": {"jsonrpc": "2.0", "id": 1, "method": "ping"}}),
    ("POST", "/v1/ask", {"json": ASK}),
    ("DELETE", "/v1/jobs/" + "0" * 32, {}),
    ("INVENTED", "/v1/ask", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES, ids=[path for _, path, _ in CHANGES])
@pytest.mark.parametrize(
    "sent",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "testserver"},
        {"Origin": "http://testserver.evil.example"},
        {"Origin": "http://testserver@evil.example"},
        {"Origin": "http://testserver:81"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
    ids=str,
)
def test_a_page_of_another_origin_changes_nothing(serve, method, path, body, sent):
    with serve(mcp_http=True, mcp_write=True, cors_origins="https://site.example") as http:
        reply = http.request(method, path, **body | {"headers": body.get("headers", {}) | sent})
    assert reply.status_code == 403
    assert reply.json()["error"]["code"] == "foreign_origin"


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"Origin": "http://testserver"},
        {"Origin": "https://testserver"},
        {"Origin": "https://site.example", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_programs_own_pages_and_named_origins_may_change(serve, engine, sent):
    path = f"/v1/builds/{engine.load().ref.build}/activate"
    with serve(cors_origins="https://site.example") as http:
        assert http.post("/v1/ask", json=ASK, headers=sent).status_code == 200
        assert http.post(path, headers=sent).status_code == 200


def test_a_star_names_every_origin(serve):
    with serve(cors_origins="*") as http:
        assert http.post("/v1/ask", json=ASK, headers={"Origin": "https://any.example"}).status_code == 200


def test_reading_is_open_to_other_origins_that_a_browser_shows_nothing(serve):
    with serve() as http:
        reply = http.get("/v1/builds", headers={"Origin": "https://evil.example"})
        assert reply.status_code == 200
        assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("path", ["/v1/ask", "/v1/ingest", "/v1/builds/000000000000/activate", "/mcp"])
@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "application/octet-stream"],
)
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_of_another_type_is_refused(serve, path, kind, chunked):
    body = json.dumps(ASK).encode()
    with serve(mcp_http=True) as http:
        reply = http.post(
            path, content=iter([body]) if chunked else body, headers={"Content-Type": kind} if kind else {}
        )
    assert reply.status_code == 415
    error = reply.json()["error"]
    assert error["code"] == "unsupported_type"
    assert f"type {kind.partition(';')[0]!r} is not taken" in error["message"]
    assert "application/x-ndjson" in error["hint"]


@pytest.mark.parametrize("path", ["/v1/builds", "/v1/feedback", "/metrics", "/mcp"])
def test_wrong_keys_are_limited_by_address_before_any_key_is_looked_at(engine, tmp_path, path):
    log = FeedbackLog(tmp_path, "things")
    app = create_app(engine, ServerSettings(api_key="a", write_key="w", mcp_http=True), log=log)
    elsewhere = TestClient(app, client=("192.0.2.1", 1))
    with TestClient(app) as http:
        for _ in range(40):
            assert http.get(path).status_code == 401, "a request without a key guesses nothing"
        guesses = [http.get(path, headers={"Authorization": f"Bearer {guess}"}).status_code for guess in range(31)]
        assert guesses == [401] * 30 + [429]
        right = {"Authorization": "Bearer w"}
        reply = http.get(path, headers=right)
        assert reply.status_code == 429
        assert "30 wrong keys came from this address" in reply.json()["error"]["message"]
        assert http.get("/healthz").status_code == 200
        assert elsewhere.get("/v1/builds", headers=right).status_code == 200


def test_a_refused_key_gets_no_share_of_its_own(engine, tmp_path):
    limits = LimitSettings(requests_per_minute=1)
    app = create_app(engine, ServerSettings(api_key="a"), limits, log=FeedbackLog(tmp_path, "things"))
    with TestClient(app) as http:
        wrong = {"Authorization": "Bearer wrong"}
        assert [http.get("/v1/feedback", headers=wrong).status_code for _ in range(3)] == [401, 401, 401]


def test_methods_and_routes_that_nobody_knows_are_one_each_in_the_figures(serve):
    with serve() as http:
        for number in range(5):
            http.request(f"INVENTED{number}", f"/nowhere/{number}", headers={"Host": f"evil{number}.example"})
            http.request(f"INVENTED{number}", f"/nowhere/{number}")
        figures = http.get("/metrics").text
    assert "INVENTED" not in figures
    counted = [line for line in figures.splitlines() if line.startswith("qaserve_requests_total{")]
    assert sorted(line.split("status=")[1] for line in counted) == ['"404"} 5.0', '"421"} 5.0']
    assert all('method="OTHER",route="unknown"' in line for line in counted)


@pytest.mark.parametrize("said", [True, False])
def test_bytes_are_counted_as_they_come(serve, said):
    body = json.dumps(ASK | {"question": "x" * 3000}).encode()
    parts = body if said else (body[start : start + 100] for start in range(0, len(body), 100))
    with serve(limits={"max_body_bytes": 1024}) as http:
        reply = http.post("/v1/ask", content=parts, headers={"Content-Type": "application/json"})
        assert reply.status_code == 413
        assert reply.json()["error"]["code"] == "too_large"
        assert "1,024 bytes" in reply.json()["error"]["message"]
        assert http.post("/v1/ask", json=ASK).status_code == 200


def test_a_caller_may_come_so_often_in_a_minute(serve):
    with serve(limits={"requests_per_minute": 3}, api_key="a", write_key="w") as http:
        mine, other = {"Authorization": "Bearer a"}, {"Authorization": "Bearer w"}
        assert [http.get("/v1/builds", headers=mine).status_code for _ in range(4)] == [200, 200, 200, 429]
        reply = http.get("/v1/builds", headers=mine)
        assert reply.json()["error"]["code"] == "rate_limited"
        assert 1 <= int(reply.headers["Retry-After"]) <= 60
        assert http.get("/v1/builds", headers=other).status_code == 200
        assert http.get("/healthz").status_code == 200
    with serve(limits={"requests_per_minute": 0}) as http:
        assert {http.get("/v1/builds").status_code for _ in range(5)} == {200}


def test_every_reply_has_an_id_and_headers_for_browsers(serve):
    with serve() as http:
        for reply in (http.get("/healthz"), http.get("/nowhere"), http.post("/v1/ask", json={})):
            assert len(reply.headers["X-Request-ID"]) == 32
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            assert reply.headers["X-Frame-Options"] == "DENY"
            assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'")
        mine = "0123456789abcdef0123456789abcdef"
        assert http.get("/healthz", headers={"X-Request-ID": mine}).headers["X-Request-ID"] == mine
        assert http.get("/healthz", headers={"X-Request-ID": "a\tb"}).headers["X-Request-ID"] != "a\tb"


def test_the_documentation_loads_only_files_of_the_api(serve):
    with serve() as http:
        for path in ("/docs", "/redoc"):
            page = http.get(path)
            assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")
            files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
            assert files
            for file in files:
                assert file.startswith("/"), file
                assert http.get(file).status_code == 200


def test_figures_count_what_happened(serve, engine):
    with serve() as http:
        http.post("/v1/ask", json=ASK)
        http.post("/v1/ask", json=ASK | {"question": "what is a wine", "filters": {"topics": ["no such"]}})
        http.post("/v1/ask", json={})
        http.get("/v1/clusters/0")
        for path in ("/a", "/b", "/c"):
            http.get(path)
        text = http.get("/metrics").text
    assert 'qaserve_requests_total{method="POST",route="/v1/ask",status="200"} 2.0' in text
    assert 'qaserve_requests_total{method="POST",route="/v1/ask",status="422"} 1.0' in text
    assert 'qaserve_requests_total{method="GET",route="/v1/clusters/{number}",status="200"} 1.0' in text
    assert 'qaserve_requests_total{method="GET",route="unknown",status="404"} 3.0' in text
    assert "qaserve_abstentions_total 1.0" in text
    assert 'qaserve_stage_seconds_count{stage="search"} 2.0' in text
    assert "qaserve_batch_size_count 3.0" in text  # the warm-up too
    assert f'qaserve_build_info{{build="{engine.load().ref.build}"}} 1.0' in text
    assert "qaserve_queue_depth 0.0" in text


def test_figures_need_the_key(serve):
    with serve(api_key="a") as http:
        assert http.get("/metrics").status_code == 401
        assert http.get("/metrics", headers={"Authorization": "Bearer a"}).status_code == 200


@pytest.fixture
def logged(capsys):
    """Configure logging as a server does, and read what it wrote."""

    def start(**settings):
        configure(ServerSettings(**settings))
        return lambda: [line for line in capsys.readouterr().err.splitlines() if "qaserve.api" in line]

    return start


def test_a_request_is_a_line_of_json_without_its_question(serve, logged):
    lines = logged(log_json=True)
    with serve(log_json=True) as http:
        number = http.post("/v1/ask", json=ASK).headers["X-Request-ID"]
    (line,) = [json.loads(line) for line in lines() if "/v1/ask" in line]
    assert line["request_id"] == number
    assert (line["method"], line["route"], line["status"], line["level"]) == ("POST", "/v1/ask", 200, "INFO")
    assert line["ms"] > 0
    assert "bread" not in json.dumps(line)


def test_questions_are_logged_where_that_is_asked_for(serve, logged):
    lines = logged(log_questions=True)
    with serve(log_questions=True) as http:
        http.post("/v1/ask", json=ASK)
    assert any(ASK["question"] in line for line in lines())
