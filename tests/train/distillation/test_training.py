import json

import numpy as np
import pytest
from safetensors import safe_open

from qaserve.common.errors import CorpusError, StoreWriteError, UsageError
from qaserve.core.student import StudentSpec
from train.distillation import training
from train.distillation.configs import OUR_RECIPE, REFERENCE_RECIPE, SLOTS_RECIPE, Recipe
from train.distillation.data import make_data, mix, neighbours
from train.distillation.training import CHECKPOINT, distill

TRANSFORMER = StudentSpec(dimension=12, heads=3, layers=1)
SLOTS = StudentSpec(dimension=12, form="slots", slots=8)
SHORT = Recipe(epochs=8, batch=16, learning_rate=1e-3, mixtures=1)


def unit(rng, *shape):
    rows = rng.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def teacher_of(rng, dimension=12):
    """A teacher that pushes a question towards one of six places, the nearer the more; not a linear map."""
    places, pushes = unit(rng, 6, dimension), unit(rng, 6, dimension)

    def teacher(rows):
        shares = np.exp(rows @ places.T / 0.2)
        return rows + (shares / shares.sum(axis=1, keepdims=True)) @ pushes

    return teacher


def mean_cosine(a, b):
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


@pytest.mark.parametrize(
    ("spec", "rate", "loss"),
    [(TRANSFORMER, 3e-3, "cosine_mse"), (SLOTS, 3e-2, "cosine_mse"), (SLOTS, 3e-2, "ranking")],
)
def test_a_student_learns_its_teacher_where_it_was_not_taught(rng, spec, rate, loss):
    teacher, unseen = teacher_of(rng), unit(rng, 200, 12)
    recipe = OUR_RECIPE.model_copy(update={"learning_rate": rate, "loss": loss, "ranking_share": 0.1})
    found = distill(unit(rng, 300, 12), teacher, spec, recipe, answers=unit(rng, 40, 12))
    before, after = (mean_cosine(x, teacher(unseen)) for x in (unseen, found.student.project(unseen)))
    assert 1 - after < 0.5 * (1 - before)
    assert found.validation_cosine == pytest.approx(after, abs=0.05)


def loss_by_hand(moved, targets, weights, recipe, answers):
    """Row by row, from the definition in `Recipe`."""

    def log_shares(row):
        logits = answers @ (row / np.linalg.norm(row)) / recipe.ranking_temperature
        return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()

    found = []
    for s, t, weight in zip(moved, targets, weights, strict=True):
        cosine = s @ t / np.linalg.norm(s) / np.linalg.norm(t)
        loss = recipe.cosine_share * (1 - cosine) + (1 - recipe.cosine_share) * np.mean((s - t) ** 2)
        if answers is not None:
            p, q = log_shares(t), log_shares(s)
            divergence = sum(np.exp(a) * (a - b) for a, b in zip(p, q, strict=True))
            loss = recipe.ranking_share * divergence + (1 - recipe.ranking_share) * loss
        found.append(weight * loss)
    return np.mean(found)


@pytest.mark.parametrize("ranking", [False, True])
def test_the_loss_is_its_definition(rng, ranking):
    import torch

    moved, targets = 3 * unit(rng, 7, 12) * rng.uniform(0.5, 2, (7, 1)), unit(rng, 7, 12) * rng.uniform(0.5, 2, (7, 1))
    weights, answers = rng.uniform(0.5, 2, 7), unit(rng, 20, 12) if ranking else None
    recipe = Recipe(epochs=1, learning_rate=1, cosine_share=0.7, ranking_share=0.2, ranking_temperature=0.3)
    tensors = [None if part is None else torch.from_numpy(part) for part in (moved, targets, weights, answers)]
    found = float(training._loss(*tensors[:3], recipe, tensors[3]))
    assert found == pytest.approx(loss_by_hand(moved, targets, weights, recipe, answers), rel=1e-9)


def test_importance_reaches_the_loss_with_mean_1(rng):
    given = rng.uniform(1, 5, 40)
    data = make_data(unit(rng, 40, 12), teacher_of(rng), SLOTS, SHORT, None, given)
    np.testing.assert_allclose(data.importance, given / given.mean(), rtol=1e-12)


