"""Readers: files and folders in, pairs and rejections out, one line at a time.

Four shapes of JSON object are understood, recognised per line by their fields:

pair       `question` and `answer` as texts, with `pair_id`
single     the same without `pair_id`: an older shape
variants   `question`, `question_variants` and `answer` as a text: one pair per phrasing
questions  a list `questions` and an `answer` that is an object with `text`: one pair per question

To add a shape, write a function that turns a row into pairs and name it in `_shape_of`.
"""

import gzip
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from qaserve.common.errors import CorpusError
from qaserve.common.text import control_character, digest, fold, has_surrogate, shorten
from qaserve.schemas.ingest import Rejection
from qaserve.schemas.pairs import Pair
from qaserve.schemas.record import Record
from qaserve.settings import ReadSettings

SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
BOM = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"
KNOWN = tuple(field for field in Pair.model_fields if field != "extra")
LISTS = ("topics", "tags", "related_skills", "related_docs")
ID_CHARS = 512
MAX_DEPTH = 64
STAT_EVERY = 1_000
BAD_SHOWN = 5
"""Lines between two looks at whether the file is being written."""
HALF_PAIR = "holds half a surrogate pair, which is not text"

Row = dict[str, Any]


class Located(Record):
    """A pair and where it was read."""

    file: str
    line: int
    pair: Pair


class _BadRowError(Exception):
    """A row that cannot be read, with the field to blame."""

    def __init__(self, field: str | None, reason: str) -> None:
        super().__init__(reason)
        self.field, self.reason = field, reason


def find_files(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """The files that the paths name, folders searched in depth, each file once, with a short name for reports.

    Raises:
        CorpusError: A path is not there, or a folder holds no file of a known kind.
    """
    found: dict[Path, tuple[Path, str]] = {}
    for path in paths:
        if path.is_dir():
            files = [file for file in _walk(path) if file.name.lower().endswith(SUFFIXES)]
            if not files:
                raise CorpusError(
                    f"folder {path} holds no file to read", hint=f"Files must end in {', '.join(SUFFIXES)}."
                )
            for file in files:
                found.setdefault(file.resolve(), (file, str(file.relative_to(path))))
        elif path.is_file():
            found.setdefault(path.resolve(), (path, path.name))
        else:
            raise CorpusError(f"{path} is not a file or a folder", hint="Check the path.")
    return list(found.values())


def _walk(folder: Path) -> list[Path]:
    """Regular files below a folder, in the order of their names; links to folders are not followed: they may loop."""

    def refuse(error: OSError) -> None:
        raise CorpusError(
            f"folder {error.filename} cannot be read: {error.strerror}", hint="Check its permissions."
        ) from error

    found = [Path(root) / name for root, _, names in os.walk(folder, onerror=refuse) for name in names]
    return sorted(path for path in found if path.is_file())


def read_files(
    files: Sequence[tuple[Path, str]],
    settings: ReadSettings,
    on_lines: Callable[[int], None] | None = None,
    on_bad_line: Callable[[bytes], None] | None = None,
) -> Iterator[Located | Rejection]:
    """Read files line by line, in bounded memory.

    Args:
        files: From `find_files`.
        settings: Limits.
        on_lines: Called with 1 after each line, for progress.
        on_bad_line: Called with each line of which something was rejected, without its end; not with one too long.

    Raises:
        CorpusError: A file cannot be opened or unpacked, changes while it is read, or no line of it gives a pair; what
            was yielded before is then to be forgotten.
    """
    for path, name in files:
        good, bad = 0, list[Rejection]()
        for item in _read_file(path, name, settings, on_lines or (lambda _: None), on_bad_line or (lambda _: None)):
            if isinstance(item, Rejection):
                bad = bad if len(bad) == BAD_SHOWN else [*bad, item]
            else:
                good += 1
            yield item
        if not good:
            raise CorpusError(
                f"{path} holds no pair; {'; '.join(map(_said, bad)) or 'it is empty'}",
                hint="`qaserve ingest --help` shows the shapes.",
            )


def _said(bad: Rejection) -> str:
    return f"line {bad.line}{f', field {bad.field}' if bad.field else ''}: {bad.reason}"


def _read_file(
    path: Path,
    name: str,
    settings: ReadSettings,
    on_lines: Callable[[int], None],
    on_bad_line: Callable[[bytes], None],
) -> Iterator[Located | Rejection]:
    try:
        before = path.stat()
        with _open(path) as file:
            for number, raw, size in _lines(file, settings.max_line_bytes):
                on_lines(1)
                found = list(_read_line(raw, name, number, size, settings))
                if raw is not None and any(isinstance(item, Rejection) for item in found):
                    on_bad_line(raw)
                yield from found
                if number % STAT_EVERY == 0:
                    _check_unchanged(path, before)
        _check_unchanged(path, before)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorpusError(f"{path} cannot be unpacked: {error}", hint="The file is damaged or not gzip.") from error
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or error}", hint="Check its permissions.") from error


