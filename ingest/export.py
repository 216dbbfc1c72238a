"""The pairs of a build as a file that `qaserve ingest` reads again, and their vectors."""

import csv
import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow.parquet import ParquetWriter
from safetensors.numpy import save_file

from ingest.readers.delimited import neutralized
from ingest.readers.shapes import EXPORTED, EXTRA, KNOWN, LISTS
from ingest.spool import Vectors
from qaserve.common.errors import UsageError
from qaserve.common.files import written_beside
from qaserve.schemas.pairs import StoredPair
from qaserve.store import Build
from qaserve.store.points import ANSWER, QUESTION, TOPIC, to_pair

COLUMNS = (*KNOWN, *EXPORTED, EXTRA)
CLUSTER, SKILL, BUILD = EXPORTED
NPZ, SAFETENSORS = ".npz", ".safetensors"
SCHEMA = pa.schema(
    [
        pa.field(name, pa.list_(pa.string()) if name in LISTS else pa.int32() if name == CLUSTER else pa.string())
        for name in COLUMNS
    ]
)
BATCH = 1_000
Cells = dict[str, Any]
Exported = tuple[StoredPair, Cells]
"""A pair with what an export adds to it."""


def export_pairs(build: Build, path: Path) -> None:
    """Write the pairs of a build. The suffix of the file says the format.

    Raises:
        UsageError: It is not one of those there are.
        StoreWriteError: The disk is full or read-only.
    """
    check_suffixes(path, None)
    with written_beside(path) as fresh:
        WRITERS[path.suffix.lower()](_rows(build), fresh)


def check_suffixes(pairs: Path | None, vectors: Path | None) -> None:
    """Refuse files for pairs and for vectors whose suffix says no format, before one of them is written.

    Raises:
        UsageError: One has none, or one that is not taken.
    """
    for option, path, suffixes in (("--out", pairs, tuple(WRITERS)), ("--vectors", vectors, (NPZ, SAFETENSORS))):
        if path is not None and path.suffix.lower() not in suffixes:
            ending = f"ends in {path.suffix}, which is no format of an export" if path.suffix else "has no suffix"
            *most, last = suffixes
            raise UsageError(f"{option} {path} {ending}", hint=f"It must end in {', '.join(most)} or {last}.")


def json_lines(build: Build) -> Iterator[str]:
    """The pairs of a build as JSON Lines."""
    return map(_line, _rows(build))


def export_vectors(build: Build, path: Path, folder: Path | None) -> None:
    """Write the vectors of a build.

    The arrays are `question`, `answer` and `topic`, (n, D) float32 unit rows, in the order of an export of the pairs;
    the rows of `topic` are NaN where a pair has none. `id` is (n, 16) uint8: the UUID of each point.

    Args:
        build: Which.
        path: Ends in .npz or .safetensors.
        folder: For temporary files.

    Raises:
        UsageError: The file ends in something else.
        StoreWriteError: The disk is full or read-only.
    """
    check_suffixes(None, path)
    arrays = _arrays(build, folder)
    with written_beside(path) as fresh:
        if path.suffix.lower() == NPZ:
            np.savez(fresh, allow_pickle=False, **arrays)
        else:
            save_file(arrays, fresh, {"build": build.metadata.build, "encoder": build.metadata.encoder.id})


def _arrays(build: Build, folder: Path | None) -> dict[str, NDArray[Any]]:
    dimension, ids = build.metadata.encoder.dimension, bytearray()
    vectors = {name: Vectors(dimension, folder) for name in (QUESTION, ANSWER, TOPIC)}
    none = np.full(dimension, np.nan, dtype=np.float32)
    for point in build.scroll():
        ids += uuid.UUID(point.id).bytes
        for name, rows in vectors.items():
            rows.append(point.vectors.get(name, none))
    arrays: dict[str, NDArray[Any]] = {"id": np.frombuffer(bytes(ids), dtype=np.uint8).reshape(-1, 16)}
    return arrays | {name: rows.array() for name, rows in vectors.items()}


def _rows(build: Build) -> Iterator[Exported]:
    """The pairs in the order of ids, each with what an export adds."""
    for point in build.scroll(vectors=()):
        stored = to_pair(point)
        skill = next(iter(stored.pair.related_skills), None)
        yield stored, {CLUSTER: stored.cluster, SKILL: skill, BUILD: build.metadata.build}


def _line(row: Exported) -> str:
    stored, added = row
    fields = stored.pair.model_dump(mode="json", exclude_defaults=True, exclude={"extra"})
    return json.dumps(fields | stored.pair.extra | added, ensure_ascii=False) + "\n"


def _cells(row: Exported) -> Cells:
    """A row of a table; what only its source knows of a pair is one cell of JSON."""
    stored, added = row
    fields = stored.pair.model_dump(mode="json", exclude={"extra"})
    extra = json.dumps(stored.pair.extra, ensure_ascii=False) if stored.pair.extra else None
    return fields | added | {EXTRA: extra}


def _write_lines(rows: Iterable[Exported], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(map(_line, rows))


def _write_csv(rows: Iterable[Exported], path: Path) -> None:
    """In UTF-8 with its mark, by which spreadsheets know it; no cell is taken for a formula."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for cells in map(_cells, rows):
            writer.writerow([neutralized(_text(cells[name])) for name in COLUMNS])


def _text(value: object) -> str:
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return "" if value is None else str(value)


def _write_parquet(rows: Iterable[Exported], path: Path) -> None:
    cells = map(_cells, rows)
    with ParquetWriter(path, SCHEMA) as writer:
        while batch := list(islice(cells, BATCH)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))


WRITERS: dict[str, Callable[[Iterable[Exported], Path], None]] = {
    ".jsonl": _write_lines,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
