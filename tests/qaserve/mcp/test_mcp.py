import asyncio
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

import httpx
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import PARSE_ERROR
from random_files import FED

from ingest.jobs import Jobs
from qaserve.api import create_app
from qaserve.cli.mcp import DataFolder
from qaserve.client.http import Client as ApiClient
from qaserve.common.errors import BundleError, ConflictError, QualityError, UsageError
from qaserve.common.locks import corpus_lock
from qaserve.mcp import create_server
from qaserve.mcp.adding import done_by, over_api
from qaserve.mcp.results import LONG_CHARS, SHORT_CHARS, UNTRUSTED, Added, NewPair
from qaserve.mcp.source import EngineSource
from qaserve.schemas.jobs import Job
from qaserve.schemas.service import ErrorDetail
from qaserve.service.gaps import QuestionLog
from qaserve.settings import LimitSettings, ServerSettings, get_settings

QUESTION = "Which recipe gives the best bread?"
READING = ["search_skills", "get_skill", "explain_routing", "get_pair", "list_clusters", "corpus_status"]
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def converse(server, talk, **options):
    """Run a conversation of an MCP client with a server."""

    async def run():
        async with Client(server, **options) as client:
            return await talk(client)

    return asyncio.run(run())


async def call(client, name, /, **arguments):
    """The structured result of a tool, checked against the schema that the tool promises."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content[0].text
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    jsonschema.validate(result.structured_content, tools[name].output_schema)
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


async def refusal(client, name, /, **arguments):
    """The text of a tool's error."""
    result = await client.call_tool(name, arguments)
    assert result.is_error
    assert result.structured_content is None
    text = result.content[0].text
    assert "Traceback" not in text
    return text


def once(server, name, /, *, tool=call, **arguments):
    return converse(server, lambda client: tool(client, name, **arguments))


@pytest.fixture
def server(engine):
    return create_server(EngineSource(lambda: engine))


def test_tools_describe_themselves(server):
    listed = converse(server, lambda client: client.list_tools()).tools
    assert [tool.name for tool in listed] == READING
    for tool in listed:
        assert tool.annotations.read_only_hint is True
        assert len(tool.description) > 40
        assert tool.output_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        assert all("description" in field for name, field in tool.input_schema["properties"].items())
    top_k = listed[0].input_schema["properties"]["top_k"]
    assert (top_k["minimum"], top_k["maximum"], top_k["default"]) == (1, 20, 5)


NAMES = ("question", "top_k", "filters", "identifier", "cluster", "skill", "name", "expected")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.sampled_from(NAMES), VALUES) | st.fixed_dictionaries(
    {"question": st.text()}, optional={"top_k": st.integers(-1, 21), "filters": VALUES}
)


@pytest.mark.fuzz
def test_any_arguments_are_answered_or_refused(engine):
    """An error is of our own or says which argument is wrong; a crash is neither."""
    server = create_server(EngineSource(lambda: engine), tell=lambda error: f"told: {error.message}")

    @settings(deadline=None)
    @given(calls=st.lists(st.tuples(st.sampled_from(READING), ARGUMENTS), min_size=1, max_size=8))
    def ask(calls):
        async def each(client):
            return [await client.call_tool(tool, arguments) for tool, arguments in calls]

        FED["requests"] += len(calls)
        for (name, _), result in zip(calls, converse(server, each), strict=True):
            text = result.content[0].text
            if result.is_error:
                assert "told: " in text or text.startswith(f"Wrong arguments for {name}:\n- "), text
                assert "pydantic" not in text
            else:
                assert json.loads(text) == result.structured_content

    ask()


def test_search_gives_scored_answers_that_are_marked_as_data(server, engine):
    found = once(server, "search_skills", question=QUESTION, top_k=2)
    assert found["untrusted"] == UNTRUSTED
    assert found["answered"] is True
    assert found["build"] == engine.load().ref.build
    assert [answer["rank"] for answer in found["answers"]] == [1, 2]
    assert found["answers"][0]["related_skills"] == ["skill_bread.md"]
    assert found["answers"][0]["score"] > found["answers"][1]["score"]
    assert found["verdict"] == "This build has no calibration, for it has too few pairs: judge by similarity."


