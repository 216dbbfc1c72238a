"""What all tests share: an isolated environment, a fake encoder, and builds made with it."""

import gc
import hashlib
import json
import logging
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import certifi
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from hypothesis import settings
from qdrant_client import QdrantClient
from qdrant_rest import QdrantRest
from random_files import write_counts

from ingest.builder import Builder
from ingest.pipeline import Ingest
from qaserve.common.text import fold
from qaserve.core.pipeline import Neighbors, Pipeline
from qaserve.schemas.builds import EncoderIdentity
from qaserve.schemas.params import SearchParams
from qaserve.search.engine import Engine
from qaserve.settings import PREFIX, FitSettings, ReadSettings, StoreSettings, get_settings
from qaserve.store import EdgeStore, Store, open_store
from qaserve.store.server import ServerStore

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
SERVER = os.environ.get("QASERVE_TEST_QDRANT_URL", "")
DIMENSION = 48
BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
LONGEST = ("tests/browser/", *(f"tests/{name}.py" for name in ("ingest/test_crashes", "ingest/test_history")))

if "TEST_EXAMPLES" in os.environ:
    settings.register_profile(
        "fuzz", max_examples=int(os.environ["TEST_EXAMPLES"]), deadline=None, derandomize=False, print_blob=True
    )
    settings.load_profile("fuzz")

for size in ("COLUMNS", "LINES"):  # of the terminal; readline gives it to child processes, and so to xdist's
    os.environ.pop(size, None)


