"""The map: what is drawn, and what a selection on it is."""

import math

import pytest

from qaserve.schemas.ask import AskResult, ClusterVote, Trace
from qaserve.schemas.explore import CorpusMap, MapAnswer, MapCluster, MapMark, PlacedAsk, Spot
from ui import charts
from ui.map import selected
from ui.map_layers import (
    BANDS,
    BLUR,
    CELLS,
    FAINTEST,
    Window,
    answers_frame,
    arrows_frame,
    density,
    fitting,
    labelled,
    shades,
)


def answer(number, cluster, topic="", skill="", own=0.0):
    place = {"x": number / 10, "y": -number / 10}
    return MapAnswer(
        id=f"a{number}", question=f"q{number}", cluster=cluster, topic=topic, skill=skill, own=own, **place
    )


@pytest.fixture
def corpus():
    spots = [(0.0, 0.0, 5), (0.1, 0.01, 9), (0.9, 0.0, 1)]
    clusters = tuple(MapCluster(cluster=k, name=f"c{k}", size=size, x=x, y=y) for k, (x, y, size) in enumerate(spots))
    answers = (answer(1, 0, "bread", "skill_bake"), answer(2, 0, "bread"), answer(3, 1, "wine", "cellar"), answer(4, 2))
    return CorpusMap(build="b", clusters=clusters, answers=answers, total=4)


def test_answers_are_grouped_by_what_colours_them(corpus):
    frame = answers_frame(corpus)
    assert frame["cluster"].tolist() == ["c0", "c0", "c1", "c2"]
    assert frame["topic"].tolist() == ["bread", "bread", "wine", ""]
    assert frame["skill"].tolist() == ["bake", "", "cellar", ""]


def test_the_largest_groups_have_colours_and_no_group_has_none(corpus):
    assert shades(answers_frame(corpus)["topic"]) == {"bread": charts.PALETTE[0], "wine": charts.PALETTE[1]}


def test_answers_are_coloured_by_how_surely_questions_lead_to_their_cluster(corpus):
    owns = (0.1, 0.399, 0.4, 0.75)
    sure = tuple(one.model_copy(update={"own": own}) for one, own in zip(corpus.answers, owns, strict=True))
    groups = answers_frame(corpus.model_copy(update={"answers": sure}))["confidence"]
    high, middle, low = (band for _, band in BANDS)
    assert groups.tolist() == [low, low, middle, high]
    assert list(shades(groups).items()) == list(zip((high, middle, low), charts.PALETTE, strict=False))


def test_names_of_clusters_do_not_cover_each_other(corpus):
    whole = Window(0.0, 1.0, -0.5, 0.5)
    assert [(one.cluster, width) for one, width in labelled(corpus, whole)] == [(1, 240), (2, 400)]
    assert [one.cluster for one, _ in labelled(corpus, Window(0.0, 0.4, -0.2, 0.2))] == [1, 2, 0]
    close = [cluster.model_copy(update={"x": 0.3 * number}) for number, cluster in enumerate(corpus.clusters)]
    spread = corpus.model_copy(update={"clusters": tuple(close)})
    assert [(one.cluster, width) for one, width in labelled(spread, whole)] == [(1, 240), (0, 800), (2, 800)]


def test_the_window_of_the_whole_map_holds_every_answer(corpus):
    window = fitting(answers_frame(corpus))
    assert all(window.holds(one) for one in corpus.answers)
    assert (window.right - window.left, window.high - window.low) == pytest.approx((0.396, 0.396))
    alone = fitting(answers_frame(corpus.model_copy(update={"answers": corpus.answers[:1]})))
    assert alone.left < alone.right


def test_the_density_is_highest_where_most_answers_lie(corpus):
    spots = [(0.01, 0.01)] * 6 + [(0.9, 0.9)] * 3 + [(-0.9, 0.3)]
    answers = tuple(answer(number, 0).model_copy(update={"x": x, "y": y}) for number, (x, y) in enumerate(spots))
    frame = answers_frame(corpus.model_copy(update={"answers": answers}))
    cells = density(frame)

    def share(x, y):
        (found,) = cells[(cells["x"] <= x) & (x < cells["x2"]) & (cells["y"] <= y) & (y < cells["y2"])]["share"]
        return found

    assert [share(x, y) for x, y in ((0.01, 0.01), (0.9, 0.9), (-0.9, 0.3))] == [
        1.0,
        0.5,
        pytest.approx(1 / 6, abs=1e-3),
    ]
    across, up = (cells["x2"] - cells["x"]).iloc[0], (cells["y2"] - cells["y"]).iloc[0]
    assert share(0.01 + across, 0.01) == pytest.approx(math.exp(-0.5 / BLUR**2), abs=1e-3), "a cell further off"
    assert share(0.01, 0.01 - 2 * up) == pytest.approx(math.exp(-0.5 * 4 / BLUR**2), abs=1e-3)
    assert (cells["share"] >= FAINTEST).all()
    assert len(cells) < CELLS**2 / 10, "what is empty is not drawn"


def test_an_arrow_goes_from_the_question_to_where_the_w_of_a_cluster_takes_it():
    votes = tuple(ClusterVote.model_construct(cluster=k, weight=w) for k, w in ((4, 0.75), (9, 0.25)))
    placed = PlacedAsk.model_construct(
        result=AskResult.model_construct(trace=Trace.model_construct(clusters=votes)),
        question=Spot(x=0.1, y=0.2),
        turned_by=(MapMark(label="c4", cluster=4, x=0.5, y=0.6), MapMark(label="c9", cluster=9, x=-0.5, y=0.0)),
    )
    frame = arrows_frame(placed, {4: "red"})
    assert frame.drop(columns="text").values.tolist() == [
        [0.1, 0.2, 0.5, 0.6, "red", 0.75],
        [0.1, 0.2, -0.5, 0.0, charts.REST, 0.25],
    ]
    assert frame["text"].tolist() == ["W of c4, weight 75%", "W of c9, weight 25%"]


@pytest.mark.parametrize(
    ("found", "ids"),
    [
        ({}, []),
        ({"picked": [{"id": "a3"}]}, ["a3"]),
        ({"area": {"x": [0.35, 0.15], "y": [-0.35, 0.0]}}, ["a2", "a3"]),
        ({"area": {"x": [0.15, 1.0], "y": [-0.25, 0.0]}, "picked": [{"id": "a4"}]}, ["a2", "a4"]),
        ({"area": {"x": [0.15, 1.0]}}, []),
    ],
)
def test_a_selection_is_what_is_in_the_rectangle_or_clicked(corpus, found, ids):
    assert selected(answers_frame(corpus), found)["id"].tolist() == ids
