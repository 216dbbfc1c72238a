"""`qaserve serve`, `qaserve ui` and `qaserve up`."""

import importlib.util
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from qaserve.builds.titles import keep_title
from qaserve.cli.base import SAMPLE_CORPUS, app, corpus_named_after, corpus_to_ask, err, out
from qaserve.cli.child import POLL_SECONDS, check_port, child
from qaserve.cli.corpus import fetch_corpus, fetch_documents, run_ingest
from qaserve.common.errors import FetchError
from qaserve.schemas.params import LOOPBACK
from qaserve.settings import MAX_WORKERS, Settings, get_settings

SAMPLE = Path(__file__).parents[1] / "sample" / "sample.jsonl"
PAGE = Path(__file__).parents[2] / "ui" / "server.py"

UP_HELP = """Load a corpus, start the API and the page, and wait until Ctrl-C.

Without PATH the corpus that is there is served. If there is none, the public corpus is fetched; without a network, the
sample that ships with qaserve is used. What is loaded already is not loaded again. API and page are started again if
they die, at most 3 times in 10 minutes.

**Examples**

    qaserve up

    qaserve up pairs.jsonl
"""


@app.command()
def serve(
    *,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_WORKERS, help="Serving processes. Default: QASERVE_WORKERS.", show_default=False),
    ] = None,
) -> None:
    """Start the HTTP API. Example: QASERVE_PORT=8080 qaserve serve."""
    from qaserve.api.logs import configure
    from qaserve.cli.workers import open_jobs, opened_engine, run_api, supervise

    settings = get_settings()
    configure(settings.server)
    count = workers or settings.server.workers
    if count > 1:
        supervise(settings, count)
        return
    check_port("QASERVE_PORT", settings.server.host, settings.server.port)
    with opened_engine(settings) as engine, open_jobs(settings, engine) as jobs:
        run_api(settings, engine, jobs)


@app.command()
def ui() -> None:
    """Start the page. It talks to QASERVE_API_URL. Example: QASERVE_UI_PORT=8502 qaserve ui."""
    settings = get_settings()
    check_port("QASERVE_UI_PORT", settings.server.ui_host, settings.server.ui_port)
    os.execv(sys.executable, page_command(settings))  # noqa: S606 - our own command, no shell


@app.command(help=UP_HELP)
def up(path: Annotated[Path | None, typer.Argument(help="File or folder to load.", show_default=False)] = None) -> None:
    """See UP_HELP."""
    settings = get_settings()
    server = settings.server
    check_port("QASERVE_PORT", server.host, server.port)
    check_port("QASERVE_UI_PORT", server.ui_host, server.ui_port)
    command = page_command(settings)  # what is missing is said before a corpus is loaded, which takes minutes
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
            api = stack.enter_context(child("API", [sys.executable, "-m", "qaserve", "serve"], environment))
            front = stack.enter_context(child("page", command, environment))
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
    """The command that serves the page. Raises ModuleNotFoundError where Streamlit is not installed."""
    if importlib.util.find_spec("streamlit") is None:
        raise ModuleNotFoundError("no Streamlit", name="streamlit")
    options = {
        "server.address": settings.server.ui_host,
        "server.port": settings.server.ui_port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.enableCORS": "true",
        "server.enableXsrfProtection": "true",
        "browser.gatherUsageStats": "false",
        "runner.postScriptGC": "false",  # after a run it holds what is still to be sent for 0.1 s
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
    from ingest import fetch as fetching
    from qaserve.store import open_store

    own, notice = settings.store.corpus, None
    if path is None:
        with open_store(settings.store) as store:
            live = store.live_builds()
            there = own if own is not None else corpus_to_ask(settings, store) if set(live) - {SAMPLE_CORPUS} else None
        if there in live:
            err.print(f"Corpus {there} is there already.")
            return there, None
    documents, title = None, None
    if path is None:
        try:
            path, title = fetch_corpus(settings), fetching.TITLE
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
    if title is not None:
        keep_title(settings.store.models_dir, corpus, title)
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
