from dataclasses import replace

import numpy as np
import pytest

from qaserve.core.splits import intent_split, phrasing_split
from qaserve.schemas.params import Hyperparameters, SearchParams
from qaserve.settings import FitSettings
from train import tuning
from train.folds import make_fold, split_fold
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
    assert {tuned.chosen, tuned.plain, tuned.unprojected} <= set(tuned.curve)
    assert told == [1] * (2 * tuning.FOLDS + len(tuned.curve))
    assert all(round(trial.phrasings, 6) == trial.phrasings for trial in tuned.curve)
    assert tuned.phrasings == tuning.FOLDS * COUNT
    assert tuned.intents == sum(len(intent_split(examples.pairs, seed).test) for seed in range(tuning.FOLDS))
    tried = {trial.model_dump_json(exclude={"phrasings", "intents"}) for trial in tuned.curve}
    assert len(tried) == len(tuned.curve)
    assert tuned == tune(examples, FitSettings(seed=0), told.append)


def test_the_figures_of_a_trial_are_what_asking_gives(examples):
    tuned = tune(examples, FitSettings(seed=4), lambda _: None)
    for trial in (tuned.chosen, tuned.plain, tuned.curve[0]):
        phrasings, intents = [], []
        for seed in range(4, 4 + tuning.FOLDS):
            split = phrasing_split(examples.pairs, seed)
            fold = make_fold(examples.take(split.train), examples.take(split.test), 4)
            phrasings += (1 / ranks_of(fold, trial)).tolist()
            fold = split_fold(examples, intent_split(examples.pairs, seed), 4, whole=True)
            intents += (1 / ranks_of(fold, trial)).tolist()
        assert np.mean(phrasings) == pytest.approx(trial.phrasings, abs=1e-3)
        assert np.mean(intents) == pytest.approx(trial.intents, abs=1e-3)
        assert trial.mrr == (trial.phrasings + trial.intents) / 2


def is_plain(search):
    return (search.projection, search.whitening, search.topic_weight, search.second_share) == ("none", 0, 0, 0)


def test_the_plain_search_is_the_best_without_projection_and_with_words(examples):
    tuned = tune(examples, FitSettings(seed=0), lambda _: None)
    plain = tuned.plain.search
    assert is_plain(plain)
    others = [trial.mrr for trial in tuned.curve if is_plain(trial.search)]
    assert len(others) >= len(tuning.LEXICAL_WEIGHTS)
    assert tuned.plain.mrr == max(others)


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
    assert hyperparameters_of(None, FitSettings()) == tuning.DEFAULTS
    given = hyperparameters_of(None, FitSettings(regularization=3.0))
    assert (given.regularization, given.search) == (3.0, tuning.DEFAULTS.search)


def test_what_is_chosen_is_how_the_build_answers(examples):
    tuned = tune(examples, FitSettings(seed=0), lambda _: None)
    chosen = hyperparameters_of(tuned, FitSettings(seed=0))
    assert chosen == Hyperparameters(regularization=tuned.chosen.regularization, search=tuned.chosen.search)


def test_a_final_softmax_is_tried_with_its_temperature():
    *_, finals = tuning._groups(1.0, topics=False)
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
    start = tuning.DEFAULTS

    def by_chance(fold, trial):
        ranks = np.full(len(fold.queries), 2.0)
        if trial != start and len(fold.candidates) < len(examples.pairs):
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


@pytest.mark.parametrize(("best", "projection"), [("none", "none"), ("cluster", "cluster")])
def test_a_projection_that_does_not_pay_is_left_out(examples, monkeypatch, best, projection):
    def ranks(fold, trial):
        good = trial.search.projection == best and trial.search.whitening == 1
        return np.full(len(fold.queries), 1.0 if good else 2.0)

    monkeypatch.setattr(tuning, "ranks_of", ranks)
    tuned = tune(examples, FitSettings(seed=0), lambda _: None)
    assert tuned.unprojected.search.projection == "none"
    assert tuned.unprojected.mrr == (1.0 if best == "none" else 0.5)
    assert (tuned.chosen.search.projection, tuned.chosen.search.whitening) == (projection, 1)
    assert tuned.chosen.mrr == 1


def test_phrasings_of_one_intent_count_as_one_draw():
    differences, intents = np.array([0.5, 0.5, -0.1, -0.1]), np.array([0, 0, 1, 1])
    mean = differences.mean()
    by_hand = np.sqrt(2 * (((0.5 - mean) * 2) ** 2 + ((-0.1 - mean) * 2) ** 2)) / 4
    assert tuning._error(differences, intents) == pytest.approx(by_hand)
    assert tuning._error(differences, np.arange(4)) == pytest.approx(differences.std(ddof=1) / np.sqrt(4))


@pytest.fixture
def search():
    """A search without folds: four questions of two intents of one kind, three of three of the other."""
    made = object.__new__(tuning._Search)
    made._intents = [np.array([0, 0, 1, 1]), np.array([0, 1, 2])]
    return made


