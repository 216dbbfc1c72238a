"""CSV and TSV: a header, then a row a pair. UTF-8 or UTF-16; the delimiter is the header's."""

import codecs
import csv
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any

from ingest.readers.mapping import column_name
from ingest.readers.parsed import BadFileError, Opened, Parsed
from ingest.readers.shapes import EXPORTED, LISTS, BadRowError, Row

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
MAX_CELL = 64 << 20
"""Characters of a cell; a quote that is never closed would make the rest of the file one cell."""
MAX_HEADER = 1 << 20
"""Characters of the header."""
CHUNK = 1 << 20
UTF8 = "utf-8-sig"
AS_UTF8 = (
    'Save it as "CSV UTF-8" in the spreadsheet program, or convert it, for example: '
    "iconv -f WINDOWS-1252 -t UTF-8 old.csv > new.csv"
)
CLOSE_QUOTE = "Close the quote, and write a quote inside of a cell twice."

FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""Beginnings of a cell that a spreadsheet takes for a formula, or that are marked as none."""

_limit = threading.Lock()


def neutralized(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula; `restored` gives the cell back."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def restored(cell: str) -> str:
    """What `neutralized` was given."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def read(open_file: Callable[[], IO[bytes]]) -> Opened:
    """The format and the rows of a table.

    Args:
        open_file: Opens it at its beginning.

    Raises:
        BadFileError: The header is of no use, or the text is in another encoding. While the rows are read: a quote is
            not closed.
    """
    with open_file() as file:
        encoding = _encoding(file.read(2))
    with open_file() as file:
        _check_encoding(file, encoding)
    with open_file() as file, _text(file, encoding) as text:
        head = text.readline(MAX_HEADER)
    delimiter = max(DELIMITERS, key=head.count)
    columns = _columns(head, delimiter)
    name = encoding.removesuffix("-sig").upper()
    said = f"table, {DELIMITERS[delimiter]} between cells, {name}"
    return Opened(said, _rows(open_file, encoding, delimiter, columns), columns)


def _rows(
    open_file: Callable[[], IO[bytes]], encoding: str, delimiter: str, columns: tuple[str, ...]
) -> Iterator[Parsed]:
    line = 1
    try:
        with open_file() as file, _text(file, encoding) as text:
            text.readline(MAX_HEADER)
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            while (cells := _next(reader)) is not None:
                line = reader.line_num + 1
                cells = [restored(cell) for cell in cells] if EXPORTED[-1] in columns else cells
                if any(cell.strip() for cell in cells):
                    row = _row(columns, cells)
                    raw = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")
                    yield Parsed(line, row, _ragged(columns, cells), raw)
    except csv.Error as error:
        raise BadFileError(f"cannot be read after line {line}: not CSV: {error}", CLOSE_QUOTE) from error


def _next(reader: Iterator[list[str]]) -> list[str] | None:
    """The next row. The limit of a cell is the whole process's, so it is raised no longer than a row is parsed."""
    with _limit:
        before = csv.field_size_limit(MAX_CELL)
        try:
            return next(reader, None)
        finally:
            csv.field_size_limit(before)


def _text(file: IO[bytes], encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(file, encoding=encoding, newline="")


def _encoding(start: bytes) -> str:
    """UTF-16 has a mark, or a zero byte in each letter of the header; all else should be UTF-8."""
    if start in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
        return "utf-16"
    return "utf-16-le" if start[1:] == b"\0" else "utf-16-be" if start[:1] == b"\0" else UTF8


def _check_encoding(file: IO[bytes], encoding: str) -> None:
    """Raise BadFileError where the text is not in this encoding: no row is given of a file that breaks off."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line, column = 1, 1
    while True:
        chunk = file.read(CHUNK)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            line, column = _after(error.object[: error.start].decode(encoding), line, column)
            byte = error.object[error.start]
            name = encoding.removesuffix("-sig").upper()
            reason = f"cannot be read: line {line}, character {column}: not {name} text (byte 0x{byte:02X})"
            raise BadFileError(reason, AS_UTF8) from error
        line, column = _after(text, line, column)
        if not chunk:
            return


def _after(text: str, line: int, column: int) -> tuple[int, int]:
    """The place behind a text that begins at a place."""
    before, end, last = text.rpartition("\n")
    return line + before.count("\n") + len(end), (len(last) + 1 if end else column + len(last))


def _columns(head: str, delimiter: str) -> tuple[str, ...]:
    try:
        header = next(csv.reader([head], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise BadFileError(f"cannot be read: line 1: not CSV: {error}", CLOSE_QUOTE) from error
    columns = tuple(column_name(name) for name in header)
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise BadFileError(f"cannot be read: line 1: two columns are `{twice}`", "Give each a name of its own.")
    return columns


def _row(columns: tuple[str, ...], cells: list[str]) -> Row:
    """The cells that are not empty; a cell of a list is a JSON list, else a list of one."""
    named = {name: cell for name, cell in zip(columns, cells, strict=False) if name and cell.strip()}
    return {name: _listed(cell) if name in LISTS else cell for name, cell in named.items()}


def _listed(cell: str) -> list[Any]:
    if cell.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            found = json.loads(cell)
            return found if isinstance(found, list) else [cell]
    return [cell]


def _ragged(columns: tuple[str, ...], cells: list[str]) -> BadRowError | None:
    if len(cells) == len(columns):
        return None
    return BadRowError(
        None,
        f"{len(cells)} cells, and the header has {len(columns)} columns; put a cell that holds the delimiter in quotes",
    )
