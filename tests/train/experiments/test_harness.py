import sys

import numpy as np
import pytest

from qaserve.common.errors import UsageError
from qaserve.core.metrics import intent_ranks, summarize
from qaserve.schemas.ingest import Interval
from train.experiments.harness import (
    COSINE,
    MRR,
    Tally,
    compared,
    differences_table,
    draw_gains,
    evaluate,
    results_table,
    row_cosines,
    signed,
)


def at(rank):
    """Figures of 40 queries whose relevant intent has this rank among ten."""
    return evaluate(np.tile(np.arange(10.0), (40, 1)), [str(10 - place) for place in range(10)], [str(rank)] * 40)


@pytest.fixture
def tally():
    """Two seeds of 40 questions; `good` is right, `poor` second, `same` is right as often as `good`."""
    filled = Tally()
    for seed in range(2):
        filled.begin([f"intent {number // 2}" for number in range(40)])
        filled.add("poor", at(2) | {COSINE: np.full(40, 0.5 + 0.1 * seed) + np.arange(40) / 1e3})
        filled.add("good", at(1) | {COSINE: np.full(40, 0.75)})
        filled.add("same", at(1))
    return filled


def test_ir_measures_and_the_fast_ranks_agree(rng):
    """With ties, and relevant intents that no answer has."""
    intents = [f"intent {number}" for number in rng.integers(0, 30, 90)]
    relevant = [f"intent {number}" for number in rng.integers(0, 33, 200)]
    scores = rng.integers(0, 12, (200, 90)) / 7 + rng.integers(0, 2, (200, 90)) * 1e-12
    found = evaluate(scores, intents, relevant)
    ranks = intent_ranks(scores, intents, relevant)
    assert np.isinf(ranks).any()
    np.testing.assert_allclose(found[MRR], 1 / ranks)
    assert {name: values.mean() for name, values in found.items()} == pytest.approx(summarize(ranks))


def test_without_ir_measures_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(UsageError, match="experiments need ir_measures, which is not installed") as refused:
        at(1)
    assert refused.value.hint == "pip install 'qaserve[bench]'"


def test_an_intent_without_a_listed_answer_is_not_found():
    found = evaluate(np.array([[0.5, -np.inf]]), ["a", "b"], ["b"])
    assert {name: values.tolist() for name, values in found.items()} == {name: [0.0] for name in found}


def test_a_method_of_the_first_seeds_is_compared_on_these(tally):
    tally.add("short", at(4))
    assert tally.difference("short", "poor").gain.mean == pytest.approx(-0.25)
    chosen = np.arange(40) < 10
    assert tally.difference("short", "poor", chosen=chosen).gain.mean == pytest.approx(-0.25)


def test_figures_are_means_over_the_seeds(tally):
    poor, good, same = tally.results("poor")
    assert poor.metrics == pytest.approx(summarize(np.full(40, 2.0)) | {"cosine": 0.55 + 0.0195})
    assert poor.gain is None
    assert good.gain == Interval(low=0.5, mean=0.5, high=0.5)
    assert COSINE not in same.metrics
    assert tally.methods == {"poor", "good", "same"}


def test_differences_pool_the_questions_of_all_seeds(tally):
    difference = tally.difference("good", "poor", COSINE)
    assert difference.base == pytest.approx(0.5695)
    assert difference.gain.mean == pytest.approx(0.1805)
    assert difference.gain.low < difference.gain.mean < difference.gain.high
    assert [one.reference for one in tally.differences("good", ["poor", "nobody", "same"])] == ["poor", "same"]
    assert tally.differences("nobody", ["poor"]) == ()


def test_only_an_interval_without_zero_is_a_difference():
    def between(low, high):
        return compared(Interval(low=low, mean=(low + high) / 2, high=high))

    assert between(0.01, 0.02) == "better"
    assert between(-0.02, -0.01) == "worse"
    assert between(-0.01, 0.02) == between(0.0, 0.02) == between(-0.01, 0.0) == "no difference"


def test_nothing_is_shown_below_zero_that_is_not():
    assert signed(Interval(low=-0.01, mean=-0.00001, high=0.0201)) == "+0.000 (-0.010 … +0.020)"
    assert signed(Interval(low=-0.01, mean=-0.005, high=-0.00001)) == "-0.005 (-0.010 … -0.000)"
    assert signed(Interval(low=-0.0, mean=0.0, high=0.0)) == "+0.000 (+0.000 … +0.000)"


def test_tables_hold_what_was_measured(tally):
    table = results_table("title", tally.results("poor"))
    assert table.columns[:2] == ("method", "MRR")
    assert table.rows[0] == ("poor", "0.500", "0.000", "1.000", "1.000", "0.631", "0.570", "–")
    assert table.rows[2][-2:] == ("–", "+0.500 (+0.500 … +0.500)")
    told = differences_table("title", tally.differences("good", ["poor", "same"]))
    assert [row[0] for row in told.rows] == ["good – poor", "good – same"]
    assert [row[1:] for row in told.rows] == [
        ("1.000", "0.500", "+0.500 (+0.500 … +0.500)", "better"),
        ("1.000", "1.000", "+0.000 (+0.000 … +0.000)", "no difference"),
    ]


def test_gains_are_drawn_where_they_are(tally):
    figure = pytest.importorskip("matplotlib.figure", reason="the extra `bench` is not installed")
    axes = figure.Figure().add_subplot()
    for _ in range(2):
        tally.add("best", at(1))
        tally.add("worse", at(4))
    draw_gains(axes, {"first": tally.results("same"), "second": tally.results("poor")[1:2]}, "same")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["good", "best", "poor", "worse"]
    dots = [container.lines[0] for container in axes.containers]
    assert [dot.get_xdata().tolist() for dot in dots] == [[-0.5, 0, 0, -0.75], [0.5]]
    assert [round(place) for place in dots[0].get_ydata()] == [2, 0, 1, 3]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["first", "second"]


def test_cosines_are_those_of_the_rows():
    found = row_cosines(np.array([[3.0, 4.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(found, [0.6, 1.0])
