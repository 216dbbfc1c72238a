import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from io import BytesIO
from multiprocessing import AuthenticationError
from zipfile import ZipFile

import pytest

from ingest.builder import Builder
from ingest.jobs import Jobs
from ingest.jobs_server import remote_jobs, serve_jobs
from ingest.pipeline import Ingest
from qaserve.common.errors import BusyError, ConflictError, NotFoundError, StoreLockedError, StoreWriteError
from qaserve.common.locks import corpus_lock
from qaserve.schemas.ask import AskRequest
from qaserve.schemas.jobs import IngestOptions, Job
from qaserve.search.engine import Engine
from qaserve.settings import FitSettings, ReadSettings

SECONDS = 60


class Gate:
    """An encoder that waits before each call until it is let through."""

    def __init__(self, encoder):
        self.identity, self._encoder = encoder.identity, encoder
        self.reached, self.open = threading.Event(), threading.Event()

    def encode_questions(self, texts, on_batch=None):
        self.reached.set()
        assert self.open.wait(SECONDS)
        return self._encoder.encode_questions(texts, on_batch)

    def encode_answers(self, texts, on_batch=None):
        return self._encoder.encode_answers(texts, on_batch)


@pytest.fixture
def gate(encoder):
    made = Gate(encoder)
    yield made
    made.open.set()


@pytest.fixture
def start(edge, gate, tmp_path):
    """Jobs over a real store and the gated encoder; closed at the end."""
    opened = []

    def start(make=None, waiting=3, lock_wait=0):
        def ingest(reporter):
            builder = Builder(
                edge,
                gate.identity,
                tmp_path / "models",
                "things",
                fit=FitSettings(),
                reporter=reporter,
                lock_wait=lock_wait,
            )
            return Ingest(builder, gate, ReadSettings())

        jobs = Jobs(tmp_path / "data", "things", make or ingest, waiting=waiting)
        opened.append(jobs)
        return jobs

    yield start
    gate.open.set()
    for jobs in opened:
        jobs.close()


def submit(jobs, rows, name="pairs.jsonl", **options):
    with jobs.receiving() as folder:
        file = folder / name
        file.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
        return jobs.submit(file, IngestOptions(**options))


def ended(jobs, job):
    deadline = time.monotonic() + SECONDS
    while not jobs.get(job.id).ended:
        assert time.monotonic() < deadline, jobs.get(job.id)
        time.sleep(0.005)
    return jobs.get(job.id)


def left(tmp_path):
    """What the jobs' folder holds: how many jobs, and which uploads."""
    folder = tmp_path / "data" / "jobs" / "things"
    with closing(sqlite3.connect(folder / "jobs.db")) as database:
        (count,) = database.execute("SELECT count(*) FROM jobs").fetchone()
    assert list(folder.glob("incoming/*")) == []
    return count, [path for path in (folder / "uploads").rglob("*") if path.is_file()]


def test_a_job_does_what_an_ingest_does(start, gate, edge, encoder, rows, tmp_path):
    gate.open.set()
    jobs = start()
    job = submit(jobs, [*rows(), "{broken\n"])
    assert (job.state, job.source, job.corpus) == ("queued", "pairs.jsonl", "things")
    job = ended(jobs, job)
    assert job.state == "done", job.error
    assert (job.report.added, job.report.pairs, job.report.build) == (24, 24, edge.live("things").build)
    (rejected,) = job.report.rejected
    assert (rejected.file, rejected.line) == ("pairs.jsonl", 25)
    assert job.created <= job.started <= job.finished
    stages = {stage.name: stage for stage in job.stages}
    assert (stages["Reading (lines)"].done, stages["Reading (lines)"].total) == (25, 25)
    assert stages["Writing (pairs)"].done == stages["Writing (pairs)"].total == 24
    assert left(tmp_path) == (1, [])
    answer = Engine(edge, encoder, tmp_path / "models", "things").ask(AskRequest(question=rows()[0]["question"]))
    assert answer.answers[0].source_file == "pairs.jsonl"


def zipped(files):
    buffer = BytesIO()
    with ZipFile(buffer, "w") as made:
        for name, text in files.items():
            made.writestr(name, text)
    return buffer.getvalue()


def submit_bytes(jobs, data, name, **options):
    with jobs.receiving() as folder:
        (folder / name).write_bytes(data)
        return jobs.submit(folder / name, IngestOptions(**options))


