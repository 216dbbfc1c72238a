"""The experiment behind `qaserve bench distill`: students of two teachers, on held-out phrasings.

The proposal's teacher (reference W) with upstream's recipe stands next to ours (anchored W, mixtures, residual
students). Ours is what serving projects by: question routing and anchored W, as `qaserve distill` teaches them. In
serving both are whitened and ranked by topics, words and second pairs too: that is the MRR of the product, in the
shares that the training side of a split chooses. The number of heads changes nothing that is measured here: see
`qaserve.core.student`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from qaserve.common.progress import Advance
from qaserve.core.routing import Floats
from qaserve.core.splits import phrasing_split
from qaserve.core.student import StudentSpec
from qaserve.schemas.params import MAX_HITS, SearchParams
from train.distillation.configs import OUR_RECIPE, REFERENCE_RECIPE, SLOTS_RECIPE, Recipe
from train.distillation.data import Teacher
from train.distillation.teachers import RoutedTeacher
from train.distillation.training import Distilled, distill
from train.experiments.datasets import Source
from train.experiments.distill_report import (
    PREFACE,
    DistillRun,
    StudentResult,
    TeacherName,
    TeacherResult,
    findings,
    plots,
    summary,
    tables,
)
from train.experiments.harness import (
    COSINE,
    MRR,
    PRODUCT_MRR,
    Experiment,
    Report,
    Tally,
    evaluate,
    mean,
    part_of,
    product_mrr,
    row_cosines,
    tuned_search,
)
from train.experiments.routing_report import REFERENCE_TEMPERATURE
from train.folds import Fold, make_fold, unit_rows
from train.tuning import START

DEEP = ((12, 2), (6, 3), (4, 4))
"""The proposal's heads and layers."""
SHALLOW = (192, 1)
"""One layer with as many heads as the clusters of the first corpus need."""
SLOTS = (64, 256)
SPLITS_BY_SIZE = ((2_000_000, 1_000), (8_000_000, 2))
"""Most parameters of a student, and on how many splits it is trained; a larger one on a single split. A large one takes
a minute or more."""
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
    def label(self) -> str:
        """Its method in the tally."""
        return f"{self.teacher}: {self.spec.name}, {self.recipe.loss}"

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
    deep = [transformer(dimension, *shape) for shape in DEEP[: 1 if quick else None]]
    slots = (QUICK_SLOTS,) if quick else SLOTS
    small = [StudentSpec(dimension=dimension, form="slots", slots=count) for count in slots]
    small.append(transformer(dimension, *SHALLOW))
    residual = small if quick else small + deep
    plans = [
        *(_Plan("proposal", spec.model_copy(update={"residual": False}), REFERENCE_RECIPE) for spec in deep),
        *(_Plan("ours", spec, _recipe(spec, "cosine_mse")) for spec in residual),
        *(_Plan("ours", spec, _recipe(spec, "ranking")) for spec in small),
    ]
    if quick:
        return [plan._replace(recipe=plan.recipe.model_copy(update={"epochs": QUICK_EPOCHS})) for plan in plans]
    return plans


def transformer(dimension: int, heads: int, layers: int) -> StudentSpec:
    """Number of heads, or fewer where they do not divide D: it makes no difference."""
    return StudentSpec(dimension=dimension, heads=math.gcd(heads, dimension), layers=layers)


def _recipe(spec: StudentSpec, loss: str) -> Recipe:
    recipe = SLOTS_RECIPE if spec.form == "slots" else OUR_RECIPE
    return recipe.model_copy(update={"loss": loss})


# Who teaches


def _teacher(name: TeacherName, fold: Fold) -> Teacher:
    """The product's routing and anchored W, or the proposal's: centred W, and all questions vote."""
    params, bank = START.search, fold.bank(START.regularization)
    if name == "proposal":
        params = SearchParams(temperature=REFERENCE_TEMPERATURE, hits=MAX_HITS)
        return RoutedTeacher(fold.train.questions, fold.labels, fold.pipeline(params, fold.reference_bank))
    return RoutedTeacher(fold.train.questions, fold.labels, fold.pipeline(params, bank))


# Measuring


class _Trained(NamedTuple):
    """A student of one split."""

    teacher_cosine: float
    distilled: Distilled


def _figures(fold: Fold, projected: Floats, search: SearchParams) -> dict[str, Floats]:
    """How the queries fare, projected by a teacher or a student: by cosine alone, and as the product ranks."""
    figures = evaluate(fold.cosines(projected), fold.candidates.intents, fold.queries.intents)
    more = {COSINE: row_cosines(projected, fold.queries.answers), PRODUCT_MRR: product_mrr(fold, projected, search)}
    return figures | more


def _train(fold: Fold, teacher: Teacher, targets: Floats, plan: _Plan, seed: int) -> tuple[_Trained, Floats]:
    """Train a student, and (m, D) where it takes the queries; targets: (m, D), where the teacher takes them."""
    answers = fold.train.answers if plan.recipe.loss == "ranking" else None
    # The CPU, always: there the same seed gives the same figures everywhere.
    distilled = distill(fold.train.questions, teacher, plan.spec, plan.recipe, answers=answers, seed=seed, device="cpu")
    projected = np.asarray(distilled.student.project(fold.queries.questions), dtype=np.float64)
    return _Trained(mean(row_cosines(projected, unit_rows(targets))), distilled), projected


