"""The report of `qaserve bench calibration`, and how it is told in sentences, tables and plots."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from qaserve.schemas.record import Record
from train.experiments.harness import GREY, NONE, Plot, Run, Table, style, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


ANSWERED = "held-out phrasings"
FOREIGN = "another corpus"
FAR = "held-out intents, nothing near"
SKILLS = "held-out skills"
INTENTS = "held-out intents"
PARTS = {
    "answered": "the corpus answers",
    "right": "first answer right, where it does",
    "named_skill": "skill right that the first answer names",
    "skill": "another skill right",
}
"""The parts of a calibration, and what each is the probability of."""


class Kind(Record):
    """A kind of questions that should be abstained on; means over the seeds."""

    name: str
    questions: int = Field(description="All seeds together.")
    nearest: float = Field(description="Mean cosine of a question's own answer to the nearest that is left.")
    roc_area: float = Field(description="Of the probability that the corpus answers: held-out phrasings against these.")
    calibration_error: float = Field(description="Of the confidence, where half of the questions are of this kind.")
    calibration_floor: float = Field(description="What this would be on average if every confidence were exact.")
    skill_calibration_error: float | None = Field(
        description="Of the confidence in the skill, in the same mixture; null: no pair has one."
    )
    skill_calibration_floor: float | None = Field(description="As above.")
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


class CalibrationRun(Run):
    """What was found with one encoder. The mixture is half held-out phrasings and half `mixed_with`."""

    pairs: int
    seeds: tuple[int, ...]
    known: float = Field(description="Pairs that a calibration was fitted on, mean.")
    questions: int = Field(description="Held-out phrasings, all seeds together.")
    first_right: float = Field(description="Share of right first answers among them.")
    precision: float = Field(description="Stated, of the setting.")
    mixed_with: str
    calibration_error: float = Field(description="Of the confidence over the mixture, mean over the seeds.")
    calibration_error_worst: float = Field(description="The same of the worst seed.")
    calibration_floor: float = Field(description="What it would be on average if every confidence were exact.")
    calibration_error_answered: float = Field(
        description="Of the probability that the first answer is right where the corpus answers, over its questions."
    )
    calibration_floor_answered: float = Field(description="As above.")
    skill_right: float = Field(0.0, description="Share of held-out phrasings whose first answer names the right skill.")
    skill_calibration_error: float | None = Field(
        None, description="Of the confidence in the skill over the mixture, mean over the seeds; null: no pair has one."
    )
    skill_calibration_floor: float | None = Field(None, description="As above.")
    skill_roc_area: float | None = Field(
        None,
        description="Of the confidence in the skill over the mixture, mean over the seeds; null: as above, or all are "
        "right.",
    )
    ranked_skill_calibration_error: float | None = Field(
        None, description="Of the confidence of each ranked skill over the mixture, mean over the seeds; null as above."
    )
    ranked_skill_calibration_floor: float | None = Field(None, description="As above.")
    kinds: tuple[Kind, ...]
    operations: tuple[Operation, ...]
    bins: tuple[Bin, ...]
    risk: tuple[tuple[float, float], ...] = Field(
        description="Share of the mixture that is answered, most confident first, and the share of wrong ones in it."
    )
    coefficients: tuple[Coefficient, ...]
    without: str = Field(description="Why there is no other corpus; empty where there is.")

    @property
    def calibration_error_together(self) -> float:
        """Of the confidence over the questions of all seeds as one: less chance, though seeds may even out."""
        return sum(one.share * abs(one.predicted - one.observed) for one in self.bins)

    def kind(self, name: str) -> Kind | None:
        """The kind of this name."""
        return next((one for one in self.kinds if one.name == name), None)


def tables(run: CalibrationRun) -> Iterator[Table]:
    """The kinds of questions, what each stated precision gives, and what the probabilities rest on."""
    yield table(
        f"Questions that should be abstained on, {run.encoder}, {len(run.seeds)} splits",
        run.kinds,
        {
            "asked with held-out phrasings": lambda one: one.name,
            "questions": lambda one: one.questions,
            "nearest answer left": lambda one: f"{one.nearest:.2f}",
            "ROC area": lambda one: f"{one.roc_area:.3f}",
            "calibration error": lambda one: f"{one.calibration_error:.3f}",
            "if exact": lambda one: f"{one.calibration_floor:.3f}",
            "calibration error, skill": lambda one: _or_none(one.skill_calibration_error),
            "if exact, skill": lambda one: _or_none(one.skill_calibration_floor),
            f"abstained on at precision {run.precision:g}": lambda one: f"{one.abstained:.0%}",
        },
    )
    abstained: dict[str, Callable[[Operation], str]] = {
        f"abstained: {kind.name}": partial(_abstained, name=kind.name) for kind in run.kinds
    }
    yield table(
        f"What a stated precision gives, {run.encoder}",
        run.operations,
        {
            "stated precision": lambda one: f"{one.precision:g}",
            "threshold": lambda one: f"{one.threshold:.2f}",
            f"reached with {run.mixed_with}": lambda one: f"{one.reached:.2f}",
            "phrasings kept": lambda one: f"{one.kept:.1%}",
            "rightly answered ones kept": lambda one: f"{one.right_kept:.1%}",
            "Hit@1 of those kept": lambda one: f"{one.first_right:.3f}",
            **abstained,
        },
    )
    yield table(
        f"What the probabilities rest on, {run.encoder}",
        run.coefficients,
        {
            "probability that": lambda one: PARTS[one.part],
            "feature": lambda one: one.feature.replace("_", " "),
            "log odds per standard deviation": lambda one: f"{one.value:+.2f}",
        },
    )


def _abstained(one: Operation, name: str) -> str:
    return f"{one.abstained[name]:.1%}"


def _or_none(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def findings(run: CalibrationRun) -> Iterator[str]:
    """Whether a confidence is what it says, who is told apart, and what abstaining costs."""
    yield (
        f"The confidence is off by {run.calibration_error:.3f} on average (expected calibration error, ten bins; worst "
        f"seed {run.calibration_error_worst:.3f}) where half of the questions are held-out phrasings and half are "
        f"{run.mixed_with}. With so few questions exact confidences would be off by {run.calibration_floor:.3f}, by "
        f"chance. Over the questions of all seeds together it is off by {run.calibration_error_together:.3f}."
    )
    yield (
        f"Where the corpus answers, on held-out phrasings, the probability that the first answer is right is off by "
        f"{run.calibration_error_answered:.3f} (exact ones: {run.calibration_floor_answered:.3f})."
    )
    areas = ", ".join(f"{one.roc_area:.3f} ({one.name})" for one in run.kinds)
    yield f"Held-out phrasings are told from questions that nothing should answer with ROC area {areas}."
    nearest = ", ".join(f"{one.nearest:.2f} ({one.name})" for one in run.kinds)
    yield f"What such a question should find has so near an answer left, mean cosine: {nearest}."
    own = _as_set(run)
    shown = ", ".join(f"{share:.1%} of {name}" for name, share in own.abstained.items())
    yield (
        f"With the stated precision {own.precision:g} the engine abstains on {1 - own.kept:.1%} of the held-out "
        f"phrasings ({1 - own.right_kept:.1%} of those whose first answer is right), {shown}."
    )
    yield (
        f"The first answer is right for {run.first_right:.1%} of the held-out phrasings, and for "
        f"{own.first_right:.1%} of those that are not abstained on."
    )
    if run.skill_calibration_error is not None:
        area = "" if run.skill_roc_area is None else f"; its ROC area is {run.skill_roc_area:.3f}"
        yield (
            f"The first answer names the right skill for {run.skill_right:.1%} of the held-out phrasings. The "
            f"confidence in it is off by {run.skill_calibration_error:.3f} (exact ones: "
            f"{run.skill_calibration_floor:.3f}){area}."
        )
    if run.ranked_skill_calibration_error is not None:
        yield (
            f"The confidence of each ranked skill is off by {run.ranked_skill_calibration_error:.3f} (exact ones: "
            f"{run.ranked_skill_calibration_floor:.3f})."
        )
    if run.without:
        yield f"Questions of another corpus were not asked: {run.without}."


def summary(run: CalibrationRun) -> Iterator[str]:
    """How far the confidence is off, and who gets no answer."""
    yield (
        f"The stated confidence is off by {100 * run.calibration_error:.0f} percentage points on average where half of "
        f"the questions have no answer here; exact ones would be off by {100 * run.calibration_floor:.0f}, by chance."
    )
    own = _as_set(run)
    if FOREIGN in own.abstained:
        yield (
            f"Of questions about something else {own.abstained[FOREIGN]:.0%} get no answer; of new phrasings of known "
            f"questions {1 - own.kept:.0%} get none."
        )


def _as_set(run: CalibrationRun) -> Operation:
    """What the setting's own precision gives."""
    return min(run.operations, key=lambda one: abs(one.precision - run.precision))


