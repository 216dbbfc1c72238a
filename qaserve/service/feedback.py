"""Feedback on answers: one SQLite file for each corpus. A record is acknowledged when it is on the disk.

Records are kept as JSON, in the order they came. The file of JSON Lines that version 0.1 wrote is imported once, when
the database is created; it stays as it is.
"""

import sqlite3
from pathlib import Path

from pydantic import ValidationError

from qaserve.common.database import Database
from qaserve.common.errors import NotFoundError, UsageError
from qaserve.schemas.feedback import Feedback, FeedbackPage

FOLDER = "feedback"
SUFFIX = ".db"
OLD_SUFFIX = ".jsonl"
"""Of the files of version 0.1."""


class FeedbackLog:
    """The feedback on one corpus. Threads and processes may share it."""

    def __init__(self, data_dir: Path, corpus: str) -> None:
        """Remember where it is; nothing is created before the first record."""
        self.path = data_dir / FOLDER / f"{corpus}{SUFFIX}"
        self.corpus = corpus
        self._old = self.path.with_name(f"{corpus}{OLD_SUFFIX}")
        self._database = Database(self.path, (self._create,))

    def append(self, record: Feedback) -> None:
        """Keep a record; it is on the disk when this returns.

        Raises:
            StoreWriteError: The disk is full, read-only or failing.
            BusyError, StoreError: As of `Database.write`.
        """
        with self._database.write() as connection:
            connection.execute("INSERT INTO feedback (record) VALUES (?)", (record.model_dump_json(),))

    def page(self, after: int = 0, limit: int | None = None) -> FeedbackPage:
        """Some records, oldest first.

        Args:
            after: 0, or `next` of the page before.
            limit: How many at most; None: all.

        Raises:
            UsageError: `after` is not the number of a record.
            BusyError, StoreError: As of `Database.read`.
        """
        kept: list[Feedback] = []
        unreadable, end, more = 0, after, False
        if self.path.exists() or self._old.exists():
            with self._database.read() as connection:
                self._check_place(connection, after)
                rows = "SELECT number, record FROM feedback WHERE number > ? ORDER BY number"
                for number, text in connection.execute(rows, (after,)):
                    if len(kept) == limit:
                        more = True
                        break
                    end = number
                    record = _read(text)
                    if record is None:
                        unreadable += 1
                    else:
                        kept.append(record)
        return FeedbackPage(corpus=self.corpus, feedback=tuple(kept), unreadable=unreadable, next=end if more else None)

    def _check_place(self, connection: sqlite3.Connection, after: int) -> None:
        known = "SELECT 1 FROM feedback WHERE number = ?"
        if after and connection.execute(known, (after,)).fetchone() is None:
            raise UsageError(
                f"after={after} is not the number of a record of corpus {self.corpus!r}",
                hint="Give the `next` of the page before, or leave it out.",
            )

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE feedback (number INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL)")
        if self._old.exists():
            with self._old.open("rb") as lines:  # half a line at the end was never acknowledged
                records = ((line[:-1].decode(errors="replace"),) for line in lines if line.endswith(b"\n"))
                connection.executemany("INSERT INTO feedback (record) VALUES (?)", records)


def the_log(data_dir: Path, corpus: str | None) -> FeedbackLog:
    """The feedback on a corpus, or on the only one there is; Qdrant need not be open.

    Raises:
        NotFoundError: There is no feedback yet.
        UsageError: There is feedback on several corpora, and none is named.
    """
    files = (data_dir / FOLDER).glob("*")
    there = sorted({path.stem for path in files if path.suffix in {SUFFIX, OLD_SUFFIX}})
    if corpus is None and len(there) > 1:
        raise UsageError(
            f"there is feedback on several corpora: {', '.join(there)}", hint=f"Say which: QASERVE_CORPUS={there[0]}"
        )
    chosen = corpus or (there[0] if there else None)
    if chosen is None or chosen not in there:
        about = "" if corpus is None else f" on corpus {corpus!r}"
        raise NotFoundError(
            f"there is no feedback{about} in {data_dir / FOLDER}", hint="It comes in through POST /v1/feedback."
        )
    return FeedbackLog(data_dir, chosen)


def _read(text: str) -> Feedback | None:
    try:
        return Feedback.model_validate_json(text)
    except ValidationError:
        return None
