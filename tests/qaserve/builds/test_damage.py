"""Nothing is deleted because a part of it is missing; damage is said, with what to do; a disk may refuse to write."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from conftest import ready
from fastapi.testclient import TestClient

from ingest.refit import refit
from ingest.selection import Selection
from qaserve.api.app import create_app
from qaserve.builds.catalog import activate, list_builds, prune
from qaserve.common.errors import BundleError, DamagedBuildError, NotFoundError, StoreWriteError
from qaserve.schemas.ask import AskRequest
from qaserve.search.engine import Engine
from qaserve.service import doctor
from qaserve.service.doctor import examine
from qaserve.settings import ServerSettings, get_settings
from qaserve.store import BuildRef, EdgeStore

ASK = AskRequest(question="How do I make bread?")


@pytest.fixture
def two_builds(edge, encoder, make_ingest, write_rows, rows):
    """Two builds, the second of all things and live."""
    first = make_ingest(edge, encoder).run([write_rows(rows(["bread"]))]).build
    return BuildRef("things", first), BuildRef("things", make_ingest(edge, encoder).run([write_rows(rows())]).build)


def problems():
    return [finding for finding in examine(get_settings()) if finding.state == "problem" and finding.area != "encoder"]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "lock" not in path.name}


def a_vector_file(folder: Path) -> Path:
    """The largest file of a build: what it holds is not read before it is used."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    position = next(place for place, byte in enumerate(data) if byte)
    data[position] ^= 1
    path.write_bytes(data)


def test_builds_are_listed_at_sight(tmp_path, edge, two_builds, monkeypatch):
    first, live = two_builds
    truncate(a_vector_file(tmp_path / "data" / "things" / first.build))
    monkeypatch.setattr(EdgeStore, "open", lambda *_: pytest.fail("a build was opened"))
    listed = {one.build: one.complete for one in list_builds(edge, tmp_path / "models", "things")}
    assert listed == {first.build: False, live.build: True}


def test_a_lost_live_file_is_said_and_put_back(tmp_path, edge, two_builds, encoder, make_ingest, write_rows, rows):
    first, live = two_builds
    (tmp_path / "data" / "things" / "live").unlink()
    with pytest.raises(NotFoundError, match=f"'things' has no live build; .* {live.build} .24 pairs") as lost:
        Engine(edge, encoder, tmp_path / "models", "things").ask(ASK)
    assert f"builds activate {live.build}" in lost.value.hint
    with pytest.raises(NotFoundError, match="has no live build"):  # it would answer from the new pairs alone
        make_ingest(edge, encoder).run([write_rows(rows(["wine"]))])
    assert [found.text for found in problems()] == [lost.value.message]
    assert {found.build for found in edge.builds("things")} == {first.build, live.build}
    activate(edge, tmp_path / "models", live)
    assert Engine(edge, encoder, tmp_path / "models", "things").ask(ASK).answers


def test_a_first_ingest_that_was_interrupted_before_the_swap_is_no_lost_live_file(
    edge, encoder, make_ingest, write_rows, rows, monkeypatch
):
    path = write_rows(rows())
    with monkeypatch.context() as patch:
        patch.setattr(edge, "set_live", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make_ingest(edge, encoder).run([path])
    assert edge.live_builds() == {}
    assert make_ingest(edge, encoder).run([path]).build == edge.live("things").build


@pytest.mark.parametrize("lost", ["bundle", "vectors", "build.json"])
def test_a_damaged_build_is_kept_by_an_ingest_and_named_by_doctor(
    tmp_path, edge, two_builds, encoder, make_ingest, write_rows, rows, lost
):
    first, _ = two_builds
    folder = tmp_path / "data" / "things" / first.build
    if lost == "bundle":
        shutil.rmtree(tmp_path / "models" / "things" / first.build)
    elif lost == "vectors":
        a_vector_file(folder).unlink()
    else:
        (folder / "build.json").unlink()
    assert make_ingest(edge, encoder).run([write_rows(rows(["bread"]))]).cleaned == ()
    assert first.build in edge.names("things")
    said = [found for found in examine(get_settings()) if found.area == "build" and first.build in found.text]
    assert len(said) == 1
    assert said[0].state in {"warning", "problem"}
    assert ("manifest.json cannot be read" if lost == "bundle" else f"build {first} is damaged: ") in said[0].text
    with pytest.raises((BundleError, DamagedBuildError)):
        activate(edge, tmp_path / "models", first)
    assert prune(edge, tmp_path / "models", "things", keep=0) == [first.build]
    assert edge.names("things") == [two_builds[1].build]


def test_a_live_build_that_lost_a_file_is_said_by_ask_readyz_and_doctor_and_mended_by_the_same_files(
    tmp_path, edge, two_builds, encoder, make_ingest, write_rows, rows
):
    _, live = two_builds
    lost = a_vector_file(tmp_path / "data" / "things" / live.build)
    lost.unlink()
    engine = Engine(edge, encoder, tmp_path / "models", "things")
    with pytest.raises(DamagedBuildError, match=f"build {live} is damaged: .*{lost.name} is missing") as damaged:
        engine.ask(ASK)
    assert "`qaserve ingest --replace`" in damaged.value.hint
    with TestClient(create_app(engine, ServerSettings())) as http:
        reply = ready(http)
    assert reply.status_code == 503
    assert f"{lost.name} is missing" in reply.json()["error"]["message"]
    assert [found.text for found in problems()] == [damaged.value.message]
    with pytest.raises(DamagedBuildError, match="is missing"):  # pairs that only the damaged build holds would be lost
        make_ingest(edge, encoder).run([write_rows(rows())])
    mended = make_ingest(edge, encoder).run([write_rows(rows())], replace=True)
    assert Engine(edge, encoder, tmp_path / "models", "things").ask(ASK).answers
    assert next(found for found in list_builds(edge, tmp_path / "models", "things") if found.live).complete
    edge.verify(BuildRef("things", mended.build))


@pytest.mark.parametrize("part", ["things", "things.documents"])
def test_a_live_build_with_another_byte_is_in_no_new_build(
    tmp_path, edge, encoder, make_builder, make_ingest, write_rows, rows, part
):
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "skill_bread.md").write_text("# Bread\n")
    live = BuildRef("things", make_ingest(edge, encoder).run([write_rows(rows())], documents=documents).build)
    path = a_vector_file(tmp_path / "data" / part / live.build)
    flip_a_byte(path)
    more = write_rows(rows(["silver"]), "more.jsonl")
    for change in (
        lambda: make_ingest(edge, encoder).run([more], dry_run=True),
        lambda: make_ingest(edge, encoder).run([more]),
        lambda: make_ingest(edge, encoder).remove(Selection(ids=("bread_q0",))),
        lambda: refit(make_builder(edge, encoder)),
    ):
        with pytest.raises(DamagedBuildError, match=f"is damaged: .*{path.name} has changed since it was sealed"):
            change()
    assert (edge.names("things"), edge.live("things")) == ([live.build], live)
    mended = make_ingest(edge, encoder).run([write_rows(rows())], documents=documents, replace=True)
    edge.verify(BuildRef("things", mended.build))


