"""The command line: `qaserve COMMAND`.

Human output by default, one JSON document on stdout with --json; progress and logs on stderr. Exit code 0: done,
1: failed, 2: used wrongly. The module of a command is imported when that command is given, so that --help is quick.
"""

import codecs
import errno
import io
import json
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import NamedTuple

import typer

from qaserve.cli.base import app, err, out, root_app, say_error
from qaserve.common.errors import TABLE, QaserveError, UsageError
from qaserve.common.text import shorten

__all__ = ["COMMANDS", "app", "load_all", "main"]


class Listed(NamedTuple):
    """A command as the list of commands shows it."""

    modules: tuple[str, ...]
    about: str


COMMANDS = {
    "ask": Listed(("ask",), "Answer a question, and say why."),
    "bench": Listed(("bench", "golden", "scale"), "Measure, on data that nothing was fitted or tuned on."),
    "builds": Listed(("builds",), "List the builds of a corpus, compare two, go back to one, delete old ones."),
    "fetch": Listed(
        ("corpus",),
        "Download the public corpus: 1,888 UnifyWeaver skill pairs, from a pinned commit, hash checked.",
    ),
    "ingest": Listed(("corpus",), "Import pairs and make them live."),
    "remove": Listed(("corpus",), "Take pairs out, and make the rest live."),
    "fit": Listed(
        ("corpus",),
        "Tune and fit the live build again, from its own vectors; no pair is encoded.",
    ),
    "distill": Listed(
        ("corpus",), "Teach a student what routing and projection do: one small network that needs no votes."
    ),
    "doctor": Listed(
        ("doctor",),
        "Tell what is installed, which encoder, Qdrant and build are used, and what is wrong. "
        "Exit code 1 on a problem.",
    ),
    "encoder": Listed(("encoder",), "The model that turns text into vectors."),
    "export": Listed(
        ("export",), "Write the live pairs as JSON Lines, CSV or Parquet, each with its cluster, skill and build."
    ),
    "feedback": Listed(("feedback",), "See what was said of answers, and take it elsewhere."),
    "mcp": Listed(("mcp",), "Serve an agent over the Model Context Protocol, on stdin and stdout."),
    "copy": Listed(("copy",), "Copy builds from the embedded Qdrant of QASERVE_DATA_DIR to a server, or back."),
    "gaps": Listed(
        ("gaps",), "Show which questions found no answer, in themes, each with the cluster that is nearest."
    ),
    "overlaps": Listed(
        ("overlaps",), "Find intents whose questions or answers nearly coincide, and how to merge them."
    ),
    "verify": Listed(
        ("builds",),
        "Read all of a build and compare it with the hashes it was sealed with. Example: qaserve verify --all.",
    ),
    "skill": Listed(
        ("skills",), "Show a skill: its document, the questions it answers, and the skills that are named with it."
    ),
    "skills": Listed(("skills",), "List the skills, and export them."),
    "reference": Listed(("reference",), "Write the reference of settings and commands into docs/."),
    "serve": Listed(("service",), "Start the HTTP API. Example: QASERVE_PORT=8080 qaserve serve."),
    "ui": Listed(
        ("service",), "Start the page. It talks to QASERVE_API_URL. Example: QASERVE_UI_PORT=8502 qaserve ui."
    ),
    "up": Listed(("service",), "Load a corpus, start the API and the page, and wait until Ctrl-C."),
}
"""Every command with the modules that make it, and the first line of its help."""

INTERRUPTED = 130
ESCAPED = "qaserve.escaped"
EXTRAS = {
    **dict.fromkeys(("onnx", "onnxscript", "pyarrow", "scipy", "sentence_transformers", "sklearn", "torch"), "train"),
    **dict.fromkeys(("mcp", "mcp_types"), "mcp"),
    "streamlit": "ui",
}
"""Packages that only an extra brings, with the extra."""
BLAS_THREADS = "OPENBLAS_NUM_THREADS"
COMPLETION = "_QASERVE_COMPLETE"
DEFAULT_WIDTH = 80
NAME_CHARS = 80
HINTS = {
    errno.ENOSPC: "Free some space on that disk.",
    errno.ENAMETOOLONG: "Give a shorter path.",
}


def main() -> None:
    """Run the command line; our errors become two lines on stderr (and a document with --json), never a traceback."""
    _one_thread_for_algebra()
    _any_text()
    _some_width()
    sys.exit(_flush(_run()))