class _Notes:
    """What was measured so far, split by split."""

    def __init__(self) -> None:
        self.sizes: list[tuple[float, float, float, float]] = []
        """Queries, K, K · D², numbers in the low-rank bank."""
        self.tally = Tally()
        self.teachers: dict[TeacherName, int] = {}
        """How many splits each was asked on."""
        self.students: dict[_Plan, list[_Trained]] = {}

    def begin(self, fold: Fold) -> None:
        """Note the sizes of a split."""
        bank = fold.bank(START.regularization)
        dense = fold.count * fold.train.questions.shape[1] ** 2
        self.sizes.append((len(fold.queries), fold.count, dense, bank.basis.size + bank.cores.size))
        self.tally.begin(fold.queries.intents)

    def train(self, fold: Fold, plans: Sequence[_Plan], search: SearchParams, seed: int, advance: Advance) -> None:
        """Train one teacher's students on a split, and measure them and the teacher."""
        if not plans:
            return
        name = plans[0].teacher
        teacher = _teacher(name, fold)
        targets = np.asarray(teacher(fold.queries.questions), dtype=np.float64)
        self.tally.add(name, _figures(fold, targets, search))
        self.teachers[name] = self.teachers.get(name, 0) + 1
        for plan in plans:
            trained, projected = _train(fold, teacher, targets, plan, seed)
            self.tally.add(plan.label, _figures(fold, projected, search))
            self.students.setdefault(plan, []).append(trained)
            advance(1)

    def results(self) -> tuple[TeacherResult, ...]:
        """The means over the splits."""
        return tuple(
            TeacherResult(
                name=name,
                splits=splits,
                answer_cosine=self.tally.figures(name)[COSINE],
                mrr=self.tally.figures(name)[MRR],
                product_mrr=self.tally.figures(name)[PRODUCT_MRR],
                students=tuple(self._student(plan) for plan in self.students if plan.teacher == name),
            )
            for name, splits in self.teachers.items()
        )

    def _student(self, plan: _Plan) -> StudentResult:
        found, figures = self.students[plan], self.tally.figures(plan.label)
        ranking = plan.recipe.loss == "ranking"
        return StudentResult(
            name=plan.spec.name,
            loss=plan.recipe.loss,
            capacity=plan.spec.capacity,
            parameters=plan.spec.parameters,
            splits=len(found),
            epochs=mean(one.distilled.epochs for one in found),
            seconds=mean(one.distilled.seconds for one in found),
            train_loss=mean(one.distilled.train_loss for one in found),
            teacher_cosine=mean(one.teacher_cosine for one in found),
            answer_cosine=figures[COSINE],
            mrr=figures[MRR],
            gain=self.tally.difference(plan.label, plan.teacher).gain,
            product_mrr=figures[PRODUCT_MRR],
            product_gain=self.tally.difference(plan.label, plan.teacher, PRODUCT_MRR).gain,
            loss_gain=self.tally.difference(plan.label, plan.twin.label).gain if ranking else None,
        )


def run(source: Source, *, seeds: Sequence[int], quick: bool, advance: Advance) -> DistillRun:
    """Train every student on the phrasing split of each seed, large ones on the first few only, and ask them.

    Training sees the training side alone; early stopping looks at training questions that were kept apart.

    Args:
        source: Pairs and their vectors, of any D.
        seeds: One split, one K-means and one training of every student each.
        quick: The first seed, the first 240 pairs, three small students and two epochs: to try that all works.
        advance: Told 1 after each student of each seed, also where a large student leaves a seed out.

    Raises:
        CorpusError: Too few pairs to train on.
    """
    examples, seeds = part_of(source.examples, seeds, QUICK_PAIRS, quick=quick)
    dimension = examples.questions.shape[1]
    plans, notes = _plans(dimension, quick=quick), _Notes()
    for number, seed in enumerate(seeds):
        split = phrasing_split(examples.pairs, seed)
        fold = make_fold(examples.take(split.train), examples.take(split.test), seed)
        notes.begin(fold)
        search = tuned_search(fold.train, seed, quick=quick)
        due = [plan for plan in plans if number < plan.splits]
        for name in ("proposal", "ours"):
            notes.train(fold, [plan for plan in due if plan.teacher == name], search, seed, advance)
        advance(len(plans) - len(due))
    queries, clusters, dense, low_rank = np.mean(notes.sizes, axis=0).tolist()
    return DistillRun(
        encoder=source.encoder,
        dimension=dimension,
        pairs=len(examples),
        seeds=tuple(seeds),
        queries=queries,
        clusters=clusters,
        dense_numbers=dense,
        bank_numbers=low_rank,
        teachers=notes.results(),
    )


def steps(seeds: Sequence[int], quick: bool) -> int:
    """What the calls of `advance` in one `run` sum up to."""
    return len(seeds[:1] if quick else seeds) * len(_plans(SHALLOW[0], quick=quick))


EXPERIMENT = Experiment(
    "distill",
    "Students against their teachers",
    Report[DistillRun],
    tables,
    findings,
    plots,
    PREFACE,
    summary_of=summary,
)
