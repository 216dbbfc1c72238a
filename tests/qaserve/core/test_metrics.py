import numpy as np
import pytest

from qaserve.core.metrics import intent_ranks, mean_cosine, paired_bootstrap, summarize


def test_ranks_count_every_intent_once_by_its_best_answer():
    scores = np.array([[0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.4]])
    intents = ["a", "a", "b", "c"]
    assert intent_ranks(scores, intents, ["b", "a"]).tolist() == [2, 3]
    assert intent_ranks(scores, intents, ["c", "nobody"]).tolist() == [3, np.inf]


def test_the_second_best_answer_counts_by_its_share():
    scores, intents = np.array([[0.9, 0.1, 0.5]]), ["a", "a", "b"]
    assert intent_ranks(scores, intents, ["a"]).tolist() == [1]
    assert intent_ranks(scores, intents, ["a"], second_share=0.6).tolist() == [2]  # 0.42 for a


def test_metrics_are_their_definitions():
    found = summarize(np.array([1, 2, 4, np.inf]))
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 4) / 4)
    assert (found["hit1"], found["hit3"], found["hit5"]) == (0.25, 0.5, 0.75)
    assert found["ndcg10"] == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(5)) / 4)
    assert summarize(np.array([11.0]))["ndcg10"] == 0
    assert summarize(np.array([10.0]))["ndcg10"] == pytest.approx(1 / np.log2(11))
    assert mean_cosine(np.array([[3.0, 4.0], [0.0, 0.1]]), np.array([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(0.8)


def test_the_interval_of_three_intents_is_from_the_worst_to_the_best():
    """One intent thrice is 1 in 27 draws, more than the 2.5% left out at each end."""
    values, reference = np.array([0.9, 0.7, 0.2, 0.4, 0.1]), np.array([0.5, 0.5, 0.5, 0.1, 0.1])
    found = paired_bootstrap(values, reference, ["b", "b", "a", "c", "c"])
    assert (found.low, found.high) == pytest.approx((-0.3, 0.3))
    assert found.mean == pytest.approx((0.4 + 0.2 - 0.3 + 0.3 + 0.0) / 5)
    groups = [str(number) for number in range(5)]
    assert paired_bootstrap(values, reference, groups) == paired_bootstrap(values, reference, groups, 5_000, 0)


def test_questions_of_one_intent_are_resampled_together(rng):
    """Ten intents asked twenty times over tell no more than ten intents."""
    gains = rng.normal(size=10)
    groups = [str(number) for number in range(10)]
    once = paired_bootstrap(gains, np.zeros(10), groups)
    often = paired_bootstrap(np.repeat(gains, 20), np.zeros(200), np.repeat(groups, 20).tolist())
    apart = paired_bootstrap(np.repeat(gains, 20), np.zeros(200), [str(number) for number in range(200)])
    assert (once.low, once.high) == pytest.approx((often.low, often.high))
    assert once.mean == pytest.approx(gains.mean())
    assert apart.high - apart.low < 0.5 * (once.high - once.low)


def test_the_interval_holds_the_truth_about_as_often_as_it_says(rng):
    """95% of the intervals; 60 of them, so that fewer than 80% are a fault and not chance."""
    held = 0
    for number in range(60):
        gains = 0.3 + rng.normal(size=80)
        interval = paired_bootstrap(gains, np.zeros(80), list(map(str, range(80))), resamples=400, seed=number)
        held += interval.low <= 0.3 <= interval.high
    assert held >= 48