def test_a_zip_brings_documents_in_and_leaves_the_pairs(start, gate, edge, encoder, rows, tmp_path):
    gate.open.set()
    jobs = start()
    ended(jobs, submit(jobs, rows()))
    documents = zipped({"docs/skill_bread.md": "# Bread", "docs/empty.md": ""})
    foretold = ended(jobs, submit_bytes(jobs, documents, "docs.zip", dry_run=True)).report
    assert (foretold.documents.added, foretold.dry_run) == (("skill_bread.md",), True)
    job = ended(jobs, submit_bytes(jobs, documents, "docs.zip"))
    counted = next(stage for stage in job.stages if stage.name == "Counting words (pairs)")
    assert (counted.done, counted.total) == (24, 24)
    report = job.report
    assert (report.pairs, report.added, report.removed) == (24, 0, 0)
    assert [one.path for one in report.documents.rejected] == ["empty.md"]
    assert left(tmp_path)[1] == [], "what was unpacked is deleted too"
    engine = Engine(edge, encoder, tmp_path / "models", "things")
    assert engine.skill("skill_bread").document.title == "Bread"


def test_a_zip_that_cannot_be_unpacked_fails_the_job_without_naming_its_path(start, gate, rows, tmp_path):
    gate.open.set()
    jobs = start()
    ended(jobs, submit(jobs, rows()))
    job = ended(jobs, submit_bytes(jobs, b"no zip", "docs.zip"))
    assert (job.state, job.error.code) == ("failed", "invalid_corpus")
    assert job.error.message.startswith("docs.zip cannot be unpacked")
    job = ended(jobs, submit_bytes(jobs, zipped({"a.md": "# A"}), "docs.zip", replace=True))
    assert (job.state, job.error.code) == ("failed", "invalid_request")


def test_a_dry_run_changes_nothing_and_replace_replaces(start, gate, edge, rows):
    gate.open.set()
    jobs = start()
    build = ended(jobs, submit(jobs, rows())).report.build
    report = ended(jobs, submit(jobs, rows(["bread"]), replace=True, dry_run=True)).report
    assert (report.dry_run, report.removed, edge.live("things").build) == (True, 20, build)
    report = ended(jobs, submit(jobs, rows(["bread"]), replace=True)).report
    assert (report.removed, report.pairs, edge.live("things").build) == (20, 4, report.build)


def test_a_dry_run_is_a_job_like_another_and_tells_at_once_what_changes(start, gate, edge, rows):
    gate.open.set()
    jobs = start()
    build = ended(jobs, submit(jobs, rows())).report.build
    gate.open.clear()
    gate.reached.clear()
    job = submit(jobs, rows(["bread", "amber"]), dry_run=True)
    assert gate.reached.wait(SECONDS)
    running = jobs.get(job.id)
    assert (running.state, running.report) == ("running", None)
    assert (running.planned.added, running.planned.unchanged, running.planned.changes.added) == (4, 4, ())
    assert [stage.name for stage in running.stages][-1] == "Encoding (texts)"
    assert jobs.listed().jobs[0].planned is None
    gate.open.set()
    job = ended(jobs, job)
    assert (job.state, job.planned) == ("done", None)
    assert {"Clustering (answers)", "Measuring (sets of questions)"} <= {stage.name for stage in job.stages}
    assert (job.report.cluster_changes is not None, job.report.gate.stops) == (True, False)
    assert [info.build for info in edge.builds("things")] == [build]
    done = ended(jobs, submit(jobs, rows(["bread", "amber"]))).report
    told_apart = {"dry_run", "seconds", "stages"}
    assert job.report.model_dump(exclude=told_apart) == done.model_dump(exclude=told_apart)


