from dataclasses import replace

import numpy as np
import pytest
from conftest import vote
from store_builds import stored

from ingest.readers import Located, find_files, read_files
from qaserve.core.calibration import (
    DIRECTIONS,
    FEATURES,
    NAMED_FEATURES,
    NEAREST,
    SKILL_FEATURES,
    Calibration,
    Top,
    evidence,
)
from qaserve.core.splits import phrasing_split
from qaserve.schemas.params import Hyperparameters, SearchParams
from qaserve.search.ranking import rank_intents
from qaserve.settings import FitSettings, ReadSettings
from qaserve.store.points import ANSWER, nearest_questions
from train import calibration as fitting
from train import calibration_cases as collecting
from train.calibration import (
    calibrate,
    calibration_error,
    calibration_floor,
    fit_calibration,
    fit_logistic,
    out_of_fold,
    threshold_at,
)
from train.calibration_cases import Cases, ask, collect, half_and_half, regions_of, sibling_bound
from train.folds import Examples, make_fold, split_fold
from train.tuning import START, ranks_of

KINDS, ITEMS = 10, 6


@pytest.fixture
def make_examples(rows, encoded, write_rows):
    """Ten topics of six things each; every thing is an intent with four phrasings, answered as told."""

    def make(answer):
        things = [f"topic{kind} matter{kind} item{kind}x{item}" for kind in range(KINDS) for item in range(ITEMS)]
        made = rows(things)
        for number, row in enumerate(made):
            row["answer"] = answer(row["topics"][1], number)
        return encoded(write_rows(made))

    return make


@pytest.fixture
def examples(make_examples):
    """Answers of one thing are near, those of one topic less, and other topics are far."""
    return make_examples(lambda thing, number: f"{thing} note{number % 4}")


@pytest.fixture
def cases(rng):
    """Two regions, answered where the answer is near, right where the margin is wide; the rest is noise.

    The first of three ranked skills is the one that the first answer names.
    """
    count = 2_000
    found = rng.normal(size=(count, len(FEATURES)))
    near, wide = found[:, FEATURES.index("answer_similarity")], found[:, FEATURES.index("margin_second")]
    answered = near + rng.logistic(size=count) * 0.5 > 0
    right = answered & (wide + rng.logistic(size=count) * 0.5 > 0)
    skills = rng.normal(size=(count, 4, 3))
    skills[:, :, 2] = [1.0, 0.0, 0.0, 1.0]
    skills_right = answered[:, None] & (skills[:, :, 1] + rng.logistic(size=(count, 4)) * 0.5 > 0)
    skills_right[right, 0] = True
    skills[:, -1], skills_right[:, -1] = skills[:, 0], skills_right[:, 0]
    skills[::5, 2:] = np.nan
    skills_right[::5, 2:] = False
    return Cases(found, answered, right, skills, skills_right, rng.integers(0, 2, count))


def test_a_calibration_of_a_corpus(examples):
    told = []
    fit = FitSettings(seed=2)
    found = calibrate(examples, START, fit, told.append)
    assert sum(told) == collecting.STEPS
    assert found == calibrate(examples, START, fit, lambda _: None)
    assert found.precision == fit.precision
    assert found.cases["answered"] == collecting.SPLITS * KINDS * ITEMS
    assert fitting.MIN_CASES <= found.cases["unanswered"] <= len(examples)
    assert found.coverage >= fitting.MIN_COVERAGE
    assert found.figures["roc_area"] > 0.5
    for part in (found.answered, found.right):
        along = [DIRECTIONS[FEATURES.index(name)] for name in part.features] * np.array(part.coefficients)
        assert (along >= 0).all()
    assert Calibration.model_validate_json(found.model_dump_json()) == found


def test_too_few_cases_give_none(examples, make_examples):
    few_phrasings = examples.take(np.arange(4 * (fitting.MIN_CASES - 1)))
    assert calibrate(few_phrasings, START, FitSettings(), lambda _: None) is None
    intents = np.array(examples.intents)
    few_intents = examples.take(np.flatnonzero(np.isin(intents, np.unique(intents)[: 2 * collecting.REGIONS - 1])))
    assert regions_of(few_intents, 0) is None
    assert calibrate(few_intents, START, FitSettings(), lambda _: None) is None
    alike = make_examples(lambda thing, number: f"do this and that word{number}")
    assert regions_of(alike, 0) is not None
    assert calibrate(alike, START, FitSettings(), lambda _: None) is None


