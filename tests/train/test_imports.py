"""Serving loads no experiment and no masked-language-model head."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["qaserve.api.app", "qaserve.cli", "qaserve.mcp", "ingest.refit", "ingest.builder"])
def test_serving_loads_no_experiment(module):
    """In a fresh interpreter; the modules found are printed where there are any."""
    script = f"""
import sys, {module}
kept_apart = ("train.experiments", "train.importance.uncertainty", "train.importance.mlm_head")
print(*sorted(name for name in sys.modules if name.startswith(kept_apart)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