def tried(*reciprocal):
    return tuning.Tried(None, tuple(np.array(part) for part in reciprocal))


def test_not_below_is_no_loss_beyond_its_error_on_either_kind(search):
    """Differences of the first kind are 0.1 twice and -0.3 twice: mean -0.1, error 0.2."""
    other = tried([0.5, 0.5, 0.9, 0.9], [0.5, 0.5, 0.5])
    same = [0.5, 0.5, 0.5]
    assert search.not_below(tried([0.6, 0.6, 0.6, 0.6], same), other)
    assert tuning._error(np.array([0.1, 0.1, -0.3, -0.3]), np.array([0, 0, 1, 1])) == pytest.approx(0.2)
    assert search.not_below(other, other)
    lower = [0.4, 0.4, 0.4]  # alike on all: no error
    assert not search.not_below(tried([0.9, 0.9, 0.9, 0.9], lower), other)
    assert not search.not_below(tried([0.49, 0.49, 0.89, 0.89], [1.0, 1.0, 1.0]), other)
    assert not search.not_below(tried([0.2, 0.2, 0.5, 0.5], same), other)  # -0.3 and -0.4: mean -0.35, error 0.05


def test_better_is_a_gain_of_the_kinds_together_beyond_their_error(search):
    """Errors of independent kinds add as squares: 0.2 and 0.1 make 0.2236."""
    other = tried([0.5, 0.5, 0.5, 0.5], [0.4, 0.4, 0.4])
    first = [0.8, 0.8, 0.4, 0.4]  # +0.3 and -0.1: mean 0.1, error 0.2
    spread = 0.1 * np.sqrt(3)  # of three questions: error 0.1
    for mean, better in ((0.12, False), (0.13, True), (-0.13, False)):
        second = 0.4 + mean + spread * np.array([1.0, 0.0, -1.0])
        assert search.is_better(tried(first, second), other) == better
    assert not search.is_better(other, other)


def test_one_kind_of_question_is_not_bought_with_the_other(examples, monkeypatch):
    """Words help new phrasings much and hurt unknown intents a little: the mean gains, and yet they are not taken."""
    whole = len(examples.pairs)

    def ranks(fold, trial):
        weight, unknown = trial.search.lexical_weight, len(fold.candidates) == whole
        if trial.search.projection == "none":
            return np.full(len(fold.queries), 4.0 if not unknown else 1.0)
        return np.full(len(fold.queries), 4 - 2 * weight if not unknown else 1 + weight / 4)

    monkeypatch.setattr(tuning, "ranks_of", ranks)
    tuned = tune(examples, FitSettings(seed=0), lambda _: None)
    assert tuned.chosen.search.lexical_weight == 0
    assert tuned.chosen.search.projection != "none"


def test_where_projection_does_not_pay_the_build_answers_without(examples, monkeypatch):
    def ranks(fold, trial):
        return np.full(len(fold.queries), 1.0 if trial.search.projection == "none" else 2.0)

    monkeypatch.setattr(tuning, "ranks_of", ranks)
    assert tune(examples, FitSettings(seed=0), lambda _: None).chosen.search.projection == "none"


def test_without_topics_their_weight_is_not_tried(examples):
    tuned = tune(replace(examples, topics=None), FitSettings(seed=0), lambda _: None)
    assert {trial.search.topic_weight for trial in tuned.curve} == {0.0}


def test_pairs_of_one_intent_are_tuned_on_phrasings_alone(examples):
    pairs = [
        pair.model_copy(update={"cluster_id": "one", "extra": {"original_answer": pair.cluster_id}})
        for pair in examples.pairs
    ]
    tuned = tune(replace(examples, pairs=pairs), FitSettings(seed=0), lambda _: None)
    assert tuned.intents == 0
    assert {trial.intents for trial in tuned.curve} == {None}
    assert tuned.chosen.mrr == tuned.chosen.phrasings


def test_new_phrasings_may_be_all_that_counts(examples, monkeypatch):
    def ranks(fold, trial):
        known, least = fold.candidates is fold.train, trial.search.lexical_weight == 0
        return np.full(len(fold.queries), 1.0 if known == least else 1.5 if known else 4.0)

    monkeypatch.setattr(tuning, "ranks_of", ranks)
    told = []
    tuned = tune(examples, FitSettings(seed=0), told.append, unknown=False)
    assert told == [1] * (tuning.FOLDS + len(tuned.curve))
    assert (tuned.phrasings, tuned.intents) == (tuning.FOLDS * COUNT, 0)
    assert {trial.intents for trial in tuned.curve} == {None}
    assert (tuned.chosen.search.lexical_weight, tuned.chosen.mrr) == (0, 1)
    assert tune(examples, FitSettings(seed=0), lambda _: None).chosen.search.lexical_weight > 0