def pytest_configure(config: pytest.Config) -> None:
    """Trust one authority instead of all: no test needs any, and every HTTP client would read them for 20 ms."""
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    first = certifi.contents().partition(END)
    path = Path(folder.name) / "authority.pem"
    path.write_text(first[0][first[0].index(BEGIN) :] + END + "\n", encoding="ascii")
    os.environ.setdefault("SSL_CERT_FILE", str(path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Whole files to processes, as their fixtures are made once; the browser tests are one, they share a service."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "browser" if nodeid.startswith("tests/browser/") else super()._split_scope(nodeid)

    return Scheduling(config, log)


def pytest_sessionfinish() -> None:
    """Tell how much of random input was fed."""
    write_counts()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process ends long after the others."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def pytest_collection_finish() -> None:
    """Set aside what was imported and collected: no collection of garbage looks through it again."""
    gc.collect()
    gc.freeze()


class FakeEncoder:
    """Deterministic and instant: a text is the sum of its words' random vectors, an answer is turned a little."""

    def __init__(self, name: str = "fake", dimension: int = DIMENSION) -> None:
        self.identity = EncoderIdentity(id=name, revision="1", dimension=dimension)
        self.encoded: list[str] = []

    def encode_questions(self, texts: Sequence[str], on_batch: Callable[[int], None] | None = None):
        return self._encode(texts, on_batch, turn=0.0)

    def encode_answers(self, texts: Sequence[str], on_batch: Callable[[int], None] | None = None):
        return self._encode(texts, on_batch, turn=0.8)

    def _encode(self, texts, on_batch, turn):
        self.encoded += texts
        rows = [sum((self._word(word) for word in fold(text).split()), turn * self._word("the turn")) for text in texts]
        if on_batch is not None and texts:
            on_batch(len(texts))
        vectors = np.array(rows, dtype=np.float64).reshape(len(texts), self.identity.dimension)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def _word(self, word: str):
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
        return np.random.default_rng(seed).normal(size=self.identity.dimension)


class Silent:
    """A progress reporter that tells nobody."""

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        yield lambda _: None


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No QASERVE_* variable of the caller's, nothing read from or written to the checkout."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("QASERVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("QASERVE_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("QASERVE_LOCK_WAIT", "0")  # a test that meets a lock says how long it waits
    monkeypatch.setenv("QASERVE_ALLOWED_HOSTS", "testserver")  # what TestClient calls its host
    get_settings.cache_clear()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    get_settings.cache_clear()


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def make_encoder() -> type[FakeEncoder]:
    return FakeEncoder


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers; a failing test shows the seed, and the variable TEST_SEED repeats it."""
    seed = int(os.environ.get("TEST_SEED", random.randrange(2**32)))
    print(f"TEST_SEED={seed}")  # noqa: T201 - pytest shows it when the test fails
    return np.random.default_rng(seed)


@pytest.fixture
def rest() -> Iterator[QdrantRest]:
    """The embedded engine behind Qdrant's REST, on loopback."""
    front = QdrantRest()
    yield front
    front.stop()
    front.client.close()


@pytest.fixture
def edge(tmp_path: Path) -> EdgeStore:
    """The embedded store, where `isolated` says that the data are."""
    return EdgeStore(tmp_path / "data")


@pytest.fixture
def memory_server() -> Iterator[ServerStore]:
    """The code for a server, over qdrant-client's own engine in memory; that warns of what only a server does."""
    for text in ("Payload indexes have no effect", "Local mode performs exact"):
        warnings.filterwarnings("ignore", message=text)
    with ServerStore(QdrantClient(location=":memory:"), StoreSettings()) as made:
        yield made


@pytest.fixture
def server() -> Iterator[Store]:
    """A Qdrant server kept for tests; it must be empty, and is emptied again."""
    with open_store(StoreSettings(qdrant_url=SERVER)) as made:
        if made._client.get_collections().collections:
            pytest.fail(f"{SERVER} holds collections: give the tests a server of their own, which they empty")
        yield made
        for found in made._client.get_collections().collections:
            made._client.delete_collection(found.name)


@pytest.fixture(params=["edge", "memory_server", *(["server"] if SERVER else [])])
def store(request: pytest.FixtureRequest) -> Store:
    """Every store; the third only where QASERVE_TEST_QDRANT_URL names a server."""
    return request.getfixturevalue(request.param)


THINGS = ["bread", "cheese", "wine", "paper", "glass", "steel"]
ASKS = ["How do I make {}?", "what is the way to produce {}", "{} recipe please", "steps for good {}"]


def vote(similarities, clusters, count, temperature, prior=None):
    """(N,) shares of the hits of one question and (K,) cluster weights, as the pipeline routes it."""
    pipeline = Pipeline(SearchParams(temperature=temperature, priors=prior is not None), range(count))
    batch = np.array([similarities], dtype=float), np.array([clusters], dtype=np.intp)
    rows = np.arange(len(clusters))[None, :]
    routed = pipeline.route(np.empty((1, 0)), Neighbors(*batch, rows, None if prior is None else np.array([prior])))
    return routed.shares[0], routed.weights[0]


def rows_about(things: Sequence[str] = THINGS) -> list[dict]:
    """Pairs: for every thing, four phrasings of one intent with slightly different answers."""
    return [
        {
            "pair_id": f"{thing}_q{number}",
            "cluster_id": f"make_{thing}",
            "question": ask.format(thing),
            "answer": f"Take material for {thing}, heat it, form {thing}, let {thing} cool; note {number} on {thing}.",
            "topics": ["making", thing],
            "related_skills": [f"skill_{thing}.md"],
            "original_answer": f"make {thing}",
        }
        for thing in things
        for number, ask in enumerate(ASKS)
    ]


@pytest.fixture
def rows() -> Callable[..., list[dict]]:
    return rows_about


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: Sequence[dict], name: str = "pairs.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def make_builder(tmp_path: Path) -> Callable[..., Builder]:
    def make(store: Store, encoder: FakeEncoder, corpus: str = "things", **fit) -> Builder:
        return Builder(store, encoder.identity, tmp_path / "models", corpus, fit=FitSettings(**fit), reporter=Silent())

    return make


@pytest.fixture
def make_ingest(make_builder) -> Callable[..., Ingest]:
    def make(store: Store, encoder: FakeEncoder, corpus: str = "things", **fit) -> Ingest:
        return Ingest(make_builder(store, encoder, corpus, **fit), encoder, ReadSettings())

    return make


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a folder. Files of a shard are mostly holes, and stay so."""
    sparse = ["--sparse=always"] if sys.platform == "linux" else []
    subprocess.run(["cp", "-a", *sparse, str(source), str(target)], check=True)


@pytest.fixture
def engine(edge: Store, encoder: FakeEncoder, write_rows, tmp_path: Path, tmp_path_factory) -> Engine:
    """An engine over a build of `rows_about()`, made once for each encoder and copied for each test."""
    path, identity = write_rows(rows_about()), encoder.identity
    made = tmp_path_factory.getbasetemp() / f"things-{identity.id}-{identity.dimension}"
    if not made.exists():
        store, begun = EdgeStore(tmp_path / "begun" / "data"), tmp_path / "begun"
        builder = Builder(store, identity, begun / "models", "things", fit=FitSettings(), reporter=Silent())
        Ingest(builder, type(encoder)(identity.id, identity.dimension), ReadSettings()).run([path])
        begun.rename(made)
    for name in ("data", "models"):
        copy_sparse(made / name, tmp_path / name)
    return Engine(edge, encoder, tmp_path / "models", "things")


@pytest.fixture(scope="session")
def exports(tmp_path_factory) -> Path:
    """A folder with MiniLM's export, made once for all processes: `encoders` of a data folder can be a link to it."""
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    script = "import sys; from pathlib import Path; from conftest import Silent; "
    script += "from qaserve.encoders.serving import ServingEncoder; from qaserve.settings import EncoderSettings; "
    script += "ServingEncoder(EncoderSettings(), Path(sys.argv[1]), Silent()).load()"
    own = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    own["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    subprocess.run([sys.executable, "-c", script, str(place / "encoders")], env=own, check=True)
    return place / "encoders"


@pytest.fixture
def real_corpus() -> Path:
    """The real corpus beside the checkout; skipped, visibly, where it is absent, but never in CI."""
    path = SHARED / "corpus" / "skills_qa.jsonl"
    if not path.is_file():
        if os.environ.get("CI"):
            pytest.fail(f"CI needs {path}")
        pytest.skip(f"no real corpus at {path}")
    return path


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ready(http):
    """What /readyz says when the encoder has been read."""
    while "still being read" in (reply := http.get("/readyz")).text:
        time.sleep(0.01)
    return reply


@pytest.fixture
def serve_app(unused_port: int) -> Iterator[Callable[[FastAPI], str]]:
    """Serve an application on loopback, for real, until the test ends."""
    stops = []

    def start(app: FastAPI) -> str:
        server = uvicorn.Server(uvicorn.Config(app, port=unused_port, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        stops.append((server, thread))
        while not server.started:
            assert thread.is_alive(), "the server died"
            time.sleep(0.01)
        return f"http://127.0.0.1:{unused_port}"

    yield start
    for server, thread in stops:
        server.should_exit = True
        thread.join()


@pytest.fixture
def http_server() -> Iterator[Callable[..., str]]:
    """Servers on loopback that give every request the same answer."""
    servers = []

    def start(status: int = 200, body: bytes = b"", content_type: str = "application/json") -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server looks for

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
