"""What `qaserve bench distill` found, and how that is told in sentences, tables and plots."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from qaserve.schemas.ingest import Interval
from qaserve.schemas.record import Record
from train.experiments.harness import COLOURS, NONE, Plot, Run, Table, is_difference, signed, table, versus

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TeacherName = Literal["proposal", "ours"]


class StudentResult(Record):
    """A student's figures, mean over its splits; all but the loss on questions that it never saw."""

    name: str
    loss: Literal["cosine_mse", "ranking"]
    capacity: int = Field(description="H^L; for slots, M.")
    parameters: int
    splits: int = Field(description="Trained on this many of the run's splits, the first.")
    epochs: float = Field(description="Epochs run.")
    seconds: float = Field(description="Of training one student, one thread of a CPU.")
    train_loss: float = Field(description="In the best epoch.")
    teacher_cosine: float = Field(description="Mean cosine to where the teacher takes the question.")
    answer_cosine: float = Field(description="Mean cosine to the pair's own answer.")
    mrr: float
    gain: Interval = Field(description="MRR less the teacher's, over all questions of the same splits.")
    product_mrr: float = Field(description="With whitening, topics, words and second pairs.")
    product_gain: Interval = Field(description="That MRR less the teacher's.")
    loss_gain: Interval | None = Field(
        description="MRR less that of the same student without the ranking loss; null for other losses."
    )

    @property
    def label(self) -> str:
        """Name and, where it is not the usual one, loss."""
        return f"{self.name}, ranking loss" if self.loss == "ranking" else self.name


class TeacherResult(Record):
    """A teacher's figures, mean over its splits, and its students."""

    name: TeacherName
    splits: int
    answer_cosine: float
    mrr: float
    product_mrr: float
    students: tuple[StudentResult, ...]


class DistillRun(Run):
    """What was found with one encoder."""

    dimension: int
    pairs: int
    seeds: tuple[int, ...]
    queries: float = Field(description="Held-out questions, mean over the splits.")
    clusters: float
    dense_numbers: float = Field(description="K · D², mean over the splits.")
    bank_numbers: float = Field(description="Numbers in the exact low-rank bank of anchored W, mean over the splits.")
    teachers: tuple[TeacherResult, ...]


# What is shown

CLOSE = 0.98
"""Mean cosine to its teacher from which a student counts as faithful."""


def tables(run: DistillRun) -> list[Table]:
    """Each teacher, and under it its students. ÷: how many times smaller than the bank."""

    def of_student(cell: Callable[[StudentResult], Any]) -> Callable[[_Line], Any]:
        return lambda line: NONE if line.student is None else cell(line.student)

    title = (
        f"{run.encoder} (D {run.dimension}): {run.clusters:.0f} clusters, as dense W {run.dense_numbers:,.0f} numbers, "
        f"exactly at low rank {run.bank_numbers:,.0f}; {run.queries:.0f} held-out questions a split"
    )
    columns: dict[str, Callable[[_Line], Any]] = {
        "student": lambda line: f"{line.teacher.name}: {line.student.label if line.student else 'teacher'}",
        "H^L or slots": of_student(lambda one: one.capacity),
        "parameters": of_student(lambda one: f"{one.parameters:,}"),
        "dense ÷": of_student(lambda one: f"{run.dense_numbers / one.parameters:.1f}"),
        "low-rank ÷": of_student(lambda one: f"{run.bank_numbers / one.parameters:.1f}"),
        "train loss": of_student(lambda one: f"{one.train_loss:.3f}"),
        "cos to teacher": of_student(lambda one: f"{one.teacher_cosine:.3f}"),
        "cos to answer": lambda line: f"{line.measured.answer_cosine:.3f}",
        "MRR": lambda line: f"{line.measured.mrr:.3f}",
        "MRR − teacher (95%)": of_student(lambda one: signed(one.gain)),
        "MRR of the product": lambda line: f"{line.measured.product_mrr:.3f}",
        "the product − teacher (95%)": of_student(lambda one: signed(one.product_gain)),
        "epochs": of_student(lambda one: f"{one.epochs:.0f}"),
        "seconds": of_student(lambda one: f"{one.seconds:.0f}"),
        "splits": lambda line: line.measured.splits,
    }
    lines = [_Line(teacher, student) for teacher in run.teachers for student in (None, *teacher.students)]
    return [table(title, lines, columns)]


class _Line(NamedTuple):
    """A line of the table: a teacher, or a student of it."""

    teacher: TeacherResult
    student: StudentResult | None

    @property
    def measured(self) -> TeacherResult | StudentResult:
        """Whose figures these are."""
        return self.student or self.teacher


PREFACE = (
    (
        "H changes nothing that a student can express: a question is a sequence of length one, the softmax over one "
        "position is 1, and attention is a linear map. H^L is the proposal's measure, only L is depth."
    ),
    (
        "Answers are ranked by their cosine alone, and for the MRR of the product by topics, words, whitening and "
        "second pairs too, in the shares that the training side chose. Our teacher is what serving projects by, "
        "question routing and anchored W."
    ),
)


def findings(one: DistillRun) -> Iterator[str]:
    """The most faithful and the smallest students, sizes, and what the ranking loss buys."""
    for teacher in one.teachers:
        yield _most_faithful(teacher)
    yield _smallest(one)
    yield _sizes(one)
    for student in _of(one, "ours"):
        if student.loss_gain is not None:
            yield _ranking(one, student, student.loss_gain)


def summary(one: DistillRun) -> Iterator[str]:
    """The most faithful student of the product beside its teacher."""
    for teacher in one.teachers:
        if teacher.name == "ours":
            best = _best(teacher)
            network, taught = f"A network of {best.parameters:,} numbers", "the vote and projection it learned from"
            base = teacher.product_mrr
            yield f"{versus(network, base + best.product_gain.mean, taught, base, best.product_gain)}."


