"""The experiments of `qaserve bench`, by name. A module is imported when its experiment is asked for, not before."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from qaserve.common.progress import Advance
    from train.experiments.datasets import Source
    from train.experiments.harness import Experiment, Run


class ExperimentModule(Protocol):
    """What a module of an experiment offers."""

    EXPERIMENT: "Experiment[Run]"

    def run(self, source: "Source", *, seeds: Sequence[int], quick: bool, advance: "Advance") -> "Run":
        """Measure with one encoder; the report holds such a run for each."""

    def steps(self, seeds: Sequence[int], quick: bool) -> int:
        """How often `run` calls `advance`."""


class Listed(NamedTuple):
    """An experiment before it is imported."""

    module: str
    about: str
    """What it measures, and how, in Markdown."""
    seeds: int = 5
    """How many, unless told otherwise."""
    trec: bool = False
    """Whether it writes runs and judgements into the folder of `--trec`."""
    students: bool = False
    """Whether it also measures without students, by `--no-students`."""
    weighs: bool = False
    """Whether it weighs pairs by their importance, and takes `--alpha`, `--bounds` and `--trainings`."""

    def load(self) -> ExperimentModule:
        """Import the module."""
        return cast("ExperimentModule", importlib.import_module(self.module))


HELD_OUT = (
    "For each seed one phrasing of every answer family of three or more is held out; everything sees only the rest."
)

EXPERIMENTS = {
    "hypotheses": Listed(
        "train.experiments.hypotheses",
        f"""Test what the proposal claims, by every reading of what it calls its projection, each method at its best τ.

{HELD_OUT} The best τ is chosen on a split inside the training side. What is finished is kept in the data folder until
the report is made, so that the same command goes on where an interrupted one stopped.""",
        students=True,
    ),
    "routing": Listed(
        "train.experiments.routing",
        f"""Compare every routing with every projection, and with what else one could search with.

{HELD_OUT}
Relevant is the pair's own intent (`cluster_id`); every intent is ranked once, by its best answer. Intents held out
whole, and the random tenth that upstream takes, are shown for comparison.

`--trec DIR` writes runs and judgements (qrels) in TREC's format, for each encoder, split and seed, and measures them by
`ir-measures`: `ir_measures qrels.skill.txt run.raw_answers.txt RR` gives the same figure. Relevant is the own intent,
every intent of the same skill, or, where the vectors of a second encoder are given, graded: an answer that it holds to
be the same (cosine ≥ 0.85) counts half.""",
        trec=True,
    ),
    "finetuning": Listed(
        "train.experiments.finetuning",
        f"""Compare the product with the same encoder, fine-tuned on the training side, in quality and in training time.

{HELD_OUT} Fine-tuning needs the encoder itself: the one that the file is called after, or that of
QASERVE_ENCODER, where it made the vectors. A split takes half an hour of a core: what is finished is kept in the data
folder until the report is made, so that the same command goes on where an interrupted one stopped.""",
    ),
    "distill": Listed(
        "train.experiments.distill",
        f"""Teach students of several sizes and shapes what routing and projection do, and see what they are worth.

{HELD_OUT} A student never sees a held-out question while it learns.""",
    ),
    "importance": Listed(
        "train.experiments.importance",
        f"""Weigh pairs by how uncertain they are, in routing and in distillation, and see whether that helps.

{HELD_OUT} Measures of a text need the encoder itself: the one that the file is called after, or that of
QASERVE_ENCODER, where it made the vectors.""",
        weighs=True,
    ),
    "calibration": Listed(
        "train.experiments.calibration",
        f"""Fit the confidence of an answer, and judge it on questions that nothing was fitted on.

{HELD_OUT} Held-out intents, held-out skills and questions about something else show what happens where nothing
answers.""",
    ),
    "skills": Listed(
        "train.experiments.skills",
        f"""Find the skill for a question by pairs, by documents, and by both.

{HELD_OUT}
Right is a skill that the held-out pair names. The live build must have documents (`qaserve ingest --documents`).""",
    ),
    "projection": Listed(
        "train.experiments.projection",
        """Compare dense W with their exact low-rank form and per-pair W: time to fit, memory, time to ask.

Each seed is one K-means over all pairs, as a build does it, and one measurement.""",
        seeds=1,
    ),
}
"""In the order in which they are published."""
