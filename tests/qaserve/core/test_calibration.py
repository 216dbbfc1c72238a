import numpy as np
import pytest
from pydantic import ValidationError

from qaserve.core.calibration import (
    DIRECTIONS,
    FEATURES,
    NEAREST,
    Calibration,
    Logistic,
    Top,
    evidence,
    is_named,
    named_rows,
    skill_rows,
)

TOP = Top(similarity=0.8, raw_similarity=0.6, lexical=0.05, cluster=1)


def given(**changes):
    """Evidence of a plain question, with changes."""
    usual = {
        "similarities": [0.9, 0.7, 0.6, 0.5, 0.3, 0.1],
        "probabilities": [0.5, 0.2, 0.1, 0.1, 0.05, 0.05],
        "clusters": [1, 1, 0, 2, 0, 0],
        "weights": [0.2, 0.7, 0.1, 0.0],
        "scores": [0.85, 0.75, 0.7, 0.6, 0.5, 0.1],
        "top": TOP,
    }
    return evidence(**usual | changes)


def logistic(features=("answer_similarity",), coefficients=(2.0,), intercept=0.0, **changes):
    usual = {"mean": (0.5,) * len(features), "scale": (0.1,) * len(features)}
    return Logistic(features=features, coefficients=coefficients, intercept=intercept, **usual | changes)


@pytest.fixture
def calibration():
    return Calibration(
        answered=logistic(("question_similarity", "answer_similarity"), (1.0, 2.0)),
        right=logistic(("margin_second",), (3.0,), mean=(0.05,)),
        threshold=0.3,
        precision=0.75,
        coverage=0.95,
        cases={"answered": 10, "unanswered": 10},
        figures={"roc_area": 0.9},
    )


def test_the_right_skill_is_at_least_as_likely_as_the_right_answer(calibration):
    assert calibration.confidence(given()).skill is None
    likely, unlikely = calibration.confidence(given(), 0.9), calibration.confidence(given(), 0.001)
    assert likely.skill == 0.9
    assert unlikely.skill == unlikely.value == likely.value


def test_a_skill_is_judged_by_its_own_evidence_and_by_whether_anything_answers(calibration):
    assert calibration.skill_probabilities(given(), np.zeros((2, 3))) is None
    skill = logistic(("answered", "skill_margin"), (1.0, 4.0), mean=(9.0, 0.0), scale=(1.0, 1.0))
    found = calibration.model_copy(update={"skill": skill}).skill_probabilities(
        given(), np.array([[9.0, 0.2, 1.0], [9.0, -0.2, 0.0]])
    )
    odds = calibration.answered.log_odds(given()) - 9.0
    np.testing.assert_allclose(found, [1 / (1 + np.exp(-(odds + one))) for one in (0.8, -0.8)])


def test_a_skill_that_the_first_answer_names_is_judged_by_whether_it_is_right(calibration):
    """An older build has one regression for both."""
    skill = logistic(("answered", "skill_margin"), (1.0, 4.0), mean=(9.0, 0.0), scale=(1.0, 1.0))
    named = logistic(("right", "skill_score", "skill_margin"), (2.0, -5.0, 3.0), mean=(1.0, 0.4, 0.1), scale=(1.0,) * 3)
    fitted = calibration.model_copy(update={"skill": skill, "named_skill": named})
    rows = np.array([[0.5, 0.2, 1.0], [0.5, 0.2, 0.0]])
    odds = [
        2 * (calibration.right.log_odds(given()) - 1) - 5 * 0.1 + 3 * 0.1,
        calibration.answered.log_odds(given()) - 9 + 4 * 0.2,
    ]
    np.testing.assert_allclose(fitted.skill_probabilities(given(), rows), 1 / (1 + np.exp(-np.array(odds))))
    older = fitted.model_copy(update={"named_skill": None})
    np.testing.assert_allclose(older.skill_probabilities(given(), rows), [1 / (1 + np.exp(-odds[1]))] * 2)


def test_evidence_is_what_its_names_say():
    found = dict(zip(FEATURES, given(), strict=True))
    weights = np.array([0.2, 0.7, 0.1])
    assert found == pytest.approx(
        {
            "question_similarity": 0.9,
            "mean_similarity": np.mean([0.9, 0.7, 0.6, 0.5, 0.3]),
            "answer_similarity": 0.8,
            "raw_similarity": 0.6,
            "margin_second": 0.1,
            "margin_last": 0.35,
            "entropy": -(weights * np.log(weights)).sum() / np.log(4),
            "agreement": 0.7,
            "lexical": 0.05,
        }
    )
    assert DIRECTIONS.shape == given().shape == (len(FEATURES),)


