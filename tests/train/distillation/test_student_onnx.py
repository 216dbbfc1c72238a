import logging
import sys

import numpy as np
import pytest

from qaserve.common.errors import BundleError, UsageError
from qaserve.core.student import Student, StudentSpec, make_module
from train.distillation import student_onnx
from train.distillation.student_onnx import export_onnx

TRANSFORMER = StudentSpec(dimension=12, heads=3, layers=1)
SLOTS = StudentSpec(dimension=12, form="slots", slots=8)


@pytest.fixture
def trained(rng):
    """A student that moves its input: training does no more than set all weights to some numbers."""

    def make(spec):
        import torch

        module = make_module(spec, 0)
        with torch.no_grad():
            for weights in module.parameters():
                weights.add_(torch.from_numpy(rng.normal(scale=0.2, size=tuple(weights.shape)).astype(np.float32)))
        return Student.of(spec, module)

    return make


def unit(rng, *shape):
    rows = rng.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("spec", [TRANSFORMER, SLOTS], ids=["transformer", "slots"])
def test_the_onnx_file_gives_the_students_outputs(trained, rng, tmp_path, caplog, spec):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra train")
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
    pytest.importorskip("onnxruntime", reason="needs the extra train")
    monkeypatch.setattr(student_onnx, "_export", lambda student, path: path.write_bytes(b"another"))
    monkeypatch.setattr(student_onnx, "_difference", lambda student, path: difference)
    path = tmp_path / "student.onnx"
    path.write_bytes(b"the one before")
    with pytest.raises(BundleError, match=r"the ONNX file of slots 8 gives outputs that differ by (0\.002|nan)"):
        export_onnx(Student.of(SLOTS, make_module(SLOTS, 0)), path)
    assert [found.name for found in tmp_path.iterdir()] == ["student.onnx"]
    assert path.read_bytes() == b"the one before"


def test_a_missing_extra_names_its_install_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match="onnxruntime") as caught:
        export_onnx(Student.of(SLOTS, make_module(SLOTS, 0)), tmp_path / "student.onnx")
    assert caught.value.hint == "pip install 'qaserve[train]'"
