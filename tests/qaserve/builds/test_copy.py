"""Builds are copied between stores, whole or not at all; the originals stay."""

import json

import pytest
from conftest import Silent
from store_builds import stored
from typer.testing import CliRunner

from qaserve.builds import copy as copying
from qaserve.builds.catalog import list_builds
from qaserve.builds.copy import copy
from qaserve.cli import load_all
from qaserve.common.errors import NotFoundError, StoreError, StoreUnreachableError, UsageError
from qaserve.schemas.ask import AskRequest
from qaserve.search.engine import Engine
from qaserve.settings import StoreSettings, get_settings
from qaserve.store import BuildRef, EdgeStore, open_store


@pytest.fixture
def two_builds(edge, encoder, make_ingest, write_rows, rows):
    """An embedded store with an older build and a live one, and their names."""
    first = make_ingest(edge, encoder).run([write_rows(rows(["bread", "wine"]))]).build
    second = make_ingest(edge, encoder).run([write_rows(rows())]).build
    return edge, BuildRef("things", first), BuildRef("things", second)


@pytest.fixture(params=["edge", "memory_server"])
def target(request, tmp_path):
    """Another place."""
    return EdgeStore(tmp_path / "other") if request.param == "edge" else request.getfixturevalue("memory_server")


def content(store, ref):
    return [(row.stored, row.question.tobytes(), row.answer.tobytes(), row.topic is None) for row in stored(store, ref)]


def test_the_live_build_is_copied_compared_and_live(two_builds, target, encoder, tmp_path):
    source, _, live = two_builds
    report = copy(source, target, "things", Silent())
    assert [(build.build, build.pairs, build.copied) for build in report.builds] == [(live.build, 24, 24)]
    assert target.live("things") == live
    assert report.live == live.build
    assert target.metadata(live) == source.metadata(live)
    assert content(target, live) == content(source, live)
    assert all(build.complete for build in list_builds(target, tmp_path / "models", "things"))
    before, after = (
        Engine(place, encoder, tmp_path / "models", "things").ask(AskRequest(question="How do I make bread?"))
        for place in (source, target)
    )
    assert [answer.id for answer in before.answers] == [answer.id for answer in after.answers]
    assert [answer.score for answer in before.answers] == pytest.approx([answer.score for answer in after.answers])


def test_all_builds_go_there_and_come_back(two_builds, target, tmp_path):
    source, first, live = two_builds
    there = copy(source, target, "things", Silent(), everything=True)
    assert [build.build for build in there.builds] == [first.build, live.build]
    again = EdgeStore(tmp_path / "again")
    back = copy(target, again, "things", Silent(), everything=True)
    assert [build.content_hash for build in back.builds] == [build.content_hash for build in there.builds]
    assert again.live("things") == live
    assert content(again, first) == content(source, first)


def test_copying_again_copies_nothing(two_builds, target):
    source, _, live = two_builds
    first = copy(source, target, "things", Silent())
    again = copy(source, target, "things", Silent())
    assert [(build.copied, build.content_hash) for build in again.builds] == [(0, first.builds[0].content_hash)]
    assert target.live("things") == live


def test_an_interrupted_copy_to_a_server_goes_on_where_it_was(two_builds, rest, monkeypatch):
    source, _, live = two_builds
    monkeypatch.setattr("qaserve.store.server.PAGE", 5)
    with open_store(StoreSettings(qdrant_url=rest.url, qdrant_attempts=1)) as target:
        left = [2]

        def gone_after_two_pages(method, path):
            if (method, path.rpartition("/")[2]) == ("PUT", "points"):
                left[0] -= 1
            return "drop" if left[0] < 0 else None

        rest.fault = gone_after_two_pages
        with pytest.raises(StoreUnreachableError, match="does not answer"):
            copy(source, target, "things", Silent())
        rest.fault = lambda *_: None
        assert target.live_builds() == {}
        assert target.unfinished("things") == [live.build]
        report = copy(source, target, "things", Silent())
    assert [(build.pairs, build.copied) for build in report.builds] == [(24, 14)]
    assert report.live == live.build


def test_an_interrupted_copy_to_a_folder_goes_on_where_it_was(two_builds, tmp_path, monkeypatch):
    source, _, live = two_builds
    target = EdgeStore(tmp_path / "other")
    monkeypatch.setattr("qaserve.store.edge_build.PAGE", 5)
    monkeypatch.setattr("qaserve.store.edge_writer.PAGE", 5)
    rest = copying._rest

    def interrupted(original, last, advance):
        for number, point in enumerate(rest(original, last, advance)):
            if number == 10:
                raise KeyboardInterrupt
            yield point

    with monkeypatch.context() as patch:
        patch.setattr(copying, "_rest", interrupted)
        with pytest.raises(KeyboardInterrupt):
            copy(source, target, "things", Silent())
    assert target.live_builds() == {}
    assert target.unfinished("things") == [live.build]
    report = copy(source, target, "things", Silent())
    assert [(build.pairs, build.copied) for build in report.builds] == [(24, 14)]
    assert content(target, live) == content(source, live)