def test_an_unanswered_question_has_nothing_right_left(examples):
    regions = regions_of(examples, 0)
    assert set(regions) == set(range(collecting.REGIONS))
    for intent in set(examples.intents):
        assert len(set(regions[np.array(examples.intents) == intent])) == 1
    cases = collect(examples, START, FitSettings(), lambda _: None)
    assert not cases.right[~cases.answered].any()
    assert cases.right[cases.answered].any()


def test_a_neighbour_as_near_as_a_sibling_answers(examples):
    bound = sibling_bound(examples)
    cosines, intents = examples.answers @ examples.answers.T, np.array(examples.intents)
    siblings = cosines[np.triu(intents[:, None] == intents, 1)]
    assert np.mean(siblings >= bound) == pytest.approx(1 - collecting.SIBLINGS, abs=0.01)
    lone = examples.take(np.arange(0, len(examples), 4))
    assert sibling_bound(lone) == np.inf
    repeated = examples.take(np.repeat(np.arange(0, len(examples), 4), 2))
    assert sibling_bound(repeated) == np.inf


def test_asking_a_large_fold_is_bounded(examples, monkeypatch):
    monkeypatch.setattr(collecting, "MAX_QUERIES", 7)
    cases = collect(examples, START, FitSettings(), lambda _: None)
    assert np.count_nonzero(cases.answered) == 7 * collecting.SPLITS
    assert 0 < np.count_nonzero(~cases.answered) <= 7 * collecting.REGIONS


def test_right_is_what_the_ranking_says(examples):
    split = phrasing_split(examples.pairs, 1)
    fold = make_fold(examples.take(split.train), examples.take(split.test), 1)
    for trial in (START, START.model_copy(update={"final_temperature": 0.1, "lexical_weight": 0.0, "hits": 8})):
        np.testing.assert_array_equal(ask(fold, trial).right, ranks_of(fold, trial) == 1)


@pytest.mark.parametrize(
    "start",
    [START, Hyperparameters(search=SearchParams(topic_weight=0.4, second_share=0.5, projection_share=0.5))],
    ids=["default", "all parts"],
)
def test_asking_gives_the_evidence_that_the_engine_would_collect(engine, edge, start):
    """The vectorised form against store, ranking and routing of a build of the same pairs."""
    live = engine.load()
    build, model = live.points, live.bundle.model
    points = stored(edge, live.ref)
    known = Examples(
        [point.stored.pair for point in points],
        np.stack([point.question for point in points]).astype(np.float64),
        np.stack([point.answer for point in points]).astype(np.float64),
        np.stack([point.topic for point in points]).astype(np.float64),
    )
    asked = known.take(np.array([3, 11, 17]))
    fold = make_fold(known, asked, FitSettings().seed)
    assert fold.labels.tolist() == [point.stored.cluster for point in points]
    found = ask(fold, start).evidence
    for row, pair in enumerate(asked.pairs):
        query = asked.questions[row]
        hits = nearest_questions(build, query, start.search.hits)
        shares, weights = vote(
            [hit.similarity for hit in hits], [hit.cluster for hit in hits], len(model.bank), start.search.temperature
        )
        share = start.search.projection_share
        projected = (1 - share) * query + share * model.bank.project(query, weights)
        ranked = rank_intents(build, pair.question, query, projected, start.search, 5).intents
        best = ranked[0].best
        (point,) = build.retrieve([best.id], [ANSWER]).values()
        expected = evidence(
            similarities=[hit.similarity for hit in hits],
            probabilities=shares,
            clusters=[hit.cluster for hit in hits],
            weights=weights,
            scores=[one.score for one in ranked],
            top=Top(best.similarity, float(query @ point.vectors[ANSWER]), best.words, point.payload["cluster"]),
        )
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_the_regressions_find_what_decides(cases):
    judged = out_of_fold(cases)
    found = fit_calibration(cases, judged, 0.6)
    answered = dict(zip(found.answered.features, found.answered.coefficients, strict=True))
    right = dict(zip(found.right.features, found.right.coefficients, strict=True))
    assert max(answered, key=lambda name: abs(answered[name])) == "answer_similarity"
    assert max(right, key=lambda name: abs(right[name])) == "margin_second"
    assert found.figures["calibration_error"] < 0.05
    inside, outside = judged.answered[cases.answered, None], judged.answered[~cases.answered]
    above = (inside > outside).mean() + (inside == outside).mean() / 2
    assert found.figures["roc_area"] == pytest.approx(above, abs=1e-6)
    assert above > 0.8
    assert found.figures["precision"] == pytest.approx(0.6, abs=0.01)
    assert fit_calibration(cases, judged, 0.99).coverage == pytest.approx(fitting.MIN_COVERAGE, abs=0.005)
    assert found.cases == {"answered": int(cases.answered.sum()), "unanswered": int((~cases.answered).sum())}