@pytest.mark.parametrize(
    ("filters", "things"),
    [
        ({"topics": ["wine", "glass"]}, {"wine", "glass"}),
        ({"related_skills": ["skill_steel.md"]}, {"steel"}),
        ({"topics": ["wine"], "source_file": ["pairs.jsonl"]}, {"wine"}),
    ],
)
def test_filters_keep_others_out(server, filters, things):
    found = once(server, "search_skills", question=QUESTION, top_k=20, filters=filters)
    assert {answer["topics"][1] for answer in found["answers"]} == things


def test_nothing_found_is_said_plainly(server):
    found = once(server, "search_skills", question=QUESTION, filters={"topics": ["no such topic"]})
    assert found["answered"] is False
    assert found["answers"] == []
    assert found["verdict"] == "No pair matches the filters. No pair has 'no such topic' in topics."


def test_abstaining_is_said_plainly(engine, monkeypatch):
    from qaserve.schemas.ask import Confidence

    ask, doubt = engine.ask, Confidence(value=0.01, abstained=True, reason="Nothing here seems to answer this.")
    monkeypatch.setattr(engine, "ask", lambda request: ask(request).model_copy(update={"confidence": doubt}))
    found = once(create_server(EngineSource(lambda: engine)), "search_skills", question=QUESTION)
    assert (found["answered"], found["confidence"]) == (False, 0.01)
    assert found["verdict"] == "Nothing here seems to answer this. The answers are only what comes nearest."


def test_explaining_shows_votes_clusters_and_what_the_projection_did(server):
    why = once(server, "explain_routing", question=QUESTION, top_hits=3)
    shares = [hit["probability"] for hit in why["hits"]]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert why["hits_left_out"] == 24 - 3
    assert why["clusters"][0]["weight"] >= why["clusters"][-1]["weight"]
    moved = why["projected"]
    assert moved["to_first_answer_after"] > moved["to_first_answer_before"]
    assert moved["first_answer_in_plain_search"] == 1
    assert why["first"][0]["similarity"] == moved["to_first_answer_before"]
    assert why["untrusted"] == UNTRUSTED


def test_a_pair_by_its_id_and_by_its_points(server):
    found = once(server, "get_pair", identifier="wine_q1")
    (stored,) = found["pairs"]
    assert stored["pair"]["question"] == "what is the way to produce wine"
    assert stored["pair"]["extra"] == {}
    assert found["left_out"] == 0
    assert once(server, "get_pair", identifier=stored["id"]) == found


def test_long_answers_are_cut_and_it_is_said(edge, encoder, make_ingest, write_rows, rows, tmp_path):
    from qaserve.search.engine import Engine

    long = [row | {"answer": row["answer"] + " and on" * LONG_CHARS} for row in rows(["bread"])[:1]]
    same = [row | {"pair_id": "same", "question": f"{row['question']} {n}"} for n in range(7) for row in rows(["wine"])]
    make_ingest(edge, encoder).run([write_rows(long + same)])
    server = create_server(EngineSource(lambda: Engine(edge, encoder, tmp_path / "models", "things")))
    found = once(server, "search_skills", question="How do I make bread?")["answers"]
    shown = {answer["topics"][1]: (len(answer["answer"]), answer["truncated"]) for answer in found}
    assert shown["bread"] == (SHORT_CHARS, True)
    assert shown["wine"][1] is False
    assert len(once(server, "get_pair", identifier="bread_q0")["pairs"][0]["pair"]["answer"]) == LONG_CHARS
    found = once(server, "get_pair", identifier="same")
    assert (len(found["pairs"]), found["left_out"]) == (20, 8)


def test_clusters_come_in_stretches_largest_first(server, engine):
    whole = once(server, "list_clusters")
    sizes = [cluster["size"] for cluster in whole["clusters"]]
    assert whole["total"] == len(sizes) == len(engine.load().clusters)
    assert sizes == sorted(sizes, reverse=True)
    part = once(server, "list_clusters", offset=1, limit=2)
    assert part["clusters"] == whole["clusters"][1:3]
    assert once(server, "list_clusters", offset=99)["clusters"] == []