def test_more_intents_or_far_hits_change_nothing():
    scores = [0.85, 0.75, 0.7, 0.6, 0.5]
    assert len(scores) == NEAREST
    np.testing.assert_array_equal(given(scores=scores), given(scores=[*scores, 0.4, 0.3]))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scores": [0.85]}, {"margin_second": 0.85, "margin_last": 0.85}),
        ({"scores": [0.85, 0.8]}, {"margin_second": 0.05, "margin_last": 0.05}),
        (
            {"similarities": [0.4], "probabilities": [1.0], "clusters": [1]},
            {"question_similarity": 0.4, "mean_similarity": 0.4, "agreement": 1.0},
        ),
        (
            {"similarities": [], "probabilities": [], "clusters": []},
            {"question_similarity": 0.0, "mean_similarity": 0.0, "agreement": 0.0},
        ),
        ({"weights": [0.0, 1.0]}, {"entropy": 0.0}),
        ({"weights": [1.0]}, {"entropy": 0.0}),
        ({"weights": [0.0, 0.0]}, {"entropy": 0.0}),
        ({"top": TOP._replace(lexical=0.0)}, {"lexical": 0.0}),
        ({"top": TOP._replace(cluster=3)}, {"agreement": 0.0}),
    ],
)
def test_evidence_is_there_at_every_edge(changes, expected):
    found = dict(zip(FEATURES, given(**changes), strict=True))
    assert np.isfinite(list(found.values())).all()
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_evidence_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one intent"):
        given(scores=[])
    with pytest.raises(ValueError, match="raw_similarity is not finite"):
        given(top=TOP._replace(raw_similarity=float("nan")))


def test_a_logistic_regression_is_its_formula():
    part = logistic(("question_similarity", "entropy"), (1.5, -0.5), 0.25, mean=(0.6, 0.4), scale=(0.2, 0.1))
    found = given()
    at = dict(zip(FEATURES, found, strict=True))
    odds = 0.25 + 1.5 * (at["question_similarity"] - 0.6) / 0.2 - 0.5 * (at["entropy"] - 0.4) / 0.1
    assert part.probability(found) == pytest.approx(1 / (1 + np.exp(-odds)))
    assert sum(part.pulls(found).values()) == pytest.approx(odds - 0.25)
    assert logistic((), (), 1.0).probability(found) == pytest.approx(1 / (1 + np.exp(-1)))
    assert logistic(intercept=5_000.0).probability(found) == 1
    assert logistic(intercept=-5_000.0).probability(found) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.1, 0.2)}, "1 features, 2 means, 1 scales and 1 coefficients do not fit together"),
        ({"features": ("colour",)}, "features are colour; each must be one of question_similarity"),
        ({"features": ("entropy", "entropy"), "coefficients": (1.0, 1.0)}, "features are entropy, entropy"),
        ({"coefficients": (float("nan"),)}, "not finite"),
        ({"scale": (0.0,)}, "must be above 0"),
    ],
)
def test_a_broken_regression_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        logistic(**changes)


@pytest.mark.parametrize("changes", [{"figures": {"roc_area": float("inf")}}, {"threshold": 1.5}, {"precision": 1.0}])
def test_a_broken_calibration_is_refused(calibration, changes):
    with pytest.raises(ValidationError):
        Calibration.model_validate(calibration.model_dump() | changes)


def test_the_probability_is_the_product_of_both(calibration):
    found = given()
    expected = calibration.answered.probability(found) * calibration.right.probability(found)
    assert calibration.probability(found) == pytest.approx(expected)
    assert calibration.confidence(found).value == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"evidence is \(3,\); it must be \(9,\)"):
        calibration.probability(np.zeros(3))


def test_a_far_question_is_abstained_on_and_the_reason_is_what_weighs_most(calibration):
    far = calibration.confidence(given(similarities=[0.05], probabilities=[1.0], clusters=[1], top=TOP))
    assert not far.abstained  # the answer is near enough to make up for it
    far = calibration.confidence(
        given(similarities=[0.05], probabilities=[1.0], clusters=[1], top=TOP._replace(similarity=0.45))
    )
    assert far.abstained
    assert far.reason == ("Nothing here seems to answer this: the nearest known question is far (similarity 0.05).")
    far = calibration.confidence(given(top=TOP._replace(similarity=0.1)))
    assert far.abstained
    assert far.reason == "Nothing here seems to answer this: the nearest answer is far (similarity 0.10)."


