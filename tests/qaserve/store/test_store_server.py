"""What only happens over HTTP: requests that fail, are dropped, come late, or are done though the answer is lost."""

import time
from contextlib import nullcontext

import numpy as np
import pytest
from qdrant_rest import QdrantRest

from qaserve.builds.catalog import activate, list_builds, prune
from qaserve.common.errors import BuildNotFoundError, StoreError, StoreUnreachableError
from qaserve.schemas.ask import AskRequest
from qaserve.schemas.builds import EncoderIdentity
from qaserve.schemas.pairs import Pair, StoredPair
from qaserve.settings import StoreSettings
from qaserve.store.points import PairVectors, wire_bytes
from qaserve.store.qdrant import CollectionInfo, open_store

D = 8
BUILD = "aaaaaaaaaaaa"


def info(build=BUILD, pairs=6):
    return CollectionInfo(
        corpus="things",
        build=build,
        encoder=EncoderIdentity(id="fake", revision="1", dimension=D),
        pairs=pairs,
        clusters=1,
        bundle_hash="0" * 64,
        sources=("a.jsonl",),
        created="2026-01-01T00:00:00+00:00",
    )


def points(count=6, answer="answer"):
    for number in range(count):
        pair = Pair(pair_id=f"p{number}", cluster_id="c", question=f"q {number}", answer=answer, source_file="a.jsonl")
        vector = np.eye(D, dtype=np.float32)[number % D]
        yield PairVectors(
            StoredPair(id=f"00000000-0000-5000-8000-{number:012d}", pair=pair, cluster=0, prior=1.0), vector, vector
        )


@pytest.fixture
def connect(rest):
    made = []

    def connect(**settings):
        made.append(open_store(StoreSettings(**{"qdrant_url": rest.url, **settings}), "test"))
        return made[-1]

    yield connect
    for store in made:
        store.close()


@pytest.fixture
def filled(connect):
    store = connect(qdrant_budget=5)
    store.create(info())
    list(store.write("things", BUILD, points()))
    store.activate("things", BUILD)
    return store


def failing(times, kind, wanted):
    """A fault that comes so many times to requests whose path ends so."""
    left = [times]

    def fault(_, path):
        if not path.endswith(wanted) or not left[0]:
            return None
        left[0] -= 1
        return kind

    return fault


def failing_from(number, kind):
    """A fault at the request of this number, from 0: `gone` holds for all that come after, `late` for it alone."""
    count = [-1]

    def fault(*_):
        count[0] += 1
        if kind == "gone":
            return "drop" if count[0] >= number else None
        return "late" if count[0] == number else None

    return fault


@pytest.mark.parametrize("kind", ["503", "500", "429", "drop"])
@pytest.mark.parametrize("path", ["/points/query", "/points/scroll", "/points/count", "/points", "/aliases"])
def test_a_read_that_fails_for_a_moment_is_tried_again(rest, filled, kind, path):
    reads = {
        "/points/query": lambda: filled.nearest_answers("things", BUILD, np.eye(D)[0], 1)[0].id,
        "/points/scroll": lambda: next(iter(filled.scroll("things", BUILD))).stored.pair.pair_id,
        "/points/count": lambda: filled.count("things", BUILD),
        "/points": lambda: next(iter(filled.retrieve("things", BUILD, [next(points()).stored.id]))),
        "/aliases": lambda: filled.live("things"),
    }
    before = reads[path]()
    rest.fault = failing(2, kind, path)
    assert reads[path]() == before


def test_a_read_is_given_up_after_the_attempts_of_the_settings(rest, connect):
    store = connect(qdrant_attempts=3)
    rest.requests.clear()
    rest.fault = lambda *_: "503"
    with pytest.raises(StoreError, match=r"answered HTTP 503: .*told to fail"):
        store.live_builds()
    assert rest.requests == [("GET", "/aliases")] * 3


def test_a_server_that_stalls_is_given_up_within_the_budget(rest, connect):
    store = connect(qdrant_timeout=10, qdrant_budget=0.4)
    rest.fault = lambda *_: "5.0"
    started = time.monotonic()
    with pytest.raises(StoreUnreachableError, match="does not answer"):
        store.live_builds()
    assert time.monotonic() - started < 5  # one attempt alone would have been let wait for 10


