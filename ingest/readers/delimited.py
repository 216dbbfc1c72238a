"""CSV and TSV: a header, then a row a pair. UTF-8 or UTF-16 with its mark; the delimiter is the header's."""

import codecs
import csv
import io
from collections.abc import Iterator
from typing import IO

from ingest.readers.shapes import LISTS, BadRowError, Row
from qaserve.common.text import fold

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
DELIMITERS = ",;\t|"
MAX_CELL = 64 << 20
"""Characters of a cell; a quote that nobody closes would make the rest of the file one cell."""
MAX_HEADER = 1 << 20
"""Characters of the header."""
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class BadTableError(Exception):
    """A table that cannot be read on from here, with the line."""

    def __init__(self, line: int, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.line, self.reason, self.hint = line, reason, hint


def rows(file: IO[bytes], start: bytes) -> Iterator[tuple[int, Row, BadRowError | None]]:
    """The line on which each row ends, its cells by column, and what is wrong with its number of cells.

    Args:
        file: The table, from its beginning.
        start: Its first two bytes.

    Raises:
        BadTableError: The header is of no use, the text is in another encoding, or a quote is not closed.
    """
    encoding = "utf-16" if start in UTF16 else "utf-8-sig"
    text = io.TextIOWrapper(file, encoding=encoding, newline="")
    line = 1
    try:
        head = text.readline(MAX_HEADER)
        delimiter = max(DELIMITERS, key=head.count)
        columns = _columns(next(csv.reader([head], delimiter=delimiter), []))
        csv.field_size_limit(MAX_CELL)
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        for cells in reader:
            line = reader.line_num + 1
            if any(cell.strip() for cell in cells):
                yield line, _row(columns, cells), _ragged(columns, cells)
    except UnicodeError as error:
        hint = "Save it as CSV in UTF-8; spreadsheets offer that when they save."
        raise BadTableError(
            line, f"after line {line}: not {encoding.removesuffix('-sig').upper()} text", hint
        ) from error
    except csv.Error as error:
        hint = "Close the quote, and write a quote inside of a cell twice."
        raise BadTableError(line, f"after line {line}: not CSV: {error}", hint) from error
    finally:
        text.detach()


def _columns(header: list[str]) -> list[str]:
    columns = [fold(name).replace(" ", "_") for name in header]
    for name in ("question", "answer"):
        if columns.count(name) != 1:
            reason = f"line 1: one column `{name}` is needed; the columns are {', '.join(columns) or 'none'}"
            raise BadTableError(1, reason, f"Name the column `{name}` in the first line.")
    return columns


def _row(columns: list[str], cells: list[str]) -> Row:
    """The cells that are not empty; a cell of a list is a list of one."""
    named = {name: cell for name, cell in zip(columns, cells, strict=False) if name and cell.strip()}
    return {name: [cell] if name in LISTS else cell for name, cell in named.items()}


def _ragged(columns: list[str], cells: list[str]) -> BadRowError | None:
    if len(cells) == len(columns):
        return None
    return BadRowError(
        None,
        f"{len(cells)} cells, and the header has {len(columns)} columns; put a cell that holds the delimiter in quotes",
    )
