"""The encoder of the settings: ONNX Runtime where an export is there or can be made, torch where not."""

import dataclasses
import hashlib
import importlib.util
import logging
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
from pydantic import ValidationError

from qaserve.common.errors import EncoderError, ExportError, StoreWriteError
from qaserve.common.files import writing, written_beside
from qaserve.common.progress import Reporter
from qaserve.encoders.base import Encoder, OnBatch, Vectors
from qaserve.encoders.onnx import OnnxEncoder, versions_of_makers
from qaserve.encoders.openvino import OpenVinoEncoder
from qaserve.encoders.sources import ModelSource, locate, source_for
from qaserve.schemas.builds import EncoderIdentity
from qaserve.schemas.record import Record
from qaserve.settings import EncoderSettings

log = logging.getLogger(__name__)


class Refused(Record):
    """A model that could not be exported, and by which versions. It is not tried again by the same."""

    revision: str | None
    versions: dict[str, str]
    reason: str


class ServingEncoder:
    """An encoder that is opened when it is first needed. Safe to share between threads.

    It is the export of the model. Where there is none, or one that cannot be used, it is made. A model that cannot be
    exported runs in torch.
    """

    def __init__(self, settings: EncoderSettings, cache_dir: Path, reporter: Reporter) -> None:
        """Remember what to open; nothing is read yet.

        Args:
            settings: Which encoder.
            cache_dir: Folder of exports, and of models that must be unpacked before use.
            reporter: Told while an export is made.
        """
        self._settings, self._cache_dir, self._reporter = settings, cache_dir, reporter
        self._source = source_for(settings.encoder)
        self._folder = export_folder(self._source, cache_dir)
        self._encoder: Encoder | None = None
        self._lock = threading.Lock()

    @property
    def identity(self) -> EncoderIdentity:
        """What the vectors depend on."""
        return self._ready().identity

    def load(self) -> None:
        """Open the encoder now. Raises EncoderError when its files are missing or altered."""
        self._ready()

    def encode_questions(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> Vectors:
        """(n, D) float32 unit rows."""
        return self._ready().encode_questions(texts, on_batch)

    def encode_answers(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> Vectors:
        """(n, D) float32 unit rows."""
        return self._ready().encode_answers(texts, on_batch)

    def export(self) -> OnnxEncoder:
        """Make the export, also where there is one.

        Raises:
            EncoderError: The encoder's files are missing or altered, or the extra `train` is not installed.
            ExportError: The model cannot be exported.
            StoreWriteError: The folder cannot be written.
        """
        return self._export(self._pinned(), again=True)

    def _ready(self) -> Encoder:
        with self._lock:
            if self._encoder is None:
                self._encoder = self._torch() if self._settings.encoder_backend == "torch" else self._open()
            return self._encoder

    def _open(self) -> Encoder:
        source = self._pinned()
        try:
            return self._exported(source)
        except EncoderError as error:
            if self._was_refused(source):
                return self._torch()
            if self._folder.exists():
                log.warning("%s. It is made again.", error.message)
        try:
            return self._export(source)
        except (ExportError, StoreWriteError) as error:
            log.warning("%s. Encoding with torch instead, which starts slowly.", error.message)
            return self._torch()

    def _pinned(self) -> ModelSource:
        """The source with the hash of its weights: those of a folder may have changed since it was exported."""
        if self._source.kind != "folder":
            return self._source
        return dataclasses.replace(self._source, sha256=locate(self._source, str(self._cache_dir))[1])

    def _exported(self, source: ModelSource) -> OnnxEncoder:
        if self._settings.encoder_backend == "openvino":
            return OpenVinoEncoder(self._folder, self._settings.encoder_batch, source)
        return OnnxEncoder(self._folder, self._settings.encoder_batch, source)

    def _export(self, source: ModelSource, *, again: bool = False) -> OnnxEncoder:
        require_makers(source)
        from qaserve.encoders.export import STEPS, export  # noqa: PLC0415 - needs what serving may lack
        from qaserve.encoders.sentence_transformer import SentenceEncoder  # noqa: PLC0415

        with writing(f"{self._folder} cannot be written", "Free some space, or make the folder writable."):
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{self._folder}.lock")
            lock.acquire()
        try:
            if not again:
                try:
                    return self._exported(source)  # another process has made it meanwhile
                except EncoderError:
                    pass
            with self._reporter.stage("Exporting the encoder", STEPS) as advance:
                encoder = SentenceEncoder(self._settings, str(self._cache_dir))
                export(encoder, self._folder, self._settings.encoder_batch, advance)
            self._refused_file.unlink(missing_ok=True)
            return self._exported(source)
        except ExportError as error:
            refused = Refused(revision=source.sha256, versions=versions_of_makers(), reason=error.message)
            with written_beside(self._refused_file) as fresh:
                fresh.write_text(refused.model_dump_json(indent=2), encoding="utf-8")
            raise
        finally:
            lock.release()

    @property
    def _refused_file(self) -> Path:
        return self._folder.with_name(f"{self._folder.name}.refused.json")

    def _was_refused(self, source: ModelSource) -> bool:
        try:
            refused = Refused.model_validate_json(self._refused_file.read_bytes())
        except (OSError, ValidationError):
            return False
        return (refused.revision, refused.versions) == (source.sha256, versions_of_makers())

    def _torch(self) -> Encoder:
        require_makers(self._source)
        from qaserve.encoders.sentence_transformer import SentenceEncoder  # noqa: PLC0415

        return SentenceEncoder(self._settings, str(self._cache_dir))


def export_folder(source: ModelSource, cache_dir: Path) -> Path:
    """Where the export of a model is. Folders of one name do not share one."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", source.name).strip(".-") or "model"
    if source.kind == "folder":
        name += "-" + hashlib.sha256(str(Path(source.place).resolve()).encode()).hexdigest()[:8]
    return cache_dir / "onnx" / name


def require_makers(source: ModelSource) -> None:
    """Raise EncoderError, with the command that helps, where what reads the original model is not installed."""
    missing = [name for name in ("torch", "sentence_transformers", "onnxscript") if not importlib.util.find_spec(name)]
    if missing:
        raise EncoderError(
            f"encoder {source.name} has no usable export yet, and {missing[0]}, which makes it, is not installed",
            hint="pip install 'qaserve[train]'",
        )