def test_no_coefficient_points_the_wrong_way(cases):
    backwards = cases.evidence * np.where(np.arange(len(FEATURES)) == FEATURES.index("answer_similarity"), -1, 1)
    found = fit_logistic(backwards, cases.answered, np.ones(len(cases.answered)))
    assert "answer_similarity" not in found.features
    flat = cases.evidence.copy()
    flat[:, FEATURES.index("margin_second")] = 0.25
    assert "margin_second" not in fit_logistic(flat, cases.answered, np.ones(len(cases.answered))).features


def test_skills_have_regressions_of_their_own(cases):
    judged = out_of_fold(cases)
    found = fit_calibration(cases, judged, 0.6)
    for fitted in (found.skill, found.named_skill):
        skill = dict(zip(fitted.features, fitted.coefficients, strict=True))
        assert {"answered", "skill_margin"} <= set(sorted(skill, key=lambda name: -abs(skill[name]))[:3])
        assert "skill_named" not in skill
    assert "right" in found.named_skill.features
    assert (judged.skill >= judged.value).all()
    assert found.figures["skill_calibration_error"] < 0.2
    named = cases.skills_right[:, -1]
    above, below = judged.skill[named, None], judged.skill[~named]
    weights = cases.weights[named, None] * cases.weights[~named]
    area = np.average((above > below) + (above == below) / 2, weights=weights)
    assert found.figures["skill_roc_area"] == pytest.approx(area, abs=1e-6)
    assert found.figures["skill_right"] == pytest.approx(named[cases.answered].mean(), abs=1e-6)
    bare = cases._replace(skills=np.full_like(cases.skills, np.nan), skills_right=np.zeros_like(cases.skills_right))
    found = fit_calibration(bare, out_of_fold(bare), 0.6)
    assert found.skill is found.named_skill is None
    assert found.skill_probabilities(cases.evidence[0], np.empty((0, 3))) is None
    assert not [name for name in found.figures if "skill" in name]


def test_the_right_skill_is_one_that_the_questions_own_pair_names(examples):
    pairs = [pair.model_copy(update={"related_skills": (pair.cluster_id, "shared")}) for pair in examples.pairs]
    split = phrasing_split(pairs, 1)

    def asked(change):
        held_out = set(split.test.tolist())
        named = replace(examples, pairs=[change(one) if row in held_out else one for row, one in enumerate(pairs)])
        return ask(make_fold(named.take(split.train), named.take(split.test), 1), START)

    own = asked(lambda pair: pair)
    np.testing.assert_array_equal(own.skills_right[:, -1], own.right)
    assert own.right.any()
    second = asked(lambda pair: pair.model_copy(update={"related_skills": ("other", pair.cluster_id)}))
    np.testing.assert_array_equal(second.skills_right[:, -1], own.right)
    none = asked(lambda pair: pair.model_copy(update={"related_skills": ("shared",)}))
    assert not none.skills_right[:, -1].any()


@pytest.mark.parametrize("outcome", [True, False])
def test_one_outcome_needs_no_feature(cases, outcome):
    found = fit_logistic(cases.evidence, np.full(len(cases.right), outcome), np.ones(len(cases.right)))
    assert found.features == ()
    share = (len(cases.right) * outcome + 1) / (len(cases.right) + 2)
    assert found.probability(cases.evidence[0]) == pytest.approx(share, rel=1e-4)


