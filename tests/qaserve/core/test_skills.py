"""Scores of skills against the definition, one skill after the other."""

import numpy as np
import pytest

from qaserve.core.skills import skill_evidence, skill_scores


@pytest.mark.parametrize("best", [1, 5])
def test_scores_are_the_definition(rng, best):
    scores, named = rng.normal(size=(3, 40)), rng.random((40, 6)) < 0.3
    named[:, 4] = False
    named[2:, 5] = False
    sections = rng.uniform(-1, 1, (3, 6))
    sections[:, 1] = np.nan
    found = skill_scores(scores, named, named.sum(axis=0), sections, best=best, stand_in=0.8)
    for row in range(3):
        for skill in range(6):
            mine = sorted(scores[row, named[:, skill]], reverse=True)[:best]
            section = 0.0 if skill == 1 else sections[row, skill]
            pairs = sum(mine) / len(mine) if mine else 0.8 * section
            assert found.pairs[row, skill] == pytest.approx(pairs)
            assert found.section[row, skill] == pytest.approx(0.2 * section)
            assert found.total[row, skill] == pytest.approx(pairs + 0.2 * section)


def test_pairs_beyond_the_candidates_count_as_the_last_of_them():
    named = np.array([[True, False], [False, True], [True, False]])
    found = skill_scores(np.array([[0.9, 0.5, 0.3]]), named, np.array([4, 30]), np.full((1, 2), np.nan))
    np.testing.assert_allclose(found.total, [[(0.9 + 0.3 + 2 * 0.3) / 4, (0.5 + 4 * 0.3) / 5]])


def test_without_candidates_nothing_fails():
    found = skill_scores(np.empty((1, 0)), np.empty((0, 2), dtype=bool), np.array([0, 2]), np.array([[0.5, np.nan]]))
    np.testing.assert_allclose(found.total, [[0.95 * 0.5 + 0.1, 0.0]])


def test_the_evidence_of_a_skill_is_its_score_and_its_distance_to_the_best_other():
    pairs = np.array([0.2, 0.9, 0.5, 0.9])
    ranked, named = np.array([1, 2, 0]), np.array([True, False, True])
    np.testing.assert_allclose(skill_evidence(pairs, ranked, named), [[0.9, 0, 1], [0.5, -0.4, 0], [0.2, -0.7, 1]])
    np.testing.assert_allclose(skill_evidence(np.array([0.3]), ranked[2:] * 0, named[:1]), [[0.3, 0.3, 1]])
    assert skill_evidence(np.empty(0), ranked[:0], named[:0]).shape == (0, 3)


def test_of_two_skills_each_stands_against_the_other():
    found = skill_evidence(np.array([0.2, 0.9]), np.array([1, 0]), np.array([False, False]))
    np.testing.assert_allclose(found[:, 1], [0.7, -0.7])


def test_equal_skills_are_equally_far_from_each_other():
    """Whichever of many is taken as the best: the others are 0 below it, and it is 0 above them."""
    pairs = np.tile([0.5, 0.1], 40)
    found = skill_evidence(pairs, np.arange(80), np.ones(80, dtype=bool))
    np.testing.assert_allclose(found[:, 1], np.tile([0.0, -0.4], 40))