@pytest.mark.parametrize("said", ["garbage\n", ""])
def test_a_live_build_that_is_gone_is_said_by_ask_and_doctor(tmp_path, edge, two_builds, encoder, said):
    (tmp_path / "data" / "things" / "live").write_text(said)
    with pytest.raises(DamagedBuildError, match="it is live, and it is not in") as damaged:
        Engine(edge, encoder, tmp_path / "models", "things").ask(ASK)
    assert [found.text for found in problems()] == [damaged.value.message]
    for ref in two_builds:
        shutil.rmtree(tmp_path / "data" / "things" / ref.build)
    assert [found.text for found in problems()] == [damaged.value.message]


@pytest.mark.parametrize("damage", [truncate, flip_a_byte])
def test_a_damaged_build_is_not_activated(tmp_path, edge, two_builds, damage):
    first, live = two_builds
    path = a_vector_file(tmp_path / "data" / "things" / first.build)
    damage(path)
    with pytest.raises(DamagedBuildError, match=f"build {first} is damaged: .*{path.name}"):
        activate(edge, tmp_path / "models", first)
    assert edge.live("things") == live


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


def test_a_disk_that_cannot_be_written_refuses_every_change_and_holds_what_it_held(
    tmp_path, edge, two_builds, encoder, make_ingest, write_rows, rows, unwritable
):
    first, live = two_builds
    path, models, there = write_rows(rows(["wine"])), tmp_path / "models", files(tmp_path)
    unwritable()
    for change in (
        lambda: edge.set_live(first),
        lambda: activate(edge, models, first),
        lambda: make_ingest(edge, encoder).run([path]),
        lambda: prune(edge, models, "things", keep=0),
    ):
        with pytest.raises(StoreWriteError, match="cannot be written"):
            change()
    assert edge.live("things") == live
    assert files(tmp_path) == there


def test_a_disk_that_cannot_be_written_and_holds_nothing_is_said(
    edge, encoder, make_ingest, write_rows, rows, unwritable
):
    path = write_rows(rows())
    unwritable()
    with pytest.raises(StoreWriteError, match="cannot be written"):
        make_ingest(edge, encoder).run([path])
    assert edge.live_builds() == {}


def test_doctor_says_what_graphs_find(encoder, make_ingest, write_rows, rows, tmp_path, monkeypatch):
    with EdgeStore(tmp_path / "data", hnsw_pairs=1) as store:
        build = make_ingest(store, encoder).run([write_rows(rows())]).build
    said = [found for found in examine(get_settings()) if "HNSW" in found.text]
    assert [(one.state, one.text.partition(",")[0]) for one in said] == [
        ("ok", f"things@{build}: a search by HNSW graphs finds 100.0% of the 32 nearest questions")
    ]
    monkeypatch.setattr(doctor, "recall", lambda _: 0.5)
    (low,) = [found for found in examine(get_settings()) if "HNSW" in found.text]
    assert low.state == "warning"
    assert "QASERVE_HNSW_PAIRS" in low.hint
