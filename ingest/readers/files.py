"""Files and folders in, pairs and rejections out, in bounded memory."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ingest.readers.formats import SUFFIXES, TAKEN, is_known, mapped_errors, opened
from ingest.readers.mapping import FieldMap, FieldSource, Mapper
from ingest.readers.parsed import BadFileError, Parsed
from ingest.readers.shapes import BadRowError, check_texts, pairs_of
from qaserve.common.errors import CorpusError
from qaserve.schemas.ingest import BadFile, ListedHeading, Rejection
from qaserve.schemas.pairs import Pair
from qaserve.schemas.record import Record
from qaserve.settings import ReadSettings

STAT_EVERY = 1_000
"""Rows between two looks at whether the file is being written."""
BAD_SHOWN = 5
FILES_SHOWN = 5
SHAPES = "A row needs `question` and `answer`, or another shape that docs/import.md shows."


class Located(Record):
    """A pair and where it was read."""

    file: str
    line: int
    pair: Pair


class FileRead(Record):
    """A file that was read."""

    file: str
    format: str
    """In words; empty where that is not known."""
    problem: BadFile | None
    """Why it holds nothing good."""
    passed_over: tuple[ListedHeading, ...]
    """Headings of Markdown whose text is in no pair."""


def find_files(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """The files that the paths name, folders searched in depth, each file once, with a short name for reports.

    Raises:
        CorpusError: A path is not there, or a folder holds no file of a known kind.
    """
    found: dict[Path, tuple[Path, str]] = {}
    for path in paths:
        if path.is_dir():
            files = [file for file in _walk(path) if is_known(file.name)]
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
    on_file: Callable[[FileRead], None] | None = None,
    *,
    fields: FieldMap | None = None,
    needed: Sequence[FieldSource] = (),
) -> Iterator[Located | Rejection]:
    """Read files row by row, in bounded memory, past files that hold nothing good.

    Args:
        files: From `find_files`.
        settings: Limits.
        on_lines: Called with 1 after each row, for progress.
        on_bad_line: Called with each row of which something was rejected, as a line of JSON; not with one too long.
        on_file: Called with each file when it is read.
        fields: Where the fields of pairs are.
        needed: Those of these sources that some row must have.

    Raises:
        CorpusError: No file holds a pair, no row has a field that is needed, or a file breaks off after pairs of it
            were yielded: it is damaged, or changes while it is read. What was yielded is then to be forgotten.
    """
    problems: list[str] = []
    hint = ""
    mapper = Mapper(fields or FieldMap())
    for path, name in files:
        file = _File(path, name, settings, mapper, on_lines or (lambda _: None), on_bad_line or (lambda _: None))
        yield from file.read()
        if file.problem is not None:
            problems.append(f"{path} {file.problem.reason}")
            hint = hint or file.problem.hint
        if on_file is not None:
            on_file(FileRead(file=name, format=file.format, problem=file.problem, passed_over=file.passed_over))
    mapper.check_used(needed)
    if len(problems) == len(files):
        more = f"; and {len(problems) - FILES_SHOWN} more files" if len(problems) > FILES_SHOWN else ""
        raise CorpusError("; ".join(problems[:FILES_SHOWN]) + more, hint=hint)


class _File:
    """One file while it is read."""

    def __init__(
        self,
        path: Path,
        name: str,
        settings: ReadSettings,
        mapper: Mapper,
        on_lines: Callable[[int], None],
        on_bad_line: Callable[[bytes], None],
    ) -> None:
        self._path, self._name, self._settings, self._mapper = path, name, settings, mapper
        self._on_lines, self._on_bad_line = on_lines, on_bad_line
        self.format, self._cells = "", False
        self.problem: BadFile | None = None
        self.passed_over: tuple[ListedHeading, ...] = ()

    def read(self) -> Iterator[Located | Rejection]:
        """Its pairs and rejections; afterwards `problem` says why there is no pair."""
        good, bad = False, list[Rejection]()
        try:
            for item in self._items():
                if isinstance(item, Located):
                    good = True
                elif len(bad) < BAD_SHOWN:
                    bad.append(item)
                yield item
        except BadFileError as error:
            if good:
                raise CorpusError(f"{self._path} {error.reason}", hint=error.hint) from error
            self.problem = BadFile(file=self._name, reason=error.reason, hint=error.hint)
        else:
            if not good:
                said = "; ".join(f"line {one.said}" for one in bad) or "it is empty"
                known = is_known(self._name)
                why = (
                    "holds no pair" if known else "holds no pair; its name says no format, so it is read as JSON Lines"
                )
                self.problem = BadFile(file=self._name, reason=f"{why}; {said}", hint=SHAPES if known else TAKEN)

    def _items(self) -> Iterator[Located | Rejection]:
        path = self._path
        with mapped_errors():
            before = path.stat()
            self.format, rows, columns, headings = opened(path, self._name, self._settings)
            self.passed_over = tuple(
                ListedHeading(file=self._name, line=heading.line, heading=heading.title) for heading in headings
            )
            self._check_columns(columns)
            self._cells = columns is not None
            if self._cells and self._mapper.separator:
                self.format += f", cells split at {self._mapper.separator!r}"
            for number, parsed in enumerate(rows, start=1):
                self._on_lines(1)
                found = list(self._checked(parsed))
                if parsed.raw is not None and any(isinstance(item, Rejection) for item in found):
                    self._on_bad_line(parsed.raw)
                yield from found
                if number % STAT_EVERY == 0:
                    _check_unchanged(path, before)
            _check_unchanged(path, before)

    def _check_columns(self, columns: tuple[str, ...] | None) -> None:
        """Refuse a table of which no row can be a pair."""
        lacking = None if columns is None else self._mapper.lacks(columns)
        if columns is not None and lacking is not None:
            said = self._mapper.source(lacking)
            raise BadFileError(
                f"cannot be read: a column `{said}` is needed; the columns are {', '.join(columns) or 'none'}",
                f"Name the column `{lacking}`, or say which it is: --map {lacking}=COLUMN, of the API `fields`.",
            )

    def _checked(self, parsed: Parsed) -> Iterator[Located | Rejection]:
        """The pairs of one row, and what is wrong with it or with one of them."""
        file, line = self._name, parsed.line
        try:
            if parsed.bad is not None:
                raise parsed.bad
            for pair in pairs_of(self._mapper.apply(parsed.row or {}, cells=self._cells), file):
                try:
                    check_texts(pair, self._settings)
                except BadRowError as bad:
                    yield self._rejection(parsed, bad)
                else:
                    yield Located(file=file, line=line, pair=pair)
        except BadRowError as bad:
            yield self._rejection(parsed, bad)

    def _rejection(self, parsed: Parsed, bad: BadRowError) -> Rejection:
        return Rejection(
            file=self._name,
            line=parsed.line,
            element=parsed.element,
            field=self._mapper.source(bad.field),
            reason=bad.reason,
        )


def _check_unchanged(path: Path, before: os.stat_result) -> None:
    """A file that another program is writing is half a file, or would never end."""
    now = path.stat()
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise BadFileError(
            f"changed while it was read: it had {before.st_size:,} bytes and has {now.st_size:,} now",
            "Ingest it when it is written; a writer that renames a finished file into place is never half-way.",
        )
