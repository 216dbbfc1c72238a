"""The command line: `qaserve COMMAND`.

Human output by default, one JSON document on stdout with --json; progress and logs on stderr. Exit code 0: done,
1: failed, 2: used wrongly. A command imports only what it needs, so that --help is quick.
"""

import json
import os
import sys

from rich.text import Text
from threadpoolctl import threadpool_limits

from qaserve.cli import ask, bench, builds, corpus, doctor, encoder, feedback, golden, mcp, move, scale, service
from qaserve.cli.base import app, err
from qaserve.common.errors import QaserveError

__all__ = [
    "app",
    "ask",
    "bench",
    "builds",
    "corpus",
    "doctor",
    "encoder",
    "feedback",
    "golden",
    "main",
    "mcp",
    "move",
    "scale",
    "service",
]

INTERRUPTED = 130
EXTRAS = dict.fromkeys(("onnx", "onnxscript", "scipy", "sentence_transformers", "sklearn", "torch"), "train")
"""Packages that only an extra brings, with the extra."""
BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def main() -> None:
    """Run the command line; our errors become two lines on stderr (and a document with --json), never a traceback."""
    _one_thread_for_algebra()
    try:
        app()
    except QaserveError as error:
        kind = error.kind
        if "--json" in sys.argv:
            print(json.dumps({"error": {"code": kind.code, "message": error.message, "hint": error.hint}}))
        err.print(Text.assemble(("error: ", "bold red"), error.message))
        if error.hint:
            err.print(Text.assemble(("try:   ", "bold"), error.hint))
        sys.exit(kind.exit_code)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        err.print(Text.assemble(("error: ", "bold red"), f"{error.name} is not installed"))
        err.print(Text.assemble(("try:   ", "bold"), f"pip install 'qaserve[{extra}]'"))
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe, such as head, went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _one_thread_for_algebra() -> None:
    """Let NumPy's linear algebra use one thread, unless the user says how many.

    Our matrices are small: threads that wait for each other made choosing a build's numbers take 76 s instead of 14 on
    a busy machine, and a search 9 ms instead of 3. The encoder has threads of its own.
    """
    if BLAS_THREADS not in os.environ:
        os.environ[BLAS_THREADS] = "1"  # for what is loaded later, and for our children
        threadpool_limits(1, user_api="blas")
