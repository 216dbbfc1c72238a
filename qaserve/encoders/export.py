"""Make an export: a sentence-transformers model as an ONNX graph, kept only if its vectors are the same."""

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qaserve.common.errors import ExportError
from qaserve.common.files import writing
from qaserve.common.progress import Advance
from qaserve.common.text import shorten
from qaserve.encoders.base import lowest_cosine
from qaserve.encoders.onnx import (
    MANIFEST,
    MODEL,
    TOKENIZER,
    WEIGHTS,
    ExportManifest,
    OnnxEncoder,
    digest_of,
    versions_of_makers,
)
from qaserve.encoders.sentence_transformer import LoadedModel, SentenceEncoder

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

LEAST_COSINE = 0.99999
"""An export whose vector of any fixed text is further away from torch's is refused."""
STEPS = 3
"""Steps of progress: load, export, compare."""


def export(encoder: SentenceEncoder, folder: Path, batch: int, advance: Advance) -> ExportManifest:
    """Export an encoder into a folder, which appears whole or not at all; one that is there is replaced.

    Args:
        encoder: What to export.
        folder: The export.
        batch: Texts per forward pass while it is tried.
        advance: Told of each of the `STEPS` done.

    Raises:
        EncoderError: The encoder's files are missing or altered.
        ExportError: The model has no ONNX form, or ONNX Runtime's vectors differ from torch's.
        StoreWriteError: The folder cannot be written.
    """
    with _replaced(folder) as fresh:
        with encoder.borrowed() as loaded:
            advance(1)
            _write(encoder, loaded, fresh)
            pad_id = int(loaded.model.tokenizer.pad_token_id or 0)
        advance(1)
        manifest = _described(encoder, fresh, pad_id, 1.0)
        cosine = lowest_cosine(encoder, OnnxEncoder(fresh, batch))
        if not cosine >= LEAST_COSINE:
            raise ExportError(
                f"the export of encoder {encoder.identity.id} is refused: the lowest cosine to torch's vectors is "
                f"{cosine:.6f}, {LEAST_COSINE} is needed",
                hint="Set QASERVE_ENCODER_BACKEND=torch.",
            )
        manifest = _described(encoder, fresh, pad_id, np.floor(cosine * 1e5) / 1e5)
        advance(1)
    return manifest


def _described(encoder: SentenceEncoder, folder: Path, pad_id: int, agreement: float) -> ExportManifest:
    """Write the manifest of the files in a folder."""
    import onnx  # noqa: PLC0415

    opsets = onnx.load(folder / MODEL, load_external_data=False).opset_import
    identity = encoder.identity.model_copy(update={"backend": "onnx", "agreement": min(1.0, float(agreement))})
    manifest = ExportManifest(
        encoder=identity,
        place=encoder.source.place,
        opset=max(found.version for found in opsets if found.domain in {"", "ai.onnx"}),
        pad_id=pad_id,
        model_sha256=digest_of(folder / MODEL),
        weights_sha256=digest_of(folder / WEIGHTS),
        tokenizer_sha256=digest_of(folder / TOKENIZER),
        versions=versions_of_makers(),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    return manifest


def _write(encoder: SentenceEncoder, loaded: LoadedModel, folder: Path) -> None:
    """Write graph and tokenizer. Raises ExportError where the model has no ONNX form."""
    import torch  # noqa: PLC0415
    from torch.onnx.errors import OnnxExporterError  # noqa: PLC0415

    model = loaded.model
    try:
        tokenizer = model.tokenizer.backend_tokenizer
        longest = int(model.max_seq_length or model.tokenizer.model_max_length)
        tokenizer.no_padding()  # the encoder fills up to the longest of a batch itself
        tokenizer.enable_truncation(longest)
        tokenizer.save(str(folder / TOKENIZER))
        batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=longest)
        # A size of one would be taken for a constant, and one tensor given twice for one input.
        ids, mask = torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64)
        with quietly(), torch.no_grad():
            torch.onnx.export(
                _whole(model, encoder.identity.dimension),
                (ids, mask),
                folder / MODEL,
                input_names=["input_ids", "attention_mask"],
                output_names=["vectors"],
                dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
                dynamo=True,
                external_data=True,
                verbose=False,
            )
    except (OnnxExporterError, RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise ExportError(
            f"encoder {encoder.identity.id} cannot be exported to ONNX: {shorten(str(error), 200)}",
            hint="Set QASERVE_ENCODER_BACKEND=torch.",
        ) from error


def _whole(model: "Module", dimension: int) -> "Module":
    """A sentence-transformers model as one module: token ids (n, t) and mask (n, t) in, unit rows (n, D) out."""
    import torch  # noqa: PLC0415

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: "Tensor", attention_mask: "Tensor") -> "Tensor":
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            for module in self.model.children():
                features = module(features)
            return torch.nn.functional.normalize(features["sentence_embedding"][:, :dimension], dim=1)

    return Whole().eval()


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings of torch's exporter: they are about its own code, and about torchvision, which is unused."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when all went well, and is gone when it did not."""
    with writing(f"{folder} cannot be written", "Free some space, or make the folder writable."):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        fresh = scratch / "new"
        fresh.mkdir()
        yield fresh
        with writing(f"{folder} cannot be written", "Free some space, or make the folder writable."):
            for path in fresh.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            with suppress(FileNotFoundError):
                folder.replace(scratch / "old")
            fresh.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