def _run() -> int | str | None:
    """Run the command; gives the exit code."""
    try:
        code = _app(sys.argv[1:])(standalone_mode=False)
    except SystemExit as stop:
        return stop.code
    except typer.TyperException as error:
        return _tell_usage(error)
    except (QaserveError, ModuleNotFoundError, OSError, KeyboardInterrupt) as error:
        return _tell(error)
    return _tell(KeyboardInterrupt()) if code == INTERRUPTED else code  # typer says nothing of Ctrl-C


def _tell(error: BaseException) -> int:
    """Say what went wrong and what to do; gives the exit code. An error that is a bug of ours is raised again."""
    if isinstance(error, QaserveError):
        kind = error.kind
        _say(kind.code, error.message, error.hint)
        return kind.exit_code
    if isinstance(error, KeyboardInterrupt):
        err.print("interrupted")
        return INTERRUPTED
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        extra = EXTRAS.get(package)
        if extra is None:
            raise error
        _say("not_installed", f"{package} is not installed", f"pip install 'qaserve[{extra}]'")
    elif isinstance(error, OSError) and not isinstance(error, BrokenPipeError):  # a pipe's reader, such as head, left
        _say_system(error)
    return 1


def _tell_usage(error: typer.TyperException) -> int:
    """Say which option or argument is wrong, as typer says it; gives the exit code."""
    from typer.rich_utils import rich_format_error

    _print_document(TABLE[UsageError].code, error.format_message(), "The command's --help lists what it takes.")
    rich_format_error(error)  # type: ignore[arg-type]  # every one that typer raises is of its own subclass
    return error.exit_code


def _flush(code: int | str | None) -> int | str | None:
    """Write what stdout still holds; at exit, nothing could be said of a failure. Gives the exit code."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not (code or isinstance(error, BrokenPipeError)):
            _say_system(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # exiting must not fail on it again
        return code or 1
    return code


def load_all() -> typer.Typer:
    """The app with every command."""
    for listed in COMMANDS.values():
        _load(listed)
    return app


def _load(listed: Listed) -> None:
    for module in listed.modules:
        import_module(f"qaserve.cli.{module}")


def _app(arguments: list[str]) -> typer.Typer:
    """The app with the command that is given; where there is none, an app that only lists them all."""
    if COMPLETION in os.environ:
        return load_all()
    given = next((argument for argument in arguments if not argument.startswith("-")), None)
    if given in COMMANDS:
        _load(COMMANDS[given])
        return app
    listing = root_app()
    for name, listed in COMMANDS.items():
        listing.command(name, help=listed.about)(lambda: None)
    return listing


def _say_system(error: OSError) -> None:
    where = f": {shorten(str(error.filename), NAME_CHARS)}" if error.filename is not None else ""
    hint = HINTS.get(error.errno or 0, "Check the path and its permissions.")
    _say("system_error", f"{error.strerror or error}{where}", hint)


def _say(code: str, message: str, hint: str) -> None:
    """Say what went wrong: on stderr, and with --json in the one document on stdout."""
    say_error(message, hint)
    _print_document(code, message, hint)


def _print_document(code: str, message: str, hint: str) -> None:
    if "--json" not in sys.argv:
        return
    with suppress(OSError):  # of stdout itself
        print(json.dumps({"error": {"code": code, "message": message, "hint": hint}}))


def _any_text() -> None:
    """Write what a stream's encoding lacks as JSON escapes it, and read on where a byte is none of its text."""
    codecs.register_error(ESCAPED, _escape)
    for stream, errors in ((sys.stdin, "backslashreplace"), (sys.stdout, ESCAPED), (sys.stderr, ESCAPED)):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """As `codecs.register_error` wants it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _some_width() -> None:
    """Ignore a terminal width of 0, which some terminals give: nothing can be laid out in it."""
    if os.environ.get("COLUMNS", "").strip("0") == "":
        os.environ.pop("COLUMNS", None)
    for console in (out, err):
        console.width = console.width or DEFAULT_WIDTH


def _one_thread_for_algebra() -> None:
    """Let NumPy's linear algebra use one thread, unless the user says how many; NumPy is not imported yet.

    Our matrices are small: threads that wait for each other made choosing a build's numbers take 76 s instead of 14 on
    a busy machine, and a search 9 ms instead of 3. The encoder has threads of its own.
    """
    os.environ.setdefault(BLAS_THREADS, "1")  # for our children too
