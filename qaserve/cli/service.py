"""`qaserve serve`, `qaserve ui` and `qaserve up`."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from qaserve.cli.base import SAMPLE_CORPUS, app, corpus_named_after, corpus_to_ask, err, make_encoder, out
from qaserve.cli.corpus import fetch_corpus, fetch_documents, make_ingest, run_ingest
from qaserve.common.errors import FetchError, ServiceError, SettingsError
from qaserve.schemas.params import LOOPBACK
from qaserve.settings import Settings, get_settings

SAMPLE = Path(__file__).parents[1] / "sample" / "sample.jsonl"
PAGE = Path(__file__).parents[2] / "ui" / "server.py"
START_SECONDS = 120
STOP_SECONDS = 10
POLL_SECONDS = 0.2
RESTARTS = 3
RESTART_SECONDS = 600
"""A child that ends more than `RESTARTS` times within this is not started again."""

UP_HELP = """Load a corpus, start the API and the page, and wait until Ctrl-C.

Without PATH the corpus that is there is served. If there is none, the public corpus is fetched; without a network, the
sample that ships with qaserve is used. What is loaded already is not loaded again. API and page are started again if
they die, at most 3 times in 10 minutes.

**Examples**

    qaserve up

    qaserve up pairs.jsonl
"""


@app.command()
def serve() -> None:
    """Start the HTTP API. Example: QASERVE_PORT=8080 qaserve serve."""
    import uvicorn

    from ingest.jobs import LOCK_SECONDS, Jobs
    from qaserve.api import create_app
    from qaserve.api.logs import configure
    from qaserve.search.engine import Engine
    from qaserve.service.feedback import FeedbackLog
    from qaserve.store import open_store

    settings = get_settings()
    configure(settings.server)
    _free_port("QASERVE_PORT", settings.server.host, settings.server.port)
    with open_store(settings.store, read_only=True) as store, open_store(settings.store) as writer:
        encoder = make_encoder(settings)
        engine = Engine(
            store,
            encoder,
            settings.store.models_dir,
            corpus_to_ask(settings, store),
            settings.search,
            lock_wait=settings.store.lock_wait,
            writer=writer,
        )
        engine.load()
        hidden = tuple(str(path) for path in (settings.store.data_dir, settings.store.models_dir) if path.is_absolute())
        log = FeedbackLog(settings.store.data_dir, engine.corpus)
        make = partial(make_ingest, settings, writer, engine.corpus, encoder, min_lock_wait=LOCK_SECONDS)
        with Jobs(settings.store.data_dir, engine.corpus, make, waiting=settings.limits.waiting_jobs) as jobs:
            uvicorn.run(
                create_app(engine, settings.server, settings.limits, hidden, log=log, jobs=jobs),
                host=settings.server.host,
                port=settings.server.port,
                log_config=None,
                access_log=False,
                server_header=False,
            )


@app.command()
def ui() -> None:
    """Start the page. It talks to QASERVE_API_URL. Example: QASERVE_UI_PORT=8502 qaserve ui."""
    settings = get_settings()
    _free_port("QASERVE_UI_PORT", settings.server.ui_host, settings.server.ui_port)
    os.execv(sys.executable, page_command(settings))  # noqa: S606 - our own command, no shell


@app.command(help=UP_HELP)
def up(path: Annotated[Path | None, typer.Argument(help="File or folder to load.", show_default=False)] = None) -> None:
    """See UP_HELP."""
    settings = get_settings()
    server = settings.server
    _free_port("QASERVE_PORT", server.host, server.port)
    _free_port("QASERVE_UI_PORT", server.ui_host, server.ui_port)
    corpus, notice = _load(settings, path)
    environment = os.environ | {
        "QASERVE_CORPUS": corpus,
        "QASERVE_API_URL": server.local_api_url,
        "QASERVE_NOTICE": notice or server.notice,
    }
    page = server.local_page_url
    for number in (signal.SIGINT, signal.SIGTERM):  # explicitly: a background shell starts us with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            api = stack.enter_context(_child("API", [sys.executable, "-m", "qaserve", "serve"], environment))
            front = stack.enter_context(_child("page", page_command(settings), environment))
            with err.status("Starting the API and the page …"):
                api.wait_for(f"{server.local_api_url}/readyz")
                front.wait_for(f"{page}/_stcore/health")
            out.print(f"Page  {page}\nAPI   {server.local_api_url}  (its documentation: {server.local_api_url}/docs)")
            out.print("Ctrl-C stops both.")
            while True:
                api.keep_running()
                front.keep_running()
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        out.print("Stopped.")


def page_command(settings: Settings) -> list[str]:
    """The command that serves the page."""
    options = {
        "server.address": settings.server.ui_host,
        "server.port": settings.server.ui_port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.enableCORS": "true",
        "server.enableXsrfProtection": "true",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "logger.level": "warning",
        "theme.light.primaryColor": "#0f766e",
        "theme.dark.primaryColor": "#2dd4bf",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    if settings.server.ui_host in LOOPBACK or settings.server.allowed_hosts:
        names = settings.server.host_names | {settings.server.ui_host}  # a stranger's name may lead here too
        flags += [f"--server.allowedHosts={name}" for name in sorted(names)]
    return [sys.executable, "-m", "streamlit", "run", str(PAGE), *flags]


def _load(settings: Settings, path: Path | None) -> tuple[str, str | None]:
    """Bring the corpus in; returns its name and what the page should say about it."""
    from qaserve.store import open_store

    own, notice = settings.store.corpus, None
    if path is None:
        with open_store(settings.store) as store:
            live = store.live_builds()
            there = own if own is not None else corpus_to_ask(settings, store) if set(live) - {SAMPLE_CORPUS} else None
        if there in live:
            err.print(f"Corpus {there} is there already.")
            return there, None
    documents = None
    if path is None:
        try:
            path = fetch_corpus(settings)
            documents = _public_documents(settings)
        except FetchError as error:
            err.print(
                f"[yellow]The public corpus cannot be fetched; the bundled sample is used.[/] {escape(error.message)}"
            )
            path, own = SAMPLE, SAMPLE_CORPUS  # never into a corpus of the user's
            notice = "The public corpus could not be fetched: this is the sample corpus, about qaserve itself."
    corpus = own or corpus_named_after(path)
    with open_store(settings.store) as store:
        report = run_ingest(settings, store, corpus, [path], documents)
    done = "loaded" if report.added or report.updated else "unchanged"
    err.print(f"Corpus {corpus}: {report.pairs:,} pairs, {done}.")
    return corpus, notice


def _public_documents(settings: Settings) -> Path | None:
    """The documents of the public corpus; None, and a word about it, where they cannot be fetched."""
    try:
        return fetch_documents(settings)
    except FetchError as error:
        err.print(f"[yellow]The public documents cannot be fetched; the pairs go in alone.[/] {escape(error.message)}")
        return None


class _Child:
    """A process that must keep running, in a group of its own, so that Ctrl-C reaches only us."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        self.name, self._command, self._environment = name, command, environment
        self._ends: list[float] = []
        self.start()

    def start(self) -> None:
        """Start it."""
        self.process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self) -> None:
        """Stop it, politely first."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def check(self) -> None:
        """Raise ServiceError if it has stopped."""
        if self.process.poll() is not None:
            raise ServiceError(
                f"the {self.name} stopped with exit code {self.process.returncode}", hint="Its message is above."
            )

    def keep_running(self) -> None:
        """Start it again if it has stopped.

        Raises:
            ServiceError: It stopped too often.
        """
        if self.process.poll() is None:
            return
        now = time.monotonic()
        self._ends = [*(end for end in self._ends if now - end < RESTART_SECONDS), now]
        if len(self._ends) > RESTARTS:
            raise ServiceError(
                f"the {self.name} stopped {len(self._ends)} times within {RESTART_SECONDS // 60} minutes, the last "
                f"time with exit code {self.process.returncode}",
                hint="Its message is above.",
            )
        err.print(
            f"[yellow]The {self.name} stopped with exit code {self.process.returncode}. It is started again "
            f"({len(self._ends)} of at most {RESTARTS} times).[/]"
        )
        self.start()

    def wait_for(self, url: str) -> None:
        """Wait until it answers."""
        import httpx

        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check()
            with suppress(httpx.HTTPError):
                if httpx.get(url, timeout=5).is_success:
                    return
            time.sleep(POLL_SECONDS)
        raise ServiceError(
            f"the {self.name} at {url} did not answer within {START_SECONDS} seconds", hint="Try `qaserve doctor`."
        )


@contextmanager
def _child(name: str, command: list[str], environment: Mapping[str, str]) -> Iterator[_Child]:
    """A process that is stopped on leaving."""
    child = _Child(name, command, environment)
    try:
        yield child
    finally:
        child.stop()


def _free_port(setting: str, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"{setting}={port}: {host}:{port} cannot be listened on: {error.strerror}",
                hint=f"Stop what listens there, or set {setting} to another port.",
            ) from error
