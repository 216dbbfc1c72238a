"""A student as an ONNX file, written only if onnxruntime agrees with torch."""

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from qaserve.common.errors import BundleError, UsageError
from qaserve.common.files import written_beside
from qaserve.core.student import Student

ONNX_TOLERANCE = 1e-4


def export_onnx(student: Student, path: Path) -> float:
    """Write the student as ONNX, input "question" (m, D) float32 → output "projected" (m, D), and try the file.

    Args:
        student: What to write.
        path: The file; replaced whole, and only if onnxruntime reads it and agrees.

    Returns:
        The largest absolute difference between onnxruntime's and torch's outputs on 33 random unit rows and on one.

    Raises:
        UsageError: onnx, onnxruntime or onnxscript is not installed.
        BundleError: The outputs differ by more than 1e-4.
        StoreWriteError: The file cannot be written.
    """
    check_installed()
    with written_beside(path) as fresh:
        _export(student, fresh)
        difference = _difference(student, fresh)
        if not difference <= ONNX_TOLERANCE:
            raise BundleError(
                f"the ONNX file of {student.spec.name} gives outputs that differ by {difference:.2g} from torch's, "
                f"more than {ONNX_TOLERANCE:g}; it is not written",
                hint="Try other versions of onnxruntime and onnxscript.",
            )
    return difference


def check_installed() -> None:
    """Raise UsageError unless what writes and reads ONNX is installed."""
    try:
        for needed in ("onnx", "onnxruntime", "onnxscript"):
            importlib.import_module(needed)
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed", hint="pip install 'qaserve[train]'") from error


def _difference(student: Student, path: Path) -> float:
    """Largest absolute difference between an ONNX file's outputs and the student's, on 33 random unit rows and one."""
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = np.random.default_rng(0).normal(size=(33, student.spec.dimension))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    found = [session.run(None, {"question": part})[0] - student.project(part) for part in (rows, rows[:1])]
    return float(np.abs(np.concatenate(found)).max())


def _export(student: Student, path: Path) -> None:
    import torch  # noqa: PLC0415

    example = torch.zeros(2, student.spec.dimension)  # a batch of one would be taken for a constant
    # Only with gradients on do the encoder layers run step by step; the fused kernel has no ONNX form.
    with torch.enable_grad(), warnings.catch_warnings(), _quiet("torch.onnx._internal.exporter._registration"):
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)  # torch's own
        torch.onnx.export(
            student.to_module(),
            (example,),
            path,
            input_names=["question"],
            output_names=["projected"],
            dynamic_shapes=({0: torch.export.Dim("m")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Only errors from this logger: torch's exporter reports that torchvision is missing, which is not used here."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
