"""Questions that were abstained on or judged unhelpful: kept where the operator says so, and grouped into themes.

They lie in one SQLite file for each corpus, and nowhere else: no log line holds their text. They go after
QASERVE_KEEP_DAYS, and beyond the newest `MAX_KEPT`.
"""

import logging
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import Connection
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qaserve.common.clock import now
from qaserve.common.database import Database
from qaserve.common.errors import NotFoundError, QaserveError
from qaserve.core.themes import themes
from qaserve.schemas.ask import AskResult
from qaserve.schemas.gaps import GapList, GapTheme, KeptQuestion
from qaserve.search.build import OpenBuild
from qaserve.search.engine import Engine
from qaserve.store.points import nearest_questions

LOG = logging.getLogger("qaserve.gaps")
FOLDER = "gaps"
MAX_KEPT = 10_000
LOOKED_AT = 1_000
"""The newest of the kept questions, which are grouped: n² similarities are computed."""
SAME_THEME = 0.6
"""Cosine to the middle of a theme. With MiniLM, 35% of two phrasings of one intent of the public corpus have it, and 1%
of two questions of different intents."""
WAIT_SECONDS = 1.0
"""A question is answered also where another process writes for longer; it is then not kept."""
COLUMNS = "number, created, build, question, reason"


class QuestionLog:
    """The kept questions of a corpus. Threads and processes may share it."""

    def __init__(self, data_dir: Path, corpus: str, *, keeps: bool, days: int) -> None:
        """Remember where it is; nothing is created before the first question is kept.

        Args:
            data_dir: The data folder.
            corpus: The corpus.
            keeps: Whether `keep` does anything.
            days: After how many days a question is deleted.
        """
        self.path = data_dir / FOLDER / f"{corpus}.db"
        self.keeps, self.days = keeps, days
        self._database = Database(self.path, (_create,), WAIT_SECONDS)

    def keep(self, question: str, reason: Literal["abstained", "unhelpful"], build: str) -> None:
        """Keep a question, where questions are kept. Raises nothing: an answer does not fail because of this."""
        self._keep([(build, question, reason)])

    def keep_abstained(self, results: Iterable[AskResult]) -> None:
        """Keep the questions among these that were abstained on; as `keep`."""
        self._keep([(one.build, one.question, "abstained") for one in results if one.confidence.abstained])

    def _keep(self, questions: Sequence[tuple[str, str, str]]) -> None:
        """Keep questions, each with its build and the reason, in one transaction: nobody waits for each of them."""
        if not self.keeps or not questions:
            return
        try:
            with self._database.write() as connection:
                self._expire(connection)
                rows = [(now(), *one) for one in questions]
                insert = "INSERT INTO questions (created, build, question, reason) VALUES (?, ?, ?, ?)"
                connection.executemany(insert, rows)
                oldest = "SELECT number FROM questions ORDER BY number DESC LIMIT -1 OFFSET ?"
                connection.execute(f"DELETE FROM questions WHERE number IN ({oldest})", (MAX_KEPT,))  # noqa: S608
        except QaserveError as error:
            LOG.warning("questions could not be kept (%d): %s", len(questions), error.message)

    def newest(self, limit: int) -> tuple[list[KeptQuestion], int]:
        """The newest questions, newest first, and how many are kept.

        Raises:
            BusyError, StoreError, StoreWriteError: As of `Database.write`.
        """
        if not self.path.exists():
            return [], 0
        with self._database.write() as connection:
            self._expire(connection)
            (count,) = connection.execute("SELECT count(*) FROM questions").fetchone()
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM questions ORDER BY number DESC LIMIT ?",  # noqa: S608 - our own columns
                (limit,),
            ).fetchall()
        names = ("id", "created", "build", "question", "reason")
        return [KeptQuestion(**dict(zip(names, row, strict=True))) for row in rows], count

    def delete(self, number: int | None = None) -> int:
        """Delete one question, or all; gives how many.

        Raises:
            NotFoundError: There is none of that number.
            BusyError, StoreError, StoreWriteError: As of `Database.write`.
        """
        deleted = 0
        if self.path.exists():
            with self._database.write() as connection:
                _overwrite_deleted(connection)
                chosen = "" if number is None else " WHERE number = ?"
                given = () if number is None else (number,)
                deleted = connection.execute(f"DELETE FROM questions{chosen}", given).rowcount  # noqa: S608
        if number is not None and not deleted:
            raise NotFoundError(f"no question {number} is kept", hint="GET /v1/gaps lists them with their id.")
        return deleted

    def _expire(self, connection: Connection) -> None:
        _overwrite_deleted(connection)
        oldest = (datetime.now(UTC) - timedelta(days=self.days)).isoformat(timespec="microseconds")
        connection.execute("DELETE FROM questions WHERE created < ?", (oldest,))


class Gaps:
    """The themes of kept questions, seen from the live build of an engine. Safe to share between threads."""

    def __init__(self, engine: Engine, log: QuestionLog) -> None:
        """Remember both; nothing is read or encoded yet."""
        self._engine, self.log = engine, log
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self._lock = threading.Lock()

    def themes(self) -> GapList:
        """The kept questions, grouped. A question is encoded when it is first seen."""
        kept, count = self.log.newest(LOOKED_AT)
        live = self._engine.load()
        vectors = self._encoded([one.question for one in kept])
        grouped = themes(vectors, SAME_THEME) if kept else []
        return GapList(
            build=live.ref.build,
            keeps=self.log.keeps,
            days=self.log.days,
            questions=count,
            looked_at=len(kept),
            themes=tuple(_theme(live, [kept[row] for row in rows], vectors[rows[0]]) for rows in grouped),
        )

    def _encoded(self, questions: list[str]) -> NDArray[np.float32]:
        """(n, D) vectors; those of questions that are no longer kept are forgotten."""
        with self._lock:
            lacking = [text for text in dict.fromkeys(questions) if text not in self._vectors]
            fresh = self._engine.encoder.encode_questions(lacking) if lacking else ()
            known = self._vectors | dict(zip(lacking, fresh, strict=True))
            self._vectors = {text: known[text] for text in questions}
            return np.array([known[text] for text in questions], dtype=np.float32)


def _theme(live: OpenBuild, members: list[KeptQuestion], middle: NDArray[np.float32]) -> GapTheme:
    (nearest,) = nearest_questions(live.points, middle, 1)
    return GapTheme(
        question=members[0].question,
        count=len(members),
        abstained=sum(one.reason == "abstained" for one in members),
        cluster=nearest.cluster,
        cluster_name=live.clusters[nearest.cluster].name,
        known=nearest.question,
        similarity=round(nearest.similarity, 6),
        questions=tuple(sorted(members, key=lambda one: -one.id)),
    )


def _overwrite_deleted(connection: Connection) -> None:
    """What is deleted is overwritten, not only unlinked."""
    connection.execute("PRAGMA secure_delete = ON")


def _create(connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE questions (number INTEGER PRIMARY KEY AUTOINCREMENT, created TEXT NOT NULL, "
        "build TEXT NOT NULL, question TEXT NOT NULL, reason TEXT NOT NULL)"
    )
