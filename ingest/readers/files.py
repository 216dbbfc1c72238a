"""Files and folders in, pairs and rejections out, in bounded memory."""

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, cast

from ingest.readers import delimited
from ingest.readers.json_lines import parse
from ingest.readers.shapes import BadRowError, Row, check_texts, pairs_of
from qaserve.common.errors import CorpusError
from qaserve.schemas.ingest import Rejection
from qaserve.schemas.pairs import Pair
from qaserve.schemas.record import Record
from qaserve.settings import ReadSettings

SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
BOM = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGIC = b"PK"
STAT_EVERY = 1_000
"""Lines between two looks at whether the file is being written."""
BAD_SHOWN = 5


class Located(Record):
    """A pair and where it was read."""

    file: str
    line: int
    pair: Pair


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
        if name.lower().endswith(delimited.SUFFIXES):
            yield from _read_table(path, name, settings, on_lines, on_bad_line)
            _check_unchanged(path, before)
            return
        with _open(path) as file:
            for number, raw, size in _lines(file, settings.max_line_bytes):
                on_lines(1)
                found = list(
                    _checked(partial(_row_of_line, raw, size, settings.max_line_bytes), name, number, settings)
                )
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


def _read_table(
    path: Path,
    name: str,
    settings: ReadSettings,
    on_lines: Callable[[int], None],
    on_bad_line: Callable[[bytes], None],
) -> Iterator[Located | Rejection]:
    """The rows of a table; of a bad one, `on_bad_line` gets a line of JSON that can be mended and read."""
    with _open(path) as file:
        start = file.read(2)
    if start == ZIP_MAGIC:
        raise CorpusError(
            f"{path} is not CSV; it looks like an Excel file",
            hint='Open it in the spreadsheet program and save it as "CSV UTF-8".',
        )
    try:
        with _open(path) as file:
            for number, row, bad in delimited.rows(cast("IO[bytes]", file), start):
                on_lines(1)
                found = list(_checked(partial(_row_of_table, row, bad), name, number, settings))
                if any(isinstance(item, Rejection) for item in found):
                    on_bad_line(json.dumps(row, ensure_ascii=False).encode())
                yield from found
    except delimited.BadTableError as error:
        raise CorpusError(f"{path}, {error.reason}", hint=error.hint) from error


def _checked(
    row_of: Callable[[], Row], name: str, number: int, settings: ReadSettings
) -> Iterator[Located | Rejection]:
    """The pairs of one row, and what is wrong with it or with one of them."""
    try:
        for pair in pairs_of(row_of(), name):
            try:
                check_texts(pair, settings)
            except BadRowError as bad:
                yield Rejection(file=name, line=number, field=bad.field, reason=bad.reason)
            else:
                yield Located(file=name, line=number, pair=pair)
    except BadRowError as bad:
        yield Rejection(file=name, line=number, field=bad.field, reason=bad.reason)


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


def _row_of_line(raw: bytes | None, size: int, limit: int) -> Row:
    if raw is None:
        raise BadRowError(None, f"the line has {size:,} bytes; at most {limit:,} are read")
    return parse(raw)


def _row_of_table(row: Row, bad: BadRowError | None) -> Row:
    if bad is not None:
        raise bad
    return row
