"""What importing a package loads, in a fresh interpreter; which packages may import which is in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "sentence_transformers"}
EXTRA = {"mcp", "pandas", "pyarrow", "streamlit"}
LOADED = "import sys, {name}; print('\\n'.join(sorted(sys.modules)))"


def loaded_by(name):
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(name=name)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def those_within(loaded, packages):
    return sorted(name for name in loaded if any(name == one or name.startswith(f"{one}.") for one in packages))


@pytest.mark.parametrize(
    ("name", "forbidden"),
    [
        (
            "qaserve.client",
            {
                *HEAVY,
                "ingest",
                "train",
                "qaserve.store",
                "qaserve.encoders",
                "qaserve.core",
                "qaserve.settings",
                "numpy",
                "scipy",
                "sklearn",
                "qdrant_client",
            },
        ),
        (
            "qaserve.api.app",
            {
                *HEAVY,
                *EXTRA,
                "train.experiments",
                "train.importance",
                "train.experiments.encoder_finetuning",
                "sklearn",
            },
        ),
        ("qaserve.core.pipeline", {*HEAVY, "qaserve.store", "sklearn", "qdrant_client"}),
        ("qaserve.mcp", {*HEAVY, "train.experiments", "train.importance", "sklearn"}),
        ("ingest.builder", {*HEAVY, "train.experiments", "train.importance"}),
        ("ingest.refit", {"train.experiments", "train.importance.uncertainty", "train.importance.mlm_head"}),
        (
            "qaserve.cli",
            {
                *HEAVY,
                "ingest",
                "train.experiments.harness",
                "qaserve.store",
                "sklearn",
                "scipy",
                "qdrant_client",
                "fastapi",
            },
        ),
    ],
)
def test_importing_loads_no_more_than_it_needs(name, forbidden):
    assert those_within(loaded_by(name), forbidden) == []


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [("mcp", "mcp", "mcp"), ("ui", "streamlit", "ui"), ("up", "streamlit", "ui"), ("ingest", "sklearn", "train")],
)
def test_a_command_whose_extra_is_missing_names_it(command, module, extra, tmp_path):
    arguments = ["qaserve", command, *(["pairs.jsonl"] if command == "ingest" else [])]
    (tmp_path / "pairs.jsonl").write_text('{"question": "How?", "answer": "So."}\n')
    code = f"import sys; sys.modules[{module!r}] = None; sys.argv = {arguments!r}; from qaserve.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert f"{module} is not installed" in done.stderr
    assert f"pip install 'qaserve[{extra}]'" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.jsonl"}
