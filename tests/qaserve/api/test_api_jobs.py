import asyncio
import itertools
import json
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from ingest.builder import Builder
from ingest.jobs import Jobs
from ingest.pipeline import Ingest
from qaserve.api import create_app
from qaserve.api.builds import ACTIVATIONS
from qaserve.api.uploads import receive_form, receive_lines, safe_name
from qaserve.client.http import AsyncClient, Client
from qaserve.common.errors import ConflictError, StoreLockedError, StoreWriteError
from qaserve.common.locks import corpus_lock
from qaserve.schemas.ingest import Preview
from qaserve.schemas.jobs import IngestOptions, IngestRequest, Job
from qaserve.search.engine import Engine
from qaserve.settings import FitSettings, LimitSettings, ReadSettings, ServerSettings
from qaserve.store import BuildRef

SECONDS = 60
LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def jobs(engine, encoder, tmp_path):
    def make(reporter):
        builder = Builder(
            engine.store, encoder.identity, tmp_path / "models", "things", fit=FitSettings(), reporter=reporter
        )
        return Ingest(builder, encoder, ReadSettings())

    with Jobs(tmp_path / "data", "things", make, waiting=3) as made:
        yield made


@pytest.fixture
def app(engine, jobs):
    return create_app(
        engine,
        ServerSettings(),
        LimitSettings(max_upload_bytes=100_000, max_body_bytes=50_000),
        ("/secret",),
        jobs=jobs,
    )


@pytest.fixture
def http(app):
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def ended(http, reply):
    assert reply.status_code == 202, reply.text
    job, deadline = reply.json(), time.monotonic() + SECONDS
    while job["finished"] is None:
        assert time.monotonic() < deadline, job
        time.sleep(0.005)
        job = http.get(f"/v1/jobs/{job['id']}").json()
    return job


def uploads(tmp_path):
    return [path for kind in ("uploads", "incoming") for path in (tmp_path / "data" / "jobs").rglob(f"{kind}/*/*")]


@pytest.mark.parametrize("way", ["form", "lines", "document"])
def test_pairs_come_in_three_ways_and_are_found_at_once(http, rows, way, tmp_path):
    new = rows(["amber"])
    if way == "form":
        reply = http.post("/v1/ingest", files={"file": ("amber.jsonl", lines(new))})
    elif way == "lines":
        reply = http.post("/v1/ingest?name=amber.jsonl", content=lines(new), headers=LINES)
    else:
        reply = http.post("/v1/ingest", json={"pairs": new})
    job = ended(http, reply)
    assert job["state"] == "done", job
    assert (job["report"]["added"], job["report"]["pairs"]) == (4, 28)
    result = http.post("/v1/ask", json={"question": new[0]["question"]}).json()
    assert result["build"] == job["report"]["build"]
    answer = result["answers"][0]
    assert answer["cluster_id"] == "make_amber"
    assert answer["source_file"] == ("api.jsonl" if way == "document" else "amber.jsonl")
    assert uploads(tmp_path) == []
    Job.model_validate(job)


def test_a_table_is_read_under_its_own_suffix(http):
    job = ended(http, http.post("/v1/ingest", files={"file": ("faq.csv", b"question;answer\nWhy amber?;So.\n")}))
    assert (job["state"], job["source"], job["report"]["added"]) == ("done", "faq.csv", 1)
    job = ended(http, http.post("/v1/ingest", files={"file": ("faq.xlsx", b"PK\x03\x04")}))
    assert job["error"]["message"] == "faq.xlsx looks like an Excel file, which is not read"


OFFICE = "looks like an Office document or a zip archive, which is not read"
AS_LINES = "holds no pair; its name says no format, so it is read as JSON Lines; line 1: not JSON"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.docx", b"PK\x03\x04rest", OFFICE),
        ("notes.doc", b"\xd0\xcf\x11\xe0", OFFICE),
        ("a.pdf", b"%PDF-1", AS_LINES),
    ],
)
def test_a_file_of_another_type_keeps_its_name_and_the_types_are_told(http, name, content, reason):
    files = {"file": (name, content)}
    job = ended(http, http.post("/v1/ingest", files=files))
    assert job["source"] == name
    assert job["error"]["message"].startswith(f"{name} {reason}")
    assert job["error"]["hint"].startswith("Files that are read end in .jsonl, .ndjson, ")
    seen = http.post("/v1/ingest/preview", files=files).json()
    assert f"{name} {reason}" in (seen.get("problem") or seen["error"]["message"])


