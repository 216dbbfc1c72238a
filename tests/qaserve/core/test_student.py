import threading

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load, save

from qaserve.common.errors import BundleError
from qaserve.core.student import Student, StudentSpec, make_module

SMALL = StudentSpec(dimension=24, heads=4, layers=2)
PLAIN = SMALL.model_copy(update={"residual": False})
SLOTS = StudentSpec(dimension=24, form="slots", slots=5)
FORMS = pytest.mark.parametrize("spec", [SMALL, PLAIN, SLOTS], ids=lambda spec: spec.name)


def unit(rng, *shape):
    rows = rng.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def random_student(rng, spec):
    """A student whose every weight is random, also those that start at zero."""
    tensors = load(Student.of(spec, make_module(spec, 0)).to_bytes())
    drawn = {name: rng.normal(scale=0.3, size=value.shape).astype(np.float32) for name, value in tensors.items()}
    return Student.from_bytes(spec, save(drawn))


@pytest.mark.parametrize(("heads", "layers", "count"), [(12, 2, 10_635_264), (6, 3, 15_362_304), (4, 4, 20_089_344)])
def test_the_proposals_students_have_its_numbers_of_parameters(heads, layers, count):
    spec = StudentSpec(dimension=768, heads=heads, layers=layers)
    assert spec.parameters == count
    assert spec.capacity == heads**layers


@pytest.mark.parametrize("spec", [SMALL, PLAIN, SLOTS, StudentSpec(dimension=12, heads=3, layers=4)])
def test_the_formula_counts_what_the_module_holds(spec):
    assert sum(part.numel() for part in make_module(spec, 0).parameters()) == spec.parameters


