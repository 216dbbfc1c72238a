"""Distillation (Hinton et al. 2015): a student learns to take a question where its teacher takes it.

The teacher is routing and projection, given as a function of rows, so it can be asked anywhere and not only at the
known questions. Between the questions the student is taught at mixtures of them (mixup, Zhang et al. 2018, with the
teacher's own output in place of mixed labels).

Everything random in an epoch follows from the seed and the epoch's number alone. So an interrupted run ends with the
same bytes as an undisturbed one, and no random state has to be kept.
"""

import hashlib
import importlib
import json
import logging
import math
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open

from qaserve.errors import BundleError, CorpusError, StoreWriteError, UsageError
from qaserve.progress import Advance
from qaserve.records import Record
from qaserve.student import Student, StudentSpec, make_module, weights_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

Teacher = Callable[[NDArray[np.float64]], NDArray[np.floating]]
"""(m, D) unit rows → (m, D) rows of any length."""

FEWEST_ROWS = 10
NEIGHBOURS = 10
"""A mixture's second question is one of so many nearest, or any question, half of the time each."""
MIXTURE_NOISE = 0.05
"""Expected length of the noise on a mixture, before it is normalised."""
SAVE_EVERY = 5
"""Epochs between two checkpoints."""
CHECKPOINT = "distillation.safetensors"
MOST_LAYERS = 4
CLOSE_ENOUGH = 0.002
"""A smaller student whose validation cosine is this close to the best is preferred."""
ONNX_TOLERANCE = 1e-4


class Recipe(Record):
    """How a student is trained.

    AdamW (Loshchilov & Hutter 2019) minimises the mean over rows of

        cosine_mse: L = c (1 - cos(s, t)) + (1 - c) mean((s - t)²),          c = cosine_share
        ranking:    r KL(softmax(t̂ Aᵀ/τ) ‖ softmax(ŝ Aᵀ/τ)) + (1 - r) L,     r = ranking_share, τ = its temperature

    for the student's output s and the teacher's t; a hat is a unit row and A are the answers (listwise distillation,
    Cao et al. 2007).
    """

    loss: Literal["cosine_mse", "ranking"] = "cosine_mse"
    epochs: int = Field(ge=1, le=10_000)
    batch: int = Field(32, ge=1)
    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "cosine"] = Field("constant", description="cosine: falls to 0 over the epochs.")
    weight_decay: float = Field(0.01, ge=0)
    dropout: float = Field(0.1, ge=0, lt=1, description="Of the transformer form.")
    patience: int = Field(0, ge=0, description="Stop after so many epochs without a better cosine; 0: never.")
    validation: float = Field(0.1, gt=0, le=0.5, description="Share of the inputs kept for validation.")
    cosine_share: float = Field(0.7, ge=0, le=1)
    ranking_share: float = Field(0.5, ge=0, le=1)
    ranking_temperature: float = Field(0.05, gt=0)
    mixtures: int = Field(0, ge=0, le=100, description="Mixtures per input and epoch, new ones in each epoch.")


SEED_RECIPE = Recipe(epochs=60, batch=64, learning_rate=3e-4)
"""The proposal's, for its plain student: 0.7 (1 - cos) + 0.3 MSE at the training questions, 60 epochs, all of them."""
OUR_RECIPE = Recipe(epochs=20, batch=64, learning_rate=1e-3, schedule="cosine", dropout=0.0, mixtures=2, patience=8)
"""For residual transformers: mixtures instead of dropout, and a falling learning rate."""
SLOTS_RECIPE = OUR_RECIPE.model_copy(update={"learning_rate": 1e-2})
"""For slots, which have no deep layers to upset and learn slowly below this rate."""


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


@dataclass(frozen=True)
class _Lesson:
    """What is taught, float64 but for the answers; checked."""

    inputs: NDArray[np.float64]
    targets: NDArray[np.float64]
    importance: NDArray[np.float64]
    teacher: Teacher
    answers: NDArray[np.float32] | None


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
    lesson = _lesson(inputs, teacher, spec, recipe, answers, importance)
    with _training(seed):
        run = _Run(lesson, spec, recipe, seed, device or _best_device())
        tell = advance or (lambda _: None)
        if checkpoint is not None and run.resume(checkpoint / CHECKPOINT):
            tell(len(run.curve))
        while not run.finished:
            run.epoch()
            if checkpoint is not None and (run.finished or len(run.curve) % SAVE_EVERY == 0):
                run.save(checkpoint / CHECKPOINT)
            tell(1)
        return run.result()


