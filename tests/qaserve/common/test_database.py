import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest

from qaserve.common.database import Database
from qaserve.common.errors import BusyError, StoreError, StoreWriteError


def create(connection):
    connection.execute("CREATE TABLE words (word TEXT NOT NULL)")


def add_length(connection):
    connection.execute("ALTER TABLE words ADD COLUMN length INTEGER NOT NULL DEFAULT 0")


@pytest.fixture
def database(tmp_path):
    return Database(tmp_path / "new" / "words.db", (create,), wait=0.1)


def add(database, word):
    with database.write() as connection:
        connection.execute("INSERT INTO words (word) VALUES (?)", (word,))


def words(database):
    with database.read() as connection:
        return [word for (word,) in connection.execute("SELECT word FROM words ORDER BY rowid")]


def test_every_commit_is_flushed_to_a_write_ahead_log(database):
    with database.write() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_an_error_leaves_nothing_of_a_transaction(database):
    add(database, "kept")
    with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"), database.write() as connection:
        connection.executemany("INSERT INTO words (word) VALUES (?)", [("lost",), (None,)])
    assert words(database) == ["kept"]


def test_migrations_run_once_each_and_in_order(database):
    add(database, "old")
    newer = Database(database.path, (create, add_length))
    with newer.read() as connection:
        assert connection.execute("SELECT word, length FROM words").fetchall() == [("old", 0)]
    assert words(newer) == ["old"]
    with pytest.raises(StoreError, match=r"words\.db has version 2; this qaserve reads versions up to 1") as caught:
        words(database)
    assert "newer qaserve" in caught.value.hint


def test_a_migration_that_fails_has_no_effect(tmp_path):
    def fail(connection):
        create(connection)
        raise KeyError

    path = tmp_path / "words.db"
    with pytest.raises(KeyError):
        add(Database(path, (fail,)), "lost")
    healthy = Database(path, (create,))
    add(healthy, "kept")
    assert words(healthy) == ["kept"]


def test_many_create_the_same_file_at_once(tmp_path):
    path, start, failed = tmp_path / "words.db", threading.Barrier(8), []

    def work(number):
        start.wait()
        try:
            add(Database(path, (create,)), str(number))
        except Exception as error:  # noqa: BLE001 - compared below
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(words(Database(path, (create,)))) == [str(number) for number in range(8)]


def test_waiting_for_another_writer_is_bounded_and_readers_need_not_wait(database):
    add(database, "first")
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert words(database) == ["first"]
        with pytest.raises(
            BusyError, match=r"words\.db is in use by another process, also after 0\.1 seconds"
        ) as caught:
            add(database, "second")
        assert caught.value.retry_after
        assert caught.value.hint
        other.execute("ROLLBACK")
    add(database, "third")
    assert words(database) == ["first", "third"]


def test_a_damaged_file_is_named(database):
    database.path.parent.mkdir()
    database.path.write_bytes(b"no database " * 1000)
    for use in (words, lambda one: add(one, "x")):
        with pytest.raises(StoreError, match=r"words\.db is damaged: file is not a database") as caught:
            use(database)
        assert "Move it away" in caught.value.hint


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreWriteError, match=r"file/words\.db cannot be written or read") as caught:
        add(Database(tmp_path / "file" / "words.db", (create,)), "x")
    assert "QASERVE_DATA_DIR" in caught.value.hint


def small_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


FULL = """
import sys
from pathlib import Path
from qaserve.common.database import Database
from qaserve.common.errors import StoreWriteError
database = Database(Path(sys.argv[1]), (lambda one: one.execute("CREATE TABLE words (word TEXT NOT NULL)"),))
with database.write() as connection:
    connection.execute("INSERT INTO words VALUES ('before')")
try:
    with database.write() as connection:
        connection.execute("INSERT INTO words VALUES (?)", ("x" * 500_000,))
except StoreWriteError as error:
    print(error.message)
with database.write() as connection:
    connection.execute("INSERT INTO words VALUES ('after')")
"""


def test_a_disk_that_takes_no_more_loses_only_what_was_refused(tmp_path):
    """The limit on the size of a file stands for a full disk."""
    path = tmp_path / "words.db"
    command = [sys.executable, "-c", FULL, str(path)]
    done = subprocess.run(command, preexec_fn=small_files, capture_output=True, text=True, check=True)
    assert f"{path} cannot be written or read: " in done.stdout
    assert words(Database(path, (create,))) == ["before", "after"]


READ = """
import os, sys
from pathlib import Path
from qaserve.common.database import Database
database = Database(Path(sys.argv[1]), (lambda one: one.execute("CREATE TABLE words (word TEXT NOT NULL)"),))
if os.getuid() == 0:
    os.setuid(65534)  # root may write anywhere
with database.read() as found:
    print(found.execute("SELECT word FROM words").fetchall())
"""


def test_a_read_only_folder_can_be_read():
    with tempfile.TemporaryDirectory() as name:  # not tmp_path: only its owner can reach that
        folder = Path(name)
        add(Database(folder / "words.db", (create,)), "kept")
        folder.chmod(0o555)
        try:
            command = [sys.executable, "-c", READ, str(folder / "words.db")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        finally:
            folder.chmod(0o755)
    assert (done.stdout, done.stderr) == ("[('kept',)]\n", "")