def test_status_names_the_live_build_or_what_is_wrong(server, engine):
    status = once(server, "corpus_status")
    assert (status["ready"], status["problem"], status["writable"]) == (True, "", False)
    assert status["live"]["pairs"] == 24
    engine.corpus = "nowhere"
    status = once(server, "corpus_status")
    assert (status["ready"], status["live"]) == (False, None)
    assert "no corpus 'nowhere'" in status["problem"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("search_skills", {}, r"^Wrong arguments for search_skills:\n- question: Field required$"),
        ("search_skills", {"question": ""}, "at least 1 character"),
        ("search_skills", {"question": " "}, "the question is empty. Ask something"),
        ("search_skills", {"question": "x" * 4001}, "at most 4000 characters"),
        ("search_skills", {"question": "a\u0000b"}, r"holds U\+0000"),
        ("search_skills", {"question": "x", "top_k": 0}, "greater than or equal to 1"),
        ("search_skills", {"question": "x", "top_k": 21}, "less than or equal to 20"),
        (
            "search_skills",
            {"question": "x", "topk": 1, "top_k": 99},
            r"- top_k: .* to 20 \(got 99\)\n- topk: There is no such field \(got 1\)\. Did you mean 'top_k'\?$",
        ),
        ("search_skills", {"question": "x", "filters": {"topic": ["a"]}}, r"filters\.topic: .* Did you mean 'topics'"),
        ("search_skills", {"question": "x", "filters": {"cluster": ["a"]}}, r"filters\.cluster"),
        ("explain_routing", {"question": "x", "top_hits": 51}, "less than or equal to 50"),
        (
            "get_pair",
            {"identifier": "nobody"},
            r"no pair 'nobody' in build \w+\. Give the pair_id or the id of an answer\.$",
        ),
        ("get_skill", {"name": "nobody"}, r"no skill 'nobody' in build \w+\. List the skills to see every name\.$"),
        ("list_clusters", {"limit": 201}, "less than or equal to 200"),
        ("corpus_status", {"x": 1}, r"- x: There is no such field \(got 1\)$"),
        ("search_skills", {str(n): n for n in range(9)}, r"- 3: There is .*\n- and 5 more$"),
        ("add_pairs", {"pairs": []}, r"^Unknown tool: add_pairs\. There are: search_skills, get_skill, "),
        ("search_skill", {}, r"^Unknown tool: search_skill\. Did you mean 'search_skills'"),
    ],
)
def test_what_cannot_be_meant_is_a_tools_error(server, name, arguments, message):
    with pytest.raises(ValueError, match=message):
        raise ValueError(once(server, name, tool=refusal, **arguments))


def test_a_bug_shows_nothing_of_its_insides(engine, monkeypatch):
    monkeypatch.setattr(engine, "ask", lambda _: 1 / 0)
    server = create_server(EngineSource(lambda: engine))
    assert once(server, "search_skills", tool=refusal, question="x") == "Error executing tool search_skills"


def test_adding_is_offered_only_where_it_is_switched_on(engine):
    given = []

    def add(pairs):
        given.extend(pairs)
        return Added(done=True, build="b", added=1, updated=0, unchanged=0, pairs=25)

    server = create_server(EngineSource(lambda: engine), add)
    tool = converse(server, lambda client: client.list_tools()).tools[-1]
    assert (tool.name, tool.annotations.read_only_hint) == ("add_pairs", False)
    assert once(server, "corpus_status")["writable"] is True
    added = once(server, "add_pairs", pairs=[{"question": "q", "answer": "a", "topics": ["t"]}])
    assert added["pairs"] == 25
    assert (given[0].question, given[0].topics) == ("q", ("t",))
    for pairs, message in (
        ([], "at least 1 item"),
        ([{"question": "q"}], "Field required"),
        ([{"question": "q", "answer": "a"}] * 101, "at most 100 items"),
        ([{"question": "q", "answer": "a", "colour": "red"}], "pairs.0.colour: There is no such field"),
    ):
        assert message in once(server, "add_pairs", tool=refusal, pairs=pairs)
    assert len(given) == 1


def test_an_api_is_a_source_too(engine, serve_app):
    url = serve_app(create_app(engine, ServerSettings()))
    with ApiClient(url) as client:
        server = create_server(client)
        assert once(server, "search_skills", question=QUESTION)["answers"][0]["topics"] == ["making", "bread"]
        assert once(server, "explain_routing", question=QUESTION)["hits"]
        assert once(server, "get_pair", identifier="wine_q1")["pairs"]
        assert once(server, "list_clusters")["total"] == len(engine.load().clusters)
        assert once(server, "corpus_status")["live"]["pairs"] == 24
        assert "no pair 'nobody'" in once(server, "get_pair", tool=refusal, identifier="nobody")