def _best(teacher: TeacherResult) -> StudentResult:
    """The most faithful student."""
    return max(teacher.students, key=lambda student: student.teacher_cosine)


def _of(one: DistillRun, name: TeacherName) -> list[StudentResult]:
    return [student for teacher in one.teachers if teacher.name == name for student in teacher.students]


def _most_faithful(teacher: TeacherResult) -> str:
    best = _best(teacher)
    whose = "the proposal's" if teacher.name == "proposal" else "our"
    return (
        f"of {whose} teacher (MRR {teacher.mrr:.3f}) the most faithful student is {best.label}, "
        f"cosine {best.teacher_cosine:.3f} on held-out questions with {best.parameters:,} parameters; "
        f"MRR less the teacher's: {_told(best.gain)}; of the product: {_told(best.product_gain)}."
    )


def _smallest(one: DistillRun) -> str:
    """Names the smallest student that can take its teacher's place."""
    asked = f"held-out cosine {CLOSE} or more and no difference in MRR to its teacher"
    good = [
        student for student in _of(one, "ours") if student.teacher_cosine >= CLOSE and not is_difference(student.gain)
    ]
    if not good:
        return f"no student of ours has {asked}."
    best = min(good, key=lambda student: student.parameters)
    return (
        f"the smallest student with {asked} is {best.label}: {best.parameters:,} parameters, "
        f"cosine {best.teacher_cosine:.3f}, MRR less the teacher's {signed(best.gain)}."
    )


def _sizes(one: DistillRun) -> str:
    students = {student.name: student.parameters for student in _of(one, "ours") + _of(one, "proposal")}
    smaller = [name for name, parameters in students.items() if parameters < one.bank_numbers]
    kept = ", ".join(smaller) if smaller else "none"
    return (
        f"anchored W are {one.dense_numbers:,.0f} numbers as dense matrices and {one.bank_numbers:,.0f} exactly at low "
        f"rank, {one.dense_numbers / one.bank_numbers:.0f} times fewer; "
        f"students smaller than that: {kept}."
    )


def _ranking(one: DistillRun, student: StudentResult, gain: Interval) -> str:
    """What the ranking loss buys a student."""
    twin = next(other for other in _of(one, "ours") if other.name == student.name and other.loss != "ranking")
    return (
        f"the ranking loss takes {student.name} from cosine {twin.teacher_cosine:.3f} to {student.teacher_cosine:.3f}; "
        f"MRR {_told(gain)}."
    )


def _told(gain: Interval) -> str:
    return signed(gain) if is_difference(gain) else f"{signed(gain)}, no difference"


SERIES: tuple[tuple[TeacherName, str, str, str, str], ...] = (
    ("proposal", "cosine_mse", "proposal", COLOURS[1], "s"),
    ("ours", "cosine_mse", "ours", COLOURS[0], "o"),
    ("ours", "ranking", "ours, ranking loss", COLOURS[2], "^"),
)
"""Teacher, loss, name, colour and marker."""
TICKS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
NEAREST = 1e-4
"""1 - cosine below this is drawn here: the axis is logarithmic."""


def plots(runs: Sequence[DistillRun]) -> list[Plot]:
    """One per encoder: how faithful a student is, over its size."""
    return [
        Plot(
            f"cosine-{one.encoder.replace('/', '-')}",
            f"Held-out cosine of each student to its teacher over its number of parameters, {one.encoder}",
            partial(_draw, run=one),
        )
        for one in runs
    ]


def _draw(axes: "Axes", run: DistillRun) -> None:
    for name, loss, label, colour, marker in SERIES:
        students = [student for student in _of(run, name) if student.loss == loss]
        _scatter(axes, students, label, colour, marker)
    axes.set_xscale("log")
    _cosine_axis(axes)
    for numbers, label in ((run.bank_numbers, "low-rank bank"), (run.dense_numbers, "dense W")):
        axes.axvline(numbers, color="0.7", linewidth=1, zorder=0)
        axes.text(numbers, 0.02, f" {label}", color="0.4", fontsize=9, transform=axes.get_xaxis_transform())
    axes.set_xlabel("parameters")
    axes.set_ylabel("cosine to teacher, held-out questions")
    axes.margins(x=0.12, y=0.12)
    axes.legend(loc="lower left")


def _scatter(axes: "Axes", students: Sequence[StudentResult], label: str, colour: str, marker: str) -> None:
    """Points with their names, above and below in turn so that neighbours do not collide."""
    sizes = [student.parameters for student in students]
    distances = [_distance(student.teacher_cosine) for student in students]
    axes.scatter(sizes, distances, color=colour, marker=marker, label=label, s=42)
    for turn, (student, x, y) in enumerate(zip(students, sizes, distances, strict=True)):
        up = turn % 2 == 0
        axes.annotate(
            student.name.removesuffix(" plain").removesuffix(" residual"),
            (x, y),
            xytext=(0, 7 if up else -7),
            textcoords="offset points",
            ha="center",
            va="bottom" if up else "top",
            fontsize=9,
            color=colour,
        )


def _distance(cosine: float) -> float:
    return max(1 - cosine, NEAREST)


def _cosine_axis(axes: "Axes") -> None:
    """1 - cosine, logarithmic and upside down, labelled with the cosine."""
    axes.set_yscale("log")
    axes.invert_yaxis()
    axes.set_yticks([1 - cosine for cosine in TICKS], [f"{cosine:g}" for cosine in TICKS])
    axes.tick_params(axis="y", which="minor", length=0, labelleft=False)