def _check_unchanged(path: Path, before: os.stat_result) -> None:
    """A file that another program is writing is half a file, or would never end."""
    now = path.stat()
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise CorpusError(
            f"{path} changed while it was read: it had {before.st_size:,} bytes and has {now.st_size:,} now",
            hint="Ingest it when it is written; a writer that renames a finished file into place is never half-way.",
        )


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    """The file's bytes, unpacked if it is gzip, whatever its name."""
    file = path.open("rb")
    if file.peek(2)[:2] == GZIP_MAGIC:
        file.close()
        return gzip.open(path, "rb")
    return file


def _lines(file: IO[bytes] | gzip.GzipFile, limit: int) -> Iterator[tuple[int, bytes | None, int]]:
    """Line number from 1, the line without its end and BOM (None: too long), and its bytes; blank lines are skipped."""
    number = 0
    while piece := file.readline(limit + 1):
        number, size = number + 1, len(piece)
        too_long = size > limit and not piece.endswith(b"\n")
        if too_long:
            while rest := file.readline(1 << 20):
                size += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield number, None, size
            continue
        line = (piece.removeprefix(BOM) if number == 1 else piece).strip()
        if line:
            yield number, line, size


def _read_line(
    raw: bytes | None, name: str, number: int, size: int, settings: ReadSettings
) -> Iterator[Located | Rejection]:
    try:
        if raw is None:
            raise _BadRowError(None, f"the line has {size:,} bytes; at most {settings.max_line_bytes:,} are read")
        row = _parse(raw)
        for pair in _shape_of(row)(row, name):
            try:
                _check_texts(pair, settings)
            except _BadRowError as bad:
                yield Rejection(file=name, line=number, field=bad.field, reason=bad.reason)
            else:
                yield Located(file=name, line=number, pair=pair)
    except _BadRowError as bad:
        yield Rejection(file=name, line=number, field=bad.field, reason=bad.reason)


