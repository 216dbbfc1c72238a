"""JSON Lines: an object in each line."""

import json
import math
from collections.abc import Callable, Iterator
from typing import IO

from ingest.readers.parsed import Opened, Parsed
from ingest.readers.shapes import BadRowError, Row, kind
from qaserve.common.text import shorten

SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
BOM = b"\xef\xbb\xbf"
MAX_DEPTH = 64


def read(open_file: Callable[[], IO[bytes]], limit: int) -> Opened:
    """The rows of a file whose lines have at most `limit` bytes; a longer one is rejected, unread."""
    return Opened("JSON Lines", _rows(open_file, limit))


def _rows(open_file: Callable[[], IO[bytes]], limit: int) -> Iterator[Parsed]:
    with open_file() as file:
        for number, raw, size in _lines(file, limit):
            try:
                if raw is None:
                    raise BadRowError(None, f"the line has {size:,} bytes; at most {limit:,} are read")
                yield Parsed(number, parse(raw), raw=raw)
            except BadRowError as bad:
                yield Parsed(number, None, bad, raw)


def _lines(file: IO[bytes], limit: int) -> Iterator[tuple[int, bytes | None, int]]:
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


def parse(raw: bytes) -> Row:
    """The JSON object of a line.

    Raises:
        BadRowError: It is not one.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRowError(None, f"not UTF-8: {error.reason} at byte {error.start}") from error
    if "\x00" in text:
        raise BadRowError(None, "the line holds a NUL byte")
    try:
        row = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise BadRowError(None, f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise BadRowError(None, "JSON nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits
        raise BadRowError(None, f"not JSON that can be read: {shorten(str(error), 120)}") from error
    if not isinstance(row, dict):
        raise BadRowError(None, f"a JSON object is needed, this is {kind(row)}")
    if _depth_exceeds(row, MAX_DEPTH):
        raise BadRowError(None, "JSON nested too deeply")
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
        raise BadRowError(None, f"{shorten(digits, 40)} is too large a number")
    return value


def _refuse_constant(name: str) -> None:
    raise BadRowError(None, f"{name} is not a JSON number")