@pytest.fixture
def jobs(engine, encoder, make_ingest, tmp_path):
    with Jobs(tmp_path / "data", "things", lambda _: make_ingest(engine.store, encoder), waiting=3) as made:
        yield made


NEW = [
    {"pair_id": "tea", "question": "How do I make tea?", "answer": "Pour hot water over tea leaves."},
    {"pair_id": "tea", "question": "tea recipe please", "answer": "Pour hot water over tea leaves; wait."},
]


def test_pairs_are_added_over_an_api(engine, jobs, serve_app):
    url = serve_app(create_app(engine, ServerSettings(api_key="asks", write_key="changes"), jobs=jobs))
    with ApiClient(url, key="changes") as client:
        server = create_server(client, partial(over_api, client))
        added = once(server, "add_pairs", pairs=NEW)
        assert (added["done"], added["added"], added["pairs"]) == (True, 2, 26)
        assert added["build"] == once(server, "corpus_status")["live"]["build"]
        assert once(server, "search_skills", question="make tea")["answers"][0]["pair_id"] == "tea"
    with ApiClient(url, key="asks") as client:
        server = create_server(client, partial(over_api, client))
        assert "change nothing" in once(server, "add_pairs", tool=refusal, pairs=NEW)


def job_that(**changes):
    job = Job(id="0" * 32, corpus="things", source="x", options={}, state="running", created="now")
    return job.model_copy(update=changes)


def test_a_job_that_goes_wrong_is_an_error_and_one_that_takes_long_goes_on(monkeypatch):
    failed = job_that(state="failed", error=ErrorDetail(code="quality_dropped", message="worse", hint="h"))
    with pytest.raises(QualityError, match="worse") as raised:
        done_by(job_that(state="queued"), lambda _: failed)
    assert raised.value.hint == "h"
    with pytest.raises(ConflictError, match="was cancelled: nothing was added"):
        done_by(job_that(state="cancelled"), lambda _: pytest.fail("asked again"))
    monkeypatch.setattr("qaserve.mcp.adding.WAIT_SECONDS", 0)
    assert done_by(job_that(), lambda _: pytest.fail("asked again")) == Added(done=False)


# Over HTTP


@asynccontextmanager
async def over_http(url, key):
    async with (
        create_mcp_http_client(headers={"Authorization": f"Bearer {key}"}) as http,
        streamable_http_client(url, http_client=http) as streams,
    ):
        yield streams


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_over_http_with_a_key(engine, serve_app, mode):
    url = serve_app(create_app(engine, ServerSettings(mcp_http=True, api_key="the key"))) + "/mcp"

    async def talk(client):
        assert [tool.name for tool in (await client.list_tools()).tools] == READING
        assert (await call(client, "search_skills", question=QUESTION))["answers"][0]["topics"][1] == "bread"
        assert (await call(client, "explain_routing", question=QUESTION))["hits"]
        assert (await call(client, "get_pair", identifier="wine_q1"))["pairs"]
        assert (await call(client, "list_clusters"))["clusters"]
        assert (await call(client, "corpus_status"))["ready"] is True
        assert "no pair 'nobody'" in await refusal(client, "get_pair", identifier="nobody")

    converse(over_http(url, "the key"), talk, mode=mode)
    with pytest.RaisesGroup(
        pytest.RaisesExc(MCPError, match="the key is missing or wrong. Set QASERVE_API_KEY"),
        flatten_subgroups=True,
    ):
        converse(over_http(url, "wrong"), talk, mode=mode)
    assert httpx.post(url, json=PING, headers=HEADERS).status_code == 401


def test_where_agents_may_write_only_the_key_for_changing_gets_in(engine, serve_app):
    settings = ServerSettings(mcp_http=True, mcp_write=True, api_key="asks", write_key="changes")
    url = serve_app(create_app(engine, settings)) + "/mcp"
    for key, status in (("asks", 403), ("changes", 200), ("wrong", 401)):
        reply = httpx.post(url, json=PING, headers=HEADERS | {"Authorization": f"Bearer {key}"})
        assert reply.status_code == status, reply.text


def test_pairs_are_added_over_http(engine, jobs, serve_app):
    settings = ServerSettings(mcp_http=True, mcp_write=True)
    url = serve_app(create_app(engine, settings, jobs=jobs)) + "/mcp"

    async def talk(client):
        assert (await call(client, "corpus_status"))["writable"] is True
        assert (await call(client, "add_pairs", pairs=NEW))["pairs"] == 26
        assert (await call(client, "search_skills", question="make tea"))["answers"][0]["pair_id"] == "tea"

    converse(url, talk)
    assert jobs.listed().jobs[0].source == "agent.jsonl"


