import json
import threading
import time

import pytest

from ingest.builder import Builder
from ingest.jobs import Jobs
from ingest.pipeline import Ingest
from qaserve.common.errors import BusyError, ConflictError, NotFoundError, StoreLockedError, StoreWriteError
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
def start(memory, gate, tmp_path):
    """Jobs over a real store and the gated encoder; closed at the end."""
    opened = []

    def make(reporter):
        builder = Builder(memory, gate.identity, tmp_path / "models", "things", fit=FitSettings(), reporter=reporter)
        return Ingest(builder, gate, ReadSettings())

    def start(make=make, waiting=3):
        jobs = Jobs(tmp_path / "data", "things", make, waiting=waiting)
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
    """What lies in the jobs' folder, by kind."""
    folder = tmp_path / "data" / "jobs" / "things"
    uploads = [path for path in (folder / "uploads").rglob("*") if path.is_file()]
    return len(list(folder.glob("*.json"))), uploads


def test_a_job_does_what_an_ingest_does(start, gate, memory, encoder, rows, tmp_path):
    gate.open.set()
    jobs = start()
    job = submit(jobs, [*rows(), "{broken\n"])
    assert (job.state, job.source, job.corpus) == ("queued", "pairs.jsonl", "things")
    job = ended(jobs, job)
    assert job.state == "done", job.error
    assert (job.report.added, job.report.pairs, job.report.build) == (24, 24, memory.live("things"))
    (rejected,) = job.report.rejected
    assert (rejected.file, rejected.line) == ("pairs.jsonl", 25)
    assert job.created <= job.started <= job.finished
    stages = {stage.name: stage for stage in job.stages}
    assert (stages["Reading (lines)"].done, stages["Reading (lines)"].total) == (25, 25)
    assert stages["Writing (pairs)"].done == stages["Writing (pairs)"].total == 24
    assert left(tmp_path) == (1, [])
    answer = Engine(memory, encoder, tmp_path / "models", "things").ask(AskRequest(question=rows()[0]["question"]))
    assert answer.answers[0].source_file == "pairs.jsonl"


def test_a_dry_run_changes_nothing_and_replace_replaces(start, gate, memory, rows):
    gate.open.set()
    jobs = start()
    build = ended(jobs, submit(jobs, rows())).report.build
    report = ended(jobs, submit(jobs, rows(["bread"]), replace=True, dry_run=True)).report
    assert (report.dry_run, report.removed, memory.live("things")) == (True, 20, build)
    report = ended(jobs, submit(jobs, rows(["bread"]), replace=True)).report
    assert (report.removed, report.pairs, memory.live("things")) == (20, 4, report.build)


def test_a_dry_run_is_a_job_like_another_and_tells_at_once_what_changes(start, gate, memory, rows):
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
    assert [info.build for info in memory.builds("things")] == [build]
    done = ended(jobs, submit(jobs, rows(["bread", "amber"]))).report
    told_apart = {"dry_run", "seconds", "stages"}
    assert job.report.model_dump(exclude=told_apart) == done.model_dump(exclude=told_apart)


def test_a_dry_run_that_the_gate_would_stop_is_done_and_can_be_cancelled(start, gate, memory, rows):
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
    assert memory.live("things") == build


def test_a_job_that_fails_says_why_and_the_next_one_runs(start, gate, rows, tmp_path):
    gate.open.set()
    jobs = start()
    failed = ended(jobs, submit(jobs, ["{broken\n"]))
    assert failed.state == "failed"
    assert failed.error.code == "invalid_corpus"
    assert "holds not one good line" in failed.error.message
    assert failed.error.hint
    assert failed.report is None
    assert ended(jobs, submit(jobs, rows())).state == "done"
    assert left(tmp_path) == (2, [])


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


def test_a_waiting_job_is_cancelled_at_once(start, gate, memory, rows, tmp_path):
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


def test_a_running_job_is_cancelled_between_batches(start, gate, memory, rows, tmp_path):
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
    assert memory.live("things") == build
    assert [info.build for info in memory.builds("things")] == [build]
    assert left(tmp_path) == (2, [])
    assert ended(jobs, submit(jobs, rows(["amber"]))).report.added == 4


@pytest.mark.parametrize("stage", ["Reading (lines)", "Encoding (texts)", "Clustering (answers)", "Writing (pairs)"])
def test_cancelled_at_any_stage_leaves_the_live_build(start, gate, memory, rows, monkeypatch, stage):
    gate.open.set()
    jobs = start()
    build = ended(jobs, submit(jobs, rows())).report.build
    save = jobs._save

    def cancel_there(work):
        save(work)
        if work.job.stages and work.job.stages[-1].name == stage:
            work.cancelled.set()

    monkeypatch.setattr(jobs, "_save", cancel_there)
    job = ended(jobs, submit(jobs, rows(["amber"])))
    assert job.state == "cancelled"
    assert job.stages[-1].name == stage
    assert memory.live("things") == build
    assert [info.build for info in memory.builds("things")] == [build]


def test_jobs_survive_a_restart(start, gate, rows):
    gate.open.set()
    jobs = start()
    done = ended(jobs, submit(jobs, rows()))
    jobs.close()
    again = start()
    assert again.get(done.id) == done
    assert ended(again, submit(again, rows())).report.unchanged == 24


def test_what_was_not_finished_at_a_restart_is_interrupted(start, gate, rows, tmp_path):
    """The files are those that a killed process leaves: a running job, a waiting one, their uploads, half an upload."""
    folder = tmp_path / "data" / "jobs" / "things"
    for number, state in enumerate(("running", "queued")):
        job = Job(
            id=f"{number:032x}",
            corpus="things",
            source="pairs.jsonl",
            options=IngestOptions(),
            state=state,
            created=f"2026-01-01T00:00:0{number}",
        )
        (folder / "uploads" / job.id).mkdir(parents=True)
        (folder / "uploads" / job.id / "pairs.jsonl").write_text("x")
        (folder / f"{job.id}.json").write_text(job.model_dump_json())
    (folder / "uploads" / "half").mkdir()
    (folder / "uploads" / "half" / "pairs.jsonl").write_text("x")
    (folder / ("f" * 32 + ".json")).write_text('{"of": "another version"}')
    gate.open.set()
    jobs = start()
    found = jobs.listed().jobs
    assert [(job.id[-1], job.state) for job in found] == [("1", "interrupted"), ("0", "interrupted")]
    assert all(job.finished for job in found)
    assert left(tmp_path) == (3, [])
    assert ended(jobs, submit(jobs, rows())).state == "done"


def test_closing_ends_what_runs_and_leaves_it_interrupted(start, gate, memory, rows, tmp_path):
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
    assert left(tmp_path) == (2, [])
    assert memory.corpora() == []
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