def plots(runs: Sequence[CalibrationRun]) -> list[Plot]:
    """Reliability and risk against coverage, all encoders in one plot each."""
    return [
        Plot(
            "reliability",
            "Confidence against how often the first answer is right, in ten bins; a larger mark holds more questions, "
            "and on the diagonal a confidence is what it says.",
            partial(_draw_reliability, runs=runs),
        ),
        Plot(
            "risk-coverage",
            "Share of wrong first answers among the questions answered, the most confident first; half of all "
            "questions are ones that nothing answers.",
            partial(_draw_risk, runs=runs),
        ),
    ]


def _draw_reliability(axes: "Axes", runs: Sequence[CalibrationRun]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    for number, one in enumerate(runs):
        look = style(number)
        xs, ys = [each.predicted for each in one.bins], [each.observed for each in one.bins]
        axes.plot(xs, ys, color=look["color"], linewidth=1.5, label=_label(one))
        axes.scatter(xs, ys, s=[30 + 600 * each.share for each in one.bins], alpha=0.6, linewidths=0, **look)
    axes.set(xlabel="confidence", ylabel="share of right first answers", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, loc="upper left")


def _draw_risk(axes: "Axes", runs: Sequence[CalibrationRun]) -> None:
    for number, one in enumerate(runs):
        axes.plot(*zip(*one.risk, strict=True), color=style(number)["color"], linewidth=2, label=_label(one))
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle="--")
    axes.annotate(
        "only what the corpus answers", (0.5, 0.02), xytext=(-6, 0), textcoords="offset points", ha="right", color=GREY
    )
    axes.set(xlabel="share of questions answered", ylabel="share of them wrong", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, loc="upper left")


def _label(run: CalibrationRun) -> str:
    return f"{run.encoder} (half: {run.mixed_with})"
