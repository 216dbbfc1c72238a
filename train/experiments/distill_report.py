"""What the distillation experiment reports: its records, and the tables, findings and plots made from them."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from qaserve.records import Record
from train.experiments.comparison import is_difference, signed
from train.experiments.harness import Plot, Table
from train.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLOSE = 0.98
"""Mean cosine to its teacher from which a student counts as faithful."""

TeacherName = Literal["proposal", "ours"]


class StudentResult(Record):
    """A student's figures, mean over its splits; all but the loss on questions that it never saw."""

    name: str
    loss: Literal["cosine_mse", "ranking"]
    capacity: int = Field(description="H^L; for slots, M.")
    parameters: int
    splits: int = Field(description="Trained on the first so many of the run's splits.")
    epochs: float = Field(description="Epochs run.")
    seconds: float = Field(description="Of training one student, one thread of a CPU.")
    train_loss: float = Field(description="In the best epoch.")
    teacher_cosine: float = Field(description="Mean cosine to where the teacher takes the question.")
    answer_cosine: float = Field(description="Mean cosine to the pair's own answer.")
    mrr: float
    gain: Interval = Field(description="MRR less the teacher's, over all questions of the same splits.")
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
    students: tuple[StudentResult, ...]


class DistillRun(Record):
    """What was found with one encoder."""

    encoder: str
    dimension: int
    pairs: int
    seeds: tuple[int, ...]
    queries: float = Field(description="Held-out questions, mean over the splits.")
    clusters: float
    dense_numbers: float = Field(description="K · D², mean over the splits.")
    bank_numbers: float = Field(description="Numbers in the exact low-rank bank of anchored W, mean over the splits.")
    teachers: tuple[TeacherResult, ...]


class DistillReport(Record):
    """The experiment with every encoder."""

    runs: tuple[DistillRun, ...]


# Tables and findings

COLUMNS = (
    "student",
    "H^L or slots",
    "parameters",
    "dense ÷",
    "low-rank ÷",
    "train loss",
    "cos to teacher",
    "cos to answer",
    "MRR",
    "MRR − teacher (95%)",
    "epochs",
    "seconds",
    "splits",
)


def tables(report: DistillReport) -> list[Table]:
    """One per encoder: each teacher, and under it its students. ÷: how many times smaller than the bank."""
    return [
        Table(
            f"{one.encoder} (D {one.dimension}): {one.clusters:.0f} clusters, as dense W {one.dense_numbers:,.0f} "
            f"numbers, exactly at low rank {one.bank_numbers:,.0f}; {one.queries:.0f} held-out questions a split",
            COLUMNS,
            tuple(row for teacher in one.teachers for row in _rows(one, teacher)),
        )
        for one in report.runs
    ]


def _rows(one: DistillRun, teacher: TeacherResult) -> Iterator[tuple[str, ...]]:
    none = "–"
    figures = (f"{teacher.answer_cosine:.3f}", f"{teacher.mrr:.3f}", none, none, none, str(teacher.splits))
    yield (f"{teacher.name}: teacher", none, none, none, none, none, none, *figures)
    for student in teacher.students:
        yield (
            f"{teacher.name}: {student.label}",
            str(student.capacity),
            f"{student.parameters:,}",
            f"{one.dense_numbers / student.parameters:.1f}",
            f"{one.bank_numbers / student.parameters:.1f}",
            f"{student.train_loss:.3f}",
            f"{student.teacher_cosine:.3f}",
            f"{student.answer_cosine:.3f}",
            f"{student.mrr:.3f}",
            signed(student.gain),
            f"{student.epochs:.0f}",
            f"{student.seconds:.0f}",
            str(student.splits),
        )


def findings(report: DistillReport) -> list[str]:
    """What the figures say, for each encoder."""
    first = (
        "H changes nothing that a student can express: a question is a sequence of length one, the softmax over one "
        "position is 1, and attention is a linear map. H^L is the proposal's measure, only L is depth."
    )
    return [first, *(f"{one.encoder}: {sentence}" for one in report.runs for sentence in _sentences(one))]


def _sentences(one: DistillRun) -> Iterator[str]:
    for teacher in one.teachers:
        yield _most_faithful(teacher)
    yield _smallest(one)
    yield _sizes(one)
    for student in _of(one, "ours"):
        if student.loss_gain is not None:
            yield _ranking(one, student, student.loss_gain)


def _of(one: DistillRun, name: TeacherName) -> list[StudentResult]:
    return [student for teacher in one.teachers if teacher.name == name for student in teacher.students]


def _most_faithful(teacher: TeacherResult) -> str:
    best = max(teacher.students, key=lambda student: student.teacher_cosine)
    whose = "the proposal's" if teacher.name == "proposal" else "our"
    return (
        f"of {whose} teacher (MRR {teacher.mrr:.3f}) the most faithful student is {best.label}, "
        f"cosine {best.teacher_cosine:.3f} on held-out questions with {best.parameters:,} parameters; "
        f"MRR less the teacher's: {_told(best.gain)}."
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


# Plots

SERIES: tuple[tuple[TeacherName, str, str, str, str], ...] = (
    ("proposal", "cosine_mse", "proposal", "#d55e00", "s"),
    ("ours", "cosine_mse", "ours", "#0072b2", "o"),
    ("ours", "ranking", "ours, ranking loss", "#009e73", "^"),
)
"""Teacher, loss, name, colour (Okabe & Ito 2008: told apart by all eyes) and marker."""
TICKS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
NEAREST = 1e-4
"""1 - cosine below this is drawn here: the axis is logarithmic."""


def plots(report: DistillReport) -> list[Plot]:
    """One per encoder: how faithful a student is, over its size."""
    return [
        Plot(
            f"cosine-{one.encoder.replace('/', '-')}",
            f"Held-out cosine of each student to its teacher over its number of parameters, {one.encoder}",
            _drawing(one),
        )
        for one in report.runs
    ]


def _drawing(one: DistillRun) -> "Callable[[Axes], None]":
    def draw(axes: "Axes") -> None:
        for name, loss, label, colour, marker in SERIES:
            students = [student for student in _of(one, name) if student.loss == loss]
            _scatter(axes, students, label, colour, marker)
        axes.set_xscale("log")
        _cosine_axis(axes)
        for numbers, label in ((one.bank_numbers, "low-rank bank"), (one.dense_numbers, "dense W")):
            axes.axvline(numbers, color="0.7", linewidth=1, zorder=0)
            axes.text(numbers, 0.02, f" {label}", color="0.4", fontsize=9, transform=axes.get_xaxis_transform())
        axes.set_xlabel("parameters")
        axes.set_ylabel("cosine to teacher, held-out questions")
        axes.margins(x=0.12, y=0.12)
        axes.legend(loc="lower left")

    return draw


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