def _lesson(
    inputs: ArrayLike,
    teacher: Teacher,
    spec: StudentSpec,
    recipe: Recipe,
    answers: ArrayLike | None,
    importance: ArrayLike | None,
) -> _Lesson:
    rows = _rows("inputs", inputs, spec.dimension, np.float64)
    if len(rows) < FEWEST_ROWS:
        raise CorpusError(
            f"{len(rows)} questions are too few to train a student, at least {FEWEST_ROWS} are needed",
            hint="Ingest more pairs; routing and projection work without a student.",
        )
    if recipe.loss == "ranking" and answers is None:
        raise ValueError("the ranking loss compares rankings of answers, and no answers are given")
    shares = np.ones(len(rows)) if importance is None else np.asarray(importance, dtype=np.float64)
    if shares.shape != (len(rows),) or not np.isfinite(shares).all() or (shares < 0).any() or not shares.any():
        raise ValueError(f"importance {shares.shape} must be ({len(rows)},), finite, not negative, and not all zero")
    ranked = None
    if recipe.loss == "ranking":
        ranked = _rows("answers", answers, spec.dimension, np.float32)
    return _Lesson(rows, _ask(teacher, rows), shares / shares.mean(), teacher, ranked)


def _ask(teacher: Teacher, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, D) the teacher's outputs at unit rows; ValueError where they are unusable."""
    outputs = np.asarray(teacher(rows), dtype=np.float64)
    if outputs.shape != rows.shape:
        raise ValueError(f"the teacher gave {outputs.shape} for inputs {rows.shape}")
    if not np.isfinite(outputs).all():
        raise ValueError("the teacher gave a value that is not finite")
    return outputs


