"""What the experiment on calibration reports, and how it is shown."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from qaserve.records import Record
from train.experiments.comparison import COLOURS, GREY, MARKS
from train.experiments.harness import Plot, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ANSWERED = "held-out phrasings"
FOREIGN = "another corpus"
FAR = "held-out intents, nothing near"
SKILLS = "held-out skills"
INTENTS = "held-out intents"
UNANSWERED = (FOREIGN, FAR, SKILLS, INTENTS)


class Kind(Record):
    """A kind of questions that should be abstained on; means over the seeds."""

    name: str
    questions: int = Field(description="All seeds together.")
    nearest: float = Field(description="Mean cosine of a question's own answer to the nearest that is left.")
    roc_area: float = Field(description="Of the probability that the corpus answers: held-out phrasings against these.")
    calibration_error: float = Field(description="Of the confidence, where half of the questions are of this kind.")
    abstained: float = Field(description="Share that is abstained on at the setting's own precision.")


class Operation(Record):
    """What a stated precision gives; means over the seeds."""

    precision: float
    threshold: float
    reached: float = Field(description="Share of held-out phrasings among what is kept of the mixture.")
    kept: float = Field(description="Share of the held-out phrasings that is not abstained on.")
    right_kept: float = Field(description="The same of those whose first answer is right.")
    first_right: float = Field(description="Share of right first answers among the held-out phrasings kept.")
    abstained: dict[str, float] = Field(description="Share of each kind that is abstained on.")


class Bin(Record):
    """Questions of like confidence, of the mixture, all seeds together."""

    predicted: float = Field(description="Mean confidence.")
    observed: float = Field(description="Share of right first answers.")
    share: float = Field(description="Of the mixture's weight.")


class Coefficient(Record):
    """What a feature adds to the log odds per standard deviation, mean over the seeds; 0 where it was dropped."""

    part: str
    feature: str
    value: float


class CalibrationRun(Record):
    """What was found with one encoder. The mixture is half held-out phrasings and half `mixed_with`."""

    encoder: str
    pairs: int
    seeds: tuple[int, ...]
    known: float = Field(description="Pairs that a calibration was fitted on, mean.")
    questions: int = Field(description="Held-out phrasings, all seeds together.")
    first_right: float = Field(description="Share of right first answers among them.")
    precision: float = Field(description="Stated, of the setting.")
    mixed_with: str
    calibration_error: float = Field(description="Of the confidence over the mixture, mean over the seeds.")
    calibration_error_worst: float = Field(description="The same of the worst seed.")
    calibration_error_answered: float = Field(description="Over the held-out phrasings alone.")
    kinds: tuple[Kind, ...]
    operations: tuple[Operation, ...]
    bins: tuple[Bin, ...]
    risk: tuple[tuple[float, float], ...] = Field(
        description="Share of the mixture that is answered, most confident first, and the share of wrong ones in it."
    )
    coefficients: tuple[Coefficient, ...]
    without: str = Field(description="Why there is no other corpus; empty where there is.")

    def kind(self, name: str) -> Kind | None:
        """The kind of this name."""
        return next((one for one in self.kinds if one.name == name), None)


class CalibrationReport(Record):
    """What the experiment found, per encoder."""

    runs: tuple[CalibrationRun, ...]


def tables(report: CalibrationReport) -> list[Table]:
    """Per encoder: the kinds of questions, what each stated precision gives, and what the probabilities rest on."""
    return [table for one in report.runs for table in (_kinds_table(one), _operations_table(one), _features_table(one))]


def _kinds_table(run: CalibrationRun) -> Table:
    rows = tuple(
        (
            one.name,
            f"{one.questions}",
            f"{one.nearest:.2f}",
            f"{one.roc_area:.3f}",
            f"{one.calibration_error:.3f}",
            f"{one.abstained:.0%}",
        )
        for one in run.kinds
    )
    columns = (
        "asked beside held-out phrasings",
        "questions",
        "nearest answer left",
        "ROC area",
        "calibration error",
        f"abstained on at precision {run.precision:g}",
    )
    title = f"Questions that should be abstained on, {run.encoder}, {len(run.seeds)} splits"
    return Table(title, columns, rows)


def _operations_table(run: CalibrationRun) -> Table:
    names = [one.name for one in run.kinds]
    rows = tuple(
        (
            f"{one.precision:g}",
            f"{one.threshold:.2f}",
            f"{one.reached:.2f}",
            f"{one.kept:.1%}",
            f"{one.right_kept:.1%}",
            f"{one.first_right:.3f}",
            *(f"{one.abstained[name]:.1%}" for name in names),
        )
        for one in run.operations
    )
    columns = (
        "stated precision",
        "threshold",
        f"reached with {run.mixed_with}",
        "phrasings kept",
        "rightly answered ones kept",
        "Hit@1 of those kept",
        *(f"abstained: {name}" for name in names),
    )
    return Table(f"What a stated precision gives, {run.encoder}", columns, rows)


def _features_table(run: CalibrationRun) -> Table:
    titles = {"answered": "the corpus answers", "right": "first answer right, where it does"}
    rows = tuple((titles[one.part], one.feature.replace("_", " "), f"{one.value:+.2f}") for one in run.coefficients)
    columns = ("probability that", "feature", "log odds per standard deviation")
    return Table(f"What the probabilities rest on, {run.encoder}", columns, rows)


def findings(report: CalibrationReport) -> list[str]:
    """Whether a confidence is what it says, who is told apart, and what abstaining costs."""
    return [f"{one.encoder}: {sentence}" for one in report.runs for sentence in _findings(one)]


def _findings(run: CalibrationRun) -> Iterator[str]:
    yield (
        f"The confidence is off by {run.calibration_error:.3f} on average (expected calibration error, ten bins; worst "
        f"seed {run.calibration_error_worst:.3f}) where half of the questions are held-out phrasings and half are "
        f"{run.mixed_with}; by {run.calibration_error_answered:.3f} on held-out phrasings alone."
    )
    areas = ", ".join(f"{one.roc_area:.3f} ({one.name})" for one in run.kinds)
    yield f"Held-out phrasings are told from questions that nothing should answer with ROC area {areas}."
    nearest = ", ".join(f"{one.nearest:.2f} ({one.name})" for one in run.kinds)
    yield f"What such a question should find has so near an answer left, mean cosine: {nearest}."
    own = min(run.operations, key=lambda one: abs(one.precision - run.precision))
    shown = ", ".join(f"{share:.1%} of {name}" for name, share in own.abstained.items())
    yield (
        f"With the stated precision {own.precision:g} the engine abstains on {1 - own.kept:.1%} of the held-out "
        f"phrasings ({1 - own.right_kept:.1%} of those whose first answer is right), {shown}."
    )
    yield (
        f"The first answer is right for {run.first_right:.1%} of the held-out phrasings, and for "
        f"{own.first_right:.1%} of those that are not abstained on."
    )
    if run.without:
        yield f"Questions of another corpus were not asked: {run.without}."


def plots(report: CalibrationReport) -> list[Plot]:
    """Reliability and risk against coverage, all encoders in one plot each."""
    return [
        Plot(
            "reliability",
            "Confidence against how often the first answer is right, in ten bins; a larger mark holds more questions, "
            "and on the diagonal a confidence is what it says.",
            partial(_draw_reliability, report=report),
        ),
        Plot(
            "risk-coverage",
            "Share of wrong first answers among the questions answered, the most confident first; half of all "
            "questions are ones that nothing answers.",
            partial(_draw_risk, report=report),
        ),
    ]


def _draw_reliability(axes: "Axes", report: CalibrationReport) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    for number, one in enumerate(report.runs):
        colour = COLOURS[number % len(COLOURS)]
        xs, ys = [each.predicted for each in one.bins], [each.observed for each in one.bins]
        axes.plot(xs, ys, color=colour, linewidth=1.5, label=_label(one))
        sizes = [30 + 600 * each.share for each in one.bins]
        axes.scatter(xs, ys, s=sizes, color=colour, marker=MARKS[number % len(MARKS)], alpha=0.6, linewidths=0)
    axes.set(xlabel="confidence", ylabel="share of right first answers", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, loc="upper left")


def _draw_risk(axes: "Axes", report: CalibrationReport) -> None:
    for number, one in enumerate(report.runs):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(*zip(*one.risk, strict=True), color=colour, linewidth=2, label=_label(one))
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle="--")
    axes.annotate(
        "only what the corpus answers", (0.5, 0.02), xytext=(-6, 0), textcoords="offset points", ha="right", color=GREY
    )
    axes.set(xlabel="share of questions answered", ylabel="share of them wrong", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, loc="upper left")


def _label(run: CalibrationRun) -> str:
    return f"{run.encoder} (half: {run.mixed_with})"
