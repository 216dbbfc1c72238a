"""The experiment behind `qaserve bench calibration`: is a confidence what it says, and who is abstained on?

For each seed some skills, with every intent that mentions them, and a fifth of the other intents are taken away, and
one phrasing of every answer family of what is left is held out. Hyperparameters are tuned and the calibration is fitted
on the rest alone, as for a build, and then judged on five kinds of questions that nothing was fitted on: held-out
phrasings, which the corpus answers, and four that it does not answer, more or less.

- *another corpus*: the questions of the sample about qaserve itself. Nothing here answers them.
- *held-out intents, nothing near*: no answer that is left is nearer than 0.65 to the question's own.
- *held-out skills* and *held-out intents*: all of them, as they are. Where another intent says nearly the same, what is
  found does answer the question, and a calibration that says so is right though it counts as wrong here.

A calibration error of few questions is never 0: beside each stands what exact probabilities would show, by chance.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import qaserve
from ingest.readers import Located, find_files, read_files
from qaserve.common.errors import CorpusError
from qaserve.common.progress import Advance
from qaserve.common.text import fold as folded
from qaserve.core.calibration import FEATURES, NAMED_FEATURES, SKILL_FEATURES, Calibration
from qaserve.core.routing import Floats
from qaserve.core.splits import phrasing_split
from qaserve.schemas.pairs import Pair
from qaserve.schemas.params import Hyperparameters
from qaserve.settings import FitSettings, ReadSettings
from train.calibration import BINS, calibration_error, calibration_floor, fit_calibration, out_of_fold, threshold_at
from train.calibration_cases import STEPS, Bools, ask, collect, half_and_half, nearest_answers
from train.experiments.calibration_report import (
    ANSWERED,
    FAR,
    FOREIGN,
    INTENTS,
    PARTS,
    SKILLS,
    Bin,
    CalibrationRun,
    Coefficient,
    Kind,
    Operation,
    findings,
    plots,
    summary,
    tables,
)
from train.experiments.datasets import Source
from train.experiments.harness import Experiment, Report, mean, part_of
from train.folds import Examples, Fold, make_fold
from train.tuning import hyperparameters_of, tune

if TYPE_CHECKING:
    from qaserve.encoders.sentence_transformer import SentenceEncoder

UNANSWERED = (FOREIGN, FAR, SKILLS, INTENTS)


SAMPLE = Path(qaserve.__file__).parent / "sample" / "sample.jsonl"
SKILLS_OUT, INTENTS_OUT = 0.1, 0.2
"""Share of the pairs that go with the held-out skills, at least, and of the other intents that are held out."""
NEAR = 0.65
PRECISIONS = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
CURVE = 41
"""Points of a risk-coverage curve."""
QUICK_PAIRS = 500
QUICK_FOREIGN = 40


class Asked(NamedTuple):
    """Questions of one seed and one kind, and what the calibration said. m of them."""

    answered: Floats
    """(m,) probability that the corpus answers."""
    value: Floats
    """(m,) confidence."""
    right: Bools
    skill: Bools
    """(m,) whether the first answer names the right skill."""
    skill_value: Floats
    """(m,) probability of that; at least `value`."""
    skills_right: Bools
    """(m, R) whether each ranked skill is right."""
    skills_value: Floats
    """(m, R) probability of that; NaN where there are fewer, or no pair names any."""
    nearest: Floats
    """(m,) see `nearest_answers`."""

    def take(self, chosen: Bools) -> "Asked":
        """Some of them."""
        return Asked(**{name: part[chosen] for name, part in self._asdict().items()})


class Outcome(NamedTuple):
    """One seed."""

    trained_on: int
    calibration: Calibration
    thresholds: dict[float, float]
    asked: dict[str, Asked]


class Sides(NamedTuple):
    """Rows of a corpus: the training side, and the queries by kind."""

    train: NDArray[np.int64]
    queries: dict[str, NDArray[np.int64]]


def run(source: Source, *, seeds: Sequence[int], quick: bool, advance: Advance) -> CalibrationRun:
    """Fit on one side and judge on another, once for each seed.

    Args:
        source: Pairs with the vectors of one encoder, unit rows; with its model, another corpus is asked too.
        seeds: Each chooses what is held out.
        quick: The first seed, some of the pairs and of the other corpus.
        advance: Told 1 after each step, see `steps`.

    Raises:
        CorpusError: The pairs are too few to calibrate on.
    """
    examples, seeds = part_of(source.examples, seeds, QUICK_PAIRS, quick=quick)
    foreign, why_not = _foreign(source, quick)
    outcomes = [_judge(examples, foreign, seed, advance) for seed in seeds]
    mixed_with = next(name for name in UNANSWERED if _asked_in_all(name, outcomes))
    mixtures = [_mixture(one, mixed_with) for one in outcomes]
    errors = [calibration_error(*mixture) for mixture in mixtures]
    value, right, weights = (np.concatenate(parts) for parts in zip(*mixtures, strict=True))
    answered = [one.asked[ANSWERED] for one in outcomes]
    skilled = [one for one in outcomes if one.calibration.skill is not None]
    skills, ranked = ([part(one, mixed_with) for one in skilled] for part in (_skills, _ranked))
    return CalibrationRun(
        encoder=source.encoder,
        pairs=len(examples),
        seeds=tuple(seeds),
        known=mean(one.trained_on for one in outcomes),
        questions=sum(len(one.right) for one in answered),
        first_right=mean(one.right.mean() for one in answered),
        precision=FitSettings().precision,
        mixed_with=mixed_with,
        calibration_error=mean(errors),
        calibration_error_worst=max(errors),
        calibration_floor=_floor(mixtures),
        calibration_error_answered=mean(calibration_error(*_given(one)) for one in answered),
        calibration_floor_answered=_floor([_given(one) for one in answered]),
        skill_right=mean(one.skill.mean() for one in answered),
        skill_calibration_error=mean(calibration_error(*one) for one in skills) if skills else None,
        skill_calibration_floor=_floor(skills) if skills else None,
        skill_roc_area=_skill_area(skills),
        ranked_skill_calibration_error=mean(calibration_error(*one) for one in ranked) if ranked else None,
        ranked_skill_calibration_floor=_floor(ranked) if ranked else None,
        kinds=tuple(_kind(name, outcomes) for name in UNANSWERED if _asked_in_all(name, outcomes)),
        operations=tuple(_operation(precision, outcomes, mixed_with) for precision in PRECISIONS),
        bins=tuple(_bins(value, right, weights)),
        risk=_risk(value, right, weights),
        coefficients=tuple(_coefficients(outcomes)),
        without=why_not,
    )


def steps(seeds: Sequence[int], quick: bool) -> int:
    """How often `run` calls `advance`."""
    return (STEPS + 1) * len(seeds[:1] if quick else seeds)


def _foreign(source: Source, quick: bool) -> tuple[Examples | None, str]:
    """The questions of another corpus, or why there are none."""
    if source.model is None:
        return None, "the encoder was not at hand"
    pairs = [item.pair for item in read_files(find_files([SAMPLE]), ReadSettings()) if isinstance(item, Located)]
    known = {folded(pair.question) for pair in source.examples.pairs}
    if any(folded(pair.question) in known for pair in pairs):
        return None, "the corpus holds questions of the one that would be asked"
    pairs = pairs[: QUICK_FOREIGN if quick else None]
    return Examples(pairs, *_encoded(source.model, pairs)), ""


def _encoded(model: "SentenceEncoder", pairs: Sequence[Pair]) -> tuple[Floats, Floats]:
    answers = list(dict.fromkeys(pair.answer for pair in pairs))
    places = {answer: row for row, answer in enumerate(answers)}
    encoded = model.encode_answers(answers).astype(np.float64)[[places[pair.answer] for pair in pairs]]
    return model.encode_questions([pair.question for pair in pairs]).astype(np.float64), encoded


def sides_of(examples: Examples, seed: int) -> Sides:
    """What is held out with a seed; see the module. No pair of a held-out intent or skill is in the training side."""
    random = np.random.default_rng(seed)
    intents = np.array(examples.intents)
    with_skills = np.isin(intents, _intents_of_skills(examples, random))
    others = random.permutation(np.unique(intents[~with_skills]))
    held_out = np.isin(intents, others[: round(INTENTS_OUT * len(others))])
    inside = np.flatnonzero(~(with_skills | held_out))
    split = phrasing_split([examples.pairs[row] for row in inside.tolist()], seed)
    queries = {
        ANSWERED: inside[split.test],
        SKILLS: np.flatnonzero(with_skills),
        INTENTS: np.flatnonzero(held_out),
    }
    return Sides(inside[split.train], {name: rows for name, rows in queries.items() if len(rows)})


def _intents_of_skills(examples: Examples, random: np.random.Generator) -> list[str]:
    """All intents that mention the skills drawn, of a tenth of the pairs or a little more."""
    skills = sorted({skill for pair in examples.pairs for skill in pair.related_skills})
    drawn: set[str] = set()
    for skill in random.permutation(np.array(skills, dtype=object)).tolist():
        if sum(intent in drawn for intent in examples.intents) >= SKILLS_OUT * len(examples):
            break
        drawn |= {pair.intent for pair in examples.pairs if skill in pair.related_skills}
    return sorted(drawn)


def _judge(examples: Examples, foreign: Examples | None, seed: int, advance: Advance) -> Outcome:
    """Fit on one side and ask the other."""
    sides, fit = sides_of(examples, seed), FitSettings(seed=seed)
    train = examples.take(sides.train)
    hyperparameters = hyperparameters_of(tune(train, fit, lambda _: None), fit)
    cases = collect(train, hyperparameters, fit, advance)
    if cases is None or ANSWERED not in sides.queries or INTENTS not in sides.queries:
        raise CorpusError(
            f"{len(examples)} pairs are too few to calibrate on some and judge on others",
            hint="Ingest more pairs; several phrasings of every answer are needed.",
        )
    judged = out_of_fold(cases)
    calibration = fit_calibration(cases, judged, fit.precision)
    thresholds = {precision: threshold_at(judged.answered, cases.answered, precision) for precision in PRECISIONS}
    queries = {name: examples.take(rows) for name, rows in sides.queries.items()}
    if foreign is not None:
        queries[FOREIGN] = foreign
    asked = dict(_asked(train, queries, hyperparameters, calibration, seed))
    far = asked[INTENTS].nearest < NEAR
    if far.any():
        asked[FAR] = asked[INTENTS].take(far)
    advance(1)
    return Outcome(len(train), calibration, thresholds, asked)


def _asked(
    train: Examples,
    kinds: Mapping[str, Examples],
    hyperparameters: Hyperparameters,
    calibration: Calibration,
    seed: int,
) -> Iterator[tuple[str, Asked]]:
    """Ask every kind; the training side is clustered once."""
    first = make_fold(train, train.take(np.arange(1)), seed)
    for name, examples in kinds.items():
        fold = Fold(train, examples, first.labels, first.count, train)
        found, right, skills, skills_right = ask(fold, hyperparameters)
        value = np.array([calibration.probability(row) for row in found])
        sure = _skill_values(calibration, found, skills)
        yield (
            name,
            Asked(
                np.array([calibration.answered.probability(row) for row in found]),
                value,
                right & (name == ANSWERED),
                skills_right[:, -1],
                np.fmax(sure[:, -1], value),
                skills_right[:, :-1],
                sure[:, :-1],
                nearest_answers(fold),
            ),
        )


def _skill_values(calibration: Calibration, found: Floats, skills: Floats) -> Floats:
    """(m, R + 1) probability that each skill is right, of evidence (m, F) and (m, R + 1, 3); NaN without a skill."""
    rows = [calibration.skill_probabilities(row, each) for row, each in zip(found, skills, strict=True)]
    return np.array([[np.nan] * skills.shape[1] if row is None else row for row in rows])


# Summing up


def _asked_in_all(name: str, outcomes: Sequence[Outcome]) -> bool:
    return all(name in one.asked for one in outcomes)


def _mixture(outcome: Outcome, name: str) -> tuple[Floats, Bools, Floats]:
    """Confidence, whether the first answer is right, and weights: half held-out phrasings, half of a kind."""
    inside, outside = outcome.asked[ANSWERED], outcome.asked[name]
    answered = np.arange(len(inside.right) + len(outside.right)) < len(inside.right)
    return (
        np.concatenate([inside.value, outside.value]),
        np.concatenate([inside.right, outside.right]),
        half_and_half(answered),
    )


def _given(asked: Asked) -> tuple[Floats, Bools, Floats]:
    """Probability that the first answer is right where the corpus answers, whether it is, and weights of 1."""
    return asked.value / asked.answered, asked.right, np.ones(len(asked.right))


def _floor(judged: Sequence[tuple[Floats, Bools, Floats]]) -> float:
    """Mean `calibration_floor` of probabilities, outcomes and weights."""
    return mean(calibration_floor(value, weights) for value, _, weights in judged)


def _skills(outcome: Outcome, name: str) -> tuple[Floats, Bools, Floats]:
    """Confidence in the skill, whether it is right, and weights, of the same mixture."""
    inside, outside = outcome.asked[ANSWERED], outcome.asked[name]
    _, _, weights = _mixture(outcome, name)
    return (
        np.concatenate([inside.skill_value, outside.skill_value]),
        np.concatenate([inside.skill, outside.skill]),
        weights,
    )


def _ranked(outcome: Outcome, name: str) -> tuple[Floats, Bools, Floats]:
    """The same of each ranked skill."""
    inside, outside = outcome.asked[ANSWERED], outcome.asked[name]
    value = np.concatenate([inside.skills_value, outside.skills_value])
    right, there = np.concatenate([inside.skills_right, outside.skills_right]), ~np.isnan(value)
    weights = np.broadcast_to(_mixture(outcome, name)[2][:, None], there.shape)
    return value[there], right[there], weights[there]


def _skill_area(skills: Sequence[tuple[Floats, Bools, Floats]]) -> float | None:
    """Mean ROC area; None where the first answers are all of the right skill, or none is."""
    areas = [
        float(roc_auc_score(right, value, sample_weight=weights))
        for value, right, weights in skills
        if 0 < right.sum() < len(right)
    ]
    return mean(areas) if areas else None


def _kind(name: str, outcomes: Sequence[Outcome]) -> Kind:
    asked, mixtures = [one.asked[name] for one in outcomes], [_mixture(one, name) for one in outcomes]
    skills = [_skills(one, name) for one in outcomes if one.calibration.skill is not None]
    return Kind(
        name=name,
        questions=sum(len(one.right) for one in asked),
        nearest=mean(one.nearest.mean() for one in asked),
        roc_area=mean(_area(one.asked[ANSWERED].answered, one.asked[name].answered) for one in outcomes),
        calibration_error=mean(calibration_error(*one) for one in mixtures),
        calibration_floor=_floor(mixtures),
        skill_calibration_error=mean(calibration_error(*one) for one in skills) if skills else None,
        skill_calibration_floor=_floor(skills) if skills else None,
        abstained=mean((one.asked[name].answered < one.calibration.threshold).mean() for one in outcomes),
    )


def _area(inside: Floats, outside: Floats) -> float:
    positive = np.arange(len(inside) + len(outside)) < len(inside)
    return float(roc_auc_score(positive, np.concatenate([inside, outside])))


def _operation(precision: float, outcomes: Sequence[Outcome], mixed_with: str) -> Operation:
    kept = [_kept(one, ANSWERED, precision) for one in outcomes]
    rights = [one.asked[ANSWERED].right for one in outcomes]
    kinds = [name for name in UNANSWERED if _asked_in_all(name, outcomes)]
    abstained = {name: mean(1 - _kept(one, name, precision).mean() for one in outcomes) for name in kinds}
    inside = mean(one.mean() for one in kept)
    total = inside + 1 - abstained[mixed_with]
    return Operation(
        precision=precision,
        threshold=mean(one.thresholds[precision] for one in outcomes),
        reached=inside / total if total else 0.0,
        kept=inside,
        right_kept=mean(one[right].mean() for one, right in zip(kept, rights, strict=True)),
        first_right=mean(right[one].mean() for one, right in zip(kept, rights, strict=True)),
        abstained=abstained,
    )


def _kept(outcome: Outcome, name: str, precision: float) -> Bools:
    return np.asarray(outcome.asked[name].answered >= outcome.thresholds[precision])


def _bins(value: Floats, right: Bools, weights: Floats) -> Iterator[Bin]:
    numbers = np.minimum((value * BINS).astype(int), BINS - 1)
    for number in np.unique(numbers):
        inside = numbers == number
        yield Bin(
            predicted=float(np.average(value[inside], weights=weights[inside])),
            observed=float(np.average(right[inside], weights=weights[inside])),
            share=float(weights[inside].sum() / weights.sum()),
        )


def _risk(value: Floats, right: Bools, weights: Floats) -> tuple[tuple[float, float], ...]:
    order = np.argsort(-value, kind="stable")
    coverage = np.cumsum(weights[order]) / weights.sum()
    risk = 1 - np.cumsum((weights * right)[order]) / np.cumsum(weights[order])
    places = np.unique(np.searchsorted(coverage, np.linspace(1 / (CURVE - 1), 1, CURVE - 1)).clip(max=len(order) - 1))
    return tuple((float(coverage[place]), float(risk[place])) for place in places)


def _coefficients(outcomes: Sequence[Outcome]) -> Iterator[Coefficient]:
    for part in PARTS:
        fits = [fit for one in outcomes if (fit := getattr(one.calibration, part)) is not None]
        sums: dict[str, float] = {}
        for fit in fits:
            for feature, value in zip(fit.features, fit.coefficients, strict=True):
                sums[feature] = sums.get(feature, 0.0) + value
        for feature in dict.fromkeys((*FEATURES, *SKILL_FEATURES, *NAMED_FEATURES)):
            if feature in sums:
                yield Coefficient(part=part, feature=feature, value=sums[feature] / len(fits))


EXPERIMENT = Experiment(
    "calibration", "Calibration", Report[CalibrationRun], tables, findings, plots, summary_of=summary
)