def test_lines_under_another_suffix_are_read_and_come_from_a_file_of_that_name(http):
    job = ended(
        http, http.post("/v1/ingest", files={"file": ("faq.txt", b'{"question": "Why amber?", "answer": "So."}')})
    )
    assert (job["state"], job["source"], job["report"]["added"]) == ("done", "faq.txt", 1)
    assert http.post("/v1/ask", json={"question": "Why amber?"}).json()["answers"][0]["source_file"] == "faq.txt"


def test_what_can_be_uploaded_can_be_previewed(http):
    rows = b"".join(b'{"question": "q %d", "answer": "a"}\n' % number for number in range(2_000))
    assert 50_000 < len(rows) < 100_000
    assert http.post("/v1/ingest/preview", files={"file": ("a.jsonl", rows)}).status_code == 200


def test_a_file_of_other_fields_is_previewed_and_read_as_said(http, app):
    table = b"prompt,reply,kind\nWhy amber?,So.,a\nWhy brass?,Thus.,b\n"
    reply = http.post("/v1/ingest/preview", files={"file": ("faq.csv", table)})
    seen = Preview.model_validate(reply.json())
    assert (seen.fields, seen.guessed) == (("prompt", "reply", "kind"), ("question=prompt", "answer=reply"))
    assert [(one.line, one.question, one.answer) for one in seen.pairs] == [
        (2, "Why amber?", "So."),
        (3, "Why brass?", "Thus."),
    ]
    job = ended(http, http.post("/v1/ingest", files={"file": ("faq.csv", table)}))
    assert "accept_guess" in job["error"]["hint"]
    said = {"fields": "question=prompt\nanswer=reply\ntopics=kind", "dry_run": "true"}
    job = ended(http, http.post("/v1/ingest", files={"file": ("faq.csv", table)}, data=said))
    assert (job["report"]["added"], job["options"]["fields"]) == (2, said["fields"].split())
    again = "fields=question%3Dprompt&fields=answer%3Dreply&dry_run=true&name=faq.csv"
    job = ended(http, http.post(f"/v1/ingest?{again}", content=table, headers=LINES))
    assert job["report"]["added"] == 2
    bad = http.post("/v1/ingest/preview", files={"file": ("faq.csv", b"a,b\n1,2\n")}).json()
    assert bad["problem"] == "faq.csv cannot be read: a column `question` is needed; the columns are a, b"
    gone = http.post("/v1/ingest/preview", files={"file": ("faq.xlsx", b"PK\x03\x04")})
    assert (gone.status_code, gone.json()["error"]["code"]) == (422, "invalid_corpus")
    assert gone.json()["error"]["message"] == "faq.xlsx looks like an Excel file, which is not read"


@pytest.mark.parametrize("way", ["form", "lines", "document"])
def test_options_are_heard_however_they_are_said(http, rows, way):
    some = rows(["bread"])
    if way == "form":
        reply = http.post(
            "/v1/ingest",
            files={"file": ("a.jsonl", lines(some))},
            data={"replace": "true", "dry_run": "1", "force": "1"},
        )
    elif way == "lines":
        reply = http.post("/v1/ingest?replace=true&dry_run=true&force=true", content=lines(some), headers=LINES)
    else:
        reply = http.post("/v1/ingest", json={"pairs": some, "replace": True, "dry_run": True, "force": True})
    job = ended(http, reply)
    assert {name for name, said in job["options"].items() if said} == {"replace", "dry_run", "force"}
    assert (job["report"]["removed"], job["report"]["dry_run"]) == (20, True)


def test_rejected_rows_can_be_fetched(http, rows, jobs):
    body = lines(rows(["amber"])) + b'{broken\n{"question": "x"}\n'
    job = ended(http, http.post("/v1/ingest", files={"file": ("amber.jsonl", body)}))
    reply = http.get(f"/v1/jobs/{job['id']}/rejected")
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    found = [json.loads(line) for line in reply.text.splitlines()]
    assert [(row["file"], row["line"]) for row in found] == [("amber.jsonl", 5), ("amber.jsonl", 6)]
    assert all(row["reason"] for row in found)
    failed = ended(http, http.post("/v1/ingest", content=b"{broken\n", headers=LINES))
    assert failed["error"]["code"] == "invalid_corpus"
    again = ended(http, http.post(f"/v1/jobs/{failed['id']}/retry"))
    assert (again["id"], again["error"]) == (failed["id"], failed["error"])
    assert again["started"] > failed["started"]
    reply = http.post(f"/v1/jobs/{job['id']}/retry")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "conflict")
    reply = http.get(f"/v1/jobs/{failed['id']}/rejected")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")