def test_names():
    assert [spec.name for spec in (SMALL, PLAIN, SLOTS)] == ["4x2 residual", "4x2 plain", "slots 5"]
    assert SLOTS.capacity == 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dimension": 24, "heads": 5, "layers": 1}, "24 dimensions cannot be shared equally among 5 heads"),
        ({"dimension": 24, "form": "slots"}, "needs slots of 1 or more"),
        ({"dimension": 24, "form": "slots", "slots": 3, "residual": False}, "is residual"),
        ({"dimension": 24, "form": "slots", "slots": 3, "heads": 2}, "has no heads"),
        ({"dimension": 24, "slots": 3}, "3 slots are given, but the form is transformer"),
        ({"dimension": 24, "heads": 0}, "greater than or equal to 1"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        StudentSpec(**fields)


@pytest.mark.parametrize("spec", [SMALL, SLOTS], ids=lambda spec: spec.name)
def test_an_untrained_residual_student_is_the_identity(rng, spec):
    rows = unit(rng, 7, 24)
    moved = Student.of(spec, make_module(spec, 3)).project(rows)
    np.testing.assert_array_equal(moved, rows.astype(np.float32))
    assert moved.dtype == np.float64


def test_an_untrained_plain_student_is_not(rng):
    rows = unit(rng, 7, 24)
    assert np.abs(Student.of(PLAIN, make_module(PLAIN, 3)).project(rows) - rows).max() > 0.01


def test_the_number_of_heads_does_not_matter(rng):
    student = random_student(rng, SMALL)
    other = Student.from_bytes(SMALL.model_copy(update={"heads": 12}), student.to_bytes())
    rows = unit(rng, 6, 24)
    np.testing.assert_allclose(other.project(rows), student.project(rows), atol=1e-4)


def test_slots_are_their_formula(rng):
    student, rows = random_student(rng, SLOTS), unit(rng, 6, 24)
    tensors = load(student.to_bytes())
    logits = np.exp(tensors["log_scale"]) * (rows @ tensors["keys"].T)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(student.project(rows), rows + shares @ tensors["values"], atol=1e-5)


def test_slots_start_at_the_given_keys_and_the_scale_of_routing(rng):
    keys = unit(rng, 3, 24)
    tensors = load(Student.of(SLOTS, make_module(SLOTS, 0, keys)).to_bytes())
    np.testing.assert_allclose(tensors["keys"][:3], keys, atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(tensors["keys"], axis=1), 1, atol=1e-6)
    assert np.exp(tensors["log_scale"]) == pytest.approx(1 / 0.05)
    with pytest.raises(ValueError, match=r"keys are \(6, 24\); slots 5 takes at most \(5, 24\)"):
        make_module(SLOTS, 0, unit(rng, 6, 24))


@FORMS
def test_numpy_gives_what_torch_gives(rng, spec):
    import torch

    student, rows = random_student(rng, spec), unit(rng, 9, 24).astype(np.float32)
    with torch.inference_mode():
        expected = student.to_module()(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(student.project(rows), expected, atol=1e-5)


@FORMS
def test_rows_do_not_see_each_other(rng, spec):
    student, rows = random_student(rng, spec), unit(rng, 5, 24)
    together = student.project(rows)
    for row, moved in zip(rows, together, strict=True):
        np.testing.assert_allclose(student.project(row), moved, atol=1e-4)
    assert student.project(rows[:0]).shape == (0, 24)


@FORMS
def test_bytes_survive_the_round_trip(rng, spec):
    student, rows = random_student(rng, spec), unit(rng, 5, 24)
    again = Student.from_bytes(spec, student.to_bytes())
    assert again.to_bytes() == student.to_bytes()
    np.testing.assert_array_equal(again.project(rows), student.project(rows))


def test_equal_seeds_give_equal_weights_and_leave_the_callers_random_state_alone():
    import torch

    before = torch.get_rng_state()
    first, second, other = (Student.of(PLAIN, make_module(PLAIN, seed)).to_bytes() for seed in (1, 1, 2))
    assert first == second != other
    assert torch.equal(before, torch.get_rng_state())


def test_threads_share_a_student(rng):
    student, rows = random_student(rng, SMALL), unit(rng, 40, 24)
    expected, found = student.project(rows), {}

    def ask(number):
        found[number] = student.project(rows)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for moved in found.values():
        np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize("shape", [(23,), (2, 23), (1, 2, 24), ()])
def test_another_dimension_is_refused(shape):
    student = Student.of(SLOTS, make_module(SLOTS, 0))
    with pytest.raises(ValueError, match=r"the student takes \(D,\) or \(m, D\) with D 24"):
        student.project(np.zeros(shape))


def spoil_missing(tensors):
    del tensors["leave.bias"]


def spoil_unknown(tensors):
    tensors["zebra"] = np.zeros(2, dtype=np.float32)


def spoil_shape(tensors):
    tensors["enter.weight"] = np.zeros((12, 24), dtype=np.float32)


def spoil_type(tensors):
    tensors["enter.weight"] = tensors["enter.weight"].astype(np.float64)


def spoil_value(tensors):
    tensors["enter.bias"][3] = np.nan


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_missing, r"27 tensors were found, 28 are needed; leave\.bias is missing"),
        (spoil_unknown, r"29 tensors were found, 28 are needed; zebra is unknown"),
        (spoil_shape, r"enter\.weight is float32 \(12, 24\), float32 \(24, 24\) is needed"),
        (spoil_type, r"enter\.weight is float64 \(24, 24\)"),
        (spoil_value, r"enter\.bias holds a value that is not finite"),
    ],
)
def test_weights_of_another_student_are_refused(spoil, message):
    tensors = load(Student.of(SMALL, make_module(SMALL, 0)).to_bytes())
    spoil(tensors)
    with pytest.raises(BundleError, match=rf"do not fit the student 4x2 residual \(D 24\): {message}") as caught:
        Student.from_bytes(SMALL, save(tensors))
    assert "Train the student again" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"\x80\x04.", b"no tensors at all"])
def test_bytes_that_are_no_safetensors_are_refused(data):
    with pytest.raises(BundleError, match="the bytes are not safetensors"):
        Student.from_bytes(SMALL, data)


def test_a_sharp_scale_overflows_nothing():
    """Beyond float32's exp, the nearest key takes all."""
    tensors = {"keys": np.eye(2, 24), "values": np.ones((2, 24)), "log_scale": np.log([200.0])}
    spec = SLOTS.model_copy(update={"slots": 2})
    student = Student(spec, {name: value.astype(np.float32) for name, value in tensors.items()})
    np.testing.assert_allclose(student.project(np.eye(1, 24)), np.eye(1, 24) + 1, rtol=1e-6)
