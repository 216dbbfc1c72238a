"""Ingests as jobs: one at a time, in the background, with progress; each can be cancelled, and survives a restart.

A job is a row of an SQLite file. It is `queued`, then `running`, then `done`, `failed` or `cancelled`; one that a
process left behind when it ended is `interrupted`. The upload is kept until the job is done or cancelled, so that a job
that failed or was interrupted can run again. The JSON files of version 0.1 are imported once.
"""

import logging
import os
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from filelock import FileLock, Timeout
from pydantic import ValidationError

from ingest.documents import unpack
from qaserve.common.clock import now
from qaserve.common.database import Database
from qaserve.common.errors import (
    BusyError,
    ConflictError,
    CorpusError,
    NotFoundError,
    QaserveError,
    StoreLockedError,
    UsageError,
)
from qaserve.common.progress import Advance, Reporter, Silent
from qaserve.schemas.ingest import IngestReport, PairChanges, Preview
from qaserve.schemas.jobs import IngestOptions, Job, JobList, JobStage, JobState
from qaserve.schemas.service import ErrorDetail

if TYPE_CHECKING:
    from ingest.pipeline import Ingest

FOLDER = "jobs"
DATABASE = "jobs.db"
KEPT = 100
"""How many jobs that have ended are remembered."""
UPLOADS_KEPT = 10
"""How many uploads of failed and interrupted jobs are kept: those of the newest."""
LOCK_SECONDS = 600.0
"""How long a job waits at least for another change of the corpus, such as an activation or a command."""
ZIP = ".zip"
"""Of an upload of documents."""
RETRIABLE: frozenset[JobState] = frozenset({"failed", "interrupted"})
RETRY_SECONDS = 30.0
"""When it is worth asking again for a place."""
MakeIngest = Callable[[Reporter], "Ingest"]

log = logging.getLogger(__name__)


class _CancelledError(Exception):
    """Raised inside a job's work, between two batches, to end it."""


class _Work:
    """A job with what only this process knows of it. Also the reporter that its ingest tells how far it is."""

    def __init__(self, job: Job, file: Path, on_stage: Callable[[], None]) -> None:
        self.job = job
        self.file = file
        self.future: Future[None] | None = None
        self.cancelled = threading.Event()
        """It is to end; `unwanted` says whether a caller said so, or the process ends."""
        self.unwanted = False
        self._on_stage = on_stage

    @property
    def end(self) -> JobState:
        """What it is when it is ended before it is done."""
        return "cancelled" if self.unwanted else "interrupted"

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """Enter a stage of the ingest; being told of progress is where a job can be ended."""
        self._check()
        before = self.job.stages
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            self._check()
            done += more
            self._show((*before, JobStage(name=name, done=done, total=total)))

        self._show((*before, JobStage(name=name, done=0, total=total)))
        self._on_stage()
        yield advance
        self._show((*before, JobStage(name=name, done=done, total=done if total is None else total)))

    def plan(self, planned: IngestReport) -> None:
        """Note what the ingest is going to change, without the long lists: this is asked for again and again."""
        self._check()
        short = planned.model_copy(update={"changes": PairChanges(), "repeated_questions": ()})
        self.job = self.job.model_copy(update={"planned": short})

    def _check(self) -> None:
        if self.cancelled.is_set():
            raise _CancelledError

    def _show(self, stages: tuple[JobStage, ...]) -> None:
        self.job = self.job.model_copy(update={"stages": stages})


@contextmanager
def _given(file: Path) -> Iterator[dict[str, Any]]:
    """What an upload is for `Ingest.run`: documents where it is a zip, else pairs. Raises CorpusError, see `unpack`."""
    if file.suffix != ZIP:
        yield {"paths": [file]}
        return
    with TemporaryDirectory(dir=file.parent) as folder:
        unpack(file, Path(folder))
        yield {"documents": Path(folder)}


class Receiver(Protocol):
    """Has places for what is being sent."""

    def open_incoming(self, sender: int) -> Path:
        """See `Jobs`."""
        ...

    def close_incoming(self, folder: Path) -> None:
        """See `Jobs`."""
        ...