def test_a_copy_that_is_not_equal_never_goes_live(two_builds, target, monkeypatch):
    source, first, live = two_builds
    copy(source, target, "things", Silent(), everything=True)
    target.set_live(first)
    target.delete(live)
    rest = copying._rest

    def altered(original, last, advance):
        for number, point in enumerate(rest(original, last, advance)):
            yield point if number else point._replace(payload=point.payload | {"answer": "altered"})

    with monkeypatch.context() as patch:
        patch.setattr(copying, "_rest", altered)
        with pytest.raises(StoreError, match=f"the copy of build {live} in .* has content hash .* was sealed with"):
            copy(source, target, "things", Silent())
    assert target.live("things") == first
    assert target.names("things") == [first.build]
    assert copy(source, target, "things", Silent()).live == live.build


def test_a_copy_that_was_damaged_is_noticed(two_builds, memory_server):
    source, _, live = two_builds
    copy(source, memory_server, "things", Silent())
    lost = next(iter(memory_server.open(live).scroll())).id
    memory_server._client.set_payload(str(live), {"answer": "altered"}, points=[lost])
    with pytest.raises(StoreError, match="is damaged"):
        copy(source, memory_server, "things", Silent())


@pytest.mark.parametrize("altered", [False, True])
def test_a_live_copy_that_is_damaged_is_written_again_and_not_sealed_as_it_is(two_builds, memory_server, altered):
    source, _, live = two_builds
    copy(source, memory_server, "things", Silent())
    client, ids = memory_server._client, [point.id for point in source.open(live).scroll()]
    client.delete(str(live), points_selector=[ids[-1] if altered else ids[5]])
    if altered:
        client.set_payload(str(live), {"answer": "altered"}, points=[ids[2]])
    with pytest.raises(StoreError, match="is damaged"):
        memory_server.open(live)
    assert copy(source, memory_server, "things", Silent()).builds[0].copied == len(ids)
    assert memory_server.verify(live).content_hash == source.open(live).seal.content_hash
    assert content(memory_server, live) == content(source, live)


def test_a_live_copy_is_not_sealed_where_what_was_written_differs(two_builds, memory_server, monkeypatch):
    source, _, live = two_builds
    copy(source, memory_server, "things", Silent())
    lost = next(iter(source.open(live).scroll()))
    memory_server._client.delete(str(live), points_selector=[lost.id])
    altered = lost._replace(payload=lost.payload | {"answer": "altered"})
    rest = copying._rest
    monkeypatch.setattr(
        copying, "_rest", lambda *given: (altered if one.id == lost.id else one for one in rest(*given))
    )
    with pytest.raises(StoreError, match="has content hash"):
        copy(source, memory_server, "things", Silent())
    with pytest.raises(StoreError, match=r"does not hold what was written|is damaged"):
        memory_server.verify(live)


def test_a_corpus_without_a_build_is_named(edge, target):
    with pytest.raises(NotFoundError, match="corpus 'things' has no live build in "):
        copy(edge, target, "things", Silent())


def test_the_command_copies_to_a_server_and_back(two_builds, tmp_path, monkeypatch, rest):
    _, _, live = two_builds
    runner = CliRunner()
    done = runner.invoke(load_all(), ["copy", "--to", rest.url, "--json"], catch_exceptions=False)
    report = json.loads(done.stdout)
    assert (report["live"], report["target"], report["builds"][0]["copied"]) == (live.build, rest.url, 24)
    monkeypatch.setenv("QASERVE_DATA_DIR", str(tmp_path / "elsewhere"))
    get_settings.cache_clear()
    done = runner.invoke(load_all(), ["copy", "--from", rest.url], catch_exceptions=False)
    assert f"Build {live.build}: 24 pairs, 24 copied; the copy is equal." in done.stdout
    assert EdgeStore(tmp_path / "elsewhere").live("things") == live


@pytest.mark.parametrize("arguments", [[], ["--to", "http://127.0.0.1:1", "--from", "http://127.0.0.1:1"]])
def test_the_command_wants_one_direction(arguments):
    with pytest.raises(UsageError, match="one of --to and --from"):
        CliRunner().invoke(load_all(), ["copy", *arguments], catch_exceptions=False)


def test_a_key_goes_to_its_own_address_only():
    from qaserve.cli.copy import _settings_of

    own = StoreSettings(qdrant_url="http://qdrant:6333", qdrant_api_key="secret")
    assert _settings_of(own, "http://qdrant:6333/").qdrant_api_key is not None
    assert _settings_of(own, "http://other:6333").qdrant_api_key is None
    assert _settings_of(own, None).qdrant_url is None