def test_a_dry_run_that_the_gate_would_stop_is_done_and_can_be_cancelled(start, gate, edge, rows):
    gate.open.set()
    jobs = start()
    many = rows([f"thing{number}" for number in range(20)])
    answers = [row["answer"] for row in many]
    mixed = [row | {"answer": answer} for row, answer in zip(many, answers[40:] + answers[:40], strict=True)]
    build = ended(jobs, submit(jobs, many)).report.build
    foretold = ended(jobs, submit(jobs, mixed, dry_run=True))
    assert (foretold.state, foretold.report.gate.stops) == ("done", True)
    stopped = ended(jobs, submit(jobs, mixed))
    assert (stopped.state, stopped.error.code) == ("failed", "quality_dropped")
    assert ended(jobs, submit(jobs, mixed, dry_run=True, force=True)).report.gate.forced
    gate.open.clear()
    gate.reached.clear()
    new = [row | {"pair_id": "new", "question": f"new {row['question']}"} for row in many]
    job = submit(jobs, new, dry_run=True)
    assert gate.reached.wait(SECONDS)
    jobs.cancel(job.id)
    gate.open.set()
    job = ended(jobs, job)
    assert (job.state, job.report, job.planned) == ("cancelled", None, None)
    assert edge.live("things").build == build


def test_a_job_that_fails_says_why_and_the_next_one_runs(start, gate, rows, tmp_path):
    gate.open.set()
    jobs = start()
    failed = ended(jobs, submit(jobs, ["{broken\n"]))
    assert failed.state == "failed"
    assert failed.error.code == "invalid_corpus"
    assert "holds no pair; line 1" in failed.error.message
    assert failed.error.hint
    assert failed.report is None
    assert ended(jobs, submit(jobs, rows())).state == "done"
    count, (upload,) = left(tmp_path)
    assert (count, upload.read_text()) == (2, "{broken\n")


def test_a_bug_ends_the_job_and_not_the_thread(start, rows, caplog):
    def broken(_):
        return 1 / 0

    jobs = start(broken)
    for _ in range(2):
        job = ended(jobs, submit(jobs, rows()))
        assert (job.state, job.error.code, job.error.message) == ("failed", "internal", "something went wrong inside")
    assert "ZeroDivisionError" in caplog.text


def test_one_at_a_time_and_a_bounded_queue(start, gate, rows):
    jobs = start(waiting=2)
    first = submit(jobs, rows())
    assert gate.reached.wait(SECONDS)
    assert jobs.get(first.id).state == "running"
    others = [submit(jobs, rows([name])) for name in ("amber", "brass")]
    with pytest.raises(BusyError, match="2 jobs wait already; at most 2 may"):
        submit(jobs, rows(["copper"]))
    assert [job.state for job in jobs.listed().jobs] == ["queued", "queued", "running"]
    gate.open.set()
    assert [ended(jobs, job).state for job in (first, *others)] == ["done"] * 3
    assert [job.report for job in jobs.listed().jobs] == [None] * 3
    assert jobs.get(others[-1].id).report.pairs == 32


def test_what_is_being_received_takes_a_place(start):
    jobs = start(waiting=1)
    with jobs.receiving(), pytest.raises(BusyError, match="1 jobs wait already"), jobs.receiving():
        pass
    with jobs.receiving() as folder:
        (folder / "x").touch()
    assert not folder.exists()


def test_a_waiting_job_is_cancelled_at_once(start, gate, edge, rows, tmp_path):
    jobs = start()
    first, second = submit(jobs, rows()), submit(jobs, rows(["amber"]))
    assert gate.reached.wait(SECONDS)
    assert jobs.cancel(second.id).state == "cancelled"
    gate.open.set()
    assert ended(jobs, first).report.pairs == 24
    assert jobs.get(second.id).started is None
    assert left(tmp_path) == (2, [])
    with pytest.raises(ConflictError, match=f"job {second.id} is cancelled already"):
        jobs.cancel(second.id)
    with pytest.raises(NotFoundError, match="no job 'nobody'"):
        jobs.cancel("nobody")


def test_a_running_job_is_cancelled_between_batches(start, gate, edge, rows, tmp_path):
    gate.open.set()
    jobs = start()
    build = ended(jobs, submit(jobs, rows())).report.build
    gate.open.clear()
    gate.reached.clear()
    job = submit(jobs, rows(["amber"]))
    assert gate.reached.wait(SECONDS)
    assert jobs.cancel(job.id).state == "running"
    gate.open.set()
    job = ended(jobs, job)
    assert (job.state, job.report, job.error) == ("cancelled", None, None)
    assert edge.live("things").build == build
    assert [info.build for info in edge.builds("things")] == [build]
    assert left(tmp_path) == (2, [])
    assert ended(jobs, submit(jobs, rows(["amber"]))).report.added == 4


