import numpy as np
import pytest

from train.metrics import intent_ranks, mean_cosine, summarize


def test_ranks_count_every_intent_once_by_its_best_answer():
    scores = np.array([[0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.4]])
    intents = ["a", "a", "b", "c"]
    assert intent_ranks(scores, intents, ["b", "a"]).tolist() == [2, 3]
    assert intent_ranks(scores, intents, ["c", "nobody"]).tolist() == [3, np.inf]


def test_metrics_are_their_definitions():
    found = summarize(np.array([1, 2, 4, np.inf]))
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 4) / 4)
    assert (found["hit1"], found["hit3"], found["hit5"]) == (0.25, 0.5, 0.75)
    assert found["ndcg10"] == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(5)) / 4)
    assert summarize(np.array([11.0]))["ndcg10"] == 0
    assert mean_cosine(np.array([[3.0, 4.0]]), np.array([[1.0, 0.0]])) == pytest.approx(0.6)
