"""What `qaserve bench hypotheses` found, claim by claim, and how that is told in sentences and tables."""

from collections.abc import Iterator, Sequence

from pydantic import Field

from qaserve.schemas.record import Record
from train.experiments.harness import (
    SHOWN,
    STANDARD_ERRORS,
    Difference,
    Run,
    Table,
    compared,
    is_difference,
    signed,
    table,
)
from train.experiments.routing_report import REFERENCE_TEMPERATURE

POWER = 2.8
"""Standard errors of a difference that is found four times out of five (two-sided, 5%)."""
TO_TEACHER = "teacher_cosine"
LARGE = 8_000_000
"""Parameters beyond which a student is trained on the first split alone."""


class Choice(Record):
    """The best τ of a method on the training side of one split, by what it was chosen."""

    method: str
    mrr: float
    cosine: float


class Method(Record):
    """Figures of a method, mean over the splits."""

    reading: str
    routing: str
    mrr_at_reference: float = Field(description="At the proposal's τ.")
    cosine_at_reference: float
    mrr_at_best: float = Field(description="At its own best τ, chosen on the training side.")
    cosine_at_best: float


class Hypothesis(Record):
    """A claim of the proposal, by one reading, and the difference that decides it."""

    claim: str
    reading: str
    test: str = Field(description="What is compared, and at which τ.")
    at_least: float = Field(description="Share of the reference's figure that was promised; 0: more than nothing.")
    difference: Difference

    @property
    def detectable(self) -> float:
        """Smallest difference that this number of questions would show four times out of five."""
        return POWER * (self.difference.gain.high - self.difference.gain.low) / STANDARD_ERRORS

    @property
    def verdict(self) -> str:
        """By the whole interval: held, refuted, undecided, or no difference."""
        gain, floor = self.difference.gain, self.at_least * self.difference.base
        if gain.low > floor:
            return "held"
        if gain.high < floor or gain.high < 0:
            return "refuted"
        return "undecided" if is_difference(gain) else "no difference"


class HypothesesRun(Run):
    """What came out for one encoder."""

    dimension: int
    pairs: int
    queries: float = Field(description="Questions asked, mean over the seeds.")
    seeds: tuple[int, ...]
    methods: tuple[Method, ...]
    choices: tuple[Choice, ...]
    hypotheses: tuple[Hypothesis, ...]


HELPS = "The projection finds better than none"
MORE_COSINE = "Per-question routing brings 5% more cosine or better"
FINDS_BETTER = "Per-question routing finds better"
ONE_W = "One W per cluster finds better than a blend of single pairs' W"
LAYERS = "Three layers are the best depth of a student"
CEILING = "The student's size sets the ceiling of 0.70: no teacher is followed more closely than the proposal's"


# What is shown

MEASURES = SHOWN | {TO_TEACHER: "cosine to the teacher"}


def overview(runs: Sequence[HypothesesRun]) -> Iterator[Table]:
    """Every claim by every reading, with the data under each other."""
    tested = [(one, run.encoder) for run in runs for one in run.hypotheses]
    rows = [_row(one) for one, _ in tested]
    yield table(
        "Every claim by every reading and on all data",
        sorted(tested, key=lambda of: (CLAIMS.index(of[0].claim), rows.index(_row(of[0])))),
        {
            "claim": lambda of: of[0].claim,
            "reading of the projection": lambda of: of[0].reading,
            "test": lambda of: of[0].test,
            "data": lambda of: of[1],
            "measure": lambda of: MEASURES[of[0].difference.measure],
            "without": lambda of: f"{of[0].difference.base:.3f}",
            "effect (95%)": lambda of: signed(of[0].difference.gain),
            "in percent": lambda of: f"{of[0].difference.gain.mean / of[0].difference.base:+z.1%}",
            "smallest detectable": lambda of: f"{of[0].detectable:.3f}",
            "verdict": lambda of: of[0].verdict,
        },
    )


def _row(one: Hypothesis) -> tuple[str, str, str]:
    return one.claim, one.reading, one.test


def tables(run: HypothesesRun) -> Iterator[Table]:
    """The figures of the readings."""
    data = f"{run.encoder} (D {run.dimension}), {run.pairs:,} pairs, {len(run.seeds)} phrasing splits"
    yield table(
        f"{data} with {run.queries:.0f} questions each: the readings",
        run.methods,
        {
            "reading": lambda one: one.reading,
            "routing": lambda one: one.routing,
            f"MRR at τ {REFERENCE_TEMPERATURE}": lambda one: f"{one.mrr_at_reference:.3f}",
            "cosine": lambda one: f"{one.cosine_at_reference:.3f}",
            "MRR at its best τ": lambda one: f"{one.mrr_at_best:.3f}",
            "cosine at its best τ": lambda one: f"{one.cosine_at_best:.3f}",
        },
    )


SAID = {
    HELPS: "Of {} ways to read the proposal's projection, {} find more than a search without it and {} find less.",
    FINDS_BETTER: "Of {} ways, {} find more with votes of known questions than with clusters' centres; {} find less.",
}
"""Claims of the summary: readings, and how many of them find more and less."""
CLAIMS = (HELPS, MORE_COSINE, FINDS_BETTER, ONE_W, LAYERS, CEILING)
PREFACE = f"Students of {LARGE:,} parameters or fewer are trained on every split, larger ones on the first alone."


def findings(run: HypothesesRun) -> Iterator[str]:
    """For each claim, the readings with which it held, was refuted, or neither; each at its best τ."""
    for claim in CLAIMS:
        found: dict[str, list[str]] = {}
        for one in run.hypotheses:
            if one.claim == claim and f"τ {REFERENCE_TEMPERATURE}" not in one.test:
                tested = one.test if claim == LAYERS else one.reading
                found.setdefault(one.verdict, []).append(f"{tested} {signed(one.difference.gain)}")
        said = "; ".join(f"{verdict} with {', '.join(readings)}" for verdict, readings in found.items())
        if said:
            yield f"{claim}{'' if claim in {LAYERS, CEILING} else ', each at its best τ'}: {said}."


def summary(run: HypothesesRun) -> Iterator[str]:
    """By how many readings the projection, and votes by question, find more and less."""
    for claim, said in SAID.items():
        outcomes = [
            compared(one.difference.gain)
            for one in run.hypotheses
            if one.claim == claim and f"τ {REFERENCE_TEMPERATURE}" not in one.test
        ]
        if outcomes:
            yield said.format(len(outcomes), outcomes.count("better"), outcomes.count("worse"))
