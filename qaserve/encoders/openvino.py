"""An export on OpenVINO: in bfloat16 where the processor has it, which takes less than half the time for long texts.

Vectors in bfloat16 differ a little from those of ONNX Runtime. How much is measured once on the fixed texts and kept
beside the export, so that a build made by one may be asked by the other where they agree.
"""

import importlib.util
import logging
import math
import threading
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from qaserve.common.errors import EncoderError, StoreWriteError
from qaserve.common.files import writing, written_beside
from qaserve.common.text import shorten
from qaserve.encoders.base import Vectors, cores, lowest_cosine
from qaserve.encoders.onnx import MODEL, Model, OnnxEncoder, unusable
from qaserve.encoders.sources import ModelSource
from qaserve.schemas.builds import EncoderIdentity, Precision
from qaserve.schemas.record import Record

COMPARED = "openvino.json"
DEVICE = "CPU"
log = logging.getLogger(__name__)


class Compared(Record):
    """How an export on OpenVINO compares with the same on ONNX Runtime."""

    model_sha256: str
    weights_sha256: str
    version: str = Field(description="Of OpenVINO.")
    precision: Precision
    cosine: float = Field(ge=-1, le=1, description="Lowest on the fixed texts.")


class OpenVinoEncoder(OnnxEncoder):
    """An export on OpenVINO, behind the `Encoder` protocol. Safe to share between threads."""

    def __init__(self, folder: Path, batch: int, source: ModelSource | None = None) -> None:
        """As `OnnxEncoder`. Raises EncoderError, with the command that helps, where OpenVINO is not installed."""
        if importlib.util.find_spec("openvino") is None:
            raise EncoderError("OpenVINO is not installed", hint="pip install 'qaserve[openvino]'")
        self._requests = threading.local()
        self._precision: Precision = "float32"
        super().__init__(folder, batch, source)
        exported = self.manifest.encoder
        own = math.acos(exported.agreement) + math.acos(self._compared(folder).cosine)
        # Rounded down, as an agreement is.
        agreement = math.floor(1e7 * math.cos(min(math.pi, own))) / 1e7
        changes = {"backend": "openvino", "precision": self._precision, "agreement": agreement}
        self._identity = EncoderIdentity.model_validate(exported.model_dump() | changes)

    @property
    def identity(self) -> EncoderIdentity:
        """What the vectors depend on."""
        return getattr(self, "_identity", self.manifest.encoder)

    def _opened(self, folder: Path) -> Model:
        import openvino  # noqa: PLC0415 - slow to import

        core = openvino.Core()
        if "BF16" in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"):
            self._precision = "bfloat16"
        config = {
            "INFERENCE_PRECISION_HINT": {"bfloat16": "bf16", "float32": "f32"}[self._precision],
            "INFERENCE_NUM_THREADS": cores(),
            "NUM_STREAMS": cores(),  # one thread for each: calls do not wait for each other
            "ENABLE_CPU_PINNING": False,
        }
        try:
            model = core.compile_model(str(folder / MODEL), DEVICE, config)
        except RuntimeError as error:
            raise unusable(folder, f"OpenVINO cannot open {MODEL}: {shorten(str(error), 200)}") from error

        def run(inputs: dict[str, NDArray[np.int64]]) -> Vectors:
            if not hasattr(self._requests, "own"):
                self._requests.own = model.create_infer_request()
            return np.array(self._requests.own.infer(inputs)[0])  # a copy: the next call writes to the same place

        return run

    def _compared(self, folder: Path) -> Compared:
        """The comparison that is kept beside the export, made where it is of another model or version."""
        wanted = {
            "model_sha256": self.manifest.model_sha256,
            "weights_sha256": self.manifest.weights_sha256,
            "version": metadata.version("openvino"),
            "precision": self._precision,
        }
        with suppress(OSError, ValidationError):
            kept = Compared.model_validate_json((folder / COMPARED).read_bytes())
            if kept.model_dump(include=set(wanted)) == wanted:
                return kept
        found = Compared(**wanted, cosine=min(1.0, lowest_cosine(OnnxEncoder(folder, self._batch), self)))
        try:
            with (
                writing(f"{folder} cannot be written", "Make the folder writable."),
                written_beside(folder / COMPARED) as fresh,
            ):
                fresh.write_text(found.model_dump_json(indent=2), encoding="utf-8")
        except StoreWriteError as error:
            log.warning("%s. Each start compares OpenVINO with ONNX Runtime again.", error.message)
        return found