def test_predictions_of_a_region_do_not_look_at_its_outcomes(cases):
    judged = out_of_fold(cases)
    inside = cases.regions == 0
    turned = cases._replace(
        answered=np.where(inside, ~cases.answered, cases.answered), right=np.where(inside, ~cases.right, cases.right)
    )
    again = out_of_fold(turned)
    np.testing.assert_array_equal(again.answered[inside], judged.answered[inside])
    np.testing.assert_array_equal(again.value[inside], judged.value[inside])
    assert not np.array_equal(again.value[~inside], judged.value[~inside])


def test_the_threshold_is_the_smallest_that_reaches_the_precision(cases):
    judged, weights = out_of_fold(cases), half_and_half(cases.answered)

    def reached(threshold):
        kept = judged.answered >= threshold
        return np.average(cases.answered[kept], weights=weights[kept])

    threshold = threshold_at(judged.answered, cases.answered, 0.8)
    assert reached(threshold) >= 0.8
    below = np.sort(judged.answered[judged.answered < threshold])
    assert all(reached(value) < 0.8 for value in below)
    assert threshold_at(judged.answered, cases.answered, 0.9) > threshold
    kept = np.mean(judged.answered[cases.answered] >= threshold_at(judged.answered, cases.answered, 0.99, 0.95))
    assert kept == pytest.approx(0.95, abs=0.005)


def test_a_precision_out_of_reach_gives_the_nearest():
    probabilities = np.repeat([0.9, 0.6, 0.3], 40)
    answered = np.tile([True, True, True, False], 30) & (probabilities > 0.5)
    answered[:40] = np.arange(40) < 20
    threshold = threshold_at(probabilities, answered, 0.99)
    assert threshold == 0.6
    assert threshold_at(probabilities, answered, 0.4) == 0.3


@pytest.mark.parametrize("digits", [1, 2, 9])
@pytest.mark.parametrize(
    ("precision", "coverage"), [(0.6137, 0.0), (0.7519, 0.0), (0.9991, 0.0), (0.9013, 0.8), (0.9013, 1.0)]
)
def test_the_threshold_is_found_among_all_that_there_are(rng, digits, precision, coverage):
    """Every probability as a threshold, one after the other; of few digits many are equal."""
    probabilities = rng.uniform(size=90).round(digits)
    answered = rng.uniform(size=90) < probabilities
    weights = half_and_half(answered)
    tried = []
    for threshold in sorted(set(probabilities), reverse=True):
        kept = probabilities >= threshold
        if kept.sum() >= fitting.MIN_CASES:
            reached = weights[kept & answered].sum() / weights[kept].sum()
            tried.append((threshold, reached, (kept & answered).sum() / answered.sum()))
    reaching = [one for one in tried if one[1] >= precision]
    chosen = reaching[-1] if reaching else max(tried, key=lambda one: one[1])
    if chosen[2] < coverage:
        chosen = next(one for one in tried if one[2] >= coverage)
    found = threshold_at(probabilities, answered, precision, coverage)
    assert chosen[0] - 1e-6 < found <= chosen[0]


@pytest.mark.parametrize("count", [29, 30, 31])
def test_thirty_questions_are_enough_for_a_threshold_and_fewer_where_there_are_no_more(count):
    """The surest are answered; the more are kept, the fewer are."""
    probabilities = np.linspace(0.9, 0.1, 60)
    found = threshold_at(probabilities, np.arange(60) < count, 0.999)
    assert found == pytest.approx(probabilities[max(count, 30) - 1], abs=1e-6)
    few = threshold_at(probabilities[:10], np.arange(10) < 4, 0.5)
    assert found <= 1
    assert few == pytest.approx(probabilities[9], abs=1e-6)


def test_a_precision_and_a_coverage_that_are_just_reached_are_reached():
    probabilities, answered = np.repeat([0.8, 0.6, 0.4], 40), np.tile([True, False], 60)
    assert threshold_at(probabilities, answered, 0.5, 1 / 3) == 0.4
    answered = np.repeat([True, False, True], 40)
    assert threshold_at(probabilities, answered, 0.99, 0.5) == 0.8