def test_folders_of_the_machine_are_not_told(engine, serve_app, monkeypatch):
    def broken(*_):
        raise BundleError("a file is missing from /secret/place/models/x", hint="see /secret/place/models")

    monkeypatch.setattr(engine, "pairs", broken)
    monkeypatch.setattr(engine, "load", broken)
    url = serve_app(create_app(engine, ServerSettings(mcp_http=True), hidden=("/secret/place/models",))) + "/mcp"

    async def talk(client):
        text = await refusal(client, "get_pair", identifier="x")
        assert "a file is missing from …/x. see …" in text
        assert "/secret" not in (await call(client, "corpus_status"))["problem"]

    converse(url, talk)


def test_agents_are_limited_as_others_are(engine, serve_app):
    app = create_app(engine, ServerSettings(mcp_http=True), LimitSettings(requests_per_minute=2))
    url = serve_app(app) + "/mcp"
    replies = [httpx.post(url, json=PING, headers=HEADERS) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert "more than 2 requests" in replies[-1].json()["error"]["message"]
    figures = httpx.get(url.replace("/mcp", "/metrics")).text
    assert 'route="/mcp",status="200"} 2.0' in figures


def test_other_hosts_and_pages_of_other_origins_are_refused(engine, serve_app):
    url = serve_app(create_app(engine, ServerSettings(mcp_http=True))) + "/mcp"
    assert httpx.post(url, json=PING, headers=HEADERS).status_code == 200
    assert httpx.post(url, json=PING, headers=HEADERS | {"Host": "evil.example"}).status_code == 421
    assert httpx.post(url, json=PING, headers=HEADERS | {"Origin": "http://evil.example"}).status_code == 403
    plain = HEADERS | {"Content-Type": "text/plain"}
    assert httpx.post(url, content=json.dumps(PING), headers=plain).status_code == 415


def test_a_body_beyond_bounds_is_refused(engine, serve_app):
    url = serve_app(create_app(engine, ServerSettings(mcp_http=True))) + "/mcp"
    assert httpx.post(url, content=b"x" * (5 << 20), headers=HEADERS).status_code == 413


def test_http_is_off_unless_switched_on(engine, serve_app):
    url = serve_app(create_app(engine, ServerSettings()))
    assert httpx.post(f"{url}/mcp", json=PING, headers=HEADERS).status_code == 404


# Over stdio, the real command with the real encoder


@pytest.fixture
def command(tmp_path):
    """The server as an agent starts it. What it writes to stdout is kept too; anything but the protocol fails."""
    log = tmp_path / "stdout"

    def start(*options, **environment):
        script = '"$0" -m qaserve mcp "${@:2}" | tee -a "$1"'
        settings = {"QASERVE_DATA_DIR": str(tmp_path / "data"), "QASERVE_MODELS_DIR": str(tmp_path / "models")}
        arguments = ["-c", f"set -o pipefail; {script}", sys.executable, str(log), *options]
        return StdioServerParameters(command="bash", args=arguments, env=settings | environment)

    yield start
    for line in log.read_text(encoding="utf-8").splitlines():
        assert json.loads(line)["jsonrpc"] == "2.0"


def test_over_stdio_from_an_empty_folder_to_an_answer(command, rows, tmp_path, exports):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "encoders").symlink_to(exports)
    pairs = [
        {name: row[name] for name in ("pair_id", "cluster_id", "question", "answer", "topics", "related_skills")}
        for row in rows()
    ]

    async def fill(client):
        status = await call(client, "corpus_status")
        assert (status["ready"], status["writable"]) == (False, True)
        assert "`qaserve ingest FILE` creates one" in status["problem"]
        assert "there is no corpus" in await refusal(client, "search_skills", question=QUESTION)
        added = await call(client, "add_pairs", pairs=pairs)
        assert (added["added"], added["pairs"], added["rejected"]) == (24, 24, [])
        assert (await call(client, "search_skills", question=QUESTION))["answers"][0]["topics"][1] == "bread"
        again = await call(client, "add_pairs", pairs=[*pairs[:2], pairs[2] | {"answer": "Buy it."}])
        assert (again["unchanged"], again["updated"], again["pairs"]) == (2, 1, 24)
        assert (await call(client, "get_pair", identifier="bread_q2"))["pairs"][0]["pair"]["answer"] == "Buy it."

    async def read(client):
        with corpus_lock(tmp_path / "models", "default", "ingest of another", 0):  # reading waits for nobody
            assert (await call(client, "search_skills", question="making wine"))["answers"][0]["topics"][1] == "wine"
        assert [tool.name for tool in (await client.list_tools()).tools] == READING
        assert (await call(client, "explain_routing", question="making wine"))["hits"]
        assert (await call(client, "list_clusters"))["clusters"]
        assert (await call(client, "corpus_status"))["live"]["encoder"] == "minilm"
        assert "less than or equal to 20" in await refusal(client, "search_skills", question="x", top_k=99)
        assert "not a boolean" in await refusal(client, "search_skills", question="x", top_k=True)

    converse(command("--write"), fill)
    converse(command(), read)


