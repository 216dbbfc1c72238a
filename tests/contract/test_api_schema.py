"""The API does what its OpenAPI document says, whatever it is sent."""

import json
import os
from contextlib import suppress

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyStrategyDefinition, Unsatisfiable
from random_files import FEW, counted, files
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ingest.jobs import Jobs
from qaserve.api import create_app
from qaserve.schemas.ask import AskRequest, AskResult
from qaserve.service.feedback import FeedbackLog
from qaserve.service.gaps import QuestionLog
from qaserve.settings import LimitSettings, ServerSettings

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "150"))
MANY = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
UPLOADED = st.dictionaries(st.sampled_from(["question", "answer", "id", "topics"]), st.text(max_size=8)).map(
    lambda row: json.dumps(row).encode()
) | st.sampled_from([b"question,answer", b"a,b", b"# Q?", b"PK\x03\x04", b"\x1f\x8b"])
FIELDS = st.sampled_from(sorted(AskRequest.model_fields))
BODIES = (
    st.dictionaries(FIELDS | st.sampled_from(["pair_id", "helpful", "build"]), JSON_VALUES, max_size=5)
    | st.fixed_dictionaries({"question": st.text(min_size=1, max_size=20)}, optional={"top_k": st.integers(0, 30)})
    | st.lists(st.fixed_dictionaries({"question": st.text(max_size=8)}), max_size=4)
).map(lambda body: json.dumps(body).encode())


@pytest.fixture
def app(engine, encoder, make_ingest, tmp_path):
    log = FeedbackLog(tmp_path / "data", "things")
    kept = QuestionLog(tmp_path / "data", "things", keeps=True, days=1)
    with Jobs(tmp_path / "data", "things", lambda _: make_ingest(engine.store, encoder), waiting=1000) as jobs:
        made = create_app(engine, ServerSettings(), LimitSettings(requests_per_minute=0), log=log, kept=kept, jobs=jobs)
        made.add_middleware(counted)
        yield made


@pytest.fixture
def document(app):
    """The document without its keys, which this application does not ask for: a request without one is not wrong."""
    for operations in app.openapi()["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.fixture
def http(app):
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.fuzz
@pytest.mark.parametrize(
    ("mode", "must"),
    [
        (
            GenerationMode.POSITIVE,
            {"/healthz", "/readyz", "/v1/ask", "/v1/pairs/{identifier}", "/v1/feedback", "/v1/ingest"},
        ),
        (GenerationMode.NEGATIVE, {"/v1/ask", "/v1/clusters/{number}", "/v1/feedback", "/v1/jobs/{job}"}),
    ],
    ids=["as described", "not as described"],
)
def test_every_operation_keeps_its_promises(document, mode, must):
    done = set()
    for operation in (found.ok() for found in document.get_all_operations()):

        @settings(max_examples=max(20, EXAMPLES // 20), deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps_them(case):
            done.add(case.operation.path)
            case.call_and_validate(checks=CHECKS)

        with suppress(Unsatisfiable):  # an operation that takes anything cannot be used wrongly
            keeps_them()
    assert done >= must


@pytest.mark.fuzz
def test_operations_one_after_another_keep_their_promises(document):
    """What a reply names, a job, a build or a skill, is asked for, changed or deleted by the requests that follow."""
    done, broken = [], []

    class Machine(document.as_state_machine()):
        def validate_response(self, response, case, additional_checks=None, **_):
            done.append((case.operation.label, response.status_code))
            try:
                case.validate_response(response, checks=CHECKS)
            except (Failure, FailureGroup) as error:
                broken.append(error)  # not raised: Hypothesis would try again, and find another state

    few = settings(
        max_examples=4,
        stateful_step_count=8,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    for _ in range(max(10, EXAMPLES // 10)):
        # What one example leaves, the next ones find; where the same requests get other replies, a run is given up.
        with suppress(FlakyStrategyDefinition):
            Machine.run(settings=few)
    assert broken == []
    assert any("{" in label and status < 400 for label, status in done), "what a reply named was there"


@MANY
@given(question=st.text())
def test_any_text_is_answered_or_refused_as_documented(http, question):
    reply = http.post("/v1/ask", json={"question": question, "top_k": 1})
    if reply.status_code == 200:
        assert AskResult.model_validate_json(reply.content).question == question.strip()
    else:
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid_request")


@MANY
@given(body=JSON_VALUES | st.dictionaries(FIELDS, JSON_VALUES))
def test_any_json_is_answered_or_refused_as_documented(http, body):
    reply = http.post("/v1/ask", content=json.dumps(body), headers={"Content-Type": "application/json"})
    documented = http.app.openapi()["paths"]["/v1/ask"]["post"]["responses"]
    assert str(reply.status_code) in documented
    assert reply.status_code < 500
    assert reply.status_code == 200 or reply.json()["error"]["message"]


@MANY
@given(body=st.binary())
def test_any_bytes_are_refused_as_documented(http, body):
    reply = http.post("/v1/ask", content=body, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid_request")


@settings(FEW, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=files(BODIES, most=20, counts=False), path=st.sampled_from(["/v1/ask", "/v1/feedback"]))
def test_bodies_made_of_others_are_answered_or_refused_as_documented(http, bodies, path):
    documented = http.app.openapi()["paths"][path]["post"]["responses"]
    for body in bodies:
        reply = http.post(path, content=body, headers={"Content-Type": "application/json"})
        assert reply.status_code < 500
        assert str(reply.status_code) in documented


@settings(FEW, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=files(UPLOADED), name=st.text(max_size=12), mapping=st.text(max_size=12))
def test_any_upload_is_previewed_or_refused_as_documented(http, lines, name, mapping):
    said = {"name": name + ".jsonl", "fields": f"question={mapping}"} if mapping else {}
    reply = http.post("/v1/ingest/preview", files={"file": (name or "x", b"\n".join(lines))}, params=said)
    documented = http.app.openapi()["paths"]["/v1/ingest/preview"]["post"]["responses"]
    assert str(reply.status_code) in documented
    assert reply.status_code < 500
    assert reply.status_code == 200 or reply.json()["error"]["message"]


def test_examples_of_the_document_work(http):
    body = http.get("/openapi.json").json()["paths"]["/v1/ask"]["post"]["requestBody"]
    examples = body["content"]["application/json"]["examples"]
    assert len(examples) >= 2
    for example in examples.values():
        assert http.post("/v1/ask", json=example["value"]).status_code == 200
