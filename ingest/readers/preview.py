"""How files would be read: their first rows, and where the fields of a pair may be where nothing says so."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from ingest.readers.files import Located, read_files
from ingest.readers.formats import mapped_errors, opened
from ingest.readers.mapping import FieldMap, FieldSource, guess, paths_of
from ingest.readers.parsed import BadFileError, Opened
from qaserve.common.errors import CorpusError
from qaserve.schemas.ingest import Preview, PreviewPair, Rejection
from qaserve.settings import ReadSettings

ROWS = 5
"""Rows of a file that a preview shows, and that a guess looks at."""


def guess_fields(
    files: Sequence[tuple[Path, str]], settings: ReadSettings, fields: FieldMap
) -> tuple[FieldMap, Preview | None]:
    """Where question and answer may be in files of which nothing says so, by the names in their first rows.

    Returns:
        The map with what was guessed, and how the first such file would be read with it; None: nothing was guessed.
    """
    guessed, first = dict[FieldSource, None](), None
    for path, name in files:
        with suppress(BadFileError), mapped_errors():
            found = [one for row in _fields_of(opened(path, name, settings)) for one in guess(row, fields)]
            guessed |= dict.fromkeys(found)
            first = first or ((path, name) if found else None)
    full = FieldMap(fields=(*fields.fields, *guessed), separator=fields.separator)
    return full, None if first is None else preview(*first, settings, full)


def preview(path: Path, name: str, settings: ReadSettings, fields: FieldMap) -> Preview:
    """How the first rows of a file would be read.

    Raises:
        CorpusError: It cannot be read.
    """
    try:
        with mapped_errors():
            file = opened(path, name, settings)
            there = dict.fromkeys(field for row in _fields_of(file) for field in row)
    except BadFileError as error:
        raise CorpusError(f"{path} {error.reason}", hint=error.hint) from error
    items, problem = list[Located | Rejection](), None
    try:
        items.extend(islice(read_files([(path, name)], settings, fields=fields), ROWS))
    except CorpusError as error:
        problem = error.message.replace(str(path), name)
    return Preview(
        file=name,
        format=file.format,
        fields=tuple(there),
        mapping=tuple(str(one) for one in fields.fields if not one.guessed),
        guessed=tuple(str(one) for one in fields.fields if one.guessed),
        pairs=tuple(
            PreviewPair(line=item.line, question=item.pair.question, answer=item.pair.answer, topics=item.pair.topics)
            for item in items
            if isinstance(item, Located)
        ),
        problem=problem,
        rejected=tuple(item for item in items if isinstance(item, Rejection)),
    )


def _fields_of(file: Opened) -> list[list[str]]:
    """The fields of its first rows; a table has one list for all."""
    if file.columns is not None:
        return [list(file.columns)]
    return [paths_of(parsed.row) for parsed in islice(file.rows, ROWS) if parsed.row is not None]
