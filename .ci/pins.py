"""Write constraints.txt: every package of `make run` and `make test`, pinned, with the hashes of all its files.

Run it by `make pins`. Pins stay; to raise one, delete its line first. torch is left out, as the head of the file says.
Its CPU build must be found, through PIP_FIND_LINKS for example, or the packages of its CUDA build are pinned too.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "constraints.txt"
HEAD = """\
# Written by `make pins`: every package of `make run` and `make test` with the hashes of its files, for Linux.
# Each section is installed by `pip install --require-hashes --no-deps --requirement`. Hashes cannot be constraints
# of `--editable .`, which has none. torch is not here: its CPU builds come from other indexes than PyPI, as other files
# with other hashes. Makefile and Dockerfile pin its version. Newer or looser pins pull CUDA builds.
"""
SECTIONS = {"run": "# For make run", "dev": "# For make test", "mpnet": "# For make mpnet"}


def main(torch: str) -> None:
    """Resolve each section, beside this pin of torch, and write what it adds to those before."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    run = ["--extra", "all"] if "all" in project["project"]["optional-dependencies"] else []
    options = {"run": run, "dev": [*run, "--extra", "dev"], "mpnet": ["--extra", "mpnet", "--no-deps"]}
    pins = [line.split("--")[0].rstrip(" \\") for line in FILE.read_text(encoding="utf-8").splitlines() if "==" in line]
    parts, seen = [HEAD], set[str]()
    with tempfile.TemporaryDirectory() as folder:
        build, known = Path(folder) / "build.in", Path(folder) / "pins.txt"
        build.write_text("\n".join(project["build-system"]["requires"]), encoding="utf-8")
        known.write_text("\n".join([*pins, torch]), encoding="utf-8")
        for name, title in SECTIONS.items():
            blocks = [block for block in _resolved(build, known, options[name]) if block.split()[0] not in seen]
            seen |= {block.split()[0] for block in blocks}
            parts.append("\n".join([title, *blocks]) + "\n")
    FILE.write_text("\n".join(parts), encoding="utf-8")


def _resolved(build: Path, known: Path, options: list[str]) -> list[str]:
    """The pin of every package with its hashes, one block of lines each."""
    links = ["--find-links", os.environ["PIP_FIND_LINKS"]] if os.environ.get("PIP_FIND_LINKS") else []
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", str(ROOT / "pyproject.toml"), str(build)),
        *("--constraints", str(known), "--python-version", "3.11", "--generate-hashes", "--no-annotate"),
        *("--no-header", "--quiet", "--no-emit-package", "torch", *links, *options),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return re.split(r"\n(?=\S)", done.stdout.strip())


if __name__ == "__main__":
    main(sys.argv[1])
