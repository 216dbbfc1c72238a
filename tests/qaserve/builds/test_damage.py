"""Nothing is deleted because an index of it is missing; damage is said, with what to do; a disk may refuse to write."""

import errno
import json
import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from qaserve.api.app import create_app
from qaserve.builds.catalog import activate, list_builds, prune
from qaserve.common.errors import NotFoundError, StoreError, StoreWriteError
from qaserve.schemas.ask import AskRequest
from qaserve.search.engine import Engine
from qaserve.service.doctor import examine
from qaserve.settings import ServerSettings, StoreSettings, get_settings
from qaserve.store import open_store

ASK = AskRequest(question="How do I make bread?")


@pytest.fixture
def opened(tmp_path):
    return lambda: open_store(StoreSettings(data_dir=tmp_path / "data"))


@pytest.fixture
def two_builds(opened, encoder, make_ingest, write_rows, rows):
    """The ids of two builds in a folder, the second of all things and live."""
    with opened() as store:
        first = make_ingest(store, encoder).run([write_rows(rows(["bread"]))]).build
        return first, make_ingest(store, encoder).run([write_rows(rows())]).build


def problems():
    return [finding for finding in examine(get_settings()) if finding.state == "problem" and finding.area != "encoder"]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "lock" not in path.name}


def lose_pairs(folder: Path) -> None:
    """Empty the newest collections of the embedded store."""
    for storage in folder.glob("qdrant/collection/*/storage.sqlite"):
        storage.unlink()


def lose_alias(folder: Path) -> None:
    meta = folder / "qdrant" / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"aliases": {}}))


@pytest.mark.parametrize("content", [None, ""])
def test_a_lost_list_of_collections_deletes_no_pair_and_says_what_is_there(tmp_path, opened, two_builds, content):
    meta = tmp_path / "data" / "qdrant" / "meta.json"
    copy = meta.read_bytes()
    meta.unlink()
    if content is not None:
        meta.write_text(content)
    there = files(tmp_path / "data" / "qdrant" / "collection")
    with pytest.raises(StoreError, match="the pairs of 2 builds are still in") as refused:
        opened()
    assert all(build in refused.value.message for build in two_builds)
    assert "Put meta.json back" in refused.value.hint
    assert [found.text for found in problems()] == [refused.value.message]
    assert files(tmp_path / "data" / "qdrant" / "collection") == there
    meta.write_bytes(copy)
    with opened() as store:
        assert store.count("things", store.live("things")) == 24


def test_a_lost_live_pointer_is_said_and_put_back(tmp_path, opened, two_builds, encoder, make_ingest, write_rows, rows):
    lose_alias(tmp_path / "data")
    with opened() as store:
        with pytest.raises(NotFoundError, match=f"'things' has no live build; .* {two_builds[1]} .24 pairs") as lost:
            Engine(store, encoder, tmp_path / "models", "things").ask(ASK)
        assert f"builds activate {two_builds[1]}" in lost.value.hint
        with pytest.raises(NotFoundError, match="has no live build"):  # it would answer from the new pairs alone
            make_ingest(store, encoder).run([write_rows(rows(["wine"]))])
    assert [found.text for found in problems()] == [lost.value.message]
    with opened() as store:
        assert {found.build for found in store.builds("things")} == set(two_builds)
        activate(store, tmp_path / "models", "things", two_builds[1])
        assert Engine(store, encoder, tmp_path / "models", "things").ask(ASK).answers