def test_numbers_are_kept_short_and_a_threshold_never_above_what_it_keeps():
    assert fitting._short(0.123456789) == 0.123457
    assert fitting._short(1_234_567.8) == 1_234_570
    assert fitting._short(0.9999995, down=True) == 0.999999
    probabilities = np.full(40, 0.1234567)
    assert threshold_at(probabilities, np.arange(40) < 20, 0.5) == 0.123456


def test_log_odds_are_kept_finite():
    found = fitting.log_odds(np.array([0.0, 0.25, 0.9, 1.0]))
    assert found == pytest.approx([-np.log(1e6 - 1), np.log(1 / 3), np.log(9), np.log(1e6 - 1)])


@pytest.fixture
def three_regions(cases):
    few = cases.take(np.arange(2_000) < 240)
    return few._replace(regions=np.arange(240) % 3)


def test_each_region_is_predicted_from_the_two_others(three_regions):
    """Both factors, fitted again on what the region does not hold."""
    cases = three_regions
    judged = out_of_fold(cases)
    for region in range(3):
        rest = np.flatnonzero(cases.regions != region)
        known = rest[cases.answered[rest]]
        first = fit_logistic(cases.evidence[rest], cases.answered[rest], half_and_half(cases.answered[rest]))
        second = fit_logistic(cases.evidence[known], cases.right[known], np.ones(len(known)))
        for row in np.flatnonzero(cases.regions == region):
            answered = first.probability(cases.evidence[row])
            value = answered * second.probability(cases.evidence[row])
            assert judged.answered[row] == pytest.approx(answered, abs=1e-9)
            assert judged.value[row] == pytest.approx(value, abs=1e-9)


def test_skills_of_each_region_are_predicted_from_the_two_others(three_regions):
    """Those that the first answer names by the one that it names first, others by the ranked ones."""
    cases = three_regions
    judged = out_of_fold(cases)
    answered, right = (np.log(given / (1 - given)) for given in (judged.answered, judged.right))

    def rows_of(row, places):
        skills = cases.skills[row, places]
        there = ~np.isnan(skills[:, 0])
        columns = [np.full(len(skills), answered[row]), np.full(len(skills), right[row]), *skills.T]
        return np.column_stack(columns)[there], cases.skills_right[row, places][there]

    def fitted(rest, places, columns, names):
        found = [rows_of(row, places) for row in rest]
        weights = np.repeat(half_and_half(cases.answered[rest]), [len(rows) for rows, _ in found])
        rows, outcomes = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return fit_logistic(rows[:, columns], outcomes, weights, names, np.ones(4))

    for region in range(3):
        rest = np.flatnonzero(cases.regions != region)
        other = fitted(rest, [1, 2], [0, 2, 3, 4], SKILL_FEATURES)  # the first answer names the first and the last
        named = fitted(rest, [3], [0, 1, 2, 3], NAMED_FEATURES)
        for row in np.flatnonzero(cases.regions == region):
            found = [named.probability(one[:4], NAMED_FEATURES) for one in rows_of(row, [0, 3])[0]]
            found[1:1] = [other.probability(one[[0, 2, 3, 4]], SKILL_FEATURES) for one in rows_of(row, [1, 2])[0]]
            there = ~np.isnan(cases.skills[row, :, 0])
            expected = np.full(4, np.nan)
            expected[there] = found
            np.testing.assert_allclose(judged.skills[row], expected[:-1], atol=1e-6)
            assert judged.skill[row] == pytest.approx(np.fmax(expected[-1], judged.value[row]), abs=1e-6)


def test_a_case_that_weighs_three_is_three_cases(rng):
    found = rng.normal(3.0, 2.0, (150, 1))
    times = np.where(
        np.abs(found[:, 0] - 4) > 2.5, 5, 1
    )  # both tails, one more: mean and scale are others than without
    positive = found[:, 0] - 3 + rng.logistic(size=150) > 0

    def fitted(rows, outcomes, weights):
        return fit_logistic(rows, outcomes, weights, ["skill_score"], np.ones(1))

    weighed = fitted(found, positive, times.astype(float))
    repeated = fitted(np.repeat(found, times, axis=0), np.repeat(positive, times), np.ones(times.sum()))
    for part in ("mean", "scale", "coefficients", "intercept"):
        np.testing.assert_allclose(getattr(weighed, part), getattr(repeated, part), rtol=2e-3, atol=1e-4)
    odds = weighed.intercept + weighed.coefficients[0] * (found[:, 0] - weighed.mean[0]) / weighed.scale[0]
    mean = np.average(1 / (1 + np.exp(-odds)), weights=times)
    assert mean == pytest.approx(np.average(positive, weights=times), abs=1e-3)