def test_an_upsert_is_tried_again_and_does_nothing_twice(rest, connect):
    store = connect()
    store.create(info())
    rest.fault = failing(1, "late", "/points")
    assert sum(store.write("things", BUILD, points())) == 6
    assert store.count("things", BUILD) == 6
    assert [request for request in rest.requests if request[0] == "PUT" and request[1].endswith("/points")] == [
        ("PUT", f"/collections/things@{BUILD}/points")
    ] * 2


@pytest.mark.parametrize(("method", "path"), [("PUT", f"things@{BUILD}"), ("DELETE", f"things@{BUILD}")])
def test_what_may_not_come_twice_is_sent_once(rest, connect, method, path):
    store = connect()
    if method == "DELETE":
        store.create(info())
    rest.requests.clear()
    rest.fault = lambda asked, _: "503" if asked == method else None
    with pytest.raises(StoreError, match="HTTP 503"):
        store.create(info()) if method == "PUT" else store.delete("things", BUILD)
    assert len([request for request in rest.requests if request[0] == method]) == 1


def test_a_swap_whose_answer_is_lost_is_looked_up(rest, filled):
    filled.create(info("bbbbbbbbbbbb"))
    rest.fault = failing(1, "late", "/collections/aliases")
    filled.activate("things", "bbbbbbbbbbbb")
    assert filled.live("things") == "bbbbbbbbbbbb"
    rest.fault = failing(1, "drop", "/collections/aliases")
    with pytest.raises(StoreUnreachableError, match="does not answer"):
        filled.activate("things", BUILD)
    assert filled.live("things") == "bbbbbbbbbbbb"


def test_a_server_that_comes_back_is_used_again_without_a_restart(rest, filled):
    rest.stop()
    for _ in range(2):
        with pytest.raises(StoreUnreachableError, match=f"Qdrant at {rest.url} does not answer"):
            filled.live("things")
    rest.start()
    assert filled.live("things") == BUILD
    assert filled.nearest_answers("things", BUILD, np.eye(D)[1], 1)[0].id.endswith("1")


def test_a_server_that_is_too_old_is_refused_with_both_versions():
    front = QdrantRest(version="1.15.4")
    with pytest.raises(StoreError, match=r"is version 1\.15\.4; qaserve needs 1\.16 or later"):
        open_store(StoreSettings(qdrant_url=front.url), "test")
    front.stop()
    front.client.close()


def test_vectors_of_another_size_are_named_with_both(rest, connect):
    from qdrant_client import models

    other = models.VectorParams(size=5, distance="Cosine")
    rest.client.create_collection(
        f"things@{BUILD}",
        vectors_config={"question": other, "answer": other},
        metadata={"qaserve": info().model_dump(mode="json")},
    )
    with pytest.raises(
        StoreError, match=r"holds question vectors of D 5; its encoder fake \(D 8, revision 1, torch float32\)"
    ):
        connect().info("things", BUILD)


def test_the_layout_of_the_settings_is_what_the_server_is_asked_for(rest, connect):
    connect().create(info())
    plain = rest.created[-1]
    assert plain.get("shard_number") is plain.get("quantization_config") is plain.get("on_disk_payload") is None
    connect(
        qdrant_shards=3, qdrant_replicas=2, qdrant_write_consistency=2, qdrant_on_disk=True, qdrant_quantized=True
    ).create(info("bbbbbbbbbbbb"))
    asked = rest.created[-1]
    assert (asked["shard_number"], asked["replication_factor"], asked["write_consistency_factor"]) == (3, 2, 2)
    assert asked["on_disk_payload"] is True
    assert {vector["on_disk"] for vector in asked["vectors"].values()} == {True}
    assert asked["quantization_config"]["scalar"]["type"] == "int8"


def test_a_build_goes_live_once_it_is_indexed(rest, filled):
    filled.create(info("bbbbbbbbbbbb"))
    rest.requests.clear()
    rest.statuses = ["yellow", "grey", "yellow"]
    filled.activate("things", "bbbbbbbbbbbb")
    looks = [method for method, path in rest.requests if path.endswith("things@bbbbbbbbbbbb")]
    assert looks == ["GET", "GET", "PATCH", "GET", "GET"]  # grey: the server waits for a change before it goes on
    assert filled.live("things") == "bbbbbbbbbbbb"


