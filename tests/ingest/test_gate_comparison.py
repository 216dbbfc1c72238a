"""How the gate compares two builds on ranks that are given: figures, interval, verdict, and what got worse."""

from types import SimpleNamespace

import numpy as np
import pytest

from ingest import gate
from ingest.evaluation import Asked
from qaserve.schemas.pairs import Pair

INTENTS = 12


def pair(number):
    return Pair(
        pair_id=f"p{number}",
        cluster_id=f"c{number % INTENTS}",
        question=f"q{number} " + "long " * 60,
        answer="a",
        source_file="f",
    )


@pytest.fixture
def live():
    """A build of 24 points: two of each of twelve intents."""
    pairs = [pair(number) for number in range(2 * INTENTS)]
    return SimpleNamespace(points=[f"id{one.pair_id}" for one in pairs], examples=SimpleNamespace(pairs=pairs))


def asked(ranks, among_all=None, abstained=None):
    return Asked(np.array(ranks, dtype=float), np.array(ranks if among_all is None else among_all, float), abstained)


def compare(live, before, after, tolerance=0.01, texts=None):
    points = [f"idp{number}" for number in range(len(before.ranks))]
    return gate._compared(live, points, before, after, tolerance, texts)


def test_figures_are_rounded_means_and_abstention_is_told_where_it_is_known():
    ranks = [1.0, 3.0, 4.0, np.inf, 7.0, 7.0]
    expected = {"mrr": round((1 + 1 / 3 + 1 / 4 + 2 / 7) / 6, 4), "hit3": round(2 / 6, 4)}
    assert gate._figures(asked(ranks)) == expected
    abstained = np.array([True, False, False, True, False, False])
    assert gate._figures(asked(ranks, abstained=abstained)) == expected | {"abstained": round(1 / 3, 4)}


def test_a_fall_on_every_question_stops_a_build_and_none_within_the_tolerance(live):
    before, after = asked([1.0] * 24, [2.0] * 24), asked([2.0] * 24, [3.0] * 24)
    found = compare(live, before, after)
    assert not found.passed
    assert (found.questions, found.live.mrr, found.new.mrr) == (24, 1.0, 0.5)
    assert (found.live.mrr_among_all, found.new.mrr_among_all) == (0.5, 0.3333)
    assert (found.difference.low, found.difference.mean, found.difference.high) == (-0.5, -0.5, -0.5)
    assert compare(live, before, after, tolerance=0.5).passed
    assert not compare(live, before, after, tolerance=0.4999).passed
    better = compare(live, after, before)
    assert better.passed
    assert better.difference.mean == 0.5
    assert better.worse == ()


def test_a_fall_that_chance_explains_stops_nothing(live):
    """Two intents of twelve lose much: the interval of the mean reaches zero."""
    after = np.ones(24)
    after[[0, 12, 1, 13]] = 10.0
    found = compare(live, asked([1.0] * 24), asked(after))
    assert found.difference.mean == pytest.approx(-0.9 * 4 / 24)
    assert found.difference.high == 0.0
    assert found.passed
    after[[2, 14, 3, 15, 4, 16, 5, 17]] = 10.0
    assert not compare(live, asked([1.0] * 24), asked(after)).passed


def test_phrasings_of_one_intent_are_drawn_together(live):
    """The interval of 24 questions about twelve intents is that of twelve questions."""
    once = np.arange(1.0, 13.0)
    twice = compare(live, asked([1.0] * 24), asked(np.tile(once, 2))).difference
    alone = compare(live, asked([1.0] * 12), asked(once)).difference
    assert twice.low == pytest.approx(alone.low)
    assert twice.high == pytest.approx(alone.high)


@pytest.mark.parametrize(("intents", "judged"), [(gate.MIN_INTENTS - 1, False), (gate.MIN_INTENTS, True)])
def test_too_few_intents_are_not_judged(live, intents, judged):
    assert (compare(live, asked([1.0] * intents), asked([2.0] * intents)) is not None) == judged


def test_what_got_better_is_listed_most_first_with_its_ranks(live):
    before, after = np.full(24, 2.0), np.full(24, 2.0)
    before[[5, 9, 7]], after[[5, 9, 7]] = [np.inf, 3.0, 8.0], [4.0, 2.0, 1.0]
    after[11] = 3.0
    found = compare(live, asked(before), asked(after)).better
    assert [(one.pair_id, one.before, one.after) for one in found] == [
        ("p7", 8.0, 1.0),
        ("p5", None, 4.0),
        ("p9", 3.0, 2.0),
    ]
    assert (found[0].id, found[0].question[:3]) == ("idp7", "q7 ")
    monotone = 1.0 + np.arange(24)
    most = compare(live, asked(monotone), asked(np.ones(24))).better
    assert [one.pair_id for one in most] == [f"p{23 - number}" for number in range(gate.WORSE_KEPT)]


def test_what_got_worse_is_listed_most_first_with_its_ranks(live):
    before, after = np.full(24, 1.0), np.full(24, 1.0)
    before[3], after[3] = 2.0, np.inf  # loses 1/2
    after[7] = 4.0  # loses 3/4
    after[9] = 2.0  # loses 1/2, after 3
    before[5] = 5.0  # gains
    found = compare(live, asked(before), asked(after)).worse
    assert [(one.id, one.pair_id, one.before, one.after) for one in found] == [
        ("idp7", "p7", 1.0, 4.0),
        ("idp3", "p3", 2.0, None),
        ("idp9", "p9", 1.0, 2.0),
    ]
    assert all(one.question.startswith(f"q{one.pair_id[1:]} long") and len(one.question) == 200 for one in found)
    texts = [f"golden {number}" for number in range(24)]
    assert compare(live, asked(before), asked(after), texts=texts).worse[0].question == "golden 7"
    everywhere = compare(live, asked(np.full(24, 1.0)), asked(np.full(24, 2.0))).worse
    assert [one.id for one in everywhere] == [f"idp{number}" for number in range(gate.WORSE_KEPT)]


def test_what_was_asked_of_several_splits_is_joined():
    first = asked([1.0, 2.0], [3.0, 4.0], np.array([True, False]))
    second = asked([5.0], [6.0], np.array([True]))
    joined = gate._joined([first, second])
    assert [part.tolist() for part in joined] == [[1.0, 2.0, 5.0], [3.0, 4.0, 6.0], [True, False, True]]
    assert gate._joined([asked([1.0]), asked([2.0])]).abstained is None
