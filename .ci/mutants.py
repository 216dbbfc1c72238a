"""Change the formulas line by line and see which changes their own tests notice. `make mutants [ONLY="routing gate"]`.

Each file is measured with its own tests alone: what another file's test notices by accident does not count. The mutants
stay in .mutants/FILE, with what became of each in results.txt; there `mutmut show NAME` shows what one changed.
"""

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
    "train/calibration_cases": f"{TRAIN}/test_calibration.py",
    "train/importance/measures": f"{TRAIN}/importance/test_measures.py",
    "train/importance/uncertainty": f"{TRAIN}/importance/test_uncertainty.py",
    **{
        f"train/distillation/{name}": f"{TRAIN}/distillation/test_{tests}.py"
        for name, tests in (("data", "training"), ("teachers", "teachers"), ("training", "training"))
    },
    "ingest/gate": "tests/ingest/test_gate_comparison.py",
    "qaserve/search/names": "tests/qaserve/search/test_names.py",
}
"""The files, and the tests of each."""
FORMULAS = {
    "train/calibration": "log_odds threshold_at fit_logistic _fit_both _fit_skills out_of_fold _out_of_fold_skills "
    "_figures calibration_error _short",
    "train/calibration_cases": "sibling_bound nearest_answers half_and_half",
    "train/tuning": "_Search.not_below _Search.is_better _Search.ask _numbers _error _plain _with",
    "train/importance/uncertainty": "embedding_norms dropout_spread _mean_entropies _entropies",
    "train/distillation/training": "_loss _rate",
    "ingest/gate": "_joined _figures _compared _rank",
}
"""Functions that are changed where the rest of a file only carries data from one to the next; else all are."""
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
    _mutmut(folder, "run.log", "run", *_chosen(name))
    _mutmut(folder, "results.txt", "results", "--all", "true")
    found = [line.rsplit(": ", 1)[1] for line in (folder / "results.txt").read_text(encoding="utf-8").splitlines()]
    return sum(one in {"killed", "timeout"} for one in found), sum(one != "not checked" for one in found)


def _chosen(name: str) -> list[str]:
    """Patterns of the mutants' names, as mutmut makes them of `function` and `Class.method`; none means all."""
    module = name.replace("/", ".")
    mangled = [f"xǁ{one.replace('.', 'ǁ')}" if "." in one else f"x_{one}" for one in FORMULAS.get(name, "").split()]
    return [f"{module}.{one}__mutmut_*" for one in mangled]


def _mutmut(folder: Path, output: str, *arguments: str) -> None:
    with (folder / output).open("w", encoding="utf-8") as file:
        command = [sys.executable, "-m", "mutmut", *arguments]
        subprocess.run(command, cwd=folder, env=ENVIRONMENT, stdout=file, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
