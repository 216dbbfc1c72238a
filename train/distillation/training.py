"""Distillation (Hinton et al. 2015): a student learns to take a question where its teacher takes it.

The teacher is routing and projection, given as a function of rows, so it can be asked anywhere and not only at the
known questions. Between the questions the student is taught at mixtures of them (mixup, Zhang et al. 2018, with the
teacher's own output in place of mixed labels).

Everything random in an epoch follows from the seed and the epoch's number alone. So an interrupted run ends with the
same bytes as an undisturbed one, and no random state has to be kept.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from safetensors import SafetensorError, safe_open

from qaserve.common.errors import UsageError
from qaserve.common.files import written_beside
from qaserve.common.progress import Advance
from qaserve.core.student import Student, StudentSpec, make_module, weights_of
from qaserve.schemas.record import Record
from train.distillation.configs import Recipe
from train.distillation.data import Teacher, TrainingData, ask, make_data, mix, neighbours

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

SAVE_EVERY = 5
"""Epochs between two checkpoints."""
CHECKPOINT = "distillation.safetensors"


class Epoch(Record):
    """One point of the learning curve."""

    train_loss: float
    validation_cosine: float


class Distilled(Record):
    """A trained student, and how it went."""

    spec: StudentSpec
    weights: bytes = Field(repr=False, description="Safetensors of the epoch with the best validation cosine.")
    epochs: int = Field(description="Epochs run.")
    best_epoch: int = Field(description="From 1.")
    train_loss: float = Field(description="Mean over the rows, in the best epoch.")
    validation_cosine: float = Field(description="Mean cosine of student and teacher on the inputs kept apart.")
    curve: tuple[Epoch, ...]
    seconds: float

    @property
    def student(self) -> Student:
        """The student, ready to answer."""
        return Student.from_bytes(self.spec, self.weights)


def distill(
    inputs: ArrayLike,
    teacher: Teacher,
    spec: StudentSpec,
    recipe: Recipe,
    *,
    answers: ArrayLike | None = None,
    importance: ArrayLike | None = None,
    seed: int = 0,
    device: str | None = None,
    checkpoint: Path | None = None,
    advance: Advance | None = None,
) -> Distilled:
    """Train a student. On a CPU the same input gives the same bytes, interrupted or not.

    The validation rows are a random share of the inputs. Compare their cosine within one teacher only: where a question
    votes for itself, it was lower at the validation rows than at questions that the teacher never saw.

    Args:
        inputs: (n, D) unit rows, the known questions; n at least 10.
        teacher: (m, D) unit rows → (m, D) rows of any length, the same for the same rows. It is asked once for all
            inputs and, with mixtures, once in every epoch. If it should leave out the vote of an input for itself, it
            does so itself.
        spec: The student's shape.
        recipe: How to train.
        answers: (N, D) unit rows; for the ranking loss only.
        importance: (n,) weights of the inputs in the loss, ≥ 0, scaled here to mean 1; None: all equal.
        seed: Of the first weights, the validation rows, the batches, the dropout and the mixtures.
        device: As torch names it; None: cuda, else mps, else cpu.
        checkpoint: Folder for the state of the run. A run over the same data with the same spec, recipe, seed and
            device goes on from there; a finished one is returned at once. Any other state is overwritten.
        advance: Told 1 after every epoch, and once the number of epochs that a checkpoint already holds.

    Raises:
        CorpusError: Fewer than 10 inputs.
        ValueError: Shapes contradict each other, a value is not finite, or the ranking loss has no answers.
        StoreWriteError: The checkpoint cannot be written.
    """
    data = make_data(inputs, teacher, spec, recipe, answers, importance)
    with _training(seed):
        run = _Run(data, spec, recipe, seed, device or _best_device())
        tell = advance or (lambda _: None)
        if checkpoint is not None and run.resume(checkpoint / CHECKPOINT):
            tell(len(run.curve))
        while not run.finished:
            run.epoch()
            if checkpoint is not None and (run.finished or len(run.curve) % SAVE_EVERY == 0):
                run.save(checkpoint / CHECKPOINT)
            tell(1)
        return run.result()


@contextmanager
def _training(seed: int) -> Iterator[None]:
    """Gradients on, one thread, and a random state of our own; afterwards torch is as it was.

    An encoder that was loaded in this thread has switched gradients off. The number of threads decides the order of
    sums, and with it the last bit of the weights: one thread gives the same everywhere. It costs little at this size,
    and on a busy machine it is several times faster than threads that wait for each other in every small batch.
    """
    import torch  # noqa: PLC0415

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def _best_device() -> str:
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


class _Run:
    """A network on its way: weights, optimizer, the best weights so far, and the curve."""

    def __init__(self, data: TrainingData, spec: StudentSpec, recipe: Recipe, seed: int, device: str) -> None:
        import torch  # noqa: PLC0415

        self._data, self._spec, self._recipe, self._seed, self._device = data, spec, recipe, seed, device
        order = np.random.default_rng([seed, 0]).permutation(len(data.inputs))
        kept = max(1, round(recipe.validation * len(order)))
        self._kept, self._taught = order[:kept], order[kept:]
        rows = data.inputs[self._taught]
        self._near = neighbours(rows) if recipe.mixtures else np.empty((0, 0), dtype=np.int64)
        keys = rows[: spec.slots] if spec.form == "slots" else None  # in random order: a sample
        self._module = make_module(spec, seed, keys, recipe.dropout).to(device)
        self._optimizer: Optimizer = torch.optim.AdamW(
            self._module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self._answers = None if data.answers is None else torch.from_numpy(data.answers).to(device)
        self._best = _copy(self._module)
        self._best_epoch = 0
        self._seconds = 0.0
        self.curve: list[Epoch] = []

    @property
    def finished(self) -> bool:
        """All epochs are run, or patience has ended."""
        done, patience = len(self.curve), self._recipe.patience
        return done >= self._recipe.epochs or bool(patience and done - self._best_epoch >= patience)

    def epoch(self) -> None:
        """Run one epoch and keep its weights if they are the best."""
        import torch  # noqa: PLC0415

        started = time.perf_counter()
        number = len(self.curve) + 1
        random = np.random.default_rng([self._seed, number])
        torch.manual_seed(int(random.integers(2**62)))
        for group in self._optimizer.param_groups:
            group["lr"] = _rate(self._recipe, number)
        point = Epoch(train_loss=self._teach(random), validation_cosine=self._validate())
        if not math.isfinite(point.train_loss) or not math.isfinite(point.validation_cosine):
            raise UsageError(
                f"training {self._spec.name} diverged in epoch {number} "
                f"at learning rate {self._recipe.learning_rate:g}",
                hint="Set a lower learning rate.",
            )
        if not self.curve or point.validation_cosine > self.curve[self._best_epoch - 1].validation_cosine:
            self._best, self._best_epoch = _copy(self._module), number
        self.curve.append(point)
        self._seconds += time.perf_counter() - started

    def _teach(self, random: np.random.Generator) -> float:
        import torch  # noqa: PLC0415

        rows, targets, weights = (self._tensor(part) for part in self._material(random))
        order = torch.from_numpy(random.permutation(len(rows))).to(self._device)
        self._module.train()
        total = 0.0
        for batch in torch.split(order, self._recipe.batch):
            loss = _loss(self._module(rows[batch]), targets[batch], weights[batch], self._recipe, self._answers)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            total += float(loss.detach()) * len(batch)
        return total / len(rows)

    def _material(self, random: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
        """Inputs, targets and weights of one epoch: the questions themselves, and new mixtures of them."""
        data, taught = self._data, self._taught
        own = data.inputs[taught], data.targets[taught], data.importance[taught]
        if not self._recipe.mixtures:
            return own
        mixed, weights = mix(own[0], own[2], self._near, self._recipe.mixtures, random)
        return tuple(
            np.concatenate(parts) for parts in zip(own, (mixed, ask(data.teacher, mixed), weights), strict=True)
        )

    def _validate(self) -> float:
        import torch  # noqa: PLC0415

        self._module.eval()
        with torch.no_grad():
            moved = self._module(self._tensor(self._data.inputs[self._kept]))
            targets = self._tensor(self._data.targets[self._kept])
            return float(torch.nn.functional.cosine_similarity(moved, targets).mean())

    def _tensor(self, rows: NDArray[np.float64]) -> "Tensor":
        import torch  # noqa: PLC0415

        return torch.from_numpy(rows.astype(np.float32)).to(self._device)

    def result(self) -> Distilled:
        """The best epoch's student."""
        self._module.load_state_dict(self._best)
        best = self.curve[self._best_epoch - 1]
        return Distilled(
            spec=self._spec,
            weights=weights_of(self._module),
            epochs=len(self.curve),
            best_epoch=self._best_epoch,
            train_loss=best.train_loss,
            validation_cosine=best.validation_cosine,
            curve=tuple(self.curve),
            seconds=self._seconds,
        )

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all: tensors, and in the file's header a JSON document."""
        from safetensors.torch import save  # noqa: PLC0415

        state = {
            "fingerprint": self._fingerprint(),
            "best_epoch": self._best_epoch,
            "seconds": self._seconds,
            "curve": [point.model_dump() for point in self.curve],
        }
        tensors = {f"module.{name}": value for name, value in self._module.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        for number, values in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items()}
        tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
        with written_beside(path) as fresh:
            fresh.write_bytes(save(tensors, {"state": json.dumps(state)}))

    def resume(self, path: Path) -> bool:
        """Go on from a saved state; False where there is none of this very run, or it is not readable."""
        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads(file.metadata()["state"])
                if state["fingerprint"] != self._fingerprint():
                    return False
                names = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return False
        self._module.load_state_dict(_under("module.", tensors))
        self._best = {name: value.to(self._device) for name, value in _under("best.", tensors).items()}
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            number, _, key = name.partition(".")
            slots.setdefault(int(number), {})[key] = value
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": slots})
        self._best_epoch, self._seconds = state["best_epoch"], state["seconds"]
        self.curve = [Epoch.model_validate(point) for point in state["curve"]]
        return True

    def _fingerprint(self) -> str:
        """SHA-256 of all that the result depends on; the teacher counts by its outputs at the inputs."""
        import torch  # noqa: PLC0415

        data = self._data
        words = [self._spec.model_dump_json(), self._recipe.model_dump_json(), str(self._seed)]
        total = hashlib.sha256("\n".join([*words, self._device, str(torch.__version__)]).encode())
        for array in (data.inputs, data.targets, data.importance, data.answers):
            total.update(b"none" if array is None else str(array.shape).encode() + array.tobytes())
        return total.hexdigest()


def _loss(moved: "Tensor", targets: "Tensor", weights: "Tensor", recipe: Recipe, answers: "Tensor | None") -> "Tensor":
    """The recipe's loss, mean over the weighted rows."""
    from torch.nn.functional import log_softmax, normalize  # noqa: PLC0415

    found, target = normalize(moved, dim=1), normalize(targets, dim=1)
    share = recipe.cosine_share
    rows = share * (1 - (found * target).sum(dim=1)) + (1 - share) * ((moved - targets) ** 2).mean(dim=1)
    if answers is not None:
        log_p = log_softmax(target @ answers.T / recipe.ranking_temperature, dim=1)
        log_q = log_softmax(found @ answers.T / recipe.ranking_temperature, dim=1)
        divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
        rows = recipe.ranking_share * divergence + (1 - recipe.ranking_share) * rows
    return (rows * weights).mean()


def _rate(recipe: Recipe, epoch: int) -> float:
    """Learning rate of an epoch, counted from 1."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / recipe.epochs))


def _copy(module: "Module") -> "dict[str, Tensor]":
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _under(prefix: str, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