def test_an_upload_is_counted_as_it_streams(http, jobs, tmp_path):
    def endless():
        for _ in range(1_000):
            yield b" " * 1_000

    reply = http.post("/v1/ingest", content=endless(), headers=LINES)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    assert "more than 100,000 bytes" in reply.json()["error"]["message"]
    for path in ("/v1/ingest", "/v1/ingest/preview"):
        assert http.post(path, files={"file": ("a.jsonl", b" " * 200_000)}).status_code == 413
    assert jobs.listed().jobs == ()
    assert uploads(tmp_path) == []


def test_a_json_body_is_held_to_its_own_bound_and_lines_are_not(http, jobs, rows, tmp_path):
    many = rows([f"thing{number}" for number in range(60)])
    reply = http.post("/v1/ingest", json={"pairs": many})
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    assert "more than 50,000 bytes" in reply.json()["error"]["message"]
    assert "JSON Lines" in reply.json()["error"]["hint"]
    assert jobs.listed().jobs == ()
    assert uploads(tmp_path) == []
    assert 50_000 < len(lines(many)) < 100_000
    assert ended(http, http.post("/v1/ingest", content=lines(many), headers=LINES))["report"]["added"] == 240


def sent(chunks, content_type):
    """A request whose body comes in these chunks."""

    async def receive():
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


@pytest.mark.parametrize("way", ["form", "lines"])
def test_an_upload_is_received_in_bounded_memory(tmp_path, way):
    """32 MiB arrive in chunks of 64 KiB; not a tenth of them is ever held."""
    chunk, count = b"x" * 2**16, 512
    if way == "form":
        parts = itertools.chain([PART.removesuffix(b"{}")], itertools.repeat(chunk, count), [b"\r\n--B--\r\n"])
        coming = receive_form(sent(parts, FORM["Content-Type"]), tmp_path, 2**26)
    else:
        coming = receive_lines(sent(itertools.repeat(chunk, count), LINES["Content-Type"]), tmp_path, "a", 2**26)
    tracemalloc.start()
    try:
        asyncio.run(coming)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a.jsonl").stat().st_size == 2**25
    assert peak < 3 * 2**20


@pytest.mark.parametrize("path", ["/v1/ingest", "/v1/builds/BUILD/activate"])
def test_health_is_answered_while_the_disk_or_the_corpus_is_busy(app, serve_app, engine, jobs, rows, tmp_path, path):
    """Neither a request that waits for the jobs' file nor more activations than there are threads stop the others."""
    url, build = serve_app(app), engine.load().ref.build
    path, count = path.replace("BUILD", build), 60 if "activate" in path else 3
    engine._lock_wait = SECONDS
    arrived = threading.Semaphore(0)
    receiving, activate = jobs.receiving, engine.activate

    def telling(real):
        def call(*arguments):
            arrived.release()
            return real(*arguments)

        return call

    jobs.receiving, engine.activate = telling(receiving), telling(activate)
    http = httpx.Client(base_url=url, timeout=SECONDS, limits=httpx.Limits(max_connections=None))
    with http, ThreadPoolExecutor(count) as pool:
        with jobs._lock, corpus_lock(tmp_path / "models", "things", "long fit", 0):
            options = {} if "activate" in path else {"json": {"pairs": rows()}}
            waiting = [pool.submit(http.post, path, **options) for _ in range(count)]
            for _ in range(min(count, ACTIVATIONS)):
                assert arrived.acquire(timeout=SECONDS)
            assert httpx.get(f"{url}/healthz", timeout=SECONDS / 2).status_code == 200
            assert not any(one.done() for one in waiting)
        assert {one.result().status_code for one in waiting} == {200 if "activate" in path else 202}


FORM = {"Content-Type": "multipart/form-data; boundary=B"}
PART = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{}'
FIELD = b'--B\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n1\r\n'