def test_a_job_that_was_cancelled_is_not_interrupted_by_the_end_of_the_process(start, gate, rows):
    jobs = start()
    cancelled, waiting = submit(jobs, rows()), submit(jobs, rows(["amber"]))
    assert gate.reached.wait(SECONDS)
    jobs.cancel(cancelled.id)
    closing = threading.Thread(target=jobs.close)
    closing.start()
    gate.open.set()
    closing.join()
    assert [jobs.get(one.id).state for one in (cancelled, waiting)] == ["cancelled", "interrupted"]


@pytest.mark.parametrize("stage", ["Reading (lines)", "Encoding (texts)", "Clustering (answers)", "Writing (pairs)"])
def test_cancelled_at_any_stage_leaves_the_live_build(start, gate, edge, rows, monkeypatch, stage):
    gate.open.set()
    jobs = start()
    build = ended(jobs, submit(jobs, rows())).report.build
    save = jobs._save

    def cancel_there(work):
        save(work)
        if work.job.stages and work.job.stages[-1].name == stage:
            work.unwanted = True
            work.cancelled.set()

    monkeypatch.setattr(jobs, "_save", cancel_there)
    job = ended(jobs, submit(jobs, rows(["amber"])))
    assert job.state == "cancelled"
    assert job.stages[-1].name == stage
    assert edge.live("things").build == build
    assert [info.build for info in edge.builds("things")] == [build]


def test_jobs_survive_a_restart(start, gate, rows):
    gate.open.set()
    jobs = start()
    done = ended(jobs, submit(jobs, rows()))
    jobs.close()
    again = start()
    assert again.get(done.id) == done
    assert ended(again, submit(again, rows())).report.unchanged == 24


def made(number, state, **changed):
    times = {"created": f"2026-01-01T00:00:0{number}"}
    return Job(
        id=f"{number:032x}",
        corpus="things",
        source="pairs.jsonl",
        options=IngestOptions(),
        state=state,
        **(times | changed),
    )


