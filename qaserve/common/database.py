"""SQLite files for what must survive a crash: feedback and jobs. They are opened, created and migrated here.

A transaction is on the disk when `write` is left: the write-ahead log is flushed at every commit. Each operation opens
a connection of its own, so threads and processes can share a file. They wait for each other, but never without end.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from qaserve.common.errors import BusyError, StoreError, StoreWriteError

WAIT_SECONDS = 10.0
"""How long an operation waits for another process that writes."""
RETRY_SECONDS = 5.0
PRIMARY = 0xFF
"""The bits of an SQLite error code that say what kind of error it is."""
BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
READ_ONLY = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})

Migration = Callable[[sqlite3.Connection], None]


class Database:
    """One SQLite file. Nothing is created before the first operation."""

    def __init__(self, path: Path, migrations: Sequence[Migration], wait: float = WAIT_SECONDS) -> None:
        """Remember where it is.

        Args:
            path: The file.
            migrations: What creates the tables, in order; `user_version` counts how many of them a file has had.
            wait: Seconds that an operation waits for another process that writes.
        """
        self.path, self._migrations, self._wait = path, migrations, wait

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction. It is on the disk when this is left, and has no effect when an error leaves it.

        Raises:
            BusyError: Another process has been writing for too long.
            StoreWriteError: The disk is full, read-only or failing.
            StoreError: The file is damaged, or of a newer version of qaserve.
        """
        with self._mapped_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as connection, _transaction(connection):
                yield connection

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection to read from. Errors as of `write`."""
        with self._mapped_errors(), closing(self._open_to_read()) as connection:
            yield connection

    def _open(self) -> sqlite3.Connection:
        connection = self._connect(str(self.path))
        try:
            connection.execute("PRAGMA synchronous = FULL")
            version = _version(connection)
            if version < len(self._migrations):
                self._migrate(connection)
            elif version > len(self._migrations):
                raise StoreError(
                    f"{self.path} has version {version}; this qaserve reads versions up to {len(self._migrations)}",
                    hint="It was written by a newer qaserve: use that, or set QASERVE_DATA_DIR to another folder.",
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_to_read(self) -> sqlite3.Connection:
        try:
            return self._open()
        except sqlite3.OperationalError as error:
            log = self.path.with_name(f"{self.path.name}-wal")
            unfinished = log.exists() and log.stat().st_size > 0
            if _code(error) not in READ_ONLY or unfinished or not self.path.exists():
                raise
            # A read-only folder. The log is empty, so the file alone is complete.
            return self._connect(f"{self.path.absolute().as_uri()}?immutable=1")

    def _connect(self, address: str) -> sqlite3.Connection:
        uri = address.startswith("file:")
        return sqlite3.connect(address, timeout=self._wait, isolation_level=None, uri=uri)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        # SQLite does not wait when two connections turn on the write-ahead log at once, so a lock of our own does.
        with FileLock(f"{self.path}.lock", timeout=self._wait):
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            with _transaction(connection):
                for migrate in self._migrations[_version(connection) :]:
                    migrate(connection)
                connection.execute(f"PRAGMA user_version = {len(self._migrations)}")

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, Timeout) as error:
            code = sqlite3.SQLITE_BUSY if isinstance(error, Timeout) else _code(error)
            if code in BUSY:
                raise self._busy() from error
            if code in DAMAGED:
                raise StoreError(
                    f"{self.path} is damaged: {error}",
                    hint="Move it away: a new one is created. `sqlite3 FILE .recover` may still read the old one.",
                ) from error
            if not isinstance(error, sqlite3.OperationalError):
                raise
            raise self._unwritable(str(error)) from error
        except OSError as error:
            raise self._unwritable(error.strerror or str(error)) from error

    def _busy(self) -> BusyError:
        error = BusyError(
            f"{self.path} is in use by another process, also after {self._wait:g} seconds",
            hint="Try again. If it stays in use, look for a process that hangs.",
        )
        error.retry_after = RETRY_SECONDS
        return error

    def _unwritable(self, reason: str) -> StoreWriteError:
        return StoreWriteError(
            f"{self.path} cannot be written or read: {reason}",
            hint="Free some space, make the folder writable, or set QASERVE_DATA_DIR to a folder that is.",
        )


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _code(error: sqlite3.Error) -> int | None:
    """What kind of error SQLite reports; None where the error is Python's."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & PRIMARY