def _rows(name: str, rows: ArrayLike | None, dimension: int, dtype: type) -> NDArray[Any]:
    values: NDArray[Any] = np.asarray(rows, dtype=dtype)
    if values.ndim != 2 or values.shape[1] != dimension:
        raise ValueError(f"{name} are {values.shape}; the student takes (n, {dimension})")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} hold a value that is not finite")
    return values


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

    def __init__(self, lesson: _Lesson, spec: StudentSpec, recipe: Recipe, seed: int, device: str) -> None:
        import torch  # noqa: PLC0415

        self._lesson, self._spec, self._recipe, self._seed, self._device = lesson, spec, recipe, seed, device
        order = np.random.default_rng([seed, 0]).permutation(len(lesson.inputs))
        kept = max(1, round(recipe.validation * len(order)))
        self._kept, self._taught = order[:kept], order[kept:]
        known = lesson.inputs[self._taught]
        self._near = _neighbours(known) if recipe.mixtures else np.empty((0, 0), dtype=np.int64)
        keys = known[: spec.slots] if spec.form == "slots" else None  # in random order: a sample
        self._module = make_module(spec, seed, keys, recipe.dropout).to(device)
        self._optimizer: Optimizer = torch.optim.AdamW(
            self._module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self._answers = None if lesson.answers is None else torch.from_numpy(lesson.answers).to(device)
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
        lesson, taught = self._lesson, self._taught
        own = lesson.inputs[taught], lesson.targets[taught], lesson.importance[taught]
        if not self._recipe.mixtures:
            return own
        mixed, weights = _mix(own[0], own[2], self._near, self._recipe.mixtures, random)
        return tuple(
            np.concatenate(parts) for parts in zip(own, (mixed, _ask(lesson.teacher, mixed), weights), strict=True)
        )

    def _validate(self) -> float:
        import torch  # noqa: PLC0415

        self._module.eval()
        with torch.no_grad():
            moved = self._module(self._tensor(self._lesson.inputs[self._kept]))
            targets = self._tensor(self._lesson.targets[self._kept])
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
        with _beside(path) as fresh:
            fresh.write_bytes(save(tensors, {"state": json.dumps(state)}))

    def resume(self, path: Path) -> bool:
        """Go on from a saved state; False where there is none of this very run, or it is not readable."""
        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads(file.metadata()["state"])
                if state["fingerprint"] != self._fingerprint():
                    return False
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
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

        lesson = self._lesson
        words = [self._spec.model_dump_json(), self._recipe.model_dump_json(), str(self._seed)]
        total = hashlib.sha256("\n".join([*words, self._device, str(torch.__version__)]).encode())
        for array in (lesson.inputs, lesson.targets, lesson.importance, lesson.answers):
            total.update(b"none" if array is None else str(array.shape).encode() + array.tobytes())
        return total.hexdigest()


def _loss(moved: "Tensor", targets: "Tensor", weights: "Tensor", recipe: Recipe, answers: "Tensor | None") -> "Tensor":
    """The recipe's loss, mean over the weighted rows."""
    from torch.nn.functional import log_softmax, normalize  # noqa: PLC0415

    found, wanted = normalize(moved, dim=1), normalize(targets, dim=1)
    share = recipe.cosine_share
    rows = share * (1 - (found * wanted).sum(dim=1)) + (1 - share) * ((moved - targets) ** 2).mean(dim=1)
    if answers is not None:
        log_p = log_softmax(wanted @ answers.T / recipe.ranking_temperature, dim=1)
        log_q = log_softmax(found @ answers.T / recipe.ranking_temperature, dim=1)
        divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
        rows = recipe.ranking_share * divergence + (1 - recipe.ranking_share) * rows
    return (rows * weights).mean()


def _rate(recipe: Recipe, epoch: int) -> float:
    """Learning rate of an epoch, counted from 1."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / recipe.epochs))


def _neighbours(rows: NDArray[np.float64], block: int = 1024) -> NDArray[np.int64]:
    """(n, k) the k ≤ 10 nearest other rows of every row, by cosine, in no order; O(block · n) memory."""
    count = min(NEIGHBOURS, len(rows) - 1)
    found = np.empty((len(rows), count), dtype=np.int64)
    for start in range(0, len(rows), block):
        similar = rows[start : start + block] @ rows.T
        similar[np.arange(len(similar)), start + np.arange(len(similar))] = -np.inf
        found[start : start + block] = np.argpartition(-similar, count - 1, axis=1)[:, :count]
    return found


def _mix(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    near: NDArray[np.int64],
    times: int,
    random: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """New points between questions, unit(a q_i + (1-a) q_j + noise) with a in [½, 1), and their weights.

    Args:
        rows: (n, D) unit rows q.
        weights: (n,).
        near: (n, k) neighbours to draw j from, half of the time.
        times: Mixtures per row.
        random: Draws them.
    """
    first = np.tile(np.arange(len(rows)), times)
    close = near[first, random.integers(near.shape[1], size=len(first))]
    second = np.where(random.random(len(first)) < 0.5, close, random.integers(len(rows), size=len(first)))
    share = random.uniform(0.5, 1.0, len(first))
    noise = random.normal(scale=MIXTURE_NOISE / math.sqrt(rows.shape[1]), size=(len(first), rows.shape[1]))
    mixed = share[:, None] * rows[first] + (1 - share)[:, None] * rows[second] + noise
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True), share * weights[first] + (1 - share) * weights[second]


def _copy(module: "Module") -> "dict[str, Tensor]":
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _under(prefix: str, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path in the same folder that takes the name of `path` when all went well, and is gone when it did not.

    Raises:
        StoreWriteError: The disk is full or read-only.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
            fresh = Path(scratch) / path.name
            yield fresh
            fresh.replace(path)
    except OSError as error:
        raise StoreWriteError(
            f"{path} cannot be written: {error.strerror or error}", hint="Free some space or name a writable folder."
        ) from error


def architectures(dimension: int, clusters: int) -> list[StudentSpec]:
    """Residual transformers whose capacity H^L is at least the number of clusters, fewest parameters first.

    For 1 to 4 layers the smallest H that divides D and suffices; a number of layers for which none does is left out.

    Args:
        dimension: D.
        clusters: K.
    """
    found = []
    for layers in range(1, MOST_LAYERS + 1):
        heads = (h for h in range(1, dimension + 1) if dimension % h == 0 and h**layers >= clusters)
        chosen = next(heads, None)
        if chosen is not None:
            found.append(StudentSpec(dimension=dimension, heads=chosen, layers=layers))
    return sorted(found, key=lambda spec: spec.parameters)


def choose_architecture(candidates: Sequence[Distilled]) -> Distilled:
    """The student with the fewest parameters whose validation cosine is within 0.002 of the best.

    Raises:
        ValueError: There are no candidates.
    """
    if not candidates:
        raise ValueError("there is no student to choose from")
    best = max(candidate.validation_cosine for candidate in candidates)
    close = [candidate for candidate in candidates if candidate.validation_cosine >= best - CLOSE_ENOUGH]
    return min(close, key=lambda candidate: candidate.spec.parameters)


def parse_architecture(text: str, dimension: int) -> StudentSpec:
    """A spec from its short form: "6x3" and "6x3-residual" (heads × layers), "6x3-plain", "slots-256".

    Raises:
        UsageError: The text has none of these forms, or the heads do not divide D.
    """
    hint = (
        "An architecture is HEADSxLAYERS such as 6x3 or 6x3-plain (heads must divide D), or slots-M such as slots-256."
    )
    heads = re.fullmatch(r"(\d{1,4})x(\d{1,2})(-plain|-residual)?", text.strip())
    slots = re.fullmatch(r"slots-(\d{1,5})", text.strip())
    try:
        if heads:
            h, layers, form = heads.groups()
            return StudentSpec(dimension=dimension, heads=int(h), layers=int(layers), residual=form != "-plain")
        if slots:
            return StudentSpec(dimension=dimension, form="slots", slots=int(slots[1]))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ": ".join([*map(str, first["loc"]), first["msg"].removeprefix("Value error, ")])
        raise UsageError(f"architecture {text!r} is not possible: {where}", hint=hint) from error
    raise UsageError(f"architecture {text!r} is not known", hint=hint)


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
    try:
        for needed in ("onnx", "onnxruntime", "onnxscript"):
            importlib.import_module(needed)
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed", hint="pip install 'qaserve[onnx]'") from error
    with _beside(path) as fresh:
        _export(student, fresh)
        difference = _difference(student, fresh)
        if not difference <= ONNX_TOLERANCE:
            raise BundleError(
                f"the ONNX file of {student.spec.name} gives outputs that differ by {difference:.2g} from torch's, "
                f"more than {ONNX_TOLERANCE:g}; it is not written",
                hint="Try other versions of onnxruntime and onnxscript.",
            )
    return difference


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
            student.module,
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
    """Only errors from this logger: torch's exporter reports that torchvision, which nobody here uses, is missing."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