@pytest.mark.parametrize("bad", [[-1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0], [0.0, 0.0]])
def test_importance_that_weighs_nothing_or_less_is_refused(rng, bad):
    given = np.array(bad + bad[1:] * 38)
    with pytest.raises(ValueError, match=r"importance \(40,\) must be \(40,\), finite, not negative, and not all zero"):
        make_data(unit(rng, 40, 12), teacher_of(rng), SLOTS, SHORT, None, given)


def test_answers_are_for_the_ranking_loss_alone(rng):
    rows, answers = unit(rng, 40, 12), unit(rng, 7, 12)
    ranking = SHORT.model_copy(update={"loss": "ranking"})
    data = make_data(rows.astype(np.float32), teacher_of(rng), SLOTS, ranking, answers, None)
    np.testing.assert_array_equal(data.answers, answers.astype(np.float32))
    assert (data.answers.dtype, data.inputs.dtype, data.targets.dtype) == (np.float32, np.float64, np.float64)
    assert make_data(rows, teacher_of(rng), SLOTS, SHORT, answers, None).answers is None


def test_a_mixture_weighs_as_what_it_is_mixed_of(rng, monkeypatch):
    """Without noise a mixture of two orthogonal questions says itself how much of each is in it."""
    monkeypatch.setattr("train.distillation.data.MIXTURE_NOISE", 0.0)
    rows, weights = np.eye(12), np.arange(1.0, 13.0)
    mixed, found = mix(rows, weights, neighbours(rows), 30, rng)
    np.testing.assert_allclose(np.linalg.norm(mixed, axis=1), 1)
    parts = mixed / mixed.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, parts @ weights, rtol=1e-9)
    first = parts[np.arange(len(parts)), np.tile(np.arange(12), 30)]
    assert first.min() >= 0.5
    assert first.max() > 0.9


@pytest.mark.parametrize(("count", "block"), [(2, 4), (11, 4), (60, 7), (60, 1024)])
def test_neighbours_are_the_ten_nearest_others(rng, count, block):
    rows = unit(rng, count, 12)
    for row, found in enumerate(neighbours(rows, block)):
        others = sorted(set(range(count)) - {row}, key=lambda one: -(rows[one] @ rows[row]))
        assert sorted(found) == sorted(others[:10])


class Dealt:
    """Draws that are given, in the order in which `mix` asks for them, and each ask."""

    def __init__(self, *draws):
        self.draws, self.asked = list(draws), []

    def __getattr__(self, name):
        def draw(*bounds, **more):
            self.asked.append((name, bounds, more))
            return np.asarray(self.draws.pop(0))

        return draw


def test_a_mixture_is_half_of_the_time_with_a_neighbour_and_has_noise(rng):
    """Every draw by hand: the close one, by which it is chosen, any other, the share, the noise."""
    rows, weights, near = unit(rng, 4, 12), rng.uniform(1, 2, 4), np.array([[1, 2], [0, 3], [3, 0], [2, 1]])
    noise = 0.1 * rng.normal(size=(4, 12))
    random = Dealt([0, 1, 0, 1], [0.49, 0.5, 0.0, 0.99], [3, 2, 1, 0], [0.5, 0.6, 0.7, 0.9], noise)
    mixed, found = mix(rows, weights, near, 1, random)
    for row, (other, share) in enumerate(zip([1, 2, 3, 0], [0.5, 0.6, 0.7, 0.9], strict=True)):
        expected = share * rows[row] + (1 - share) * rows[other] + noise[row]
        np.testing.assert_allclose(mixed[row], expected / np.linalg.norm(expected), rtol=1e-12)
        assert found[row] == pytest.approx(share * weights[row] + (1 - share) * weights[other])
    assert random.asked == [
        ("integers", (2,), {"size": 4}),
        ("random", (4,), {}),
        ("integers", (4,), {"size": 4}),
        ("uniform", (0.5, 1.0, 4), {}),
        ("normal", (), {"scale": pytest.approx(0.05 / np.sqrt(12)), "size": (4, 12)}),
    ]


def test_the_learning_rate_falls_along_half_a_cosine():
    recipe = Recipe(epochs=10, learning_rate=0.4, schedule="cosine")
    assert [training._rate(recipe, epoch) for epoch in (1, 6)] == pytest.approx([0.4, 0.2])
    assert training._rate(recipe, 10) == pytest.approx(0.4 * (1 + np.cos(0.9 * np.pi)) / 2)
    assert training._rate(recipe.model_copy(update={"schedule": "constant"}), 9) == 0.4