@pytest.mark.parametrize(
    ("headers", "body", "message"),
    [
        (LINES, b"", "the upload is empty"),
        (LINES, b"\x1f\x8b\x08\x00", "packed with gzip"),
        ({"Content-Type": "multipart/form-data"}, b"x", "Missing boundary"),
        (
            {"Content-Type": "multipart/form-data; boundary=" + "x" * 999},
            b"x",
            "Invalid multipart data",
        ),
        (FORM, b"no form", "the form cannot be read"),
        (FORM, b"", "the form ends too early"),
        (FORM, PART, "the form ends too early"),
        (FORM, PART + b"\r\n" + PART + b"\r\n--B--\r\n", "Too many files. Maximum number of files is 1."),
        (FORM, FIELD % 1 + b"--B--\r\n", "the form holds no file"),
        (
            FORM,
            b"".join(FIELD % number for number in range(20)) + b"--B--\r\n",
            "Too many fields",
        ),
        (FORM, FIELD % 1 + FIELD.replace(b"1", b"1" * 2_000) % 2 + b"--B--\r\n", "Part exceeded maximum size of 1KB."),
        (FORM, FIELD % 1 + PART + b"\r\n--B--\r\n", "f1: There is no such field"),
        ({"Content-Type": "application/json"}, b"{", "the body is not JSON"),
        ({"Content-Type": "application/json"}, b"[" * 50_000, "the body is not JSON"),
        ({"Content-Type": "application/json"}, b"\xff", "the body is not JSON"),
        ({"Content-Type": "application/json"}, b"[]", "not an object with `pairs`"),
        ({"Content-Type": "application/json"}, b"{}", "pairs: Field required"),
        ({"Content-Type": "application/json"}, b'{"pairs": []}', "pairs: List should have at least 1 item"),
        ({"Content-Type": "application/json"}, b'{"pairs": [7]}', "pairs.0: .* an object (got 7)"),
        ({"Content-Type": "application/json"}, b'{"pairs": [{}], "colour": 1}', "colour: There is no such field"),
        ({"Content-Type": "application/json"}, b'{"pairs": [{}], "replace": "perhaps"}', "replace: "),
    ],
)
def test_an_upload_that_cannot_be_meant_is_refused(http, jobs, tmp_path, headers, body, message):
    reply = http.post("/v1/ingest", content=body, headers=headers)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (422, "invalid_request"), error
    for part in message.split(".*"):
        assert part in error["message"]
    assert error["hint"]
    assert jobs.listed().jobs == ()
    assert uploads(tmp_path) == []


def test_bad_options_in_the_address_are_refused(http):
    reply = http.post("/v1/ingest?replace=perhaps", content=b"{}", headers=LINES)
    assert reply.status_code == 422
    assert "replace" in reply.json()["error"]["message"]
    assert http.post("/v1/ingest?colour=red", content=b"{}", headers=LINES).status_code == 422


def test_pairs_that_no_file_could_hold_are_rejected_as_rows(http):
    """Half a surrogate pair, NaN and a question that is no text are the reader's to reject, like those of a file."""
    body = b'{"pairs": [{"question": "\\ud800", "answer": "a"}, {"question": NaN, "answer": "a"}, {"question": 7}]}'
    job = ended(http, http.post("/v1/ingest", content=body, headers={"Content-Type": "application/json"}))
    assert job["error"]["code"] == "invalid_corpus"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("pairs.jsonl", "pairs.jsonl"),
        ("../../etc/passwd", "passwd.jsonl"),
        ("C:\\data\\my pairs.jsonl", "my-pairs.jsonl"),
        ("", "upload.jsonl"),
        ("..", "upload.jsonl"),
        (".jsonl", "jsonl.jsonl"),
        ("a\x00b/", "upload.jsonl"),
        ("x" * 300, "x" * 100 + ".jsonl"),
        ("été.jsonl", "été.jsonl"),
        ("問" * 100 + ".jsonl", "問" * 33 + ".jsonl"),
        ("faq.CSV", "faq.csv"),
        (".tsv", "tsv.jsonl"),
        ("faq.xlsx", "faq.xlsx"),
        ("notes.docx", "notes.docx"),
        ("pairs.TXT", "pairs.TXT"),
        ("v1.2 of it", "v1.2-of-it"),
        ("a." + "x" * 300, "a." + "x" * 9),
        ("../my docs.ZIP", "my-docs.zip"),
    ],
)
def test_a_name_from_outside_is_only_a_name(name, safe):
    assert safe_name(name) == safe


