import numpy as np
import pytest

from qaserve.core.splits import phrasing_split
from qaserve.schemas.params import SearchParams
from qaserve.settings import FitSettings
from train import tuning
from train.folds import make_fold
from train.tuning import defaults_of, ranks_of, tune

COUNT = 40


@pytest.fixture
def examples(rows, encoded, write_rows):
    """Enough phrasings to choose by."""
    return encoded(write_rows(rows([f"thing{number} part{number % 7}" for number in range(COUNT)])))


def test_what_is_chosen_was_tried_and_is_no_worse_than_the_start(examples):
    told = []
    tuned = tune(examples, FitSettings(seed=0), told.append)
    assert tuned.chosen.mrr >= tuned.curve[0].mrr
    assert tuned.chosen in tuned.curve
    assert len(told) == tuning.FOLDS + len(tuned.curve)
    assert tuned.queries == tuning.FOLDS * COUNT
    assert len({trial.model_dump_json(exclude={"mrr"}) for trial in tuned.curve}) == len(tuned.curve)
    assert tuned == tune(examples, FitSettings(seed=0), told.append)


def test_the_figure_of_a_trial_is_what_asking_gives(examples):
    tuned = tune(examples, FitSettings(seed=4), lambda _: None)
    found = []
    for number in range(tuning.FOLDS):
        split = phrasing_split(examples.pairs, 4 + number)
        fold = make_fold(examples.take(split.train), examples.take(split.test), 4)
        found += (1 / ranks_of(fold, tuned.chosen)).tolist()
    assert np.mean(found) == pytest.approx(tuned.chosen.mrr, abs=1e-6)


def test_a_given_anchor_is_kept(examples):
    tuned = tune(examples, FitSettings(regularization=7.0), lambda _: None)
    assert {trial.anchor for trial in tuned.curve} == {7.0}


def test_the_bound_on_clusters_holds_in_the_folds_too(examples, monkeypatch):
    counts = []
    monkeypatch.setattr(tuning, "ranks_of", lambda fold, _: counts.append(fold.count) or np.ones(len(fold.queries)))
    tune(examples, FitSettings(max_clusters=3), lambda _: None)
    assert set(counts) == {3}


def test_too_few_phrasings_leave_the_defaults(examples):
    few = examples.take(np.arange(4 * (tuning.MIN_QUERIES - 1)))
    assert tune(few, FitSettings(), lambda _: None) is None
    assert defaults_of(None) == SearchParams()


@pytest.mark.parametrize(("final", "routing"), [(None, "question"), (0.2, "question2")])
def test_the_choice_becomes_the_builds_default(examples, final, routing):
    tuned = tune(examples, FitSettings(seed=0), lambda _: None)
    trial = tuned.chosen.model_copy(update={"final_temperature": final, "hits": 16, "lexical_weight": 0.25})
    defaults = defaults_of(tuned.model_copy(update={"chosen": trial}))
    assert (defaults.routing, defaults.hits, defaults.lexical_weight) == (routing, 16, 0.25)
    assert defaults.final_temperature == (final or SearchParams().final_temperature)


def test_a_fold_agrees_with_the_engines_parts(examples, rng):
    """The folds' vectorised forms against those that serve one question."""
    split = phrasing_split(examples.pairs, 1)
    fold = make_fold(examples.take(split.train), examples.take(split.test), 1)
    weights = fold.by_questions(0.05, 16)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    moved = fold.bank(1.0).project_rows(fold.queries.questions, weights)
    for row in rng.integers(0, len(fold.queries), 5):
        expected = fold.bank(1.0).project(fold.queries.questions[row], weights[row])
        np.testing.assert_allclose(moved[row], expected, atol=1e-12)


def test_a_gain_within_its_standard_error_changes_nothing(examples, monkeypatch):
    """Ranks that a trial's number moves by chance on one question, or for real on all."""
    start = tuning.START

    def by_chance(fold, trial):
        ranks = np.full(len(fold.queries), 2.0)
        if trial != start:
            ranks[:2] = 1.0, 3.0
        return ranks

    monkeypatch.setattr(tuning, "FOLDS", 1)
    monkeypatch.setattr(tuning, "ranks_of", by_chance)
    kept = tune(examples, FitSettings(seed=0), lambda _: None)
    assert kept.chosen.model_copy(update={"mrr": 0.0}) == start
    monkeypatch.setattr(tuning, "ranks_of", lambda fold, trial: np.full(len(fold.queries), 2 - trial.lexical_weight))
    moved = tune(examples, FitSettings(seed=0), lambda _: None)
    assert moved.chosen.lexical_weight == max(tuning.LEXICAL_WEIGHTS)
    assert moved.chosen.model_copy(update={"mrr": 0.0, "lexical_weight": start.lexical_weight}) == start