@pytest.mark.parametrize(
    ("status", "message"), [("yellow", "is still yellow after 0.2 seconds of indexing"), ("red", "is red: it failed")]
)
def test_a_build_that_is_not_indexed_stays_behind(rest, filled, connect, status, message):
    impatient = connect(qdrant_green=0.2)
    filled.create(info("bbbbbbbbbbbb"))
    rest.statuses = [status] * 100
    with pytest.raises(StoreError, match=message):
        impatient.activate("things", "bbbbbbbbbbbb")
    rest.statuses = []
    assert filled.live("things") == BUILD


def test_requests_stay_within_what_a_server_takes(rest, connect, monkeypatch):
    monkeypatch.setattr("qaserve.store.qdrant.REQUEST_BYTES", 20_000)
    store = connect()
    store.create(info(pairs=40))
    rest.bytes_of_largest = 0
    sizes = list(store.write("things", BUILD, points(40, answer="ä" * 1_000)))
    assert sum(sizes) == 40
    assert len(sizes) > 5
    assert rest.bytes_of_largest < 21_000
    assert list(store.write("things", BUILD, points(2, answer="a" * 30_000))) == [1, 1]  # larger ones go alone


def test_the_size_of_a_point_is_not_underrated(rng):
    import json

    from qaserve.store.points import to_point

    stored = next(points(answer='"quoted" ä \n')).stored
    vectors = rng.normal(size=(2, 64)).astype(np.float32) * 1e-7
    point = to_point(stored, *vectors)
    assert wire_bytes(point) * 1.05 >= len(json.dumps(point.model_dump(mode="json"))) - 120


def test_an_engine_whose_build_is_pruned_answers_from_the_next(store, encoder, make_ingest, write_rows, rows, tmp_path):
    from qaserve.search.engine import Engine

    make_ingest(store, encoder).run([write_rows(rows(["bread", "wine"]))])
    engine = Engine(store, encoder, tmp_path / "models", "things")
    search, pruned = store.nearest_questions, []

    def swapped_meanwhile(corpus, build, *args, **kwargs):
        if not pruned:
            make_ingest(store, encoder).run([write_rows(rows(["steel"]), "steel.jsonl")], replace=True)
            pruned.extend(prune(store, tmp_path / "models", "things", keep=0))
            assert pruned == [build]
        return search(corpus, build, *args, **kwargs)

    store.nearest_questions = swapped_meanwhile
    result = engine.ask(AskRequest(question="How do I make steel?"))
    assert result.build == store.live("things") != pruned[0]
    assert result.answers[0].cluster_id == "make_steel"


def test_a_build_that_is_gone_is_named(store):
    with pytest.raises(BuildNotFoundError, match=r"a build has been deleted from .* while it was read"):
        store.nearest_answers("things", "cccccccccccc", np.eye(D)[0], 1)
    with pytest.raises(BuildNotFoundError, match="a build has been deleted"):
        list(store.scroll("things", "cccccccccccc"))


@pytest.mark.parametrize("kind", ["gone", "late"])
def test_qdrant_failing_at_any_request_of_an_ingest_leaves_a_whole_build_live(
    rest, connect, encoder, make_ingest, write_rows, rows, tmp_path, kind
):
    """Gone: nothing is answered any more. Late: one request is done, but its answer does not come in time."""
    store = connect(qdrant_attempts=1)
    make_ingest(store, encoder).run([write_rows(rows(["bread", "wine"]))])
    live, more, models = store.live("things"), write_rows(rows(["bread", "steel"]), "more.jsonl"), tmp_path / "models"
    rest.requests.clear()
    make_ingest(store, encoder).run([more])
    steps, undisturbed = len(rest.requests), store.live("things")
    for number in range(steps):
        activate(store, models, "things", live)
        prune(store, models, "things", keep=0)
        rest.fault = failing_from(number, kind)
        looked_up = kind == "late" and number == steps - 1  # the swap, which was done
        with nullcontext() if looked_up else pytest.raises(StoreUnreachableError, match="does not answer"):
            make_ingest(store, encoder).run([more])
        rest.fault = lambda *_: None
        assert store.live("things") == (undisturbed if looked_up else live)
        report = make_ingest(store, encoder).run([more])
        assert report.build == store.live("things") == undisturbed
        assert all(found.complete for found in list_builds(store, models, "things"))
    assert steps > 15