def test_jobs_are_listed_and_cancelled(http, rows, jobs):
    job = ended(http, http.post("/v1/ingest", json={"pairs": rows(["amber"])}))
    listed = http.get("/v1/jobs").json()
    assert listed["corpus"] == "things"
    assert [(one["id"], one["state"], one["report"]) for one in listed["jobs"]] == [(job["id"], "done", None)]
    reply = http.delete(f"/v1/jobs/{job['id']}")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "conflict")
    assert http.delete(f"/v1/jobs/{'0' * 32}").status_code == 404
    assert http.get(f"/v1/jobs/{'0' * 32}").status_code == 404
    assert http.get("/v1/jobs/x").status_code == 422


def test_folders_of_the_machine_are_not_told(http, rows, jobs, monkeypatch):
    def full(_):
        raise StoreWriteError("/secret/data cannot be written: full", hint="free /secret/data")

    monkeypatch.setattr(jobs, "_make", full)
    job = ended(http, http.post("/v1/ingest", json={"pairs": rows()}))
    assert job["error"] == {
        "code": "store_write_failed",
        "message": "…/data cannot be written: full",
        "hint": "free …/data",
    }
    assert "/secret" not in http.get("/v1/jobs").text


def test_where_an_upload_lies_is_not_told(http, tmp_path):
    job = ended(http, http.post("/v1/ingest?name=mine.jsonl", content=b"{broken\n", headers=LINES))
    assert "mine.jsonl" in job["error"]["message"]
    for text in (job["error"]["message"], job["error"]["hint"], http.get("/v1/jobs").text):
        assert "uploads" not in text
        assert str(tmp_path) not in text


@pytest.mark.parametrize("kind", ["x-ndjson", "ndjson", "jsonl", "x-jsonl", "jsonlines", "x-jsonlines; charset=utf-8"])
def test_every_name_of_json_lines_is_taken(http, rows, kind):
    reply = http.post("/v1/ingest", content=lines(rows(["amber"])), headers={"Content-Type": f"application/{kind}"})
    assert ended(http, reply)["state"] == "done"


def test_writing_needs_the_write_key(engine, jobs, rows):
    settings = ServerSettings(api_key="reader", write_key="writer")
    reader, writer = ({"Authorization": f"Bearer {key}"} for key in ("reader", "writer"))
    build = engine.load().ref.build
    with TestClient(create_app(engine, settings, jobs=jobs)) as http:
        for headers, status in (({}, 401), (reader, 403)):
            assert http.post("/v1/ingest", json={"pairs": rows()}, headers=headers).status_code == status
            assert http.delete(f"/v1/jobs/{'0' * 32}", headers=headers).status_code == status
            assert http.post(f"/v1/jobs/{'0' * 32}/retry", headers=headers).status_code == status
            assert http.post(f"/v1/builds/{build}/activate", headers=headers).status_code == status
        assert http.get("/v1/jobs").status_code == 401
        assert http.get("/v1/jobs", headers=reader).status_code == 200
        assert http.post(f"/v1/builds/{build}/activate", headers=writer).status_code == 200
        assert http.post("/v1/ingest", json={"pairs": rows()}, headers=writer).status_code == 202


