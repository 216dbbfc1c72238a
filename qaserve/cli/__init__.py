"""The command line: `qaserve COMMAND`.

Human output by default, one JSON document on stdout with --json; progress and logs on stderr. Exit code 0: done,
1: failed, 2: used wrongly. A command imports only what it needs, so that --help is quick.
"""

import json
import os
import sys

from rich.text import Text

from qaserve.cli import ask, bench, builds, corpus, doctor, feedback, golden, service
from qaserve.cli.base import app, err
from qaserve.errors import QaserveError

__all__ = ["app", "ask", "bench", "builds", "corpus", "doctor", "feedback", "golden", "main", "service"]

INTERRUPTED = 130


def main() -> None:
    """Run the command line; our errors become two lines on stderr (and a document with --json), never a traceback."""
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
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe, such as head, went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
