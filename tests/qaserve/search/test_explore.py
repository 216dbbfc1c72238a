"""The live build from above: map, quality, facets, and an ask on the map."""

import numpy as np
import pytest

from qaserve.common.errors import NotFoundError
from qaserve.core.landscape import layout, place
from qaserve.schemas.ask import AskRequest
from qaserve.search.explore import Explorer
from qaserve.store.base import unit
from qaserve.store.points import ANSWER


def search(engine, request):
    query = engine.prepare(request)
    return engine.search(query, engine.encoder.encode_questions([query.question])[0], 0.0)


@pytest.fixture
def explorer(engine):
    return Explorer(engine)


def test_the_map_holds_every_cluster_and_answer_and_stays_the_same(explorer, engine):
    found = explorer.map()
    assert [(one.cluster, one.name, one.size) for one in found.clusters] == [
        (one.cluster, one.name, one.size) for one in engine.load().clusters
    ]
    assert len(found.answers) == found.total == 24
    assert all(abs(one.x) <= 1 and abs(one.y) <= 1 for one in (*found.clusters, *found.answers))
    stored = {pair.id: pair for number in range(len(found.clusters)) for pair in engine.cluster(number).pairs}
    for one in found.answers:
        pair = stored[one.id].pair
        assert (one.question, one.cluster) == (pair.question, stored[one.id].cluster)
        assert one.topic == next(iter(pair.topics), "")
        assert one.skill == next(iter(pair.related_skills), "").removesuffix(".md")
    assert any(one.topic for one in found.answers)
    own = {one.id: one.own for number in range(len(found.clusters)) for one in explorer.cluster(number).border}
    assert {one.id: one.own for one in found.answers if one.id in own} == pytest.approx(own)
    assert len(set(own.values())) > 3
    assert explorer.map() is found
    assert Explorer(engine).map() == found


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 40])
def test_any_number_of_clusters_can_be_laid_out(rng, count):
    means = rng.normal(size=(count, 8))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    positions = layout(means)
    assert positions.shape == (count, 2)
    assert np.isfinite(positions).all()
    placed = place(means, means, positions)
    assert placed.shape == (count, 2)
    assert np.isfinite(placed).all()
    if count > 1:
        assert len(np.unique(positions.round(6), axis=0)) == count


def test_a_vector_stands_nearest_to_the_cluster_that_it_equals(rng):
    means = np.eye(7)
    positions = layout(means)
    placed = place(means * 3, means, positions)
    nearest = np.linalg.norm(placed[:, None] - positions[None], axis=2).argmin(axis=1)
    assert nearest.tolist() == list(range(7))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"routing": "question2"},
        {"routing": "centroid"},
        {"projection": "pair"},
        {"projection": "pair", "routing": "question2"},
        {"projection": "none"},
    ],
)
def test_the_turned_question_is_the_one_that_found_the_answers(explorer, engine, options, monkeypatch):
    seen = []
    points = engine.load().points
    real = points.search
    monkeypatch.setattr(points, "search", lambda searches: seen.extend(searches) or real(searches))
    query = engine.prepare(AskRequest(question="how to make bread", **options))
    vector = engine.encoder.encode_questions([query.question])[0]
    outcome = engine.search(query, vector, 0.0)
    placed = explorer.place(outcome)
    assert placed.result.answers
    assert len(placed.hits) == len(placed.result.explained.hits)
    assert len(placed.answers) == len(placed.result.answers)
    plain, ranked, *_ = [search.query for search in seen if search.using == ANSWER]
    assert np.allclose(unit(outcome.found.vector), plain, atol=1e-6)
    assert np.allclose(unit(outcome.found.projected.searched[0]), ranked, atol=1e-6)
    assert (placed.question == placed.turned) == (options.get("projection") == "none")


@pytest.mark.parametrize(
    "options", [{}, {"routing": "centroid"}, {"projection": "pair"}, {"projection": "none"}, {"explain": False}]
)
def test_the_w_of_each_voted_cluster_alone_takes_the_question_to_a_place_of_its_own(explorer, engine, options):
    query = engine.prepare(AskRequest(question="how to make bread", **options))
    vector = engine.encoder.encode_questions([query.question])[0].astype(np.float64)
    placed = explorer.place(engine.search(query, vector, 0.0))
    if options.keys() & {"projection", "explain"}:
        assert placed.turned_by == ()
        return
    votes = placed.result.explained.clusters
    assert [one.cluster for one in placed.turned_by] == [one.cluster for one in votes]
    model = query.build.bundle.model
    for one in placed.turned_by:
        basis, core = (np.array(part, dtype=np.float64) for part in model.bank[one.cluster])
        dense = np.eye(len(vector)) + basis @ core @ basis.T
        spot = place((vector @ dense)[None], model.mean_answers, layout(model.mean_answers))[0]
        assert (one.x, one.y) == pytest.approx(tuple(spot), abs=1e-5)
    assert len({(one.x, one.y) for one in placed.turned_by}) == len(votes)


def test_quality_says_how_well_questions_find_home(explorer, engine):
    found = explorer.quality()
    assert (found.pairs, found.looked_at) == (24, 24)
    assert [one.size for one in found.clusters] == [one.size for one in engine.load().clusters]
    weighed = sum(one.found * one.size for one in found.clusters) / 24
    assert found.found == pytest.approx(weighed)
    for one in found.clusters:
        assert 0 <= one.spread <= 1
        assert one.after > one.before, "W brings its own questions nearer to their answers"
        assert 0 < one.turn < 180