def test_a_caller_that_hangs_up_leaves_nothing(app, serve_app, jobs, tmp_path):
    url = serve_app(app)

    def broken():
        yield b'{"question": '
        raise RuntimeError("the caller gives up")

    with pytest.raises(RuntimeError, match="gives up"):
        httpx.post(f"{url}/v1/ingest", content=broken(), headers=LINES)
    deadline = time.monotonic() + SECONDS
    while jobs._incoming or uploads(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert jobs.listed().jobs == ()


def test_jobs_end_with_the_server(app, jobs, rows):
    with TestClient(app) as http:
        done = ended(http, http.post("/v1/ingest", json={"pairs": rows(["amber"])}))
    assert jobs.get(done["id"]).state == "done"
    assert jobs._closing


def test_both_clients_bring_pairs_in_and_go_back(app, serve_app, rows, engine):
    url, first = serve_app(app), engine.load().ref.build

    async def talk():
        async with AsyncClient(url) as client:
            job = await client.ingest(IngestRequest(pairs=rows(["amber"])))
            while not (job := await client.job(job.id)).ended:
                await asyncio.sleep(0.005)
            return job, await client.jobs()

    with Client(url) as client:
        job = client.upload("a & b.jsonl", lines(rows(["bread"])), IngestOptions(dry_run=True, replace=True))
        while not client.job(job.id).ended:
            time.sleep(0.005)
        job = client.job(job.id)
        assert (job.source, job.report.removed, job.report.dry_run) == ("a-b.jsonl", 20, True)
        done, listed = asyncio.run(talk())
        assert (done.state, done.report.added) == ("done", 4)
        assert [one.id for one in listed.jobs] == [done.id, job.id]
        assert client.activate(first).live
        assert engine.load().ref.build == first
        with pytest.raises(ConflictError, match="is done already"):
            client.cancel(done.id)
        with pytest.raises(ConflictError, match="is done: only failed jobs run again"):
            client.retry(done.id)


# Activation


def test_an_earlier_build_is_made_live_and_answers_at_once(http, engine, rows):
    first = engine.load().ref.build
    new = rows(["amber"])
    second = ended(http, http.post("/v1/ingest", json={"pairs": new}))["report"]["build"]

    def asked():
        result = http.post("/v1/ask", json={"question": new[0]["question"]}).json()
        return result["build"], result["answers"][0]["cluster_id"] == "make_amber"

    assert asked() == (second, True)
    reply = http.post(f"/v1/builds/{first}/activate")
    assert reply.status_code == 200
    assert (reply.json()["build"], reply.json()["live"], reply.json()["pairs"]) == (first, True, 24)
    assert asked() == (first, False)
    assert http.post(f"/v1/builds/{second}/activate").json()["build"] == second
    assert asked() == (second, True)


def test_no_build_is_made_live_while_another_process_changes_them(http, engine, rows, tmp_path):
    first = engine.load().ref.build
    second = ended(http, http.post("/v1/ingest", json={"pairs": rows(["amber"])}))["report"]["build"]
    with corpus_lock(tmp_path / "models", "things", "ingest of corpus things", 0):
        reply = http.post(f"/v1/builds/{first}/activate")
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "store_locked")
        assert "(ingest of corpus things)" in reply.json()["error"]["message"]
        assert engine.load().ref.build == second
    assert http.post(f"/v1/builds/{first}/activate").status_code == 200


def test_an_activation_waits_for_another_change(engine, make_ingest, encoder, write_rows, rows, tmp_path):
    first = engine.load().ref.build
    make_ingest(engine.store, encoder).run([write_rows(rows(["amber"]), "amber.jsonl")])
    patient = Engine(engine.store, encoder, tmp_path / "models", "things", lock_wait=SECONDS)
    held, leave = threading.Event(), threading.Event()

    def hold():
        with corpus_lock(tmp_path / "models", "things", "long fit", 0):
            held.set()
            leave.wait(SECONDS)

    with ThreadPoolExecutor() as pool:
        pool.submit(hold)
        assert held.wait(SECONDS)
        waiting = pool.submit(patient.activate, first)
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        leave.set()
        assert waiting.result().build == first
    impatient = Engine(engine.store, encoder, tmp_path / "models", "things", lock_wait=0.1)
    with (
        corpus_lock(tmp_path / "models", "things", "long fit", 0),
        pytest.raises(StoreLockedError, match=r"corpus 'things' is in use by .*\(long fit\), also after 0\.1 seconds"),
    ):
        impatient.activate(first)


def test_a_build_that_cannot_answer_is_not_made_live(
    http, engine, make_encoder, make_ingest, rows, write_rows, tmp_path
):
    first = engine.load().ref.build
    second = ended(http, http.post("/v1/ingest", json={"pairs": rows(["amber"])}))["report"]["build"]
    assert http.post(f"/v1/builds/{'0' * 12}/activate").json()["error"]["code"] == "build_not_found"
    assert http.post("/v1/builds/nonsense/activate").status_code == 422
    (tmp_path / "models" / "things" / first / "model.safetensors").unlink()
    reply = http.post(f"/v1/builds/{first}/activate")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "bundle_unusable")
    live = engine.store.open(BuildRef("things", second))
    other = live.metadata.model_copy(update={"build": "a" * 12, "encoder": make_encoder("other").identity})
    with engine.store.create(other) as writer:
        list(writer.append(live.scroll()))
        writer.seal()
    reply = http.post(f"/v1/builds/{other.build}/activate")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "encoder_mismatch")
    assert engine.load().ref.build == second