def test_the_files_of_version_01_are_imported_once(start, gate, rows, tmp_path):
    """A running job, a waiting one and one that is done, their uploads, half an upload, a file of another version."""
    folder = tmp_path / "data" / "jobs" / "things"
    for number, state in enumerate(("running", "queued", "done")):
        job = made(number, state)
        (folder / "uploads" / job.id).mkdir(parents=True)
        (folder / "uploads" / job.id / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
        (folder / f"{job.id}.json").write_text(job.model_dump_json())
    (folder / "uploads" / "half").mkdir()
    (folder / "uploads" / "half" / "pairs.jsonl").write_text("x")
    (folder / ("f" * 32 + ".json")).write_text('{"of": "another version"}')
    gate.open.set()
    jobs = start()
    states = [(job.id[-1], job.state) for job in jobs.listed().jobs]
    assert states == [("2", "done"), ("1", "interrupted"), ("0", "interrupted")]
    assert all(job.finished for job in jobs.listed().jobs[1:])
    count, uploads = left(tmp_path)
    assert (count, sorted(path.parent.name[-1] for path in uploads)) == (3, ["0", "1"])
    assert ended(jobs, jobs.retry(made(0, "queued").id)).report.added == 24
    jobs.close()
    states = [(job.id[-1], job.state) for job in start().listed().jobs]
    assert states == [("2", "done"), ("1", "interrupted"), ("0", "done")]


KILLED = """
import os, sys
from multiprocessing import AuthenticationError
from pathlib import Path
from ingest.jobs import Jobs
from qaserve.schemas.jobs import IngestOptions

def stuck(_):
    os.kill(os.getpid(), 9)

jobs = Jobs(Path(sys.argv[1]), "things", stuck, waiting=3)
jobs._pool.submit(sys.stdin.readline)
for name in ("first", "second"):
    with jobs.receiving() as folder:
        (folder / "pairs.jsonl").write_text(sys.argv[2])
        print(jobs.submit(folder / "pairs.jsonl", IngestOptions(force=True)).id, flush=True)
with jobs.receiving() as folder:
    (folder / "half.jsonl").touch()
    print("receiving", flush=True)
    sys.stdin.readline()
"""


def test_an_acknowledged_job_survives_kill_9_with_its_upload(start, gate, rows, tmp_path):
    text = "".join(json.dumps(row) + "\n" for row in rows())
    command = [sys.executable, "-c", KILLED, str(tmp_path / "data"), text]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        told = [process.stdout.readline().strip() for _ in range(3)]
        process.stdin.write("\n")  # the first job begins, and kills the process
        process.stdin.flush()
        assert process.wait(SECONDS) == -9
    gate.open.set()
    jobs = start()
    assert [(job.id, job.state) for job in reversed(jobs.listed().jobs)] == [(name, "interrupted") for name in told[:2]]
    assert jobs.get(told[0]).started
    assert [path.read_text() for path in left(tmp_path)[1]] == [text, text]
    again = ended(jobs, jobs.retry(told[0]))
    assert (again.state, again.report.added, again.options.force) == ("done", 24, True)


def test_a_failed_job_runs_again_with_its_upload(start, gate, edge, rows, tmp_path):
    working = threading.Event()

    def make(reporter):
        if not working.is_set():
            raise StoreLockedError("corpus 'things' is in use by process 1 (activation in corpus things)")
        builder = Builder(edge, gate.identity, tmp_path / "models", "things", fit=FitSettings(), reporter=reporter)
        return Ingest(builder, gate, ReadSettings())

    gate.open.set()
    jobs = start(make)
    failed = ended(jobs, submit(jobs, rows(), force=True))
    assert (failed.state, failed.error.code) == ("failed", "store_locked")
    working.set()
    queued = jobs.retry(failed.id)
    assert (queued.state, queued.error, queued.finished, queued.stages) == ("queued", None, None, ())
    done = ended(jobs, failed)
    assert (done.state, done.report.added, done.created) == ("done", 24, failed.created)
    assert left(tmp_path) == (1, [])
    with pytest.raises(ConflictError, match=f"job {done.id} is done: only failed jobs run again"):
        jobs.retry(done.id)
    with pytest.raises(NotFoundError, match="no job 'nobody'"):
        jobs.retry("nobody")


def test_the_uploads_of_the_oldest_failed_jobs_go(start, monkeypatch, tmp_path):
    monkeypatch.setattr("ingest.jobs.UPLOADS_KEPT", 2)
    jobs = start()
    failed = [ended(jobs, submit(jobs, ["{broken\n"])) for _ in range(3)]
    count, uploads = left(tmp_path)
    assert (count, {path.parent.name for path in uploads}) == (3, {job.id for job in failed[1:]})
    with pytest.raises(ConflictError, match="is failed: its upload is no longer kept"):
        jobs.retry(failed[0].id)


def test_a_retry_takes_a_place_in_the_queue(start, gate, rows):
    jobs = start(waiting=1)
    failed = ended(jobs, submit(jobs, ["{broken\n"]))
    first = submit(jobs, rows())
    assert gate.reached.wait(SECONDS)
    second = submit(jobs, rows(["amber"]))
    with pytest.raises(BusyError, match="1 jobs wait already"):
        jobs.retry(failed.id)
    gate.open.set()
    assert [ended(jobs, job).state for job in (first, second)] == ["done", "done"]
    assert ended(jobs, jobs.retry(failed.id)).error.code == "invalid_corpus"


def waiting_for(jobs, job):
    """The stage that says whom a job waits for."""
    deadline = time.monotonic() + SECONDS
    while not (stages := jobs.get(job.id).stages):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return stages[-1].name


def test_a_job_waits_for_an_activation_and_says_so(start, gate, rows, tmp_path):
    gate.open.set()
    jobs = start(lock_wait=SECONDS)
    with corpus_lock(tmp_path / "models", "things", "activation in corpus things", 0):
        job, cancelled = submit(jobs, rows()), submit(jobs, rows(["amber"]))
        assert waiting_for(jobs, job) == f"Waiting for process {os.getpid()} (activation in corpus things)"
        assert jobs.get(job.id).state == "running"
        jobs.cancel(cancelled.id)
    assert ended(jobs, job).report.added == 24


def test_a_job_that_waits_can_be_cancelled(start, rows, tmp_path):
    jobs = start(lock_wait=SECONDS)
    with corpus_lock(tmp_path / "models", "things", "long fit", 0):
        job = submit(jobs, rows())
        assert "(long fit)" in waiting_for(jobs, job)
        jobs.cancel(job.id)
        assert ended(jobs, job).state == "cancelled"
    assert left(tmp_path) == (1, [])


def test_a_job_that_waited_too_long_names_the_holder_and_keeps_its_upload(start, gate, rows, tmp_path):
    gate.open.set()
    jobs = start(lock_wait=0.1)
    with corpus_lock(tmp_path / "models", "things", "long fit", 0):
        failed = ended(jobs, submit(jobs, rows()))
    assert (failed.state, failed.error.code) == ("failed", "store_locked")
    holder = f"process {os.getpid()} (long fit)"
    assert failed.error.message == f"corpus 'things' is in use by {holder}, also after 0.1 seconds"
    assert len(left(tmp_path)[1]) == 1
    assert ended(jobs, jobs.retry(failed.id)).report.added == 24


def test_closing_ends_what_runs_and_leaves_it_interrupted(start, gate, edge, rows, tmp_path):
    jobs = start()
    running, waiting = submit(jobs, rows()), submit(jobs, rows(["amber"]))
    assert gate.reached.wait(SECONDS)
    closing = threading.Thread(target=jobs.close)
    closing.start()
    while not jobs._closing:
        time.sleep(0.001)
    gate.open.set()
    closing.join(SECONDS)
    assert [jobs.get(job.id).state for job in (running, waiting)] == ["interrupted", "interrupted"]
    assert {path.parent.name for path in left(tmp_path)[1]} == {running.id, waiting.id}
    assert edge.corpora() == []
    with pytest.raises(BusyError, match="the server stops"):
        submit(jobs, rows())


def test_another_process_may_not_have_them_too(start):
    start()
    with pytest.raises(StoreLockedError, match="another process runs the jobs of corpus 'things'"):
        start()


def test_a_job_that_cannot_be_written_down_is_not_queued(start, rows, monkeypatch, tmp_path):
    jobs = start()

    def full(_):
        raise StoreWriteError("full")

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "_save", full)
        with pytest.raises(StoreWriteError, match="full"):
            submit(jobs, rows())
    assert jobs.listed().jobs == ()
    assert left(tmp_path) == (0, [])


