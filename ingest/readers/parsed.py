"""What parsers give: the rows of one file, before anybody asks what their fields mean."""

from collections.abc import Iterator
from typing import NamedTuple

from ingest.readers.shapes import BadRowError, Row


class Parsed(NamedTuple):
    """One row, or why it is none."""

    line: int
    """1 is the first; of a format without lines, its number among the rows."""
    row: Row | None
    bad: BadRowError | None = None
    """What is wrong; the row may be given all the same, to be kept and corrected."""
    raw: bytes | None = None
    """The row as a line of JSON Lines that can be corrected and read; None: it was too long to be held."""
    element: int | None = None
    """Its number in a JSON array, of which many elements may stand in one line; 1 is the first."""


class Heading(NamedTuple):
    """A heading of a document that asks nothing, with text that is in no pair."""

    line: int
    """1 is the first."""
    title: str


class Opened(NamedTuple):
    """A file whose format is known."""

    format: str
    """In words, with what was detected."""
    rows: Iterator[Parsed]
    columns: tuple[str, ...] | None = None
    """Of a table: the only fields that its rows have."""
    passed_over: tuple[Heading, ...] = ()
    """Of a Markdown document."""


class BadFileError(Exception):
    """A file that cannot be read, or not from here on. Its text goes on after the name of the file."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint
