"""Which parser reads a file, by its name and its first bytes."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, cast

from ingest.readers import delimited, json_array, json_lines, markdown
from ingest.readers.parsed import BadFileError, Opened
from qaserve.settings import ReadSettings

EXCEL = (".xlsx", ".xlsm", ".xls", ".ods")
PARQUET = (".parquet", ".pq")
SUFFIXES = (*json_lines.SUFFIXES, *json_array.SUFFIXES, *delimited.SUFFIXES, *markdown.SUFFIXES, *PARQUET)
TAKEN = f"Files that are read end in {', '.join(SUFFIXES)}."
GZIP_MAGIC = b"\x1f\x8b"
EXCEL_MAGIC = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
PARQUET_MAGIC = b"PAR1"
START = 1 << 10
"""Bytes by which text is told from other data."""


def opened(path: Path, name: str, settings: ReadSettings) -> Opened:
    """The file by the format that its name says. Raises BadFileError, and errors of files as they are."""
    lower, open_file = name.lower(), partial(_open, path)
    if lower.endswith(".gz"):
        _check_gzip(path)
    with open_file() as file:
        start = file.read(4)
    if start in EXCEL_MAGIC and not is_known(name):
        raise BadFileError("looks like an Office document or a zip archive, which is not read", TAKEN)
    if start in EXCEL_MAGIC or lower.endswith(EXCEL):
        raise BadFileError(
            "looks like an Excel file, which is not read",
            'Open it in the spreadsheet program and save it as "CSV UTF-8".',
        )
    if start == PARQUET_MAGIC or lower.endswith(PARQUET):
        return cast("Opened", import_module("ingest.readers.parquet").read(path))
    if lower.endswith(delimited.SUFFIXES):
        return delimited.read(open_file)
    if lower.endswith(json_array.SUFFIXES):
        return json_array.read(open_file, settings.max_line_bytes)
    if lower.endswith(markdown.SUFFIXES):
        return markdown.read(open_file, settings.max_line_bytes)
    return json_lines.read(open_file, settings.max_line_bytes)


def is_known(name: str) -> bool:
    """Whether a name says its format. A file of another name is read as JSON Lines."""
    return name.lower().endswith((*SUFFIXES, *EXCEL))


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Errors of files and of gzip become BadFileError."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadFileError(f"cannot be unpacked: {error}", "The file is damaged or not gzip.") from error
    except OSError as error:
        raise BadFileError(f"cannot be read: {error.strerror or error}", "Check its permissions.") from error


def _check_gzip(path: Path) -> None:
    """Refuse a file that is neither gzip nor text. Text is read: a browser may unpack a file and keep its name."""
    with path.open("rb") as file:
        start = file.read(START)
    if not start.startswith((GZIP_MAGIC, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not _is_text(start):
        raise BadFileError(
            f"is not gzip data, though its name ends in .gz: it begins with the bytes {start[:4].hex(' ')}",
            "Pack it again with gzip. If it is not packed, take .gz off its name.",
        )


def _is_text(start: bytes) -> bool:
    """Whether these first bytes of a file are UTF-8; a character that they cut is."""
    try:
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False


def _open(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked if it is gzip, whatever its name."""
    file = path.open("rb")
    if file.peek(2)[:2] == GZIP_MAGIC:
        file.close()
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return file
