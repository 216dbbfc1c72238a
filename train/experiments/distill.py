"""The experiment behind `qaserve bench distill`: students of two teachers, on held-out phrasings.

The proposal's teacher (centred W) with the proposal's recipe stands beside ours (anchored W, mixtures, residual
students). The number of heads changes nothing that is measured here: see `qaserve.student`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.bundle import Defaults
from qaserve.progress import Advance
from qaserve.routing import Floats
from qaserve.student import StudentSpec
from train.distillation.configs import OUR_RECIPE, SEED_RECIPE, SLOTS_RECIPE, Recipe
from train.distillation.data import Teacher
from train.distillation.teachers import RoutedTeacher, voting_shares
from train.distillation.training import Distilled, distill
from train.experiments.distill_report import (
    DistillReport,
    DistillRun,
    StudentResult,
    TeacherName,
    TeacherResult,
    findings,
    plots,
    tables,
)
from train.experiments.harness import Experiment, Source
from train.experiments.routing_report import SEED_TEMPERATURE
from train.folds import Fold, make_fold, unit_rows
from train.metrics import mean_cosine, paired_bootstrap
from train.splits import first_families, phrasing_split
from train.tuning import DEFAULT_ANCHOR

DEEP = ((12, 2), (6, 3), (4, 4))
"""The proposal's heads and layers."""
SHALLOW = (192, 1)
"""One layer with as many heads as the clusters of the first corpus need."""
SLOTS = (64, 256)
SPLITS_BY_SIZE = ((2_000_000, 1_000), (8_000_000, 2))
"""Parameters up to which a student is trained on so many splits; a larger one on a single split. The large ones take a
minute or more each."""
QUICK_PAIRS = 240
QUICK_EPOCHS = 2
QUICK_SLOTS = 16


# What is trained


class _Plan(NamedTuple):
    """A student to train."""

    teacher: TeacherName
    spec: StudentSpec
    recipe: Recipe

    @property
    def splits(self) -> int:
        """On how many splits at most."""
        return next((splits for most, splits in SPLITS_BY_SIZE if self.spec.parameters <= most), 1)

    @property
    def twin(self) -> "_Plan":
        """The same student without the ranking loss."""
        return self._replace(recipe=self.recipe.model_copy(update={"loss": "cosine_mse"}))


def _plans(dimension: int, *, quick: bool) -> list[_Plan]:
    """Every student, each teacher's together; the twin of a ranking student is before it."""
    deep = [_transformer(dimension, *shape) for shape in DEEP[: 1 if quick else None]]
    slots = (QUICK_SLOTS,) if quick else SLOTS
    small = [StudentSpec(dimension=dimension, form="slots", slots=count) for count in slots]
    small.append(_transformer(dimension, *SHALLOW))
    residual = small if quick else small + deep
    plans = [
        *(_Plan("proposal", spec.model_copy(update={"residual": False}), SEED_RECIPE) for spec in deep),
        *(_Plan("ours", spec, _recipe(spec, "cosine_mse")) for spec in residual),
        *(_Plan("ours", spec, _recipe(spec, "ranking")) for spec in small),
    ]
    if quick:
        return [plan._replace(recipe=plan.recipe.model_copy(update={"epochs": QUICK_EPOCHS})) for plan in plans]
    return plans


def _transformer(dimension: int, heads: int, layers: int) -> StudentSpec:
    """So many heads, or fewer where they do not divide D: their number makes no difference."""
    return StudentSpec(dimension=dimension, heads=math.gcd(heads, dimension), layers=layers)


def _recipe(spec: StudentSpec, loss: str) -> Recipe:
    recipe = SLOTS_RECIPE if spec.form == "slots" else OUR_RECIPE
    return recipe.model_copy(update={"loss": loss})


# Who teaches


@dataclass(frozen=True)
class CentredTeacher:
    """The proposal's x → Σ_k w_k(x) · x W_k, with centred W and question routing in which all questions vote."""

    fold: Fold

    def __call__(self, rows: NDArray[np.floating]) -> Floats:
        """(m, D) unit rows → (m, D) projected rows, not normalised."""
        known, labels = self.fold.known.questions, self.fold.labels
        weights = voting_shares(rows @ known.T, SEED_TEMPERATURE) @ np.eye(self.fold.count)[labels]
        moved = np.zeros(rows.shape)
        for cluster, matrix in enumerate(self.fold.centred):
            moved += weights[:, cluster, None] * (rows @ matrix)
        return moved


def _teacher(name: TeacherName, fold: Fold) -> Teacher:
    if name == "proposal":
        return CentredTeacher(fold)
    numbers = Defaults()
    return RoutedTeacher(
        fold.known.questions, fold.labels, fold.bank(DEFAULT_ANCHOR), numbers.temperature, numbers.hits
    )


# Measuring


class _Asked(NamedTuple):
    """How the held-out questions of one split fare, moved by a teacher or a student."""

    reciprocal: Floats
    """(m,) reciprocal rank of the wanted intent, by cosine alone."""
    answer_cosine: float
    intents: list[str]
    """(m,) what the questions want."""


class _Trained(NamedTuple):
    """A student of one split."""

    asked: _Asked
    teacher_cosine: float
    distilled: Distilled


def _ask(fold: Fold, moved: Floats) -> _Asked:
    return _Asked(1 / fold.ranks(fold.cosines(moved)), mean_cosine(moved, fold.asked.answers), fold.asked.intents)


