"""`qaserve ask --input`: the questions of a file, answered into a file that a later run continues."""

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from rich.text import Text

from qaserve.cli.answering import Answerer, answerer
from qaserve.cli.base import err
from qaserve.cli.questions import Question, read_questions
from qaserve.common.errors import ConflictError, QaserveError, UsageError
from qaserve.common.files import writing
from qaserve.common.progress import Bars
from qaserve.common.text import shorten
from qaserve.schemas.ask import AskRequest, AskResult
from qaserve.schemas.record import Record
from qaserve.settings import Settings

CHUNK = 64
"""Questions that are encoded together, and lost when the run is killed."""
BEGINNING = b'{"line": '
"""How every line of the output begins."""
OTHER_OUTPUT = "Give another file as --output, or delete this one."


class FileReport(Record):
    """What became of the questions of a file."""

    output: str
    questions: int
    answered: int
    failed: int
    kept: int
    """Of both: those that an earlier run wrote."""


class _Kept(NamedTuple):
    """What an earlier run left in the output."""

    lines: int = 0
    failed: int = 0
    build: str | None = None


def ask_file(source: Path, output: Path, options: Mapping[str, Any], settings: Settings) -> FileReport:
    """Answer the questions of a file, one JSON line each, in order. What the output holds already is kept.

    Args:
        source: The questions.
        output: The answers; a torn last line is written again.
        options: Parameters of the request where a line does not give them.
        settings: Where the answers come from.

    Raises:
        UsageError: There is no question, or the output is of other questions or options.
        ConflictError: Another process writes the output.
        QaserveError: Something is wrong that concerns every question. What is written stays.
    """
    limit = settings.read.max_line_bytes
    total = sum(1 for _ in read_questions(source, limit))
    if not total:
        raise UsageError(f"{source} holds no question", hint="Write one question a line.")
    with _opened(output) as file:
        questions = read_questions(source, limit)
        kept = _resume(file, output, questions, options)
        if kept.lines == total:
            return _report(output, total, kept, kept)
        with answerer(settings) as answering:
            done = kept
            try:
                with Bars(err).stage("Answering (questions)", total) as advance:
                    advance(kept.lines)
                    while chunk := list(islice(questions, CHUNK)):
                        done = _write(file, output, done, _answer(answering, chunk, options), options)
                        advance(len(chunk))
            except (QaserveError, KeyboardInterrupt):
                err.print(f"{done.lines:,} of {total:,} questions are answered. The same command continues.")
                raise
    return _report(output, total, done, kept)


def _report(output: Path, total: int, done: _Kept, kept: _Kept) -> FileReport:
    answered = done.lines - done.failed
    return FileReport(output=str(output), questions=total, answered=answered, failed=done.failed, kept=kept.lines)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The output, for this process alone."""
    with writing(f"{path} cannot be written", "Name a file in a writable folder."):
        file = path.open("a+b")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(f"another process writes {path}", hint="Wait for it, or name another file.") from error
        yield file


def _resume(file: IO[bytes], path: Path, questions: Iterator[Question], options: Mapping[str, Any]) -> _Kept:
    """Pass over the questions whose lines are there, and cut off a torn last line."""
    kept, end = _Kept(), 0
    file.seek(0)
    for number, raw in enumerate(file, start=1):
        if not raw.endswith(b"\n") and (raw.startswith(BEGINNING) or BEGINNING.startswith(raw)):
            break
        row, question = _row(raw), next(questions, None)
        if row is None:
            raise UsageError(f"{path}:{number} is not a line that `qaserve ask` wrote", hint=OTHER_OUTPUT)
        if question is None or (row["line"], row["question"]) != (question.line, question.shown):
            now = f"line {question.line} {shorten(question.shown, 60)!r}" if question else "no further question"
            raise UsageError(
                f"{path}:{number} is of line {row['line']} {shorten(row['question'], 60)!r}; the input has {now}",
                hint=OTHER_OUTPUT,
            )
        before, wanted = row.get("options"), question.options(options)
        if before is not None and before != wanted:
            raise UsageError(
                f"{path}:{number} was asked with other options: {_difference(before, wanted)}", hint=OTHER_OUTPUT
            )
        kept = _Kept(number, kept.failed + ("error" in row), row.get("build", kept.build))
        end += len(raw)
    with writing(f"{path} cannot be written", "Free some space."):
        file.truncate(end)
    return kept


def _difference(before: Any, now: Mapping[str, Any]) -> str:
    """The options that differ."""
    old = before if isinstance(before, dict) else {}
    changed = [name for name in sorted(old.keys() | now.keys()) if old.get(name) != now.get(name)]
    values = [f"{name} {_shown(old, name)}, now {_shown(now, name)}" for name in changed]
    return shorten("; ".join(values), 200)


def _shown(options: Mapping[str, Any], name: str) -> str:
    return json.dumps(options[name], ensure_ascii=False) if name in options else "not given"


def _row(raw: bytes) -> dict[str, Any] | None:
    """A whole line of an earlier run; None for anything else."""
    try:
        row = json.loads(raw)
    except ValueError:
        return None
    whole = isinstance(row, dict) and isinstance(row.get("line"), int) and isinstance(row.get("question"), str)
    return row if whole and ("error" in row or "answers" in row) else None


def _answer(
    answering: Answerer, chunk: Sequence[Question], options: Mapping[str, Any]
) -> list[tuple[Question, AskResult | QaserveError]]:
    found: dict[int, AskResult | QaserveError] = {}
    requests: dict[int, AskRequest] = {}
    for question in chunk:
        try:
            requests[question.line] = question.request(options)
        except UsageError as error:
            found[question.line] = error
    found |= zip(requests, answering.ask_many(list(requests.values())), strict=True)
    return [(question, found[question.line]) for question in chunk]


def _write(
    file: IO[bytes],
    path: Path,
    done: _Kept,
    answers: Sequence[tuple[Question, AskResult | QaserveError]],
    options: Mapping[str, Any],
) -> _Kept:
    """Append the lines of some questions."""
    lines, failed, build = [], done.failed, done.build
    for question, answer in answers:
        row: dict[str, Any] = {"line": question.line}
        if question.id is not None:
            row["id"] = question.id
        if isinstance(answer, QaserveError):
            failed += 1
            error = {"code": answer.kind.code, "message": answer.message, "hint": answer.hint}
            row |= {"question": question.shown, "error": error}
        else:
            if build not in {None, answer.build}:
                err.print(Text(f"From line {question.line} on, build {answer.build} answers; before, it was {build}."))
            build = answer.build
            row |= answer.model_dump(mode="json", exclude={"trace"} if answer.trace is None else None)
            row["question"] = question.shown
        row["options"] = question.options(options)
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    with writing(f"{path} cannot be written", "Free some space; the same command continues."):
        file.write("".join(lines).encode("utf-8"))
        file.flush()
    return _Kept(done.lines + len(lines), failed, build)
