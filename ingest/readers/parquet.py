"""Parquet: a row a pair, read in batches. Imported only where there is such a file: pyarrow is slow to import."""

import datetime
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.parquet import ParquetFile

from ingest.readers.parsed import BadFileError, Opened, Parsed
from ingest.readers.shapes import BadRowError, Row
from qaserve.common.text import shorten

BATCH = 1_000
DAMAGED = "Write it again; if it opens elsewhere, export it as JSON Lines or CSV."


def read(path: Path) -> Opened:
    """The rows of a file. Raises BadFileError, also while they are read."""
    try:
        file = ParquetFile(path)
    except pa.ArrowException as error:
        raise BadFileError(f"is not Parquet that can be read: {shorten(str(error), 200)}", DAMAGED) from error
    columns = tuple(file.schema_arrow.names)
    return Opened(f"Parquet, {len(columns)} columns", _rows(file), columns)


def _rows(file: ParquetFile) -> Iterator[Parsed]:
    number = 0
    try:
        with file:
            for batch in file.iter_batches(BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield _row(number, values)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise BadFileError(f"cannot be read after row {number}: {shorten(str(error), 200)}", DAMAGED) from error


def _row(number: int, values: dict[str, Any]) -> Parsed:
    row: Row = {}
    try:
        for name, value in values.items():
            if value is not None:
                row[name] = _plain(value, name)
    except BadRowError as bad:
        return Parsed(number, None, bad)
    return Parsed(number, row, raw=json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _plain(value: object, field: str) -> object:
    """The value as JSON has it; times and exact decimals are texts, a number that is none is null."""
    if isinstance(value, dict):
        return {str(key): _plain(item, field) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, field) for item in value]
    if isinstance(value, bytes):
        raise BadRowError(field, "bytes, not text; store the column as strings")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return value if isinstance(value, str | int) or value is None else str(value)
