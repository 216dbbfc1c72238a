"""One line of JSON in, one row out."""

import json
import math

from ingest.readers.shapes import BadRowError, Row, kind
from qaserve.common.text import shorten

MAX_DEPTH = 64


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
