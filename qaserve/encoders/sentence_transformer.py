"""A sentence-transformers model in torch: to export, to train, and to serve what cannot be exported."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qaserve.common.errors import EncoderError
from qaserve.common.fair_lock import FairLock
from qaserve.common.text import shorten
from qaserve.encoders.base import FEW_TEXTS, OnBatch, Vectors, batches, cores, unit_rows
from qaserve.encoders.sources import ModelSource, locate, source_for
from qaserve.schemas.builds import EncoderIdentity
from qaserve.settings import EncoderSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SOME_TEXTS = 64
"""Up to this many texts are encoded on half of the cores: they are questions, and others are searched for meanwhile."""


class LoadedModel(NamedTuple):
    """What is behind a `SentenceEncoder`, for work that vectors are not enough for."""

    model: "SentenceTransformer"
    """In eval mode; leave it as it was found."""
    folder: str
    """Where its files are."""


class SentenceEncoder:
    """A SentenceTransformer behind the `Encoder` protocol, loaded when first needed. Safe to share between threads."""

    def __init__(self, settings: EncoderSettings, cache_dir: str) -> None:
        """Remember what to load; nothing is read yet.

        Args:
            settings: Which encoder.
            cache_dir: Folder for models that must be unpacked before use.
        """
        self.source: ModelSource = source_for(settings.encoder)
        self._batch = settings.encoder_batch
        self._cache_dir = cache_dir
        self._model: SentenceTransformer | None = None
        self._folder = ""
        self._identity: EncoderIdentity | None = self.source.identity
        self._lock = FairLock()

    @property
    def identity(self) -> EncoderIdentity:
        """What the vectors depend on; loads the model if its dimension is not known without."""
        if self._identity is None:
            self.load()
        assert self._identity is not None  # noqa: S101 - load() sets it or raises
        return self._identity

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._model is not None

    def load(self) -> None:
        """Load the weights now. Raises EncoderError when they are missing, altered or of a surprising dimension."""
        with self._lock:
            self._ready()

    @contextmanager
    def borrowed(self) -> Iterator[LoadedModel]:
        """The loaded model, for this thread alone until the block ends; inside it, do not encode with this encoder.

        Raises:
            EncoderError: As `load`.
        """
        with self._lock:
            model = self._ready()
            _use_threads(None)
            yield LoadedModel(model, self._folder)

    def encode_questions(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> Vectors:
        """(n, D) float32 unit rows."""
        return self._encode(texts, self.source.question_prompt, on_batch)

    def encode_answers(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> Vectors:
        """(n, D) float32 unit rows."""
        return self._encode(texts, self.source.answer_prompt, on_batch)

    def _encode(self, texts: Sequence[str], prompt: str, on_batch: OnBatch | None) -> Vectors:
        out = np.empty((len(texts), self.identity.dimension), dtype=np.float32)
        for chosen in batches([len(text) for text in texts], self._batch):
            batch = [texts[i] for i in chosen]
            with self._lock:  # fast tokenizers refuse to be used by two threads at once
                model = self._ready()
                _use_threads(_threads_for(len(texts)))
                out[chosen] = self._forward(model, batch, prompt)
            if on_batch is not None:
                on_batch(len(batch))
        return out

    def _forward(self, model: "SentenceTransformer", batch: list[str], prompt: str) -> Vectors:
        raw = model.encode(
            batch, batch_size=len(batch), prompt=prompt or None, show_progress_bar=False, convert_to_numpy=True
        )
        vectors = np.asarray(raw, dtype=np.float32)[:, : self.identity.dimension]
        return unit_rows(vectors, self.source.name, batch)

    def _ready(self) -> "SentenceTransformer":
        if self._model is None:
            folder, revision = locate(self.source, self._cache_dir)
            model = load_model(self.source.name, folder)
            if self.source.max_tokens is not None:
                model.max_seq_length = self.source.max_tokens
            _answer_only()
            dimension = self.source.dimension or int(model.get_embedding_dimension() or 0)
            native = int(model.get_embedding_dimension() or 0)
            if native < dimension:
                raise EncoderError(
                    f"encoder {self.source.name} gives {native} dimensions where {dimension} are expected",
                    hint="The model's files are of another model; reinstall them.",
                )
            self._identity = EncoderIdentity(
                id=self.source.name,
                revision=revision,
                dimension=dimension,
                question_prompt=self.source.question_prompt,
                answer_prompt=self.source.answer_prompt,
            )
            self._model, self._folder = model, folder
        return self._model


def _threads_for(texts: int) -> int | None:
    if texts <= FEW_TEXTS:
        return 1
    return max(1, cores() // 2) if texts <= SOME_TEXTS else None


def _use_threads(count: int | None) -> None:
    """Let torch use this many threads from here on; None means one per core."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(count or cores())


def _answer_only() -> None:
    """Switch gradients off, everywhere: serving trains nothing."""
    import torch  # noqa: PLC0415

    torch.set_grad_enabled(False)


def load_model(name: str, folder: str) -> "SentenceTransformer":
    """A sentence-transformers model from local files, in eval mode. Raises EncoderError when it cannot be loaded."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = SentenceTransformer(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise EncoderError(
            f"encoder {name} cannot be loaded: {shorten(str(error), 200)}",
            hint="The folder must hold a sentence-transformers model with safetensors weights.",
        ) from error
    return model.eval()
