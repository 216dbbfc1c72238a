import subprocess
import sys
import threading

import numpy as np
import pytest

from qaserve.common.errors import (
    NotFoundError,
    StoreError,
    StoreLockedError,
    StoreRefusedError,
    StoreUnreachableError,
    StoreWriteError,
)
from qaserve.schemas.builds import EncoderIdentity
from qaserve.schemas.pairs import Pair, StoredPair
from qaserve.settings import StoreSettings
from qaserve.store.locks import translated
from qaserve.store.points import PairVectors
from qaserve.store.qdrant import EMBEDDED_STEP, CollectionInfo, open_store

D = 8


def info(build="aaaaaaaaaaaa", pairs=5, corpus="things"):
    return CollectionInfo(
        corpus=corpus,
        build=build,
        encoder=EncoderIdentity(id="fake", revision="1", dimension=D),
        pairs=pairs,
        clusters=2,
        bundle_hash="0" * 64,
        sources=("a.jsonl",),
        created="2026-01-01T00:00:00+00:00",
    )


def points(rng, count=5):
    for number in range(count):
        pair = Pair(
            pair_id=f"p{number // 2}",
            cluster_id="c",
            question=f"question {number}",
            answer="answer",
            topics=("a", "b"),
            source_file="a.jsonl",
            extra={"level": 2, "nested": {"x": [1, None]}},
        )
        vectors = rng.normal(size=(2, D))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        stored = StoredPair(
            id=f"00000000-0000-5000-8000-{number:012d}", pair=pair, cluster=number % 2, prior=1.0 + number
        )
        yield PairVectors(stored, *vectors.astype(np.float32))


@pytest.fixture
def filled(store, rng):
    rows = list(points(rng))
    store.create(info())
    assert sum(store.write("things", "aaaaaaaaaaaa", rows)) == 5
    return store, rows


def test_pairs_come_back_as_they_went_in(filled):
    store, rows = filled
    found = list(store.scroll("things", "aaaaaaaaaaaa"))
    assert [row.stored for row in found] == [row.stored for row in rows]
    for before, after in zip(rows, found, strict=True):
        np.testing.assert_allclose(after.question, before.question, atol=1e-6)
        np.testing.assert_allclose(after.answer, before.answer, atol=1e-6)
    assert store.count("things", "aaaaaaaaaaaa") == 5


def test_scores_are_cosines_nearest_first(filled, rng):
    store, rows = filled
    query = rng.normal(size=D)
    hits = store.nearest_questions("things", "aaaaaaaaaaaa", query, 3, with_vectors=True)
    expected = sorted(rows, key=lambda row: -(row.question @ query))[:3]
    assert [hit.id for hit in hits] == [row.stored.id for row in expected]
    for hit, row in zip(hits, expected, strict=True):
        assert hit.similarity == pytest.approx(row.question @ query / np.linalg.norm(query), abs=1e-6)
        assert (hit.cluster, hit.prior, hit.pair_id) == (row.stored.cluster, row.stored.prior, row.stored.pair.pair_id)
        np.testing.assert_allclose(hit.vectors[1], row.answer, atol=1e-6)


def test_answers_are_searched_by_the_answer_vector(filled):
    store, rows = filled
    found = store.nearest_answers("things", "aaaaaaaaaaaa", 7 * rows[2].answer, 2)
    assert found[0].id == rows[2].stored.id
    assert found[0].similarity == pytest.approx(1.0, abs=1e-6)


def test_pairs_by_field_and_by_id(filled):
    store, rows = filled
    assert [pair.id for pair in store.pairs_by("things", "aaaaaaaaaaaa", "pair_id", "p1")] == [
        rows[2].stored.id,
        rows[3].stored.id,
    ]
    assert len(store.pairs_by("things", "aaaaaaaaaaaa", "cluster", 0)) == 3
    ids = [rows[1].stored.id, "00000000-0000-5000-8000-000000000099"]
    found = store.retrieve("things", "aaaaaaaaaaaa", ids)
    assert list(found) == [rows[1].stored.id]


def test_activation_moves_the_alias_and_keeps_the_other_build(filled):
    store, _ = filled
    assert store.live_builds() == {}
    store.activate("things", "aaaaaaaaaaaa")
    store.create(info("bbbbbbbbbbbb"))
    store.activate("things", "bbbbbbbbbbbb")
    assert store.live("things") == "bbbbbbbbbbbb"
    assert {found.build for found in store.builds("things")} == {"aaaaaaaaaaaa", "bbbbbbbbbbbb"}
    store.activate("things", "aaaaaaaaaaaa")
    assert store.live("things") == "aaaaaaaaaaaa"


def test_corpora_do_not_see_each_other(filled):
    store, _ = filled
    store.create(info(corpus="things2"))
    assert [found.corpus for found in store.builds("things")] == ["things"]


def test_what_is_not_there_is_named(store):
    with pytest.raises(NotFoundError, match="no corpus 'nothing'"):
        store.live("nothing")
    with pytest.raises(NotFoundError, match="no build 'cccccccccccc' of corpus 'things'"):
        store.info("things", "cccccccccccc")


def test_a_collection_of_somebody_else_is_not_taken_for_ours(store):
    from qdrant_client import models

    store._client.create_collection("things@x", vectors_config=models.VectorParams(size=2, distance="Cosine"))
    with pytest.raises(StoreError, match="does not say how it was made"):
        store.info("things", "x")


