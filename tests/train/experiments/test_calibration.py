import numpy as np
import pytest

from qaserve.common.errors import CorpusError
from qaserve.core.splits import phrasing_split
from qaserve.schemas.params import Hyperparameters, SearchParams, Trial, Tuning
from qaserve.settings import FitSettings
from train.calibration import calibration_error
from train.experiments import calibration as experiment
from train.experiments.calibration import EXPERIMENT, UNANSWERED, run, sides_of, steps
from train.experiments.calibration_report import (
    ANSWERED,
    FAR,
    FOREIGN,
    INTENTS,
    SKILLS,
    Bin,
    CalibrationRun,
    Coefficient,
    Kind,
    Operation,
)
from train.experiments.datasets import Source
from train.experiments.harness import Report
from train.folds import Examples

KINDS, ITEMS = 10, 8


@pytest.fixture
def examples(rows, encoded, write_rows):
    """Ten topics of eight things each; two things of a topic share a skill."""
    made = rows([f"topic{kind} matter{kind} item{kind}x{item}" for kind in range(KINDS) for item in range(ITEMS)])
    for number, row in enumerate(made):
        row["answer"] = f"{row['topics'][1]} note{number % 4}"
        row["related_skills"] = [f"skill{number // 8}.md"]
    return encoded(write_rows(made))


@pytest.fixture
def report():
    """A report with figures chosen by hand."""

    def of(encoder, *, foreign):
        names = UNANSWERED if foreign else UNANSWERED[1:]
        return CalibrationRun(
            encoder=encoder,
            pairs=100,
            seeds=(0, 1),
            known=70.0,
            questions=40,
            first_right=0.5,
            precision=0.75,
            mixed_with=names[0],
            calibration_error=0.0412,
            calibration_error_worst=0.0623,
            calibration_floor=0.0287,
            calibration_error_answered=0.11,
            calibration_floor_answered=0.046,
            skill_right=0.7,
            skill_calibration_error=0.037,
            skill_calibration_floor=0.0333,
            skill_roc_area=0.85,
            ranked_skill_calibration_error=0.0152,
            ranked_skill_calibration_floor=0.0084,
            kinds=tuple(
                Kind(
                    name=name,
                    questions=9,
                    nearest=0.4,
                    roc_area=0.9,
                    calibration_error=0.05,
                    calibration_floor=0.031,
                    skill_calibration_error=0.062,
                    skill_calibration_floor=0.0394,
                    abstained=0.8,
                )
                for name in names
            ),
            operations=tuple(
                Operation(
                    precision=precision,
                    threshold=precision / 2,
                    reached=0.9,
                    kept=0.95,
                    right_kept=0.97,
                    first_right=0.52,
                    abstained=dict.fromkeys(names, precision),
                )
                for precision in (0.6, 0.75)
            ),
            bins=(Bin(predicted=0.05, observed=0.04, share=0.5), Bin(predicted=0.6, observed=0.55, share=0.5)),
            risk=((0.1, 0.2), (0.5, 0.4), (1.0, 0.7)),
            coefficients=(Coefficient(part="answered", feature="answer_similarity", value=1.5),),
            without="" if foreign else "the encoder was not at hand",
        )

    return Report[CalibrationRun](runs=(of("one", foreign=True), of("two", foreign=False)))


@pytest.mark.parametrize("seed", [0, 5])
def test_nothing_that_is_asked_is_known(examples, seed):
    sides = sides_of(examples, seed)
    intents = np.array(examples.intents)
    known = set(intents[sides.train])
    assert set(sides.queries) == {ANSWERED, SKILLS, INTENTS}
    rows = np.concatenate([sides.train, *sides.queries.values()])
    assert len(rows) == len(set(rows.tolist())) == len(examples)
    assert set(intents[sides.queries[ANSWERED]]) <= known
    for name in (SKILLS, INTENTS):
        assert not set(intents[sides.queries[name]]) & known
    gone = {skill for row in sides.queries[SKILLS] for skill in examples.pairs[row].related_skills}
    assert not gone & {skill for row in sides.train for skill in examples.pairs[row].related_skills}
    assert len(sides.queries[SKILLS]) >= experiment.SKILLS_OUT * len(examples)
    again = sides_of(examples, seed)
    np.testing.assert_array_equal(again.train, sides.train)
    assert not np.array_equal(sides_of(examples, seed + 1).train, sides.train)


