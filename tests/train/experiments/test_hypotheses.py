import numpy as np
import pytest

from qaserve.core.splits import phrasing_split
from qaserve.core.student import StudentSpec
from qaserve.schemas.ingest import Interval
from train.distillation.configs import REFERENCE_RECIPE
from train.distillation.training import distill
from train.experiments import hypotheses as experiment
from train.experiments import hypotheses_report as reporting
from train.experiments.datasets import Source
from train.experiments.harness import COSINE, Difference, Report
from train.experiments.hypotheses import EXPERIMENT, Pairs, run, steps
from train.experiments.hypotheses_report import HypothesesRun, Hypothesis
from train.experiments.result_cache import ResultCache
from train.folds import make_fold


def unit(rng, *shape):
    rows = rng.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def examples(rows, encoded, write_rows):
    return encoded(write_rows(rows([f"thing{number} part{number % 7}" for number in range(20)])))


def rotation_of(rng, size):
    turn, _ = np.linalg.qr(rng.normal(size=(size, size)))
    turn[:, 0] *= np.linalg.det(turn)
    return turn


def test_each_reading_recovers_its_own_kind_of_map(rng):
    """Pairs that a turn, a scale and a shift explain wholly: who lacks a part of it is off by that part."""
    s, asked, turn, shift = unit(rng, 40, 6), unit(rng, 9, 6), rotation_of(rng, 6), rng.normal(size=6)
    readings = experiment.READINGS
    wholly = 0.5 * s @ turn + shift
    np.testing.assert_allclose(readings["centred and translated"](Pairs(s, wholly), asked), 0.5 * asked @ turn + shift)
    np.testing.assert_allclose(
        readings["centred, not translated"](Pairs(s, wholly), asked), 0.5 * asked @ turn, atol=1e-9
    )
    np.testing.assert_allclose(readings["uncentred"](Pairs(s, 3 * s @ turn), asked), asked @ turn, atol=1e-9)
    np.testing.assert_allclose(readings["minimal rotation"](Pairs(s, s @ turn), asked), asked @ turn, atol=1e-4)


def test_only_the_minimal_rotation_leaves_alone_what_its_pairs_do_not_span(rng):
    s, t = unit(rng, 3, 24), unit(rng, 3, 24)
    basis, _ = np.linalg.qr(np.concatenate([s, t]).T)
    other = unit(rng, 1, 24)
    other -= (other @ basis) @ basis.T
    kept = {
        name: np.allclose(carry(Pairs(s, t), other), other, atol=1e-6) for name, carry in experiment.READINGS.items()
    }
    assert {name for name, alone in kept.items() if alone} == {"minimal rotation", "anchored"}


def test_a_quick_run_tests_every_claim_by_every_reading(examples):
    told = []
    found = run(Source("fake", examples), seeds=[3, 4], quick=True, advance=told.append)
    assert sum(told) == steps([3, 4], True)
    assert len(found.hypotheses) == len(experiment.READINGS) * 7 + 4
    report = Report[HypothesesRun](runs=(found,))
    read = Report[HypothesesRun].model_validate_json(report.model_dump_json())
    assert EXPERIMENT.tables(read) == EXPERIMENT.tables(report)
    for table in EXPERIMENT.tables(read):
        assert {len(row) for row in table.rows} == {len(table.columns)}
    by_hand(found, examples)
    check_students(found, examples)


def check_students(found, examples):
    """Each trained again, with a teacher of its own."""
    fold = fold_of(examples)

    def cosines_of(reading, heads, layers):
        def teacher(rows):
            return by_centroids(fold, reading, rows)

        spec = StudentSpec(dimension=48, heads=heads, layers=layers, residual=False)
        recipe = REFERENCE_RECIPE.model_copy(update={"epochs": 2})
        student = distill(fold.train.questions, teacher, spec, recipe, seed=3, device="cpu").student
        moved, targets = student.project(fold.queries.questions), teacher(fold.queries.questions)
        return np.mean([m @ t / np.linalg.norm(m) / np.linalg.norm(t) for m, t in zip(moved, targets, strict=True)])

    best = cosines_of("centred, not translated", 6, 3)
    others = {
        (reporting.LAYERS, "3 layers against 2"): cosines_of("centred, not translated", 12, 2),
        (reporting.LAYERS, "3 layers against 4"): cosines_of("centred, not translated", 4, 4),
        (reporting.CEILING, "uncentred"): cosines_of("uncentred", 6, 3),
        (reporting.CEILING, "anchored"): cosines_of("anchored", 6, 3),
    }
    tested = [one for one in found.hypotheses if one.claim in {reporting.LAYERS, reporting.CEILING}]
    assert {(one.claim, one.test if one.claim == reporting.LAYERS else one.reading) for one in tested} == set(others)
    for one in tested:
        other = others[one.claim, one.test if one.claim == reporting.LAYERS else one.reading]
        assert one.difference.base == pytest.approx(other, abs=1e-6)
        assert one.difference.gain.mean == pytest.approx(best - other, abs=1e-6)


def by_centroids(fold, reading, rows):
    """The ten nearest mean questions blend the readings of their clusters, at τ 0.1, one row after the other."""
    members = [fold.labels == cluster for cluster in range(fold.count)]
    sums = np.stack([fold.train.questions[own].sum(axis=0) for own in members])
    means = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
    moved = []
    for row in rows:
        nearest = np.argsort(-(means @ row))[:10]
        powers = np.exp(means[nearest] @ row / 0.1)
        through = [
            experiment.READINGS[reading](Pairs(fold.train.questions[own], fold.train.answers[own]), row[None])[0]
            for own in (members[cluster] for cluster in nearest)
        ]
        moved.append(powers @ np.stack(through) / powers.sum())
    return np.stack(moved)


