"""Which fields of a row are the question, the answer and the rest of a pair."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from ingest.readers.shapes import EXPORTED, LISTS, Row
from qaserve.common.errors import CorpusError, StoreError, UsageError
from qaserve.common.files import written_beside
from qaserve.common.text import fold, shorten
from qaserve.schemas.record import Record

TEXTS = ("question", "answer", "pair_id", "cluster_id", "question_type", "source_file")
TARGETS = (*TEXTS, "questions", "question_variants", *LISTS)
USUAL = {
    "question": ("prompt", "query", "title"),
    "answer": ("response", "reply", "completion", "body"),
}
"""Names that fields of other people's files have, the likeliest first."""
INSTEAD = {"question": ("question", "questions"), "answer": ("answer",)}
"""Fields that make a guess needless."""
FIELDS_SHOWN = 30
FOLDER = "mapping"


class FieldSource(Record):
    """Where a field of a pair comes from."""

    target: str
    path: str
    """A field, or with dots a field of the object in it; of a table, a column."""
    guessed: bool = False
    """Only taken where the row has no such field itself."""

    def __str__(self) -> str:
        """As `--map` takes it."""
        return f"{self.target}={self.path}"


class FieldMap(Record):
    """How the rows of a corpus are read. Of several sources of a field the first counts that a row has."""

    fields: tuple[FieldSource, ...] = ()
    separator: str | None = None
    """Of tables: between the questions of one cell, and between the values of a list; empty: they hold one."""

    def over(self, other: "FieldMap") -> "FieldMap":
        """This, and what `other` says of fields that this does not speak of."""
        own = {one.target for one in self.fields}
        rest = tuple(one for one in other.fields if one.target not in own)
        return FieldMap(
            fields=(*self.fields, *rest), separator=other.separator if self.separator is None else self.separator
        )


def parse_map(given: Sequence[str], separator: str | None = None) -> FieldMap:
    """`FIELD=PATH` texts as a map.

    Raises:
        UsageError: One is not that, or has no field of a pair.
    """
    found = []
    for text in given:
        target, _, path = (part.strip() for part in text.partition("="))
        if not path or target not in TARGETS:
            raise UsageError(
                f"{shorten(text, 80)!r} is not FIELD=PATH with a field of {', '.join(TARGETS)}",
                hint="For example: question=prompt and answer=response.text.",
            )
        found.append(FieldSource(target=target, path=path))
    return FieldMap(fields=tuple(found), separator=separator)


def guess(fields: Sequence[str], known: FieldMap) -> tuple[FieldSource, ...]:
    """Where question and answer may be in rows with these fields, where neither they nor the map say so."""
    there = dict.fromkeys(path for field in fields for path in (field, field.split(".")[0]))
    mapped = {one.target for one in known.fields if not one.guessed or _keys(one.path, there) is not None}
    by_name = {column_name(field): field for field in reversed(there)}
    found = []
    for target, names in USUAL.items():
        if not any(name in there or name in mapped for name in INSTEAD[target]):
            path = next((by_name[name] for name in names if name in by_name), None)
            found += [] if path is None else [FieldSource(target=target, path=path, guessed=True)]
    return tuple(found)


def column_name(name: str) -> str:
    """A column's name as the reader of tables has it: without case, with `_` for spaces."""
    return fold(name).replace(" ", "_")