def test_only_the_last_are_remembered(start, gate, rows, monkeypatch, tmp_path):
    gate.open.set()
    monkeypatch.setattr("ingest.jobs.KEPT", 2)
    jobs = start()
    found = [ended(jobs, submit(jobs, rows(), dry_run=True)) for _ in range(4)]
    assert [job.id for job in jobs.listed().jobs] == [job.id for job in reversed(found[2:])]
    assert left(tmp_path) == (2, [])


# Jobs that another process has


ANOTHER = 4_000_000


@pytest.fixture
def shared(start, tmp_path):
    """Jobs with one place, and the same as another process has them."""
    jobs = start(waiting=1)
    serve_jobs(jobs, tmp_path / "socket", b"secret")
    return jobs, remote_jobs(tmp_path / "socket", b"secret")


def test_a_job_that_is_sent_elsewhere_runs_here(shared, gate, rows):
    gate.open.set()
    jobs, remote = shared
    job = ended(remote, submit(remote, rows()))
    assert (job.state, job.report.added) == ("done", 24), job.error
    assert job == jobs.get(job.id)
    assert remote.listed() == jobs.listed()


def test_an_error_is_the_same_elsewhere(shared):
    _, remote = shared
    with pytest.raises(NotFoundError, match="no job 'x'") as raised:
        remote.get("x")
    assert "GET /v1/jobs lists them" in raised.value.hint
    with remote.receiving(), pytest.raises(BusyError, match="1 jobs wait already") as raised, remote.receiving():
        pass
    assert raised.value.retry_after == 30
    with remote.receiving() as folder:
        assert folder.is_dir()
    assert not folder.exists()


def test_closing_elsewhere_closes_nothing(shared, gate, rows):
    gate.open.set()
    jobs, remote = shared
    remote.close()
    assert ended(jobs, submit(jobs, rows())).state == "done"


def test_a_process_that_ended_gives_its_places_back(shared):
    jobs, remote = shared
    folder = remote.open_incoming(ANOTHER)
    folder.mkdir(parents=True)
    jobs.forget_sender(ANOTHER + 1)
    with pytest.raises(BusyError):
        remote.open_incoming(ANOTHER)
    jobs.forget_sender(ANOTHER)
    assert not folder.exists()
    with remote.receiving():
        pass
    jobs.forget_sender(ANOTHER)


def test_who_does_not_know_the_secret_is_refused(shared, tmp_path):
    with pytest.raises(AuthenticationError):
        remote_jobs(tmp_path / "socket", b"another")