def test_over_stdio_beside_an_api(command, engine, serve_app):
    url = serve_app(create_app(engine, ServerSettings(api_key="the key")))

    async def talk(client):
        assert (await call(client, "search_skills", question=QUESTION))["answers"][0]["topics"][1] == "bread"

    converse(command(QASERVE_API_URL=url, QASERVE_API_KEY="the key"), talk)

    async def refused(client):
        assert "missing or wrong" in await refusal(client, "search_skills", question=QUESTION)
        assert "missing or wrong" in (await call(client, "corpus_status"))["problem"]

    converse(command(QASERVE_API_URL=url, QASERVE_API_KEY="wrong"), refused)


@pytest.mark.parametrize(
    ("line", "identifier", "reason"),
    [
        (r'{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "x\ud800"}}', 7, "hex escape"),
        (r'{"jsonrpc": "2.0", "id": "a", "method": "ping", "params": {"q": "\udc00"}}', "a", "hex escape"),
        (r'{"jsonrpc": "2.0", "id": "\ud800", "method": "ping"}', None, "hex escape"),
        ('{"jsonrpc": "2.0", "id": 8, "method": ', None, "EOF"),
        ('{"jsonrpc": "2.0", "id": 9}', 9, "required"),
        ("[1]", None, "should be an object"),
    ],
)
def test_over_stdio_what_cannot_be_read_gets_an_error_back(line, identifier, reason, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "qaserve", "mcp"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
    ) as process:
        replies = []
        for sent in (line, json.dumps(PING)):
            process.stdin.write(f"{sent}\n")
            process.stdin.flush()
            replies.append(json.loads(process.stdout.readline()))
    refused, answered = replies
    assert (refused["id"], refused["error"]["code"]) == (identifier, PARSE_ERROR)
    assert reason in refused["error"]["message"]
    assert answered == {"jsonrpc": "2.0", "id": PING["id"], "result": {}}


def test_over_http_half_a_surrogate_pair_gets_an_error_back(engine, serve_app):
    url = serve_app(create_app(engine, ServerSettings(mcp_http=True)))
    line = r'{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "x\ud800"}}'
    reply = httpx.post(f"{url}/mcp", content=line, headers=HEADERS)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == PARSE_ERROR


def test_a_question_of_an_agent_that_is_abstained_on_is_kept_where_the_operator_says_so(engine, tmp_path):
    log = QuestionLog(tmp_path, "things", keeps=True, days=30)
    server = create_server(EngineSource(lambda: engine, lambda: log))
    assert once(server, "search_skills", question=QUESTION, filters={"topics": ["none such"]})["answered"] is False
    assert [one.question for one in log.newest(9)[0]] == [QUESTION]


def test_questions_are_answered_while_pairs_are_added(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("QASERVE_DATA_DIR", str(tmp_path / "data"))
    get_settings.cache_clear()
    begun, asked = threading.Event(), threading.Event()

    def slowly(*_):
        begun.set()
        assert asked.wait(60), "no question was answered meanwhile"
        raise UsageError("told to")

    monkeypatch.setattr("qaserve.cli.mcp.run_ingest", slowly)
    with DataFolder(get_settings()) as folder, ThreadPoolExecutor(1) as pool:
        adding = pool.submit(folder.add, [NewPair(question="q", answer="a")])
        assert begun.wait(60)
        assert folder.engine().corpus == "things"
        asked.set()
        with pytest.raises(UsageError, match="told to"):
            adding.result()
