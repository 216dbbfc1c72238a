"""Change the formulas line by line and see which changes their own tests notice. `make mutants [ONLY="routing gate"]`.

Each file is measured with its own tests alone: what another file's test notices by accident does not count. The mutants
stay in .mutants/FILE, with their names in survivors.txt; there `mutmut show NAME` shows what a survivor changed.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".mutants"
PACKAGES = ("qaserve", "ingest", "train")
CORE, TRAIN = "tests/qaserve/core", "tests/train"
TESTS = {
    **{
        f"qaserve/core/{path.stem}": f"{CORE}/test_{path.stem}.py"
        for path in sorted((ROOT / "qaserve/core").glob("[!_]*.py"))
    },
    "qaserve/core/scoring": f"{CORE}/test_pipeline.py",
    **{
        f"train/{name}": f"{TRAIN}/test_{name}.py"
        for name in ("calibration", "folds", "procrustes", "tuning", "whitening")
    },
    **{f"train/importance/{name}": f"{TRAIN}/importance" for name in ("measures", "mlm_head", "uncertainty")},
    **{f"train/distillation/{name}": f"{TRAIN}/distillation" for name in ("data", "teachers", "training")},
    "ingest/gate": "tests/ingest/test_gate.py",
}
CONFIG = """\
[mutmut]
source_paths =
    qaserve
    ingest
    train
only_mutate =
    {source}
pytest_add_cli_args =
    -mnot corpus
    -pno:cacheprovider
    -pno:unraisableexception
    --assert=plain
pytest_add_cli_args_test_selection =
    {tests}
process_isolation = forkserver
track_dependencies = False
timeout_constant = 15
timeout_multiplier = 2
do_not_mutate_patterns =
    ^\\s*raise\\b
    \\bhint=
"""
"""torch does not survive a plain fork. Without the plugin that collects garbage each run is five times as fast. What a
test is said to take is without its fixtures, hence the constant. What an error says is not a formula."""
ENVIRONMENT = os.environ | {"TEST_SEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def main(only: list[str]) -> None:
    """Measure the files with one of these in their name, or all, and print the score of each."""
    scores = {name: _measure(name) for name in TESTS if not only or any(part in name for part in only)}
    for name, (killed, total) in scores.items():
        print(f"{name:32} {killed:5} of {total:5} killed  {killed / total:6.1%}")
    killed, total = (sum(column) for column in zip(*scores.values(), strict=True))
    print(f"{'all':32} {killed:5} of {total:5} killed  {killed / total:6.1%}")


def _measure(name: str) -> tuple[int, int]:
    """How many mutants of a file its tests kill, of how many."""
    folder = WORK / name.replace("/", "-")
    shutil.rmtree(folder, ignore_errors=True)
    for part in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "setup.cfg").write_text(CONFIG.format(source=f"{name}.py", tests=TESTS[name]), encoding="utf-8")
    for command, output in (("run", "run.log"), ("results", "survivors.txt"), ("export-cicd-stats", "run.log")):
        with (folder / output).open("a", encoding="utf-8") as file:
            mutmut = [sys.executable, "-m", "mutmut", command]
            subprocess.run(mutmut, cwd=folder, env=ENVIRONMENT, stdout=file, stderr=file, check=True)
    counts = json.loads((folder / "mutants/mutmut-cicd-stats.json").read_text(encoding="utf-8"))
    return counts["killed"] + counts["timeout"], counts["total"]


if __name__ == "__main__":
    main(sys.argv[1:])