class Jobs:
    """The jobs of one corpus. Safe to share between threads; one process at a time has them."""

    def __init__(self, data_dir: Path, corpus: str, make: MakeIngest, *, waiting: int) -> None:
        """Take up what an earlier process left, and wait for work; close it, or use it as a context manager.

        Args:
            data_dir: Where jobs and what was sent are kept.
            corpus: Which corpus they change.
            make: Makes what does the work, with the reporter that follows it.
            waiting: How many may wait besides the one that runs.

        Raises:
            StoreLockedError: Another process has them.
            BusyError, StoreError: As of `Database.write`.
        """
        self.corpus = corpus
        self._folder = data_dir / FOLDER / corpus
        self._uploads, self._incoming_folder = self._folder / "uploads", self._folder / "incoming"
        self._make, self._waiting = make, waiting
        self._lock = threading.RLock()
        self._incoming: dict[Path, int] = {}
        self._closing = False
        self._database = Database(self._folder / DATABASE, (self._create,))
        self._folder.mkdir(parents=True, exist_ok=True)
        self._owner = FileLock(self._folder / "jobs.lock", timeout=0)
        try:
            self._owner.acquire()
        except Timeout as error:
            raise StoreLockedError(
                f"another process runs the jobs of corpus {corpus!r} in {data_dir}",
                hint="Stop it, or give this one a QASERVE_DATA_DIR of its own.",
            ) from error
        try:
            self._works = {work.job.id: work for work in self._left_behind()}
        except BaseException:
            self._owner.release()
            raise
        shutil.rmtree(self._incoming_folder, ignore_errors=True)
        self._trim_uploads()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ingest")

    def __enter__(self) -> Self:
        """Use as a context manager to close it for certain."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """End what runs between two batches, and leave it and what waits as interrupted."""
        with self._lock:
            self._closing = True
            unfinished = [work for work in self._works.values() if not work.job.ended]
            for work in unfinished:
                work.cancelled.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for work in unfinished:
            if not work.job.ended:
                self._end(work, state=work.end)
        self._owner.release()

    # What there is

    def listed(self) -> JobList:
        """All that are remembered, newest first."""
        with self._lock:
            jobs = [work.job.model_copy(update={"planned": None, "report": None}) for work in self._works.values()]
        return JobList(corpus=self.corpus, jobs=tuple(reversed(jobs)))

    def get(self, job: str) -> Job:
        """One job. Raises NotFoundError where there is none of that id."""
        with self._lock:
            return self._find(job).job

    def _find(self, job: str) -> _Work:
        if job not in self._works:
            raise NotFoundError(f"no job {job!r}", hint=f"The last {KEPT} are remembered; GET /v1/jobs lists them.")
        return self._works[job]

    # What is done with them

    @contextmanager
    def receiving(self: "Receiver") -> Iterator[Path]:
        """A folder for what is being sent; what is still in it afterwards is deleted.

        Raises:
            BusyError: Too many jobs wait already.
        """
        folder = self.open_incoming(os.getpid())
        try:
            folder.mkdir(parents=True)
            yield folder
        finally:
            self.close_incoming(folder)

    def open_incoming(self, sender: int) -> Path:
        """A place among those that wait, and the name of a folder for it; for `receiving` in the process `sender`."""
        with self._lock:
            self._check_queue()
            folder = self._incoming_folder / uuid.uuid4().hex
            self._incoming[folder] = sender
        return folder

    def close_incoming(self, folder: Path) -> None:
        """Delete the folder, and give its place back."""
        shutil.rmtree(folder, ignore_errors=True)
        with self._lock:
            self._incoming.pop(folder, None)

    def forget_sender(self, sender: int) -> None:
        """Close what a process was receiving that has ended."""
        with self._lock:
            left = [folder for folder, process in self._incoming.items() if process == sender]
        for folder in left:
            self.close_incoming(folder)

    def preview(self, file: Path, options: IngestOptions) -> Preview:
        """How the first rows of a file would be read by what these options say and an earlier ingest said.

        Raises:
            UsageError, CorpusError, StoreError: As of `Ingest.run`.
        """
        if file.suffix == ZIP:
            raise UsageError(f"{file.name} holds documents, which have no preview", hint="A dry run says what changes.")
        try:
            return self._make(Silent()).preview(file, options.fields, options.separator)
        except CorpusError as error:  # the path on this machine is not told
            raise CorpusError(error.message.replace(str(file), file.name), hint=error.hint) from error

    def submit(self, file: Path, options: IngestOptions) -> Job:
        """Queue an ingest of a file in a folder of `receiving`; the file is moved to the job's own.

        Raises:
            BusyError: This process is about to end.
            StoreWriteError: The job cannot be written down; nothing is queued.
        """
        with self._lock:
            self._check_open()
            name = uuid.uuid4().hex
            own = self._upload_of(name) / file.name
            own.parent.mkdir(parents=True)
            job = Job(id=name, corpus=self.corpus, source=file.name, options=options, state="queued", created=now())
            try:
                file.replace(own)
                self._queue(job, own)
            except BaseException:
                shutil.rmtree(own.parent, ignore_errors=True)
                raise
            return job

    def retry(self, job: str) -> Job:
        """Queue a failed or interrupted job again, with the upload and the options that it had.

        Raises:
            NotFoundError: There is none of that id.
            ConflictError: It is in another state, or its upload is no longer kept.
            BusyError: Too many jobs wait already, or this process is about to end.
            StoreWriteError: The job cannot be written down; nothing is queued.
        """
        with self._lock:
            self._check_open()
            work = self._find(job)
            if work.job.state not in RETRIABLE or not work.file.is_file():
                kept = "its upload is no longer kept" if work.job.state in RETRIABLE else "only failed jobs run again"
                raise ConflictError(f"job {job} is {work.job.state}: {kept}", hint="Send the pairs again.")
            self._check_queue()
            fresh = {"state": "queued", "started": None, "finished": None, "stages": (), "error": None}
            return self._queue(work.job.model_copy(update=fresh), work.file)

    def cancel(self, job: str) -> Job:
        """End a job: at once where it waits, between two batches where it runs. The live build stays as it is.

        Raises:
            NotFoundError: There is none of that id.
            ConflictError: It has ended already.
        """
        with self._lock:
            work = self._find(job)
            if work.job.ended:
                raise ConflictError(
                    f"job {job} is {work.job.state} already", hint="An earlier build can be made live again instead."
                )
            work.unwanted = True
            work.cancelled.set()
            if work.future is not None and work.future.cancel():
                self._end(work, state="cancelled")
            return work.job

    def _check_open(self) -> None:
        if self._closing:
            raise BusyError("no job is taken any more: the server stops", hint="Send it again when it is back.")

    def _check_queue(self) -> None:
        waiting = len(self._incoming) + sum(work.job.state == "queued" for work in self._works.values())
        if waiting >= self._waiting:
            error = BusyError(
                f"{waiting} jobs wait already; at most {self._waiting} may",
                hint="Send it again when one has ended.",
            )
            error.retry_after = RETRY_SECONDS
            raise error

    # The work

    def _queue(self, job: Job, file: Path) -> Job:
        work = _Work(job, file, on_stage=lambda: self._save(work))
        self._save(work)
        self._works[job.id] = work
        work.future = self._pool.submit(self._run, work)
        return job

    def _run(self, work: _Work) -> None:
        options = work.job.options
        try:
            self._change(work, state="running", started=now())
            with _given(work.file) as given:
                report = self._make(work).run(**given, **options.model_dump(), on_plan=work.plan)
        except _CancelledError:
            self._end(work, state=work.end)
        except QaserveError as error:
            # A caller knows its file by name; the path on this machine is not told.
            message, hint = (text.replace(str(work.file), work.file.name) for text in (error.message, error.hint))
            self._fail(work, ErrorDetail(code=error.kind.code, message=message, hint=hint))
        except Exception:
            # A bug must end the job, and not the thread that all jobs need.
            log.exception("job %s", work.job.id)
            detail = ErrorDetail(code="internal", message="something went wrong inside", hint="The log says more.")
            self._fail(work, detail)
        else:
            self._end(work, state="done", report=report)

    def _fail(self, work: _Work, error: ErrorDetail) -> None:
        self._end(work, state="failed", error=error)

    def _end(self, work: _Work, **changes: Any) -> None:
        """Write down how a job ended. Where even that fails, the next process will find it interrupted."""
        with self._lock:
            with suppress(QaserveError):
                self._change(work, **changes, planned=None, finished=now())
            ended = [name for name, other in self._works.items() if other.job.ended]
            for name in ended[: max(0, len(ended) - KEPT)]:
                with suppress(QaserveError):
                    self._forget(name)
                    del self._works[name]
            self._trim_uploads()

    def _change(self, work: _Work, **changes: Any) -> None:
        with self._lock:
            work.job = work.job.model_copy(update=changes)
            self._save(work)

    # On the disk

    def _save(self, work: _Work) -> None:
        upsert = "INSERT INTO jobs (id, job) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET job = excluded.job"
        with self._database.write() as connection:
            connection.execute(upsert, (work.job.id, work.job.model_dump_json()))

    def _forget(self, name: str) -> None:
        with self._database.write() as connection:
            connection.execute("DELETE FROM jobs WHERE id = ?", (name,))

    def _left_behind(self) -> Sequence[_Work]:
        """What an earlier process wrote down; what it did not end is interrupted. What cannot be read is left."""
        found = []
        with self._database.write() as connection:  # which creates the file
            rows = connection.execute("SELECT job FROM jobs ORDER BY number").fetchall()
        for (text,) in rows:
            with suppress(ValidationError):
                job = Job.model_validate_json(text)
                work = _Work(job, self._upload_of(job.id) / job.source, on_stage=lambda: None)
                if not job.ended:
                    self._change(work, state="interrupted", planned=None, finished=now())
                found.append(work)
        return found

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "CREATE TABLE jobs (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, job TEXT NOT NULL)"
        )
        old = []
        for path in self._folder.glob("*.json"):
            with suppress(ValidationError):
                old.append(Job.model_validate_json(path.read_bytes()))
        rows = [(job.id, job.model_dump_json()) for job in sorted(old, key=lambda job: job.created)]
        connection.executemany("INSERT INTO jobs (id, job) VALUES (?, ?)", rows)

    def _trim_uploads(self) -> None:
        """Delete the uploads that no job needs: those of jobs that ended well, and of the oldest that did not."""
        jobs = [work.job for work in self._works.values()]
        retriable = [job.id for job in jobs if job.state in RETRIABLE]
        needed = {job.id for job in jobs if not job.ended} | set(retriable[-UPLOADS_KEPT:])
        for folder in self._uploads.glob("*"):
            if folder.name not in needed:
                shutil.rmtree(folder, ignore_errors=True)

    def _upload_of(self, name: str) -> Path:
        return self._uploads / name