def fold_of(examples):
    split = phrasing_split(examples.pairs, 3)
    return make_fold(examples.take(split.train), examples.take(split.test), 3)


@pytest.mark.parametrize("reading", experiment.TEACHERS)
def test_the_proposals_teacher_routes_by_ten_centroids(examples, reading):
    fold = fold_of(examples)
    found = experiment.taught(fold, reading, fold.queries.questions)
    np.testing.assert_allclose(found, by_centroids(fold, reading, fold.queries.questions), atol=1e-6)


def test_what_an_interrupted_run_measured_is_taken_from_the_cache(examples, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "LARGE", 50_000)
    monkeypatch.setattr(experiment, "TEMPERATURES", (0.05, 0.2))
    monkeypatch.setattr(experiment, "REFERENCE_RECIPE", REFERENCE_RECIPE.model_copy(update={"epochs": 1}))

    def measure(cache):
        return run(Source("fake", examples, cache=cache), seeds=[3, 5], quick=False, advance=lambda _: None)

    alone = measure(None)
    assert measure(ResultCache(tmp_path / "kept")) == alone
    assert len(list((tmp_path / "kept").iterdir())) == 2 + 5 + 1  # splits, students of the first, and of the second
    monkeypatch.setattr(experiment, "distill", None)
    monkeypatch.setattr(experiment, "_readings", None)
    assert measure(ResultCache(tmp_path / "kept")) == alone


def test_findings_name_what_three_layers_stand_against(examples):
    found = run(Source("fake", examples), seeds=[3], quick=True, advance=lambda _: None)
    said = "\n".join(reporting.findings(found))
    assert "Three layers are the best depth of a student: " in said
    for name in ("3 layers against 2 ", "3 layers against 4 ", "uncentred ", "anchored "):
        assert name in said.split("Three layers")[1]
    old = found.model_copy(update={"hypotheses": found.hypotheses[:-4]})
    assert len(list(reporting.findings(old))) == len(reporting.CLAIMS) - 2


def by_hand(found, examples):
    """The anchored reading by questions at τ 0.1, one query after the other."""
    fold = fold_of(examples)
    cosines = []
    for query, answer in zip(fold.queries.questions, fold.queries.answers, strict=True):
        powers = np.exp(fold.train.questions @ query / 0.1)
        moved = 0
        for cluster in range(fold.count):
            s, t = fold.train.questions[fold.labels == cluster], fold.train.answers[fold.labels == cluster]
            left, _, right = np.linalg.svd(s.T @ t + np.eye(s.shape[1]))
            moved = moved + powers[fold.labels == cluster].sum() / powers.sum() * (query @ left @ right)
        cosines.append(moved @ answer / np.linalg.norm(moved))
    (method,) = (one for one in found.methods if (one.reading, one.routing) == ("anchored", "question"))
    assert method.cosine_at_reference == pytest.approx(np.mean(cosines), abs=1e-6)


def test_the_best_temperature_is_chosen_on_the_training_side(examples, monkeypatch):
    """The questions asked may change as they like."""
    monkeypatch.setattr(experiment, "TEMPERATURES", (0.05, 0.2))
    monkeypatch.setattr(experiment, "REFERENCE_RECIPE", REFERENCE_RECIPE.model_copy(update={"epochs": 1}))
    first = run(Source("fake", examples), seeds=[3], quick=False, advance=lambda _: None)
    split = phrasing_split(examples.pairs, 3)
    examples.questions[split.test] = examples.questions[split.test[::-1]]
    again = run(Source("fake", examples), seeds=[3], quick=False, advance=lambda _: None)
    assert again.choices == first.choices
    assert again.methods != first.methods


@pytest.mark.parametrize(
    ("low", "high", "at_least", "verdict"),
    [
        (0.06, 0.08, 0.1, "held"),
        (0.01, 0.08, 0.1, "undecided"),
        (0.01, 0.03, 0.1, "refuted"),
        (-0.03, -0.01, 0.0, "refuted"),
        (-0.01, 0.01, 0.0, "no difference"),
        (-0.01, 0.2, 0.1, "no difference"),
        (-0.01, 0.04, 0.1, "refuted"),
    ],
)
def test_a_verdict_looks_at_the_whole_interval(low, high, at_least, verdict):
    gain = Interval(low=low, mean=(low + high) / 2, high=high)
    one = Difference(method="m", reference="r", measure=COSINE, base=0.5, gain=gain)
    tested = Hypothesis(claim="c", reading="r", test="t", at_least=at_least, difference=one)
    assert tested.verdict == verdict


def test_the_smallest_detectable_effect_has_a_power_of_four_in_five():
    """z(0.975) + z(0.8) standard errors, of which the interval is 2 z(0.975) wide."""
    from scipy.stats import norm

    gain = Interval(low=-0.02, mean=0.0, high=0.02)
    one = Difference(method="m", reference="r", measure=COSINE, base=0.5, gain=gain)
    found = Hypothesis(claim="c", reading="r", test="t", at_least=0, difference=one).detectable
    assert found == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) * 0.04 / (2 * norm.ppf(0.975)), rel=1e-3)
