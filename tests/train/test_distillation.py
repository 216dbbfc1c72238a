import json
import logging
import sys

import numpy as np
import pytest
from safetensors import safe_open

from qaserve.errors import BundleError, CorpusError, StoreWriteError, UsageError
from qaserve.student import Student, StudentSpec, make_module
from train import distillation
from train.distillation import (
    CHECKPOINT,
    OUR_RECIPE,
    SEED_RECIPE,
    SLOTS_RECIPE,
    Distilled,
    Epoch,
    Recipe,
    architectures,
    choose_architecture,
    distill,
    export_onnx,
    parse_architecture,
)

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
    assert (SEED_RECIPE.loss, SEED_RECIPE.cosine_share, SEED_RECIPE.epochs) == ("cosine_mse", 0.7, 60)
    assert (SEED_RECIPE.patience, SEED_RECIPE.mixtures, SEED_RECIPE.dropout) == (0, 0, 0.1)
    assert SLOTS_RECIPE.mixtures == OUR_RECIPE.mixtures > 0


@pytest.mark.parametrize("count", [10, 11])
def test_few_questions_are_enough_to_train(rng, count):
    spec = StudentSpec(dimension=12, form="slots", slots=64)  # more slots than questions
    assert distill(unit(rng, count, 12), teacher_of(rng), spec, SLOTS_RECIPE).epochs


@pytest.mark.parametrize(
    ("dimension", "clusters", "names"),
    [
        (768, 183, ["192x1", "16x2", "6x3", "4x4"]),
        (384, 139, ["192x1", "12x2", "6x3", "4x4"]),
        (12, 100, ["12x2", "6x3", "4x4"]),
        (12, 1, ["1x1", "1x2", "1x3", "1x4"]),
        (2, 1_000, []),
    ],
)
def test_architectures_have_the_capacity_with_the_fewest_heads(dimension, clusters, names):
    found = architectures(dimension, clusters)
    assert [spec.name for spec in found] == [f"{name} residual" for name in names]
    assert all(spec.capacity >= clusters for spec in found)
    assert [spec.parameters for spec in found] == sorted(spec.parameters for spec in found)


def distilled(spec, cosine):
    point = Epoch(train_loss=0.1, validation_cosine=cosine)
    return Distilled(
        spec=spec,
        weights=b"",
        epochs=1,
        best_epoch=1,
        train_loss=0.1,
        validation_cosine=cosine,
        curve=(point,),
        seconds=1,
    )


@pytest.mark.parametrize(("cosines", "layers"), [((0.979, 0.980, 0.9805), 1), ((0.97, 0.98, 0.981), 2)])
def test_the_smallest_of_the_best_students_is_chosen(cosines, layers):
    candidates = [distilled(spec, cosine) for spec, cosine in zip(architectures(12, 1), cosines, strict=False)]
    assert choose_architecture(candidates).spec.layers == layers
    assert choose_architecture(candidates[::-1]).spec.layers == layers


def test_nothing_cannot_be_chosen_from():
    with pytest.raises(ValueError, match="no student to choose from"):
        choose_architecture([])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("6x3", "6x3 residual"),
        ("6x3-residual", "6x3 residual"),
        ("12x2-plain", "12x2 plain"),
        ("slots-256", "slots 256"),
    ],
)
def test_architectures_are_read_from_their_short_form(text, name):
    assert parse_architecture(text, 384).name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("big", "architecture 'big' is not known"),
        ("6x3-slots", "'6x3-slots' is not known"),
        ("slots-", "'slots-' is not known"),
        ("5x2", "'5x2' is not possible: 384 dimensions cannot be shared equally among 5 heads"),
        ("0x2", "'0x2' is not possible: heads: Input should be greater than or equal to 1"),
        ("6x99", "'6x99' is not possible: layers: Input should be less than or equal to 48"),
        ("slots-0", "'slots-0' is not possible: the form slots needs slots of 1 or more"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_architecture(text, 384)
    assert "6x3-plain" in caught.value.hint
    assert "slots-256" in caught.value.hint


@pytest.fixture
def trained(rng):
    def train(spec):
        return distill(unit(rng, 40, 12), teacher_of(rng), spec, SHORT).student

    return train


@pytest.mark.parametrize("spec", [TRANSFORMER, SLOTS], ids=["transformer", "slots"])
def test_the_onnx_file_gives_the_students_outputs(trained, rng, tmp_path, caplog, spec):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    student, path = trained(spec), tmp_path / "folder" / "student.onnx"
    assert export_onnx(student, path) <= 1e-4
    assert [found.name for found in path.parent.iterdir()] == ["student.onnx"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 9):
        rows = unit(rng, count, 12).astype(np.float32)
        np.testing.assert_allclose(session.run(["projected"], {"question": rows})[0], student.project(rows), atol=1e-4)


@pytest.mark.parametrize("difference", [0.002, np.nan])
def test_an_onnx_file_that_disagrees_is_not_written(tmp_path, monkeypatch, difference):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    monkeypatch.setattr(distillation, "_export", lambda student, path: path.write_bytes(b"another"))
    monkeypatch.setattr(distillation, "_difference", lambda student, path: difference)
    path = tmp_path / "student.onnx"
    path.write_bytes(b"the one before")
    with pytest.raises(BundleError, match=r"the ONNX file of slots 8 gives outputs that differ by (0\.002|nan)"):
        export_onnx(Student(SLOTS, make_module(SLOTS, 0)), path)
    assert [found.name for found in tmp_path.iterdir()] == ["student.onnx"]
    assert path.read_bytes() == b"the one before"


def test_a_missing_extra_names_its_install_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match="onnxruntime") as caught:
        export_onnx(Student(SLOTS, make_module(SLOTS, 0)), tmp_path / "student.onnx")
    assert caught.value.hint == "pip install 'qaserve[onnx]'"
