import numpy as np
import pytest

from qaserve.core.splits import phrasing_split
from qaserve.schemas.params import Hyperparameters, SearchParams
from qaserve.settings import FitSettings
from train import tuning
from train.folds import make_fold
from train.tuning import hyperparameters_of, ranks_of, tune

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


def test_a_given_regularization_is_kept(examples):
    tuned = tune(examples, FitSettings(regularization=7.0), lambda _: None)
    assert {trial.regularization for trial in tuned.curve} == {7.0}


def test_the_bound_on_clusters_holds_in_the_folds_too(examples, monkeypatch):
    counts = []
    monkeypatch.setattr(tuning, "ranks_of", lambda fold, _: counts.append(fold.count) or np.ones(len(fold.queries)))
    tune(examples, FitSettings(max_clusters=3), lambda _: None)
    assert set(counts) == {3}


def test_too_few_phrasings_leave_the_defaults(examples):
    few = examples.take(np.arange(4 * (tuning.MIN_QUERIES - 1)))
    assert tune(few, FitSettings(), lambda _: None) is None
    assert hyperparameters_of(None, FitSettings()) == Hyperparameters()
    assert hyperparameters_of(None, FitSettings(regularization=3.0)) == Hyperparameters(regularization=3.0)


def test_what_is_chosen_is_how_the_build_answers(examples):
    tuned = tune(examples, FitSettings(seed=0), lambda _: None)
    chosen = hyperparameters_of(tuned, FitSettings(seed=0))
    assert chosen == Hyperparameters(regularization=tuned.chosen.regularization, search=tuned.chosen.search)


def test_a_final_softmax_is_tried_with_its_temperature():
    *_, finals, _ = tuning._groups(1.0)
    tried = [change(Hyperparameters()).search for change in finals]
    assert [(one.routing, one.final_temperature) for one in tried] == [
        ("question", 0.1), ("question2", 0.05), ("question2", 0.1), ("question2", 0.2)
    ]  # fmt: skip


def test_a_fold_agrees_with_the_engines_parts(examples, rng):
    """The folds' vectorised forms against those that serve one question."""
    split = phrasing_split(examples.pairs, 1)
    fold = make_fold(examples.take(split.train), examples.take(split.test), 1)
    weights = fold.weights(SearchParams(temperature=0.05, hits=16))
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
    assert (kept.chosen.regularization, kept.chosen.search) == (start.regularization, start.search)
    by_words = lambda fold, trial: np.full(len(fold.queries), 2 - trial.search.lexical_weight)  # noqa: E731
    monkeypatch.setattr(tuning, "ranks_of", by_words)
    moved = tune(examples, FitSettings(seed=0), lambda _: None)
    assert moved.chosen.search == start.search.override(SearchParams(lexical_weight=max(tuning.LEXICAL_WEIGHTS)))
