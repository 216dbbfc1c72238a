"""One split's fine-tuning: the vectors that the tuned encoder gives, and what it took; kept, for it takes long."""

import json
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qaserve.encoder import SentenceEncoder
from qaserve.progress import Advance
from qaserve.records import Record
from qaserve.routing import Floats
from train import finetuning
from train.folds import Examples
from train.result_cache import Kept

PARTS = 20
"""Into how many steps of progress a training is divided, however long it is."""
PACKAGES = ("torch", "transformers", "sentence-transformers")
"""Whose releases may change the weights."""
TRAINING = "training"
"""Name of what is kept beside the vectors."""

Made = TypeVar("Made")


class Cost(Record):
    """What a piece of work took."""

    cpu_seconds: float = Field(description="Of all threads of this process.")
    wall_seconds: float = Field(description="Includes waiting for other work on the machine.")


class Training(Record):
    """How an encoder was tuned, beside what came out."""

    losses: tuple[float, ...]
    """Mean of each epoch."""
    training: Cost
    encoding: Cost
    """Of all known answers with the tuned encoder."""


class Tuned(NamedTuple):
    """The pairs of a split with the vectors of the tuned encoder."""

    known: Examples
    asked: Examples
    training: Training


def tune(
    known: Examples,
    asked: Examples,
    model: SentenceEncoder,
    seed: int,
    epochs: int,
    kept: Kept | None,
    advance: Advance,
) -> Tuned:
    """Fine-tune an encoder on the known side and encode both sides with it, or take that from what was kept.

    Args:
        known: The pairs to train on; their vectors play no part.
        asked: The pairs that are held out.
        model: The encoder; its files stay as they are.
        seed: Of the training.
        epochs: Passes over the known pairs.
        kept: Where a finished training is looked for and left; None: nowhere.
        advance: Told 1, `PARTS` times.

    Raises:
        UsageError: The training packages are not installed.
        EncoderError: The encoder cannot be loaded.
        StoreWriteError: What should be kept cannot be written.
    """
    sides = (known, asked)
    texts = [texts_of(side, model) for side in sides]
    key = list(_depends_on(model, seed, epochs, texts))
    found = None if kept is None else kept.load(key)
    parts = Parts(advance, finetuning.steps(len(known), epochs=epochs))
    if found is None:
        (vectors, training), took = timed(lambda: _train(model, seed, epochs, texts, parts))
        if kept is not None:
            kept.save(key, vectors, {TRAINING: training.model_dump_json()}, seconds=took.wall_seconds)
    else:
        vectors, training = found[0], Training.model_validate_json(found[1][TRAINING])
    parts.finish()
    moved = [
        Examples(side.pairs, _floats(vectors[f"{number}.questions"]), _floats(vectors[f"{number}.answers"]))
        for number, side in enumerate(sides)
    ]
    return Tuned(moved[0], moved[1], training)


def timed(work: Callable[[], Made]) -> tuple[Made, Cost]:
    """What the work gives, and what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = work()
    return made, Cost(cpu_seconds=time.process_time() - cpu, wall_seconds=time.perf_counter() - wall)


def texts_of(examples: Examples, model: SentenceEncoder) -> tuple[list[str], list[str]]:
    """(n,) questions and (n,) answers, with the encoder's prompts."""
    identity = model.identity
    questions = [identity.question_prompt + pair.question for pair in examples.pairs]
    return questions, [identity.answer_prompt + pair.answer for pair in examples.pairs]


def _train(
    model: SentenceEncoder, seed: int, epochs: int, texts: list[tuple[list[str], list[str]]], advance: Advance
) -> tuple[dict[str, NDArray[np.generic]], Training]:
    with model.borrowed() as loaded:
        folder = loaded.folder
    questions, answers = texts[0]
    tuned = finetuning.fine_tune(folder, questions, answers, epochs=epochs, seed=seed, advance=advance)
    encoded, encoding = timed(lambda: tuned.encode(answers))
    vectors: dict[str, NDArray[np.generic]] = {
        "0.questions": tuned.encode(questions),
        "0.answers": encoded,
        "1.questions": tuned.encode(texts[1][0]),
        "1.answers": tuned.encode(texts[1][1]),
    }
    training = Cost(cpu_seconds=tuned.cpu_seconds, wall_seconds=tuned.wall_seconds)
    return vectors, Training(losses=tuned.losses, training=training, encoding=encoding)


def _depends_on(
    model: SentenceEncoder, seed: int, epochs: int, texts: list[tuple[list[str], list[str]]]
) -> Iterator[str]:
    """All that the tuned vectors depend on."""
    yield model.identity.model_dump_json()
    yield from (f"{package} {metadata.version(package)}" for package in PACKAGES)
    yield json.dumps([seed, epochs, finetuning.BATCH, finetuning.LEARNING_RATE, finetuning.WARM_UP])
    yield json.dumps(texts)


def _floats(vectors: NDArray[np.generic]) -> Floats:
    return np.asarray(vectors, dtype=np.float64)


class Parts:
    """Progress of a training in `PARTS` steps, whatever its own number of steps."""

    def __init__(self, advance: Advance, total: int) -> None:
        """`total`: the training's own steps, about."""
        self._advance, self._total = advance, total
        self._done, self._told = 0, 0

    def __call__(self, steps: int) -> None:
        """So many more of the training's steps are done."""
        self._done += steps
        self._tell(min(PARTS, PARTS * self._done // self._total))

    def finish(self) -> None:
        """Tell what is still to tell."""
        self._tell(PARTS)

    def _tell(self, parts: int) -> None:
        for _ in range(parts - self._told):
            self._advance(1)
        self._told = max(self._told, parts)
