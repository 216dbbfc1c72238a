"""What a fresh interpreter has loaded after it answered a question, with an export there."""

import json
import os
import subprocess
import sys

import pytest
from tiny_models import tiny_model

START = """
import sys
from qaserve.settings import get_settings
from qaserve.cli.base import make_encoder
from qaserve.search.engine import Engine
from qaserve.schemas.ask import AskRequest
from qaserve.store import open_store
settings = get_settings()
store = open_store(settings.store, read_only=True).__enter__()
engine = Engine(store, make_encoder(settings), settings.store.models_dir, "pairs", settings.search)
"""
ENDS = {
    "ask": """
import qaserve.cli
answered = engine.ask(AskRequest(question="how bread")).answers
""",
    "api": """
from fastapi.testclient import TestClient
from qaserve.api import create_app
with TestClient(create_app(engine, settings.server, settings.limits), base_url="http://localhost") as client:
    answered = client.post("/v1/ask", json={"question": "how bread"}).raise_for_status().json()["answers"]
""",
    "mcp": """
from qaserve.mcp import create_server
from qaserve.mcp.source import EngineSource
source = EngineSource(lambda: engine)
create_server(source, None)
answered = source.ask(AskRequest(question="how bread")).answers
""",
}
CHECK = """
assert answered
heavy = {"torch", "transformers", "sentence_transformers", "scipy", "sklearn"} & set(sys.modules)
store.__exit__(None, None, None)
sys.exit(", ".join(sorted(heavy)) or 0)
"""


def run(environment, *arguments):
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=500
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The environment of a corpus that was ingested with a tiny model, and so has its export."""
    root = tmp_path_factory.mktemp("light")
    rows = [
        {"question": f"{ask} {thing}", "answer": f"{ask} bread {thing}", "pair_id": ask + thing, "cluster_id": thing}
        for thing in ("bread", "query", "document", "search")
        for ask in ("how", "how how", "search", "document how", "query how")
    ]
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QASERVE_")} | {
        "QASERVE_DATA_DIR": str(root / "data"),
        "QASERVE_MODELS_DIR": str(root / "models"),
        "QASERVE_ENCODER": str(tiny_model(root, "mpnet")),
        "QASERVE_LOCK_WAIT": "60",
    }
    done = run(environment, "-m", "qaserve", "ingest", str(root / "pairs.jsonl"))
    assert done.returncode == 0, done.stderr
    return environment


@pytest.mark.parametrize("way", ENDS)
def test_answering_loads_no_torch(built, way):
    check = CHECK
    if way == "api":  # agents are served over HTTP only where a setting says so
        check = CHECK.replace('"sklearn"}', '"sklearn", "mcp"}')
    done = run(built, "-c", START + ENDS[way] + check)
    assert done.returncode == 0, done.stderr
