"""A fold is clustered by its answers, and its mean questions are those of the questions."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from qaserve.core.clustering import KMEANS_STARTS
from qaserve.schemas.params import SearchParams
from train.folds import make_fold


@pytest.fixture
def fold(rows, encoded, write_rows):
    """Questions that group otherwise than their answers."""
    made = rows([f"thing{number}" for number in range(12)])
    odd = [row | {"question": f"{('why', 'how')[number % 2]} {number // 4} ever"} for number, row in enumerate(made)]
    examples = encoded(write_rows(odd))
    return make_fold(examples.take(np.arange(40)), examples.take(np.arange(40, 48)), 3)


def same_groups(one, other):
    return len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


def test_answers_are_what_is_clustered(fold):
    def grouped(rows):
        return KMeans(fold.count, n_init=KMEANS_STARTS, random_state=3).fit(rows).labels_

    assert same_groups(fold.labels, grouped(fold.train.answers))
    assert not same_groups(fold.labels, grouped(fold.train.questions))


def test_mean_questions_are_of_questions_and_w_takes_questions_to_answers(fold):
    bank = fold.bank(2.0)
    for cluster in range(fold.count):
        s, t = fold.train.questions[fold.labels == cluster], fold.train.answers[fold.labels == cluster]
        mean = s.mean(axis=0)
        np.testing.assert_allclose(fold.mean_questions[cluster], mean / np.linalg.norm(mean), atol=1e-6)
        left, _, right = np.linalg.svd(s.T @ t + 2.0 * np.eye(s.shape[1]))
        np.testing.assert_allclose(bank[cluster].dense(), left @ right, atol=1e-5)


def test_scores_are_of_projected_queries_and_topics_of_the_questions(fold):
    projected = 3 * fold.queries.questions[::-1]
    params = SearchParams(topic_weight=0.25, lexical_weight=0.0)
    for query, (moved, scores) in enumerate(zip(projected, fold.scores(projected, params), strict=True)):
        answers = fold.train.answers @ moved / np.linalg.norm(moved)
        topics = fold.train.topics @ fold.queries.questions[query]
        np.testing.assert_allclose(scores, 0.75 * answers + 0.25 * topics, atol=1e-9)


@pytest.mark.parametrize("own", [True, False])
def test_priors_of_the_training_side_vote_unless_others_are_given(fold, rng, own):
    given = rng.uniform(0.5, 2, len(fold.train))
    neighbors = fold.neighbors(5, None if own else given)
    assert neighbors.rows.shape == (8, 5)
    np.testing.assert_array_equal(neighbors.rows[:, 0], fold.similarities.argmax(axis=1))
    if own:
        assert neighbors.priors is None
    else:
        np.testing.assert_array_equal(neighbors.priors, given[neighbors.rows])