class Mapper:
    """Applies a map to rows, and remembers which fields they had."""

    def __init__(self, fields: FieldMap) -> None:
        """Nothing is seen yet."""
        self._map = fields
        self._used: set[FieldSource] = set()
        self._seen: dict[str, None] = {}

    @property
    def separator(self) -> str:
        """What cells of tables are split at; empty: nothing."""
        return self._map.separator or ""

    @property
    def seen(self) -> tuple[str, ...]:
        """The first fields that rows had."""
        return tuple(self._seen)[:FIELDS_SHOWN]

    def lacks(self, columns: Collection[str]) -> str | None:
        """Which of `question` and `answer` no row of a table with these columns can have."""
        mapped = {one.target for one in self._map.fields if _keys(one.path, columns) is not None}
        return next(
            (name for name, ways in INSTEAD.items() if not any(way in {*columns, *mapped} for way in ways)), None
        )

    def apply(self, row: Row, *, cells: bool) -> Row:
        """The row with the fields of a pair under their names. A field that another displaces is kept.

        Args:
            row: Of a file.
            cells: Its values are the cells of a table, which the separator splits; not those of an export's own.
        """
        if len(self._seen) < FIELDS_SHOWN:
            self._seen |= dict.fromkeys(paths_of(row))
        rest, found = dict(row), Row()
        for one in self._map.fields:
            if one.target in found or (one.guessed and row.get(one.target) is not None):
                continue
            keys = _keys(one.path, row)
            value = None if keys is None else _value(row, keys)
            if keys is not None and value is not None:
                self._used.add(one)
                rest = _without(rest, keys)
                found[one.target] = [value] if one.target in LISTS and isinstance(value, str) else value
        displaced = {f"{name}_unmapped": rest.pop(name) for name in found if name in rest}
        full = rest | displaced | found
        splits = cells and self.separator and not any(name in row for name in EXPORTED)
        return self._split(full) if splits else full

    def _split(self, row: Row) -> Row:
        separator = self.separator
        for name in LISTS:
            if isinstance(row.get(name), list):
                row[name] = [part for item in row[name] for part in _parts(item, separator)]
        for name in ("questions", "question_variants"):
            if isinstance(row.get(name), str):
                row[name] = _parts(row[name], separator)
        if isinstance(row.get("question"), str) and separator in row["question"]:
            row["questions"] = [*_parts(row.pop("question"), separator), *(row.pop("question_variants", None) or ())]
        return row

    def source(self, field: str | None) -> str | None:
        """A field of a pair with the field that it was looked for in."""
        paths = [one.path for one in self._map.fields if one.target == field]
        return f"{field} (from {' or '.join(paths)})" if paths else field

    def check_used(self, given: Iterable[FieldSource]) -> None:
        """Refuse sources that no row had.

        Raises:
            CorpusError: There are such.
        """
        unused = [one for one in given if one not in self._used]
        if unused and self._seen:
            there = ", ".join(self.seen)
            raise CorpusError(
                f"{unused[0]} names no field; the fields are {there}",
                hint="Write the name as it is there; a field of an object with a dot, as in answer=response.text.",
            )


def _parts(value: object, separator: str) -> list[object]:
    if not isinstance(value, str):
        return [value]
    return [part.strip() for part in value.split(separator) if part.strip()]


def _keys(path: str, fields: Collection[str]) -> list[str] | None:
    """The fields that lead to a path, in rows with these fields; None: it begins in none of them."""
    for name in (path, column_name(path)):
        if name in fields:
            return [name]
    keys = path.split(".")
    return keys if keys[0] in fields else None


def _value(row: Row, keys: Sequence[str]) -> object:
    value: object = row
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _without(row: Row, keys: Sequence[str]) -> Row:
    """The row without the field at the end of these; an object that it leaves empty goes too."""
    key, *more = keys
    inner = row.get(key)
    left = _without(inner, more) if more and isinstance(inner, dict) else {}
    return {name: left if name == key else value for name, value in row.items() if name != key or left}


def paths_of(row: Row) -> list[str]:
    """The fields of a row; those of an object with a dot."""
    return [
        path
        for name, value in row.items()
        for path in ([f"{name}.{inner}" for inner in value] if isinstance(value, dict) and value else [name])
    ]


# Kept with the corpus


def read_kept(data_dir: Path, corpus: str) -> FieldMap:
    """How an earlier ingest read the rows of a corpus; an empty map where none said so.

    Raises:
        StoreError: The file is damaged.
    """
    path = _file(data_dir, corpus)
    try:
        return FieldMap.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return FieldMap()
    except ValidationError as error:
        raise StoreError(f"{path} is damaged", hint="Delete it, and say --map again.") from error


def keep(fields: FieldMap, data_dir: Path, corpus: str) -> None:
    """Write how the rows of a corpus are read. Raises StoreWriteError."""
    path = _file(data_dir, corpus)
    with written_beside(path) as fresh:
        fresh.write_text(fields.model_dump_json(indent=2), encoding="utf-8")


def _file(data_dir: Path, corpus: str) -> Path:
    return data_dir / FOLDER / f"{corpus}.json"