def test_what_is_told_of_a_run_fits_together(rng):
    done = []
    found = distill(unit(rng, 40, 12), teacher_of(rng), TRANSFORMER, SHORT, advance=done.append)
    assert done == [1] * 8
    assert found.epochs == len(found.curve) == 8
    best = found.curve[found.best_epoch - 1]
    assert (found.train_loss, found.validation_cosine) == (best.train_loss, best.validation_cosine)
    assert found.validation_cosine == max(point.validation_cosine for point in found.curve)
    assert found.seconds > 0


@pytest.mark.parametrize("spec", [TRANSFORMER, SLOTS], ids=["transformer", "slots"])
def test_the_same_seed_gives_the_same_bytes(rng, spec):
    import torch

    rows, teacher = unit(rng, 40, 12), teacher_of(rng)
    first = distill(rows, teacher, spec, SHORT, seed=1)
    torch.manual_seed(99)
    threads = torch.get_num_threads()
    with torch.no_grad():  # as after an encoder was loaded
        assert distill(rows, teacher, spec, SHORT, seed=1).weights == first.weights
        assert not torch.is_grad_enabled()
    assert distill(rows, teacher, spec, SHORT, seed=2).weights != first.weights
    assert torch.get_num_threads() == threads


class InterruptedRunError(Exception):
    pass


def stop_after(epochs):
    left = [epochs]

    def advance(done):
        left[0] -= done
        if left[0] <= 0:
            raise InterruptedRunError

    return advance


@pytest.mark.parametrize("epochs", [2, 5, 7, 12])
def test_an_interrupted_run_ends_as_an_undisturbed_one(rng, tmp_path, epochs):
    rows, teacher = unit(rng, 40, 12), teacher_of(rng)
    recipe = SHORT.model_copy(update={"epochs": 12, "schedule": "cosine"})
    whole = distill(rows, teacher, TRANSFORMER, recipe)
    with pytest.raises(InterruptedRunError):
        distill(rows, teacher, TRANSFORMER, recipe, checkpoint=tmp_path, advance=stop_after(epochs))
    done = []
    again = distill(rows, teacher, TRANSFORMER, recipe, checkpoint=tmp_path, advance=done.append)
    kept = 12 if epochs == 12 else epochs // 5 * 5
    assert done == ([kept] if kept else []) + [1] * (12 - kept)
    assert again.weights == whole.weights
    assert again.model_copy(update={"seconds": 0.0}) == whole.model_copy(update={"seconds": 0.0})
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_checkpoint_holds_the_optimizer_as_tensors(rng, tmp_path):
    distill(unit(rng, 40, 12), teacher_of(rng), SLOTS, SHORT, checkpoint=tmp_path)
    with safe_open(tmp_path / CHECKPOINT, framework="np") as file:
        names = set(file.keys())
        state = json.loads(file.metadata()["state"])
    assert {"optimizer.0.exp_avg", "optimizer.0.exp_avg_sq", "optimizer.0.step", "module.keys", "best.keys"} <= names
    assert len(state["curve"]) == 8


@pytest.mark.parametrize("change", ["seed", "recipe", "inputs", "teacher", "importance", "broken"])
def test_another_run_does_not_go_on_from_this_ones_checkpoint(rng, tmp_path, change):
    rows, teacher = unit(rng, 40, 12), teacher_of(rng)
    call = {"inputs": rows, "teacher": teacher, "spec": SLOTS, "recipe": SHORT, "seed": 0, "importance": None}
    distill(**call, checkpoint=tmp_path)
    others = {
        "seed": 1,
        "recipe": SHORT.model_copy(update={"batch": 8}),
        "inputs": rows[:-1],
        "teacher": lambda x: 2 * teacher(x),
        "importance": np.arange(40.0),
    }
    if change == "broken":
        (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:-7])
    else:
        call[change] = others[change]
    done = []
    found = distill(**call, checkpoint=tmp_path, advance=done.append)
    assert done == [1] * 8
    assert found.weights == distill(**call).weights


def test_a_checkpoint_that_cannot_be_written_says_so(rng, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreWriteError, match="cannot be written"):
        distill(unit(rng, 40, 12), teacher_of(rng), SLOTS, SHORT, checkpoint=tmp_path / "file")