def test_a_corpus_without_skills_is_judged_without_them(examples):
    bare = Examples(
        [pair.model_copy(update={"related_skills": ()}) for pair in examples.pairs],
        examples.questions,
        examples.answers,
    )
    assert set(sides_of(bare, 0).queries) == {ANSWERED, INTENTS}
    found = run(Source("fake", bare), seeds=[0], quick=False, advance=lambda _: None)
    assert found.kind(SKILLS) is None
    assert found.kind(INTENTS).skill_calibration_error is found.kind(INTENTS).skill_calibration_floor is None
    assert any("–" in row for row in EXPERIMENT.tables(Report[CalibrationRun](runs=(found,)))[0].rows)


def test_a_quick_run(examples, encoder):
    told = []
    source = Source("fake", examples, encoder)
    found = run(source, seeds=[3, 4], quick=True, advance=told.append)
    assert sum(told) == steps([3, 4], quick=True) == steps([3], quick=False)
    assert found.seeds == (3,)
    assert found.precision == FitSettings().precision
    assert found.mixed_with == FOREIGN
    assert found.kind(FOREIGN).questions == experiment.QUICK_FOREIGN
    assert found.without == ""
    sides = sides_of(examples, 3)
    assert found.questions == len(sides.queries[ANSWERED])
    assert found.known == len(sides.train)
    assert found == run(source, seeds=[3, 4], quick=True, advance=lambda _: None)


def test_the_figures_agree_with_each_other(examples, encoder):
    found = run(Source("fake", examples, encoder), seeds=[0, 1], quick=False, advance=lambda _: None)
    assert sum(one.share for one in found.bins) == pytest.approx(1)
    assert 0 <= found.calibration_error <= found.calibration_error_worst <= 1
    coverage, risk = np.array(found.risk).T
    assert coverage[-1] == pytest.approx(1)
    assert (np.diff(coverage) > 0).all()
    assert risk[-1] == pytest.approx(1 - sum(one.observed * one.share for one in found.bins))
    kept = [one.kept for one in found.operations]
    assert kept == sorted(kept, reverse=True)
    assert [one.precision for one in found.operations] == list(experiment.PRECISIONS)
    assert found.kind(FOREIGN).roc_area > 0.8
    assert found.first_right <= found.skill_right <= 1
    assert 0 <= found.skill_calibration_error <= 1
    assert found.skill_roc_area > 0.5
    mixed = found.kind(found.mixed_with)
    assert (mixed.calibration_error, mixed.calibration_floor) == (found.calibration_error, found.calibration_floor)
    assert mixed.skill_calibration_error == found.skill_calibration_error
    assert mixed.skill_calibration_floor == found.skill_calibration_floor
    assert 0 < found.calibration_floor < 0.1
    assert {one.part for one in found.coefficients} >= {"answered", "named_skill"}


def test_without_an_encoder_another_corpus_is_left_out(examples):
    found = run(Source("fake", examples), seeds=[0], quick=True, advance=lambda _: None)
    assert found.kind(FOREIGN) is None
    assert found.mixed_with != FOREIGN
    said = EXPERIMENT.findings(Report[CalibrationRun](runs=(found,)))
    assert any("were not asked: the encoder was not at hand" in one for one in said)


def test_the_sample_is_not_another_corpus_to_itself(encoder, encoded):
    sample = encoded(experiment.SAMPLE)
    found = run(Source("fake", sample, encoder), seeds=[0], quick=False, advance=lambda _: None)
    assert found.kind(FOREIGN) is None
    assert "the corpus holds questions of the one" in found.without


def test_too_few_pairs_are_refused(examples):
    few = examples.take(np.arange(40))
    with pytest.raises(CorpusError, match="40 pairs are too few to calibrate on some"):
        run(Source("fake", few), seeds=[0], quick=False, advance=lambda _: None)


def test_a_held_out_phrasing_is_asked_of_the_known_side_alone(examples):
    sides = sides_of(examples, 2)
    inside = np.sort(np.concatenate([sides.train, sides.queries[ANSWERED]]))
    split = phrasing_split([examples.pairs[row] for row in inside], 2)
    np.testing.assert_array_equal(inside[split.test], sides.queries[ANSWERED])