def _parse(raw: bytes) -> Row:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _BadRowError(None, f"not UTF-8: {error.reason} at byte {error.start}") from error
    if "\x00" in text:
        raise _BadRowError(None, "the line holds a NUL byte")
    try:
        row = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise _BadRowError(None, f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise _BadRowError(None, "JSON nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits
        raise _BadRowError(None, f"not JSON that can be read: {shorten(str(error), 120)}") from error
    if not isinstance(row, dict):
        raise _BadRowError(None, f"a JSON object is needed, this is {_kind(row)}")
    if _depth_exceeds(row, MAX_DEPTH):
        raise _BadRowError(None, "JSON nested too deeply")
    return row


def _depth_exceeds(value: object, limit: int) -> bool:
    level: list[object] = [value]
    for _ in range(limit):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _BadRowError(None, f"{shorten(digits, 40)} is too large a number")
    return value


def _refuse_constant(name: str) -> None:
    raise _BadRowError(None, f"{name} is not a JSON number")


# Shapes


def _shape_of(row: Row) -> Callable[[Row, str], list[Pair]]:
    if row.get("questions") is not None:
        return _from_questions
    if row.get("question_variants") is not None:
        return _from_variants
    if "question" in row or "answer" in row:
        return _from_pair
    fields = ", ".join(sorted(row)[:8]) or "none"
    raise _BadRowError(
        None, f"unknown shape: neither `question` nor `questions` among its fields ({shorten(fields, 120)})"
    )


def _from_pair(row: Row, name: str) -> list[Pair]:
    return [_pair(row, name, question=_text(row, "question"), answer=_text(row, "answer"), used=())]


def _from_variants(row: Row, name: str) -> list[Pair]:
    questions = [_text(row, "question"), *_texts(row, "question_variants")]
    answer = _text(row, "answer")
    return [
        _pair(row, name, question=question, answer=answer, used=("id", "question_variants")) for question in questions
    ]


def _from_questions(row: Row, name: str) -> list[Pair]:
    questions = _texts(row, "questions")
    if not questions:
        raise _BadRowError("questions", "the list is empty")
    answer = row.get("answer")
    if not isinstance(answer, dict):
        raise _BadRowError("answer", f"an object with `text` is needed, this is {_kind(answer)}")
    text = _text(answer, "text", path="answer.")
    rest = {key: value for key, value in answer.items() if key != "text"}
    whole = row | ({"answer_details": rest} if rest else {})
    return [_pair(whole, name, question=question, answer=text, used=("id", "questions")) for question in questions]


def _pair(row: Row, name: str, *, question: str, answer: str, used: tuple[str, ...]) -> Pair:
    """One pair of a row. Its intent is the row's `cluster_id`, else its id, else its answer."""
    own_id = _identifier(row, "pair_id") or _identifier(row, "id")
    intent = _identifier(row, "cluster_id") or own_id or f"answer-{digest(fold(answer))[:12]}"
    source = _identifier(row, "source_file")
    if source is None and row.get("source_files"):
        source = _texts(row, "source_files")[0]
    return Pair(
        pair_id=own_id or intent,
        cluster_id=intent,
        question=question,
        answer=answer,
        question_type=_identifier(row, "question_type"),
        source_file=source or name,
        extra={key: value for key, value in row.items() if key not in KNOWN and key not in used},
        **{field: tuple(_texts(row, field)) for field in LISTS},
    )


# Fields


def _text(row: Row, field: str, path: str = "") -> str:
    value = row.get(field)
    if value is None:
        raise _BadRowError(path + field, "missing")
    if not isinstance(value, str):
        raise _BadRowError(path + field, f"a text is needed, this is {_kind(value)}")
    if not value.strip():
        raise _BadRowError(path + field, "empty")
    return value.strip()


def _texts(row: Row, field: str) -> list[str]:
    value = row.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _BadRowError(field, f"a list of texts is needed, this is {_kind(value)}")
    for position, item in enumerate(value):
        if not isinstance(item, str):
            raise _BadRowError(f"{field}[{position}]", f"a text is needed, this is {_kind(item)}")
        if not item.strip():
            raise _BadRowError(f"{field}[{position}]", "empty")
    return [item.strip() for item in value]


def _identifier(row: Row, field: str) -> str | None:
    if row.get(field) is None:
        return None
    value = _text(row, field)
    if len(value) > ID_CHARS:
        raise _BadRowError(field, f"{len(value):,} characters; at most {ID_CHARS} are read")
    return value


def _check_texts(pair: Pair, settings: ReadSettings) -> None:
    for field, text, limit in (
        ("question", pair.question, settings.max_question_chars),
        ("answer", pair.answer, settings.max_answer_chars),
    ):
        if len(text) > limit:
            raise _BadRowError(field, f"{len(text):,} characters; at most {limit:,} are read")
    for field in KNOWN:
        value = getattr(pair, field) or ""
        text = value if isinstance(value, str) else " ".join(value)
        control = control_character(text)
        if control is not None:
            raise _BadRowError(field, f"holds the control character {control}")
        if has_surrogate(text):
            raise _BadRowError(field, HALF_PAIR)
    if has_surrogate(json.dumps(pair.model_dump(), ensure_ascii=False)):
        raise _BadRowError(None, HALF_PAIR)


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")