def test_a_pair_that_asks_like_another_cluster_is_found(edge, encoder, make_ingest, write_rows, rows, tmp_path):
    from qaserve.search.engine import Engine

    stray = {
        "question": "How do I make wine?",
        "answer": "Take material for steel, heat it, form steel.",
        "pair_id": "x",
    }
    make_ingest(edge, encoder).run([write_rows([*rows(), stray])])
    explorer = Explorer(Engine(edge, encoder, tmp_path / "models", "things"))
    views = [explorer.cluster(number) for number in range(len(explorer.quality().clusters))]
    strays = [one for view in views for one in view.elsewhere if one.pair_id == "x"]
    assert len(strays) == 1
    assert strays[0].rival_weight > strays[0].own
    for view in views:
        assert len(view.border) <= view.quality.size
        assert sorted((one.entropy for one in view.border), reverse=True) == [one.entropy for one in view.border]
        assert view.quality.cluster not in {one.cluster for one in view.neighbours}


def overlapping(rows):
    """`rows` with two intents more: one asks as one of theirs does, one answers so; and one of both."""
    return [
        *rows(),
        {"pair_id": "x", "cluster_id": "asks", "question": "How do I make wine?", "answer": "Stamp the grapes."},
        {"pair_id": "y", "cluster_id": "answers", "question": "Whatever?", "answer": rows()[0]["answer"]},
        {
            "pair_id": "z",
            "cluster_id": "both",
            "question": "How do I make steel?",
            "answer": rows(["steel"])[0]["answer"],
        },
    ]


def test_intents_that_ask_or_answer_alike_are_found(edge, encoder, make_ingest, write_rows, rows, tmp_path):
    from qaserve.search.engine import Engine

    make_ingest(edge, encoder).run([write_rows(overlapping(rows))])
    explorer = Explorer(Engine(edge, encoder, tmp_path / "models", "things"))
    found = explorer.overlaps(0.999, 10)
    assert (found.pairs, found.looked_at, found.intents, found.found) == (27, 27, 9, 3)
    by_merge = {one.merge: one for one in found.overlaps}
    assert {name: one.keep for name, one in by_merge.items()} == {
        "asks": "make_wine",
        "answers": "make_bread",
        "both": "make_steel",
    }
    asks, answers, both = (by_merge[name] for name in ("asks", "answers", "both"))
    assert (asks.keep_pairs, asks.merge_pairs) == (4, 1)
    assert asks.question == pytest.approx(1, abs=1e-5)
    assert asks.answer < 0.999
    assert asks.reason.startswith("The same question has two answers")
    assert asks.reason.endswith("it has 4 pairs, not 1.")
    assert (asks.keep_text, asks.merge_text) == ("How do I make wine?", "How do I make wine?")
    assert answers.reason.startswith("The same answer is given to both")
    assert answers.keep_text == answers.merge_text == rows()[0]["answer"]
    assert both.reason.startswith("Questions and answers nearly coincide")
    few = explorer.overlaps(0.999, 1)
    assert (few.found, few.overlaps) == (3, found.overlaps[:1])


@pytest.mark.parametrize("number", [-1, 1000])
def test_a_cluster_that_is_not_there_is_said(explorer, number):
    with pytest.raises(NotFoundError, match=f"no cluster {number}"):
        explorer.cluster(number)


def test_another_build_is_another_view(edge, encoder, make_ingest, write_rows, rows, engine, explorer):
    before = explorer.map()
    make_ingest(edge, encoder).run([write_rows(rows(["soap", "rope", "ink"]), "more.jsonl")])
    assert explorer.map().build != before.build
    assert explorer.map().total == 36
    assert explorer.quality().build == explorer.facets().build == explorer.map().build


def test_facets_count_pairs(explorer):
    found = explorer.facets()
    assert {one.value: one.count for one in found.topics}["bread"] == 4
    assert found.topics[0].value == "making"
    assert found.topics[0].count == 24
    assert sum(one.count for one in found.cluster) == 24


def test_a_build_of_one_pair_can_be_looked_at(edge, encoder, make_ingest, write_rows, tmp_path):
    from qaserve.search.engine import Engine

    make_ingest(edge, encoder).run([write_rows([{"question": "Why one?", "answer": "Because."}])])
    engine = Engine(edge, encoder, tmp_path / "models", "things")
    explorer = Explorer(engine)
    assert explorer.map().total == 1
    assert explorer.quality().clusters[0].size == 1
    assert explorer.cluster(0).neighbours == ()
    assert explorer.place(search(engine, AskRequest(question="Why?"))).answers


def test_a_question_is_placed_on_the_map_of_the_build_that_answered(
    explorer, engine, edge, encoder, make_ingest, write_rows, rows
):
    outcome = search(engine, AskRequest(question="How do I make steel?"))
    before = explorer.place(outcome)
    make_ingest(edge, encoder).run([write_rows(rows(["wine"])[:1], "other.jsonl")], replace=True)
    assert len(engine.load().clusters) == 1
    assert explorer.place(outcome) == before
    assert explorer.map().build == engine.load().ref.build


def test_in_a_lone_cluster_no_pair_is_between_two(edge, encoder, make_ingest, write_rows, rows, engine, explorer):
    make_ingest(edge, encoder).run([write_rows(rows(["wine"])[:1], "other.jsonl")], replace=True)
    assert explorer.cluster(0).border == ()
