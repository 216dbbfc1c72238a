"""`qaserve mcp`."""

import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer

from qaserve.cli.base import app, corpus_to_ask, corpus_to_fill, make_encoder
from qaserve.cli.corpus import run_ingest
from qaserve.settings import Settings, get_settings

if TYPE_CHECKING:
    from qaserve.mcp.results import Added, NewPair
    from qaserve.search.engine import Engine
    from qaserve.service.gaps import QuestionLog
    from qaserve.store import Store

HELP = """Serve an agent over the Model Context Protocol, on stdin and stdout.

Tools: search_skills, get_skill, explain_routing, get_pair, list_clusters, corpus_status and, with --write, add_pairs.
It reads the data folder or server of the settings, also while an API runs or an ingest writes. With QASERVE_API_URL set
it asks that API. With QASERVE_MCP_HTTP=true the API serves the same tools at /mcp.

**Examples**

    qaserve mcp

    QASERVE_API_URL=http://127.0.0.1:8000 qaserve mcp

    QASERVE_API_URL=http://127.0.0.1:8000 qaserve mcp --write
"""


@app.command(help=HELP)
def mcp(
    *,
    write: Annotated[
        bool, typer.Option("--write", help="Offer add_pairs too; as QASERVE_MCP_WRITE=true does.")
    ] = False,
) -> None:
    """See HELP."""
    from qaserve.client.http import Client
    from qaserve.mcp import create_server
    from qaserve.mcp.adding import over_api
    from qaserve.mcp.source import EngineSource

    settings = get_settings()
    writable = write or settings.server.mcp_write
    with ExitStack() as stack:
        if settings.server.api_url is not None:
            client = stack.enter_context(Client(**settings.server.client))
            server = create_server(client, partial(over_api, client) if writable else None)
        else:
            local = stack.enter_context(DataFolder(settings))
            server = create_server(EngineSource(local.engine, local.kept), local.add if writable else None)
        server.run("stdio")


class DataFolder:
    """The engine over the builds of the settings, opened when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        """Remember what to open."""
        self._settings = settings
        self._lock, self._adding = threading.Lock(), threading.Lock()
        self._opened = ExitStack()
        self._store: Store | None = None
        self._engine: Engine | None = None

    def __enter__(self) -> Self:
        """Use as a context manager to let go of the folder."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Let go of the folder."""
        self._opened.close()

    def engine(self) -> "Engine":
        """The engine. Errors while opening are raised on each call until fixed."""
        from qaserve.search.engine import Engine

        with self._lock:
            if self._engine is None:
                settings, store = self._settings, self._open()
                corpus = corpus_to_ask(settings, store)
                self._engine = Engine(store, make_encoder(settings), settings.store.models_dir, corpus, settings.search)
            return self._engine

    def kept(self) -> "QuestionLog":
        """Where questions of the engine's corpus are kept."""
        from qaserve.service.gaps import QuestionLog

        return QuestionLog(self._settings.store.data_dir, self.engine().corpus, **self._settings.server.keeping)

    def add(self, pairs: "Sequence[NewPair]") -> "Added":
        """Import pairs as an ingest of a file would."""
        from qaserve.mcp.adding import lines
        from qaserve.mcp.results import Added

        with self._lock:
            store = self._open()
        with self._adding, tempfile.TemporaryDirectory() as folder:  # questions are answered meanwhile
            path = Path(folder) / "agent.jsonl"
            path.write_text(lines(pairs), encoding="utf-8")
            report = run_ingest(self._settings, store, corpus_to_fill(self._settings, store, [path]), [path])
        return Added.of(report)

    def _open(self) -> "Store":
        from qaserve.store import open_store

        if self._store is None:
            self._store = self._opened.enter_context(open_store(self._settings.store))
        return self._store