def test_a_weak_feature_is_kept_and_a_lone_contrary_one_leaves_the_share(rng):
    found = rng.normal(size=(400, 1))
    positive = 0.3 * found[:, 0] + rng.logistic(size=400) > 0
    kept = fit_logistic(found, positive, np.ones(400), ["skill_score"], np.ones(1))
    assert kept.features == ("skill_score",)
    assert 0 < kept.coefficients[0] < 1
    dropped = fit_logistic(-found, positive, np.ones(400), ["skill_score"], np.ones(1))
    assert (dropped.features, dropped.coefficients) == ((), ())
    share = (positive.sum() + 1) / 402
    assert dropped.intercept == pytest.approx(np.log(share / (1 - share)), rel=1e-5)


@pytest.mark.parametrize(("named", "area"), [([0], True), ([], False), (range(240), False)])
def test_figures_of_skills_are_there_where_they_can_be(three_regions, named, area):
    right = np.zeros_like(three_regions.skills_right)
    right[:, 0] = True
    right[list(named), -1] = True
    cases = three_regions._replace(skills_right=right)
    judged = out_of_fold(three_regions)
    figures = fitting._figures(cases, judged, judged.answered > 0.4)
    usual = {"calibration_error", "roc_area", "first_right", "precision"}
    skills = {"skill_calibration_error", "skill_right", "ranked_skill_calibration_error"}
    assert figures.keys() == usual | skills | ({"skill_roc_area"} if area else set())
    assert figures["first_right"] == cases.right[cases.answered].mean()


def test_both_kinds_count_alike():
    answered = np.array([True, False, False, False])
    weights = half_and_half(answered)
    assert weights[answered].sum() == weights[~answered].sum() == 2
    np.testing.assert_array_equal(half_and_half(np.ones(3, bool)), np.ones(3))


def test_a_calibration_error_is_its_definition():
    probabilities = np.array([0.05, 0.05, 0.95, 1.0])
    right = np.array([False, True, True, True])
    ones = np.ones(4)
    assert calibration_error(probabilities, right, ones) == pytest.approx((2 * 0.45 + 2 * 0.025) / 4)
    assert calibration_error(probabilities, right, np.array([1.0, 0, 0, 0])) == pytest.approx(0.05)


def test_errors_of_one_bin_cancel_out_and_those_of_two_do_not(rng):
    """Bin by bin; the last holds 1 too."""
    probabilities = np.array([*rng.uniform(size=60), 0.1, 0.2, 0.85, 0.95, 1.0])
    right, weights = rng.uniform(size=65) < 0.5, rng.uniform(0.5, 2, 65)
    right[-3:] = True, False, True
    expected = 0.0
    for number in range(10):
        inside = (probabilities >= number / 10) & ((probabilities < (number + 1) / 10) | (number == 9))
        if inside.any():
            gap = np.average(probabilities[inside], weights=weights[inside]) - np.average(
                right[inside], weights=weights[inside]
            )
            expected += weights[inside].sum() / weights.sum() * abs(gap)
    assert calibration_error(probabilities, right, weights) == pytest.approx(expected, abs=1e-12)
    assert calibration_error(np.array([0.15, 0.95]), np.array([True, False]), np.ones(2)) == pytest.approx(0.9)
    assert calibration_error(np.array([0.85, 0.95]), np.array([True, False]), np.ones(2)) == pytest.approx(0.55)
    assert calibration_error(np.array([0.95, 1.0]), np.array([True, False]), np.ones(2)) == pytest.approx(0.475)
    assert calibration_error(np.array([0.05]), np.array([True]), np.ones(1)) == pytest.approx(0.95)


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_the_floor_is_the_mean_error_of_exact_probabilities(rng, spread):
    """Outcomes drawn by the probabilities themselves, again and again."""
    probabilities, weights = rng.beta(0.8, 1.2, size=600), np.exp(spread * rng.uniform(-1, 0, size=600))
    drawn = [calibration_error(probabilities, rng.uniform(size=600) < probabilities, weights) for _ in range(2_000)]
    floor = calibration_floor(probabilities, weights)
    assert floor == pytest.approx(np.mean(drawn), rel=0.03)
    assert calibration_floor(probabilities, 3 * weights) == pytest.approx(floor)
    assert calibration_floor(np.repeat([0.0, 1.0], 9), np.ones(18)) == 0