def _train(fold: Fold, teacher: Teacher, wanted: Floats, plan: _Plan, seed: int) -> _Trained:
    """Teach a student and ask it; wanted: (m, D), where the teacher takes the held-out questions."""
    answers = fold.known.answers if plan.recipe.loss == "ranking" else None
    # The CPU, always: there the same seed gives the same figures everywhere.
    distilled = distill(fold.known.questions, teacher, plan.spec, plan.recipe, answers=answers, seed=seed, device="cpu")
    moved = distilled.student.project(fold.asked.questions)
    return _Trained(_ask(fold, moved), mean_cosine(moved, unit_rows(wanted)), distilled)


class _Notes:
    """What was measured so far, split by split."""

    def __init__(self) -> None:
        self.folds: list[tuple[float, float, float, float]] = []
        """Questions asked, K, K · D², numbers in the low-rank bank."""
        self.teachers: dict[TeacherName, list[_Asked]] = {}
        self.students: dict[_Plan, list[_Trained]] = {}

    def fold(self, fold: Fold) -> None:
        """Note the sizes of a split."""
        bank = fold.bank(DEFAULT_ANCHOR)
        dense = fold.count * fold.known.questions.shape[1] ** 2
        self.folds.append((len(fold.asked), fold.count, dense, bank.basis.size + bank.cores.size))

    def lesson(self, fold: Fold, plans: Sequence[_Plan], seed: int, advance: Advance) -> None:
        """Train one teacher's students on a split, and measure them and the teacher."""
        if not plans:
            return
        name = plans[0].teacher
        teacher = _teacher(name, fold)
        moved = np.asarray(teacher(fold.asked.questions), dtype=np.float64)
        self.teachers.setdefault(name, []).append(_ask(fold, moved))
        for plan in plans:
            self.students.setdefault(plan, []).append(_train(fold, teacher, moved, plan, seed))
            advance(1)

    def results(self) -> tuple[TeacherResult, ...]:
        """The means over the splits."""
        return tuple(
            TeacherResult(
                name=name,
                splits=len(asked),
                answer_cosine=_mean(one.answer_cosine for one in asked),
                mrr=float(_pooled(asked).mean()),
                students=tuple(self._student(plan) for plan in self.students if plan.teacher == name),
            )
            for name, asked in self.teachers.items()
        )

    def _student(self, plan: _Plan) -> StudentResult:
        found = self.students[plan]
        reciprocal = _pooled([one.asked for one in found])
        intents = [intent for one in found for intent in one.asked.intents]
        ranking = plan.recipe.loss == "ranking"
        return StudentResult(
            name=plan.spec.name,
            loss=plan.recipe.loss,
            capacity=plan.spec.capacity,
            parameters=plan.spec.parameters,
            splits=len(found),
            epochs=_mean(one.distilled.epochs for one in found),
            seconds=_mean(one.distilled.seconds for one in found),
            train_loss=_mean(one.distilled.train_loss for one in found),
            teacher_cosine=_mean(one.teacher_cosine for one in found),
            answer_cosine=_mean(one.asked.answer_cosine for one in found),
            mrr=float(reciprocal.mean()),
            gain=paired_bootstrap(reciprocal, _pooled(self.teachers[plan.teacher][: len(found)]), intents),
            loss_gain=paired_bootstrap(reciprocal, _pooled([one.asked for one in self.students[plan.twin]]), intents)
            if ranking
            else None,
        )


def _pooled(asked: Sequence[_Asked]) -> Floats:
    return np.concatenate([one.reciprocal for one in asked])


def _mean(values: Iterator[float]) -> float:
    return float(np.mean(list(values)))


def run(source: Source, *, seeds: Sequence[int], quick: bool, advance: Advance) -> DistillRun:
    """Train every student on the phrasing split of each seed, large ones on the first few only, and ask them.

    Training sees the known side alone; early stopping looks at known questions that were kept apart.

    Args:
        source: Pairs and their vectors, of any D.
        seeds: One split, one K-means and one training of every student each.
        quick: The first seed, the first 240 pairs, three small students and two epochs: to try that all works.
        advance: Told 1 after each student of each seed, also where a large student leaves a seed out.

    Raises:
        CorpusError: Too few pairs to train on.
    """
    examples = source.examples.take(first_families(source.examples.pairs, QUICK_PAIRS)) if quick else source.examples
    dimension = examples.questions.shape[1]
    plans, chosen, notes = _plans(dimension, quick=quick), _chosen(seeds, quick=quick), _Notes()
    for number, seed in enumerate(chosen):
        split = phrasing_split(examples.pairs, seed)
        fold = make_fold(examples.take(split.train), examples.take(split.test), seed)
        notes.fold(fold)
        due = [plan for plan in plans if number < plan.splits]
        for name in ("proposal", "ours"):
            notes.lesson(fold, [plan for plan in due if plan.teacher == name], seed, advance)
        advance(len(plans) - len(due))
    queries, clusters, dense, low_rank = np.mean(notes.folds, axis=0).tolist()
    return DistillRun(
        encoder=source.encoder,
        dimension=dimension,
        pairs=len(examples),
        seeds=tuple(chosen),
        queries=queries,
        clusters=clusters,
        dense_numbers=dense,
        bank_numbers=low_rank,
        teachers=notes.results(),
    )


def steps(seeds: Sequence[int], quick: bool) -> int:
    """What the calls of `advance` in one `run` sum up to."""
    return len(_chosen(seeds, quick=quick)) * len(_plans(SHALLOW[0], quick=quick))


def _chosen(seeds: Sequence[int], *, quick: bool) -> list[int]:
    return list(seeds)[: 1 if quick else None]


EXPERIMENT = Experiment("distill", "Students against their teachers", DistillReport, tables, findings, plots)
