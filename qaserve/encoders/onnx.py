"""An exported encoder: tokenizers and ONNX Runtime. This is what serving loads.

An export is a folder of four files: `model.onnx` (token ids and mask in, unit vectors out: pooling and normalisation
are in the graph), its weights, `tokenizer.json`, and `manifest.json`, which describes them. `qaserve.encoders.export`
makes it. The weights have a file of their own because ONNX Runtime maps that into memory: of the table of tokens, half
of a small model, only what questions touch is then read, and processes share it.

The session itself has one thread: a question is encoded on the thread that asks, and questions do not wait for each
other. A call with more texts spreads its batches over a pool of threads, one for each core.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from qaserve.common.errors import EncoderError
from qaserve.common.text import shorten
from qaserve.encoders.base import FEW_TEXTS, OnBatch, Vectors, batches, cores, unit_rows
from qaserve.encoders.sources import ModelSource
from qaserve.schemas.builds import EncoderIdentity
from qaserve.schemas.record import Record

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Model = Callable[[dict[str, NDArray[np.int64]]], Vectors]
"""Gives (n, D) vectors for `input_ids` and `attention_mask`, (n, t)."""

MADE_BY = ("torch", "transformers", "sentence-transformers", "onnx", "onnxscript", "onnxruntime")
"""Packages that an export depends on."""
MODEL, TOKENIZER, MANIFEST = "model.onnx", "tokenizer.json", "manifest.json"
WEIGHTS = f"{MODEL}.data"
"""As torch's exporter names it."""


class ExportManifest(Record):
    """What an export is, and of what it was made."""

    format: Literal[2] = 2
    encoder: EncoderIdentity
    place: str = Field(description="Where the model came from: package, model id or folder.")
    opset: int = Field(ge=1)
    pad_id: int = Field(ge=0, description="Token that fills short rows of a batch; the mask hides it.")
    model_sha256: str
    weights_sha256: str
    tokenizer_sha256: str
    versions: dict[str, str] = Field(description="Packages that made it.")


class OnnxEncoder:
    """An export behind the `Encoder` protocol. Safe to share between threads."""

    def __init__(self, folder: Path, batch: int, source: ModelSource | None = None) -> None:
        """Open an export.

        Args:
            folder: The export.
            batch: Texts per forward pass.
            source: Refuse an export of another model than this.

        Raises:
            EncoderError: The export is missing, damaged, of another model or of a newer opset.
        """
        self.manifest = read_manifest(folder, source)
        _check_files(folder, self.manifest)
        self._tokenizer, self._model = _tokenizer(folder), self._opened(folder)
        self._batch = batch
        self._pool = ThreadPoolExecutor(cores(), thread_name_prefix="encoder")

    @property
    def identity(self) -> EncoderIdentity:
        """What the vectors depend on."""
        return self.manifest.encoder

    def encode_questions(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> Vectors:
        """(n, D) float32 unit rows."""
        return self._encode(texts, self.identity.question_prompt, on_batch)

    def encode_answers(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> Vectors:
        """(n, D) float32 unit rows."""
        return self._encode(texts, self.identity.answer_prompt, on_batch)

    def _encode(self, texts: Sequence[str], prompt: str, on_batch: OnBatch | None) -> Vectors:
        out = np.empty((len(texts), self.identity.dimension), dtype=np.float32)
        workers = cores()
        few = len(texts) <= FEW_TEXTS
        size = self._batch if few else min(self._batch, -(-len(texts) // workers))  # every core gets a part
        parts = list(batches([len(text) for text in texts], size))
        # As many batches at once as there are cores: on_batch may stop the work by raising, between two steps.
        for start in range(0, len(parts), 1 if few else workers):
            step = parts[start : start + (1 if few else workers)]
            batched = [[prompt + texts[i] for i in part] for part in step]
            done = map(self._forward, batched) if few else self._pool.map(self._forward, batched)
            for part, vectors in zip(step, done, strict=True):
                out[part] = vectors
                if on_batch is not None:
                    on_batch(len(part))
        return out

    def _forward(self, texts: list[str]) -> Vectors:
        """(n, D) float32 unit rows of texts that have their prompt already."""
        found = self._tokenizer.encode_batch_fast(texts)
        ids = np.full((len(found), max(len(one) for one in found)), self.manifest.pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, one in enumerate(found):
            ids[row, : len(one)] = one.ids
            mask[row, : len(one)] = 1
        return unit_rows(self._model({"input_ids": ids, "attention_mask": mask}), self.identity.id, texts)

    def _opened(self, folder: Path) -> Model:
        from onnxruntime import InferenceSession, SessionOptions, set_default_logger_severity  # noqa: PLC0415 - slow to import
        from onnxruntime.capi import onnxruntime_pybind11_state as states  # noqa: PLC0415 - slow to import

        set_default_logger_severity(4)  # errors are raised; they need not be printed too
        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            session = InferenceSession(str(folder / MODEL), options, providers=["CPUExecutionProvider"])
        except (states.Fail, states.InvalidGraph, states.InvalidProtobuf, states.NotImplemented, RuntimeError) as error:
            reason, opset = shorten(str(error), 200), self.manifest.opset
            raise unusable(folder, f"ONNX Runtime cannot open {MODEL} (opset {opset}): {reason}") from error
        return lambda inputs: cast("Vectors", session.run(None, inputs)[0])


def read_manifest(folder: Path, source: ModelSource | None = None) -> ExportManifest:
    """The manifest of an export, without opening the model. Raises EncoderError as `OnnxEncoder` does."""
    try:
        manifest = ExportManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise unusable(folder, f"{MANIFEST} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise unusable(folder, f"{MANIFEST}: {where}: {first['msg']}") from error
    if source is not None:
        made, wanted = _described(manifest.encoder), _described(source)
        differs = [name for name, value in wanted.items() if value is not None and made[name] != value]
        if differs:
            name = differs[0]
            raise unusable(folder, f"it is of another model: {name} is {made[name]!r}, {wanted[name]!r} is needed")
    return manifest


def _described(model: EncoderIdentity | ModelSource) -> dict[str, str | int | None]:
    """What a source and an identity both say. None: not known before the files are read."""
    name, revision = (
        (model.id, model.revision) if isinstance(model, EncoderIdentity) else (model.name, model.pinned_revision)
    )
    return {
        "id": name,
        "revision": revision,
        "dimension": model.dimension,
        "question_prompt": model.question_prompt,
        "answer_prompt": model.answer_prompt,
    }


def _check_files(folder: Path, manifest: ExportManifest) -> None:
    hashes = {
        MODEL: manifest.model_sha256,
        WEIGHTS: manifest.weights_sha256,
        TOKENIZER: manifest.tokenizer_sha256,
    }
    for name, expected in hashes.items():
        try:
            found = digest_of(folder / name)
        except OSError as error:
            raise unusable(folder, f"{name} cannot be read: {error.strerror or error}") from error
        if found != expected:
            raise unusable(folder, f"{name} is damaged: its SHA-256 is {found}, not {expected}")


def _tokenizer(folder: Path) -> "Tokenizer":
    from tokenizers import Tokenizer  # noqa: PLC0415 - slow to import

    return Tokenizer.from_file(str(folder / TOKENIZER))


def versions_of_makers() -> dict[str, str]:
    """Versions of the packages that make an export, as far as they are installed."""
    found = {}
    for name in MADE_BY:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def digest_of(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unusable(folder: Path, why: str) -> EncoderError:
    """An export that cannot be used."""
    return EncoderError(
        f"the encoder's export in {folder} cannot be used: {why}", hint="`qaserve encoder export` makes it again."
    )