@pytest.mark.corpus
def test_the_real_corpus_is_calibrated(real_corpus):
    pairs = [item.pair for item in read_files(find_files([real_corpus]), ReadSettings()) if isinstance(item, Located)]
    with np.load(real_corpus.parents[1] / "embeddings" / "minilm.npz") as arrays:
        examples = Examples(pairs, arrays["Q"].astype(np.float64), arrays["A"].astype(np.float64))
    found = calibrate(examples, START, FitSettings(), lambda _: None)
    assert found.figures["calibration_error"] <= 0.05
    assert found.figures["roc_area"] >= 0.85
    assert found.coverage >= 0.9
    assert found.figures["skill_calibration_error"] <= 0.04
    assert found.figures["ranked_skill_calibration_error"] <= 0.02
    assert found.figures["skill_roc_area"] >= 0.8


def test_ranked_skills_are_as_the_fold_scores_them(examples):
    """Evidence and outcome of every ranked skill, computed again pair by pair."""
    fold = split_fold(examples, phrasing_split(examples.pairs, 0), 0)
    asked = ask(fold, START)
    totals = fold.scores(fold.project(START).searched, START.search)
    names = [pair.related_skills for pair in fold.candidates.pairs]
    for row, pair in enumerate(fold.queries.pairs[:20]):
        means = {}
        for skill in {one for paths in names for one in paths}:
            own = sorted((totals[row, column] for column, paths in enumerate(names) if skill in paths), reverse=True)
            means[skill] = np.mean(own[:5])
        ranked = sorted(means, key=lambda skill: (-means[skill], skill))[:NEAREST]
        for place, skill in enumerate(ranked):
            other = max(mean for name, mean in means.items() if name != skill)
            expected = [means[skill], means[skill] - other, skill in names[totals[row].argmax()]]
            np.testing.assert_allclose(asked.skills[row, place], expected, atol=1e-6)
            assert asked.skills_right[row, place] == (skill in pair.related_skills)


def test_the_confidence_of_a_ranked_skill_is_what_happens(cases):
    judged = out_of_fold(cases)
    found = fit_calibration(cases, judged, 0.75)
    assert found.figures["ranked_skill_calibration_error"] < 0.03
    assert (np.isnan(judged.skills) == np.isnan(cases.skills[:, :-1, 0])).all()
    assert (judged.skill >= judged.value).all()
    row, skills = cases.evidence[0], np.array([[0.1, 0.4, 0.0], [0.1, -0.4, 0.0], [0.1, 0.4, 1.0], [0.1, -0.4, 1.0]])
    likely, unlikely, named, unlikely_named = found.skill_probabilities(row, skills)
    assert likely > unlikely
    assert named > unlikely_named
    values = {"answered": found.answered.log_odds(row), "right": found.right.log_odds(row)}
    values |= {"skill_score": 0.1, "skill_margin": 0.4}
    for given, fitted in ((likely, found.skill), (named, found.named_skill)):
        odds = fitted.intercept + sum(
            coefficient * (values[name] - mean) / scale
            for name, coefficient, mean, scale in zip(
                fitted.features, fitted.coefficients, fitted.mean, fitted.scale, strict=True
            )
        )
        assert given == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-12)


def test_every_skill_may_be_named_by_the_first_answer(cases):
    """As where there is one skill: nothing tells how likely another one is."""
    skills = cases.skills.copy()
    skills[:, 1:-1] = np.nan
    one = cases._replace(skills=skills)
    found = fit_calibration(one, out_of_fold(one), 0.75)
    assert (found.skill.features, found.skill.intercept) == ((), 0)
    assert found.named_skill.features