def test_only_what_the_corpus_does_not_answer_is_abstained_on(calibration):
    tied = calibration.confidence(given(scores=[0.85, 0.849]))
    assert not tied.abstained
    assert tied.value < 0.5
    assert tied.reason == "The first answer may not be the one: the second scores almost as much (0.001 less)."


def test_a_likely_answer_says_what_speaks_for_it(calibration):
    likely = calibration.confidence(given(scores=[0.85, 0.6]))
    assert likely.value > 0.5
    assert likely.reason == ("The first answer is likely right: its answer is near (similarity 0.80).")
    clear = calibration.confidence(given(scores=[0.85, 0.1]))
    assert clear.reason == "The first answer is likely right: the second scores clearly less (0.750 less)."


def test_without_a_sign_the_reason_says_so(calibration):
    plain = calibration.model_copy(update={"answered": logistic((), (), 2.0), "right": logistic((), (), -1.0)})
    assert plain.confidence(given()).reason == "The first answer may not be the one: no single sign stands out."
    odd = calibration.model_copy(update={"threshold": 1.0})
    assert odd.confidence(given()).reason == "Nothing here seems to answer this: no single sign stands out."


def test_at_the_threshold_is_not_below_it(calibration):
    even = calibration.model_copy(update={"answered": logistic((), (), 0.0), "threshold": 0.5})
    assert not even.confidence(given()).abstained
    assert even.model_copy(update={"threshold": 0.51}).confidence(given()).abstained
    sure = calibration.model_copy(update={"answered": logistic((), (), 5_000.0), "right": logistic((), (), 0.0)})
    assert sure.confidence(given()).value == 0.5
    assert sure.confidence(given()).reason.startswith("The first answer is likely right")


def test_a_slight_pull_is_a_sign_too(calibration):
    slight = calibration.model_copy(update={"answered": logistic((), (), 9.0), "right": logistic(coefficients=(0.1,))})
    assert 0 < sum(slight.right.pulls(given()).values()) < 1
    assert (
        slight.confidence(given()).reason == "The first answer is likely right: its answer is near (similarity 0.80)."
    )


def test_float32_evidence_is_computed_as_float64(rng):
    names = ("similarities", "scores", "probabilities")
    stored = {name: np.sort(rng.uniform(0, 1, 6))[::-1].astype(np.float32) for name in names}
    exact = {name: [float(one) for one in values] for name, values in stored.items()}
    np.testing.assert_allclose(given(**stored), given(**exact), rtol=1e-12)


def test_every_feature_has_words_for_both(calibration):
    for name, direction in zip(FEATURES, DIRECTIONS, strict=True):
        low = logistic((name,), (float(direction) * 5,), mean=(float(direction) * 100,))
        high = logistic((name,), (float(direction) * 5,), mean=(float(direction) * -100,))
        for part, opening in ((low, "Nothing here"), (high, "The first answer is likely right")):
            one = calibration.model_copy(update={"answered": part, "right": logistic((), (), 5.0)})
            reason = one.confidence(given()).reason
            assert reason.startswith(opening)
            assert "no single sign" not in reason


def test_it_survives_json(calibration):
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


def test_rows_of_skills_hold_the_log_odds_beside_the_evidence():
    skills = np.array([[0.1, 0.2, 1.0], [0.3, 0.4, 0.0]])
    np.testing.assert_array_equal(skill_rows(-1.5, skills), [[-1.5, 0.1, 0.2, 1.0], [-1.5, 0.3, 0.4, 0.0]])
    np.testing.assert_array_equal(named_rows(-1.5, 2.5, skills), [[-1.5, 2.5, 0.1, 0.2], [-1.5, 2.5, 0.3, 0.4]])
    each = named_rows(np.array([1.0, 2.0]), np.array([3.0, 4.0]), skills)
    np.testing.assert_array_equal(each, [[1.0, 3.0, 0.1, 0.2], [2.0, 4.0, 0.3, 0.4]])
    np.testing.assert_array_equal(is_named(skills), [True, False])