def test_patience_ends_a_run_that_gets_no_better(rng):
    recipe = Recipe(epochs=50, learning_rate=1e-9, patience=3)
    found = distill(unit(rng, 20, 12), lambda rows: rows, TRANSFORMER, recipe)  # the identity from the start
    assert found.epochs == found.best_epoch + 3 < 50
    assert found.validation_cosine == pytest.approx(1.0, abs=1e-6)


def test_importance_decides_what_is_learnt(rng):
    rows = np.concatenate([np.eye(12)[np.zeros(40, int)], np.eye(12)[np.ones(40, int)]]) + rng.normal(0, 0.02, (80, 12))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    push = unit(rng, 12)
    weights = np.repeat([1.0, 0.0], 40)
    spec = StudentSpec(dimension=12, form="slots", slots=4)
    recipe = Recipe(epochs=30, batch=8, learning_rate=1e-2)
    moved = distill(rows, lambda x: x + push, spec, recipe, importance=weights).student.project(rows)
    errors = np.linalg.norm(moved - rows - push, axis=1)
    assert errors[:40].mean() < errors[40:].mean()


def test_mixtures_lie_between_questions_and_are_new_in_every_epoch(rng):
    asked = []

    def teacher(rows):
        asked.append(rows)
        return rows

    rows = unit(rng, 40, 12)
    distill(rows, teacher, SLOTS, Recipe(epochs=3, learning_rate=1e-3, mixtures=2, validation=0.25))
    assert [len(part) for part in asked] == [40, 60, 60, 60]
    np.testing.assert_allclose(np.linalg.norm(asked[1], axis=1), 1)
    assert np.abs(asked[1] - asked[2]).max() > 0.1
    assert (asked[1] @ rows.T).max(axis=1).mean() > 0.8


def test_bad_input_is_refused(rng):
    rows, teacher = unit(rng, 20, 12), teacher_of(rng)
    with pytest.raises(CorpusError, match="9 questions are too few to train a student, at least 10"):
        distill(rows[:9], teacher, SLOTS, SHORT)
    with pytest.raises(ValueError, match=r"inputs are \(20, 11\); the student takes \(n, 12\)"):
        distill(rows[:, :11], teacher, SLOTS, SHORT)
    with pytest.raises(ValueError, match="inputs hold a value that is not finite"):
        distill(np.where(rows > 0.4, np.nan, rows), teacher, SLOTS, SHORT)
    with pytest.raises(ValueError, match="the teacher gave a value that is not finite"):
        distill(rows, lambda x: x * np.inf, SLOTS, SHORT)
    with pytest.raises(ValueError, match=r"the teacher gave \(20, 3\) for inputs \(20, 12\)"):
        distill(rows, lambda x: x[:, :3], SLOTS, SHORT)
    with pytest.raises(ValueError, match=r"importance \(3,\) must be \(20,\)"):
        distill(rows, teacher, SLOTS, SHORT, importance=np.ones(3))
    with pytest.raises(ValueError, match="no answers are given"):
        distill(rows, teacher, SLOTS, SHORT.model_copy(update={"loss": "ranking"}))
    with pytest.raises(ValueError, match=r"answers are \(20, 3\)"):
        distill(rows, teacher, SLOTS, SHORT.model_copy(update={"loss": "ranking"}), answers=rows[:, :3])


def test_a_run_that_diverges_says_so(rng):
    recipe = Recipe(epochs=5, learning_rate=1e30)
    with pytest.raises(UsageError, match=r"training 3x1 residual diverged in epoch \d at learning rate 1e\+30"):
        distill(unit(rng, 40, 12), teacher_of(rng), TRANSFORMER, recipe)


def test_the_proposals_recipe_is_the_proposals():
    assert (REFERENCE_RECIPE.loss, REFERENCE_RECIPE.cosine_share, REFERENCE_RECIPE.epochs) == ("cosine_mse", 0.7, 60)
    assert (REFERENCE_RECIPE.patience, REFERENCE_RECIPE.mixtures, REFERENCE_RECIPE.dropout) == (0, 0, 0.1)
    assert SLOTS_RECIPE.mixtures == OUR_RECIPE.mixtures > 0


@pytest.mark.parametrize("count", [10, 11])
def test_few_questions_are_enough_to_train(rng, count):
    spec = StudentSpec(dimension=12, form="slots", slots=64)  # more slots than questions
    assert distill(unit(rng, count, 12), teacher_of(rng), spec, SLOTS_RECIPE).epochs