def test_a_first_ingest_that_was_interrupted_before_the_swap_is_no_lost_pointer(
    edge, encoder, make_ingest, write_rows, rows, monkeypatch
):
    path = write_rows(rows())
    with monkeypatch.context() as patch:
        patch.setattr(edge, "activate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make_ingest(edge, encoder).run([path])
    assert edge.live_builds() == {}
    assert make_ingest(edge, encoder).run([path]).build == edge.live("things")


@pytest.mark.parametrize("lost", ["bundle", "pairs"])
def test_a_damaged_build_is_kept_by_an_ingest_and_named_by_doctor(
    tmp_path, opened, two_builds, encoder, make_ingest, write_rows, rows, lost
):
    first = two_builds[0]
    if lost == "bundle":
        shutil.rmtree(tmp_path / "models" / "things" / first)
    else:
        (tmp_path / "data" / "qdrant" / "collection" / f"things@{first}" / "storage.sqlite").unlink()
    with opened() as store:
        assert make_ingest(store, encoder).run([write_rows(rows(["bread"]))]).cleaned == ()
        assert first in {found.build for found in store.builds("things")}
    said = [found for found in examine(get_settings()) if found.area == "build" and first in found.text]
    assert [found.state for found in said] == ["warning"]
    assert ("missing from" if lost == "bundle" else "0 of its 4 pairs") in said[0].text
    assert "It is kept." in said[0].hint
    with opened() as store:
        assert prune(store, tmp_path / "models", "things", keep=0) == [first]


def test_a_live_build_that_lost_its_pairs_is_said_by_ask_readyz_and_doctor_and_mended_by_the_same_files(
    tmp_path, opened, two_builds, encoder, make_ingest, write_rows, rows
):
    lose_pairs(tmp_path / "data")
    message = f"build {two_builds[1]} of corpus 'things' is damaged: 0 of its 24 pairs are in"
    with opened() as store:
        engine = Engine(store, encoder, tmp_path / "models", "things")
        with pytest.raises(StoreError, match=message) as damaged:
            engine.ask(ASK)
        assert "the same files puts back" in damaged.value.hint
        with TestClient(create_app(engine, ServerSettings())) as http:
            reply = http.get("/readyz")
        assert reply.status_code == 503
        assert "0 of its 24 pairs" in reply.json()["error"]["message"]
    assert [found.text for found in problems()] == [damaged.value.message]
    with opened() as store:
        make_ingest(store, encoder).run([write_rows(rows())])
        assert Engine(store, encoder, tmp_path / "models", "things").ask(ASK).answers
        assert next(found for found in list_builds(store, tmp_path / "models", "things") if found.live).complete


@pytest.fixture(params=[errno.ENOSPC, errno.EROFS, errno.EACCES])
def unwritable(request, monkeypatch):
    """Files cannot be opened to write, as on a disk that is full or read-only, or that is another user's."""
    import builtins
    import io
    import os

    def refuse() -> None:
        raise OSError(request.param, os.strerror(request.param))

    opening, opening_low, making = io.open, os.open, os.mkdir

    def low(path, flags, *rest, **more):
        return refuse() if flags & (os.O_WRONLY | os.O_RDWR) else opening_low(path, flags, *rest, **more)

    def high(file, mode="r", *rest, **more):
        if not isinstance(file, int) and set(mode) & set("wax+"):
            refuse()
        return opening(file, mode, *rest, **more)

    def make(path, *rest, **more):
        return making(path, *rest, **more) if Path(path).is_dir() else refuse()

    def activate_() -> None:
        monkeypatch.setattr(os, "open", low)
        monkeypatch.setattr(builtins, "open", high)
        monkeypatch.setattr(io, "open", high)
        monkeypatch.setattr(os, "mkdir", make)
        monkeypatch.setattr("tempfile.tempdir", "/nowhere")

    return activate_


def test_asking_works_from_a_disk_that_cannot_be_written(
    tmp_path, opened, two_builds, encoder, make_ingest, write_rows, rows, unwritable
):
    path, models, there = write_rows(rows(["wine"])), tmp_path / "models", files(tmp_path)
    with opened() as store:
        before = Engine(store, encoder, models, "things").ask(ASK)
    unwritable()
    with opened() as store:
        after = Engine(store, encoder, models, "things").ask(ASK)
        assert [answer.id for answer in after.answers] == [answer.id for answer in before.answers]
        assert after.answers[0].score == pytest.approx(before.answers[0].score, abs=1e-6)
        with pytest.raises(StoreWriteError, match="cannot be written"):
            store.activate("things", two_builds[0])
        with pytest.raises(StoreWriteError, match="cannot be"):
            make_ingest(store, encoder).run([path])
        assert store.live("things") == two_builds[1]
    assert any("asking works" in found.text for found in examine(get_settings()))
    assert files(tmp_path) == there


def test_a_disk_that_cannot_be_written_and_holds_nothing_is_said(opened, unwritable):
    unwritable()
    with pytest.raises(StoreWriteError, match="cannot be written or read"):
        opened()
