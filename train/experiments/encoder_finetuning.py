"""The yardstick "fine-tune the encoder itself": the same pairs, spent on the encoder's own weights."""

import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qaserve.common.errors import UsageError
from qaserve.common.progress import Advance
from qaserve.encoders.sentence_transformer import load_model

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
    from transformers import TrainerCallback

EPOCHS = 4
BATCH = 32
LEARNING_RATE = 2e-5
WARM_UP = 0.1
MAX_TOKENS = 256
FEWEST = 2
"""Pairs; with one there is no other answer to tell the right one from."""


@dataclass(frozen=True)
class FineTuned:
    """An encoder after its training, and what that cost."""

    model: "SentenceTransformer"
    losses: tuple[float, ...]
    """Mean training loss of each epoch."""
    wall_seconds: float
    cpu_seconds: float
    """Of all threads of this process. Other work on the machine distorts it less than the wall time."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, D) float32 unit rows, in the order of the texts."""
        vectors = self.model.encode(
            list(texts), batch_size=BATCH, show_progress_bar=False, normalize_embeddings=True, convert_to_numpy=True
        )
        dimension = self.model.get_embedding_dimension() or -1
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), dimension)


def fine_tune(
    encoder_folder: str,
    questions: Sequence[str],
    answers: Sequence[str],
    *,
    epochs: int = EPOCHS,
    batch: int = BATCH,
    learning_rate: float = LEARNING_RATE,
    seed: int,
    advance: Advance | None = None,
) -> FineTuned:
    """Train all weights of an encoder to put every question nearest to its own answer.

    The loss is InfoNCE over the batch (van den Oord et al. 2018; as used for retrieval by Henderson et al. 2017):
    `−log softmax_j(20 · cos(q_i, a_j))` at j = i, where the other answers of the batch stand for all wrong ones. No
    text occurs twice in a batch. AdamW, 10% of the steps warm up linearly, the rest cool down linearly to zero. The
    same seed, texts and number of threads give the same weights. Nothing is written or downloaded; the global gradient
    mode, which serving switches off, is as before when this returns.

    Args:
        encoder_folder: A sentence-transformers model, as `qaserve.encoders.sources.locate` gives it; its files stay as
            they are.
        questions: (n,) texts.
        answers: (n,) texts, one for each question.
        epochs: Passes over the pairs.
        batch: Pairs a step.
        learning_rate: Its peak.
        seed: Of the order of the pairs and of dropout.
        advance: Told 1 after each step; `steps` says how many there will be.

    Raises:
        UsageError: The training packages are not installed, or the pairs are too few or do not match.
        EncoderError: The folder holds no model that can be loaded.
    """
    if len(questions) != len(answers) or len(questions) < FEWEST:
        raise UsageError(
            f"{len(questions)} questions and {len(answers)} answers cannot be fine-tuned on",
            hint=f"Give as many answers as questions, and at least {FEWEST}.",
        )
    data = _dataset(questions, answers)
    import torch  # noqa: PLC0415 - seconds to import; only where a model runs

    torch.set_num_threads(os.cpu_count() or 1)  # serving may have left it at one
    model = load_model(encoder_folder, encoder_folder).to("cpu")
    model.max_seq_length = min(model.max_seq_length or MAX_TOKENS, MAX_TOKENS)
    with tempfile.TemporaryDirectory() as scratch, torch.enable_grad():
        arguments = _arguments(scratch, epochs, batch, learning_rate, seed)
        wall, cpu = time.perf_counter(), time.process_time()
        losses = _train(model, data, arguments, advance)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return FineTuned(model.eval(), losses, wall_seconds=wall, cpu_seconds=cpu)


def steps(pairs: int, *, epochs: int = EPOCHS, batch: int = BATCH) -> int:
    """How often `fine_tune` will call `advance`; more often where repeated texts keep batches small."""
    return epochs * math.ceil(pairs / batch)


def _dataset(questions: Sequence[str], answers: Sequence[str]) -> "Dataset":
    try:
        import accelerate  # noqa: F401, PLC0415 - asked for here, used by the trainer
        from datasets import Dataset  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            f"fine-tuning needs a package that is not installed: {error.name}", hint="pip install 'qaserve[bench]'"
        ) from error
    return Dataset.from_dict({"question": list(questions), "answer": list(answers)})


def _arguments(
    folder: str, epochs: int, batch: int, learning_rate: float, seed: int
) -> "SentenceTransformerTrainingArguments":
    from sentence_transformers import SentenceTransformerTrainingArguments  # noqa: PLC0415
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers  # noqa: PLC0415

    return SentenceTransformerTrainingArguments(
        output_dir=folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=batch,
        learning_rate=learning_rate,
        warmup_steps=WARM_UP,  # below one it is a share
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        seed=seed,
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="epoch",
        report_to="none",
        push_to_hub=False,
        disable_tqdm=True,
    )


def _train(
    model: "SentenceTransformer",
    data: "Dataset",
    arguments: "SentenceTransformerTrainingArguments",
    advance: Advance | None,
) -> tuple[float, ...]:
    """Train in place; gives the mean loss of each epoch."""
    from sentence_transformers import SentenceTransformerTrainer  # noqa: PLC0415
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss  # noqa: PLC0415
    from transformers import PrinterCallback  # noqa: PLC0415

    class Trainer(SentenceTransformerTrainer):
        def add_model_card_callback(self, *_: object) -> None:
            """No model card: it is not used, and it shows a progress bar."""

    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=data,
        loss=MultipleNegativesRankingLoss(model),
        callbacks=None if advance is None else [_teller(advance)],
    )
    trainer.remove_callback(PrinterCallback)  # it would print to stdout
    trainer.train()
    return tuple(float(row["loss"]) for row in trainer.state.log_history if "loss" in row)


def _teller(advance: Advance) -> "TrainerCallback":
    from transformers import TrainerCallback  # noqa: PLC0415

    class Teller(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            advance(1)

    return Teller()