def test_a_folder_survives_reopening(tmp_path, rng):
    settings = StoreSettings(data_dir=tmp_path)
    with open_store(settings, "first") as store:
        store.create(info())
        list(store.write("things", "aaaaaaaaaaaa", points(rng)))
        store.activate("things", "aaaaaaaaaaaa")
    with open_store(settings, "second") as store:
        assert store.live("things") == "aaaaaaaaaaaa"
        assert store.info("things", "aaaaaaaaaaaa") == info()
        assert store.count("things", "aaaaaaaaaaaa") == 5


def test_points_are_logged_while_a_build_is_written_and_on_the_disk_when_it_is(tmp_path, rng):
    with open_store(StoreSettings(data_dir=tmp_path), "test") as store:
        store.create(info())
        storage = store._client._client.collections["things@aaaaaaaaaaaa"].storage.storage
        writing = store.write("things", "aaaaaaaaaaaa", points(rng, 300))
        assert next(writing) == 256
        assert storage.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert list(writing) == [44]
        assert storage.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert [path.name for path in (tmp_path / "qdrant" / "collection").rglob("*.sqlite*")] == ["storage.sqlite"]


def test_a_folder_in_use_says_by_whom(tmp_path):
    settings = StoreSettings(data_dir=tmp_path)
    holder = open_store(settings, "qaserve serve, http://127.0.0.1:8000")
    with (
        holder,
        pytest.raises(StoreLockedError, match=r"in use by process \d+ \(qaserve serve, http://127.0.0.1:8000\)"),
    ):
        open_store(settings, "second")
    open_store(settings, "third").close()


def test_a_dead_process_does_not_keep_the_folder(tmp_path):
    script = (
        "import os\nfrom qaserve.settings import StoreSettings\nfrom qaserve.store.qdrant import open_store\n"
        f"store = open_store(StoreSettings(data_dir={str(tmp_path)!r}), 'doomed')\nos.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    open_store(StoreSettings(data_dir=tmp_path), "next").close()


def test_a_damaged_folder_is_refused_and_let_go(tmp_path):
    folder = tmp_path / "qdrant"
    folder.mkdir()
    (folder / "meta.json").write_text("{ not json")
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be opened as a Qdrant folder"):
            open_store(StoreSettings(data_dir=tmp_path), "test")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreWriteError, match="file/data/qdrant cannot be written or read: Not a directory"):
        open_store(StoreSettings(data_dir=tmp_path / "file" / "data"), "test")


def test_a_full_disk_is_told_from_a_read_only_one():
    import errno
    import sqlite3

    with pytest.raises(StoreWriteError, match="No space left on device") as full, translated("here"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "Free some space" in full.value.hint
    with pytest.raises(StoreWriteError, match="database or disk is full") as full, translated("here"):
        raise sqlite3.OperationalError("database or disk is full")
    assert "Free some space" in full.value.hint
    with pytest.raises(StoreWriteError, match="readonly database") as closed, translated("here"):
        raise sqlite3.OperationalError("attempt to write a readonly database")
    assert "Make the folder writable" in closed.value.hint
    with pytest.raises(StoreError, match="is damaged: file is not a database"), translated("here"):
        raise sqlite3.DatabaseError("file is not a database")


def test_a_server_that_is_down_is_named(unused_port):
    url = f"http://127.0.0.1:{unused_port}"
    with pytest.raises(StoreUnreachableError, match=f"Qdrant at {url} does not answer"):
        open_store(StoreSettings(qdrant_url=url), "test")


def test_a_server_that_refuses_the_key_is_named(http_server):
    url = http_server(status=401, body=b'{"status":{"error":"Invalid API key"}}')
    settings = StoreSettings(qdrant_url=url, qdrant_api_key="secret-key")
    with pytest.raises(StoreRefusedError, match=r"refuses the key \(HTTP 401\)") as refused:
        open_store(settings, "test")
    assert "secret-key" not in refused.value.message + refused.value.hint


def test_a_server_that_fails_is_quoted(http_server):
    url = http_server(status=500, body=b'{"status":{"error":"out of memory"}}')
    with pytest.raises(StoreError, match=r"answered HTTP 500: .*out of memory"):
        open_store(StoreSettings(qdrant_url=url, qdrant_attempts=2), "test")


@pytest.mark.parametrize("store", ["memory", "folder"], indirect=True)
def test_a_search_passes_between_the_steps_of_a_long_write(store, rng, monkeypatch):
    """Embedded Qdrant takes long to write, and one lock guards it: the search must not wait for the whole page."""
    store.create(info(pairs=EMBEDDED_STEP * 3))
    rows = list(points(rng, EMBEDDED_STEP * 3))
    found, written, upsert = [], [], store._client.upsert

    def search():
        found.append((len(store.nearest_answers("things", "aaaaaaaaaaaa", rows[0].answer, 100)), len(written)))

    asker = threading.Thread(target=search)

    def write_and_ask(name, page, wait):
        upsert(name, page, wait=wait)
        written.append(len(page))
        if len(written) == 1:
            asker.start()
            while not store._lock.wanted:
                assert asker.is_alive()

    monkeypatch.setattr(store._client, "upsert", write_and_ask)
    assert sum(store.write("things", "aaaaaaaaaaaa", rows)) == EMBEDDED_STEP * 3
    asker.join()
    assert written == [EMBEDDED_STEP] * 3
    assert found == [(EMBEDDED_STEP, 1)]