def test_the_tables_show_what_the_report_holds(report):
    assert Report[CalibrationRun].model_validate_json(report.model_dump_json()) == report
    kinds, operations, features = EXPERIMENT.tables(report)[:3]
    assert all(len(row) == len(table.columns) for table in EXPERIMENT.tables(report) for row in table.rows)
    assert kinds.rows[0] == (FOREIGN, "9", "0.40", "0.900", "0.050", "0.031", "0.062", "0.039", "80%")
    assert operations.rows[1][:6] == ("0.75", "0.38", "0.90", "95.0%", "97.0%", "0.520")
    assert features.rows == (("the corpus answers", "answer similarity", "+1.50"),)


def test_the_error_over_all_seeds_is_that_of_their_questions_as_one(report, rng):
    value, weights = rng.random(400), rng.uniform(0.5, 2, 400)
    right = rng.random(400) < value**2
    run = report.runs[0].model_copy(update={"bins": tuple(experiment._bins(value, right, weights))})
    assert run.calibration_error_together == pytest.approx(calibration_error(value, right, weights))
    assert run.calibration_error_together > 0.1


def test_the_findings_are_made_from_the_report(report):
    said = EXPERIMENT.findings(report)
    assert all(sentence.startswith(("one: ", "two: ")) for sentence in said)
    assert any(
        "off by 0.041" in one and "worst seed 0.062" in one and "would be off by 0.029, by chance" in one
        for one in said
    )
    assert any("by chance. Over the questions of all seeds together it is off by 0.030." in one for one in said)
    assert any("the first answer is right is off by 0.110 (exact ones: 0.046)" in one for one in said)
    assert any("each ranked skill is off by 0.015 (exact ones: 0.008)" in one for one in said)
    assert any(
        "With the stated precision 0.75 the engine abstains on 5.0%" in sentence and f"75.0% of {FAR}" in sentence
        for sentence in said
    )
    assert any(
        "names the right skill for 70.0%" in one and "off by 0.037 (exact ones: 0.033); its ROC area is 0.850" in one
        for one in said
    )
    assert not any("were not asked" in sentence for sentence in said if sentence.startswith("one"))
    assert any("were not asked" in sentence for sentence in said if sentence.startswith("two"))


def test_the_plots_draw(report):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    assert [plot.name for plot in EXPERIMENT.plots(report)] == ["reliability", "risk-coverage"]
    for plot in EXPERIMENT.plots(report):
        axes = Figure().add_subplot()
        plot.draw(axes)
        lines = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
        assert [line.get_label().split(" ")[0] for line in lines] == ["one", "two"]
    axes = Figure().add_subplot()
    EXPERIMENT.plots(report)[1].draw(axes)
    np.testing.assert_allclose(axes.get_lines()[0].get_xydata(), report.runs[0].risk)


def test_it_is_an_experiment():
    assert (EXPERIMENT.name, EXPERIMENT.report) == ("calibration", Report[CalibrationRun])


def test_a_build_is_tuned_on_the_training_side_and_judged_as_it_answers(examples, monkeypatch):
    asked, tuned = [], Hyperparameters(search=SearchParams(lexical_weight=0.3))
    sides = sides_of(examples, 1)

    def tune(train, fit, advance):
        assert [pair.pair_id for pair in train.pairs] == [examples.pairs[row].pair_id for row in sides.train]
        assert fit.seed == 1
        chosen = Trial(**dict(tuned), phrasings=0.5, intents=0.5)
        return Tuning(phrasings=40, intents=40, plain=chosen, unprojected=chosen, chosen=chosen, curve=(chosen,))

    def noted(function, place):
        def call(*args):
            asked.append(args[place])
            return function(*args)

        return call

    monkeypatch.setattr(experiment, "tune", tune)
    monkeypatch.setattr(experiment, "collect", noted(experiment.collect, 1))
    monkeypatch.setattr(experiment, "ask", noted(experiment.ask, 1))
    run(Source("fake", examples), seeds=[1], quick=False, advance=lambda _: None)
    assert asked == [tuned] * (1 + len(sides.queries))


def test_where_the_corpus_answers_the_second_factor_alone_is_judged(rng):
    answered, right = rng.uniform(0.2, 1, size=(2, 50))
    blank = np.zeros((50, 2))
    asked = experiment.Asked(
        answered, answered * right, right > 0.5, right > 0.5, right, blank > 0, blank, rng.uniform(size=50)
    )
    value, outcomes, weights = experiment._given(asked)
    np.testing.assert_allclose(value, right)
    np.testing.assert_array_equal(outcomes, asked.right)
    assert set(weights) == {1}
