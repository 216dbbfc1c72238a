import json

import numpy as np
import pytest
from conftest import Silent
from qaserve.store.qdrant import memory_store, open_store
from typer.testing import CliRunner

from ingest.pipeline import Ingest
from qaserve.builds.catalog import list_builds
from qaserve.builds.copy import move
from qaserve.cli import load_all
from qaserve.common.errors import NotFoundError, StoreError, StoreUnreachableError
from qaserve.schemas.ask import AskRequest
from qaserve.search.engine import Engine
from qaserve.settings import StoreSettings, get_settings
from qaserve.store.points import PairVectors


@pytest.fixture
def two_builds(edge, encoder, make_ingest, write_rows, rows):
    """A store with an older build and a live one, and their ids."""
    first = make_ingest(edge, encoder).run([write_rows(rows(["bread", "wine"]))]).build
    second = make_ingest(edge, encoder).run([write_rows(rows())]).build
    return edge, first, second


def content(store, build):
    return [
        (row.stored, np.round(row.question, 5).tolist(), np.round(row.answer, 5).tolist())
        for row in store.scroll("things", build)
    ]


def test_the_live_build_is_copied_compared_and_live(two_builds, store, encoder, tmp_path):
    source, _, live = two_builds
    report = move(source, store, "things", Silent())
    assert [(build.build, build.pairs, build.copied) for build in report.builds] == [(live, 24, 24)]
    assert report.live == store.live("things") == live
    assert store.info("things", live) == source.info("things", live)
    assert content(store, live) == content(source, live)
    assert all(build.complete for build in list_builds(store, tmp_path / "models", "things"))
    before, after = (
        Engine(place, encoder, tmp_path / "models", "things").ask(AskRequest(question="How do I make bread?"))
        for place in (source, store)
    )
    assert [answer.id for answer in before.answers] == [answer.id for answer in after.answers]


def test_all_builds_go_there_and_come_back(two_builds, store):
    source, first, live = two_builds
    there = move(source, store, "things", Silent(), everything=True)
    assert [build.build for build in there.builds] == [first, live]
    with memory_store() as again:
        back = move(store, again, "things", Silent(), everything=True)
        assert [build.build for build in back.builds] == [first, live]
        assert again.live("things") == live
        assert content(again, first) == content(source, first)


def test_moving_again_copies_nothing(two_builds, store):
    source, _, live = two_builds
    first = move(source, store, "things", Silent())
    again = move(source, store, "things", Silent())
    assert [(build.copied, build.fingerprint) for build in again.builds] == [(0, first.builds[0].fingerprint)]
    assert store.live("things") == live


def test_the_fingerprint_does_not_depend_on_how_often_vectors_were_normalised(two_builds, tmp_path):
    """Embedded Qdrant keeps what it was given on disk, and the normalised vector in edge."""
    source, _, _ = two_builds
    folder = StoreSettings(data_dir=tmp_path / "other")
    with open_store(folder) as target:
        written = move(source, target, "things", Silent()).builds[0].fingerprint
    with open_store(folder) as target:
        assert move(source, target, "things", Silent()).builds[0].fingerprint == written


def test_an_interrupted_move_goes_on_where_it_was(two_builds, rest, monkeypatch):
    source, _, live = two_builds
    monkeypatch.setattr("qaserve.store.qdrant.PAGE", 5)
    monkeypatch.setattr("qaserve.builds.copy.PAGE", 5)
    with open_store(StoreSettings(qdrant_url=rest.url, qdrant_attempts=1)) as target:
        left = [2]

        def gone_after_two_pages(method, path):
            if (method, path.rpartition("/")[2]) == ("PUT", "points"):
                left[0] -= 1
            return "drop" if left[0] < 0 else None

        rest.fault = gone_after_two_pages
        with pytest.raises(StoreUnreachableError, match="does not answer"):
            move(source, target, "things", Silent())
        rest.fault = lambda *_: None
        assert target.live_builds() == {}
        assert target.open(live).count() == 10
        report = move(source, target, "things", Silent())
    assert [(build.pairs, build.copied) for build in report.builds] == [(24, 14)]
    assert report.live == live


@pytest.mark.parametrize("what", ["vector", "payload", "extra", "missing"])
def test_a_copy_that_is_not_equal_never_goes_live(two_builds, store, what, monkeypatch):
    source, first, live = two_builds
    move(source, store, "things", Silent(), everything=True)
    store.activate("things", first)
    row = next(iter(store.scroll("things", live)))
    if what == "vector":
        row = row._replace(answer=np.roll(row.answer, 1))
    elif what == "payload":
        pair = row.stored.pair.model_copy(update={"answer": "altered"})
        row = row._replace(stored=row.stored.model_copy(update={"pair": pair}))
    elif what == "extra":
        identifier = "00000000-0000-5000-8000-000000000001"
        row = PairVectors(row.stored.model_copy(update={"id": identifier}), row.question, row.answer)
    if what == "missing":
        monkeypatch.setattr(store, "write", lambda *_: [])
        store._client.delete(f"things@{live}", points_selector=[row.stored.id])
    else:
        list(store.write("things", live, [row]))
    with pytest.raises(StoreError, match=f"the copy of build {live} in .* is not its original"):
        move(source, store, "things", Silent())
    assert store.live("things") == first
    assert [found.build for found in store.builds("things")] == [first]


def test_a_corpus_without_a_build_is_named(edge, store):
    with pytest.raises(NotFoundError, match="corpus 'things' has no live build in :memory:"):
        move(edge, store, "things", Silent())


def test_the_command_copies_to_a_server_and_back(tmp_path, monkeypatch, rest, encoder, make_builder, write_rows, rows):
    from qaserve.settings import ReadSettings

    with open_store(StoreSettings(data_dir=tmp_path / "data")) as folder:
        build = Ingest(make_builder(folder, encoder), encoder, ReadSettings()).run([write_rows(rows())]).build
    runner = CliRunner()
    done = runner.invoke(load_all(), ["move", "--to", rest.url, "--json"], catch_exceptions=False)
    report = json.loads(done.stdout)
    assert (report["live"], report["target"], report["builds"][0]["copied"]) == (build, rest.url, 24)
    monkeypatch.setenv("QASERVE_DATA_DIR", str(tmp_path / "elsewhere"))
    get_settings.cache_clear()
    done = runner.invoke(load_all(), ["move", "--from", rest.url], catch_exceptions=False)
    assert f"Build {build}: 24 pairs, 24 copied; the copy is equal." in done.stdout
    with open_store(StoreSettings(data_dir=tmp_path / "elsewhere")) as folder:
        assert folder.live("things") == build


@pytest.mark.parametrize("arguments", [[], ["--to", "http://127.0.0.1:1", "--from", "http://127.0.0.1:1"]])
def test_the_command_wants_one_direction(arguments):
    from qaserve.common.errors import UsageError

    with pytest.raises(UsageError, match="one of --to and --from"):
        CliRunner().invoke(load_all(), ["move", *arguments], catch_exceptions=False)


def test_a_key_goes_to_its_own_address_only(monkeypatch):
    from qaserve.cli.move import _settings_of

    own = StoreSettings(qdrant_url="http://qdrant:6333", qdrant_api_key="secret")
    assert _settings_of(own, "http://qdrant:6333/").qdrant_api_key is not None
    assert _settings_of(own, "http://other:6333").qdrant_api_key is None
    assert _settings_of(own, None).qdrant_url is None
