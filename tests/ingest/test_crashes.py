"""Ingests that die at every named step and at random moments, or whose disk is full: see tests/crash_driver.py."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

KILLS = int(os.environ.get("TEST_KILLS", "50"))
DRIVER = ROOT / "tests" / "crash_driver.py"


@pytest.mark.fuzz
def test_a_crash_anywhere_leaves_the_live_build_and_the_next_ingest_ends_as_if_undisturbed(tmp_path, rng, capsys):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}{os.pathsep}{DRIVER.parent}"}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    seed = int(rng.integers(2**32))
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(tmp_path), str(seed), str(KILLS)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        print(f"\ncrashes survived (seed {seed}): {found['counts']}, then {found['ends']}")  # noqa: T201
    assert found["wrong"] == []
    assert found["counts"]["at steps"] >= 20
    assert found["counts"]["at random"] >= KILLS
    assert found["counts"]["at every write"] >= 20
    assert found["counts"]["disk full"] >= 4
    assert {"untouched", "cleaned", "swapped"} <= set(found["ends"])
