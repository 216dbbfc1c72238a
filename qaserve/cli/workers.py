"""The processes of `qaserve serve`: one, or several workers over one port below a process that supervises them.

The supervisor has the socket and the jobs, answers nothing itself, and starts a worker again that ended. A worker
learns from its stdin that the supervisor is gone, and ends too.
"""

import gc
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qaserve.cli.base import corpus_to_ask, make_encoder, say_error
from qaserve.cli.child import POLL_SECONDS, bound_socket, child
from qaserve.cli.corpus import make_ingest
from qaserve.common.errors import QaserveError, SettingsError
from qaserve.settings import Settings, get_settings

if TYPE_CHECKING:
    from ingest.jobs import Jobs
    from ingest.jobs_server import RemoteJobs
    from qaserve.search.engine import Engine

METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client sums the figures of several processes."""
JOBS_SOCKET = "jobs"
START_FAILED = 3


@contextmanager
def opened_engine(settings: Settings) -> Iterator["Engine"]:
    """The engine of the settings, nothing loaded yet."""
    from qaserve.search.engine import Engine
    from qaserve.store import open_store

    with open_store(settings.store, read_only=True) as store, open_store(settings.store) as writer:
        yield Engine(
            store,
            make_encoder(settings),
            settings.store.models_dir,
            corpus_to_ask(settings, store),
            settings.search,
            lock_wait=settings.store.lock_wait,
            writer=writer,
        )


def open_jobs(settings: Settings, engine: "Engine") -> "Jobs":
    """The jobs of the engine's corpus, which use its encoder."""
    from ingest.jobs import LOCK_SECONDS, Jobs

    make = partial(make_ingest, settings, engine.writer, engine.corpus, engine.encoder, min_lock_wait=LOCK_SECONDS)
    return Jobs(settings.store.data_dir, engine.corpus, make, waiting=settings.limits.waiting_jobs)


def run_api(
    settings: Settings, engine: "Engine", jobs: "Jobs | RemoteJobs", sockets: list[socket.socket] | None = None
) -> None:
    """Load the engine, and serve until a signal ends it, on these sockets or on one of its own."""
    import uvicorn

    from qaserve.api import create_app
    from qaserve.service.feedback import FeedbackLog
    from qaserve.service.gaps import QuestionLog

    hidden = tuple(str(path) for path in (settings.store.data_dir, settings.store.models_dir) if path.is_absolute())
    log = FeedbackLog(settings.store.data_dir, engine.corpus)
    kept = QuestionLog(settings.store.data_dir, engine.corpus, **settings.server.keeping)
    app = create_app(engine, settings.server, settings.limits, hidden, log=log, kept=kept, jobs=jobs)
    gc.collect()
    gc.freeze()  # what was imported stays: to look through it takes 40 ms, in which nobody is answered
    engine.load()  # not before: a build is let go of when another is live
    config = uvicorn.Config(
        app,
        host=settings.server.host,
        port=settings.server.port,
        log_config=None,
        access_log=False,
        server_header=False,
    )
    server = uvicorn.Server(config)
    server.run(sockets)
    if not server.started:
        sys.exit(START_FAILED)


def supervise(settings: Settings, count: int) -> None:
    """Serve with several workers until a signal ends it.

    Raises:
        SettingsError: The port is taken, or this system cannot share a socket so.
        ServiceError: A worker stopped too often.
    """
    from prometheus_client.multiprocess import mark_process_dead

    from ingest.jobs_server import serve_jobs

    if os.name == "nt":
        raise SettingsError(f"{count} workers: Windows serves with one", hint="Set QASERVE_WORKERS to 1.")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    secret = secrets.token_hex(32).encode()
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qaserve-")))
            shared = stack.enter_context(bound_socket("QASERVE_PORT", settings.server.host, settings.server.port))
            engine = stack.enter_context(opened_engine(settings))
            engine.load()  # what cannot be served is said once, and not by each worker
            jobs = stack.enter_context(open_jobs(settings, engine))
            serve_jobs(jobs, folder / JOBS_SOCKET, secret)
            own = [sys.executable, "-m", "qaserve.cli.workers", str(shared.fileno()), str(folder / JOBS_SOCKET)]
            environment = os.environ | {METRICS_DIR: str(folder), "QASERVE_CORPUS": engine.corpus}
            workers = [
                stack.enter_context(child(f"worker {number}", own, environment, [shared.fileno()], secret))
                for number in range(1, count + 1)
            ]
            for one in workers:
                stack.callback(one.terminate)  # all before the first is waited for
            while True:
                for worker in workers:
                    gone = worker.process.pid
                    if worker.keep_running():
                        mark_process_dead(gone, str(folder))  # type: ignore[no-untyped-call]
                        jobs.forget_sender(gone)
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return


def serve_worker(handle: int, address: Path) -> None:
    """Serve on an inherited socket, with the jobs at an address; stdin is as `Child` says of its secret."""
    from ingest.jobs_server import remote_jobs
    from qaserve.api.logs import configure

    settings = get_settings()
    configure(settings.server)
    secret = sys.stdin.readline().strip().encode()
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    with opened_engine(settings) as engine, socket.socket(fileno=handle) as shared:
        run_api(settings, engine, remote_jobs(address, secret), [shared])


def _end_with_supervisor() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    try:
        serve_worker(int(sys.argv[1]), Path(sys.argv[2]))
    except QaserveError as error:
        say_error(error.message, error.hint)
        sys.exit(error.kind.exit_code)
