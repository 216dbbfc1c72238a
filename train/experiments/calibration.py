"""The experiment behind `qaserve bench calibration`: is a confidence what it says, and who is abstained on?

For each seed some skills, with every intent that mentions them, and a fifth of the other intents are taken away, and
one phrasing of every answer family of what is left is held out. The calibration is fitted on the rest alone, and then
judged on five kinds of questions that nothing was fitted on: held-out phrasings, which the corpus answers, and four
that it does not answer, more or less.

- *another corpus*: the questions of the sample about qaserve itself. Nothing here answers them.
- *held-out intents, nothing near*: no answer that is left is nearer than 0.65 to the question's own.
- *held-out skills* and *held-out intents*: all of them, as they are. Where another intent says nearly the same, what is
  found does answer the question, and a calibration that says so is right though it counts as wrong here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

import qaserve
from ingest.readers import Located, find_files, read_files
from qaserve.calibration import FEATURES, Calibration
from qaserve.errors import CorpusError
from qaserve.progress import Advance
from qaserve.records import Pair
from qaserve.routing import Floats
from qaserve.settings import FitSettings, ReadSettings
from qaserve.text import fold as folded
from train.calibration import (
    BINS,
    STEPS,
    Bools,
    ask,
    calibration_error,
    collect,
    fit_calibration,
    half_and_half,
    nearest_answers,
    out_of_fold,
    roc_area,
    threshold_at,
)
from train.experiments.calibration_report import (
    ANSWERED,
    FAR,
    FOREIGN,
    INTENTS,
    SKILLS,
    UNANSWERED,
    Bin,
    CalibrationReport,
    CalibrationRun,
    Coefficient,
    Kind,
    Operation,
    findings,
    plots,
    tables,
)
from train.experiments.harness import Experiment, Source
from train.folds import Examples, Fold, make_fold
from train.splits import first_families, phrasing_split
from train.tuning import START

if TYPE_CHECKING:
    from qaserve.encoder import SentenceEncoder

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
    nearest: Floats
    """(m,) see `nearest_answers`."""

    def take(self, chosen: Bools) -> "Asked":
        """Some of them."""
        return Asked(self.answered[chosen], self.value[chosen], self.right[chosen], self.nearest[chosen])


class Outcome(NamedTuple):
    """One seed."""

    known: int
    calibration: Calibration
    thresholds: dict[float, float]
    asked: dict[str, Asked]


class Sides(NamedTuple):
    """Rows of a corpus: what is fitted on, and what is asked by kind."""

    known: NDArray[np.int64]
    asked: dict[str, NDArray[np.int64]]


def run(source: Source, *, seeds: Sequence[int], quick: bool, advance: Advance) -> CalibrationRun:
    """Fit on one side and judge on another, once for each seed, with the numbers that a build starts from.

    Args:
        source: Pairs with the vectors of one encoder, unit rows; with its model, another corpus is asked too.
        seeds: Each chooses what is held out.
        quick: The first seed, some of the pairs and of the other corpus.
        advance: Told 1 after each step, see `steps`.

    Raises:
        CorpusError: The pairs are too few to calibrate on.
    """
    examples = source.examples
    if quick:
        seeds, examples = seeds[:1], examples.take(first_families(examples.pairs, QUICK_PAIRS))
    foreign, why_not = _foreign(source, quick)
    outcomes = [_judge(examples, foreign, seed, advance) for seed in seeds]
    mixed_with = next(name for name in UNANSWERED if _asked_in_all(name, outcomes))
    mixtures = [_mixture(one, mixed_with) for one in outcomes]
    errors = [calibration_error(*mixture) for mixture in mixtures]
    value, right, weights = (np.concatenate(parts) for parts in zip(*mixtures, strict=True))
    answered = [one.asked[ANSWERED] for one in outcomes]
    return CalibrationRun(
        encoder=source.encoder,
        pairs=len(examples),
        seeds=tuple(seeds),
        known=float(np.mean([one.known for one in outcomes])),
        questions=sum(len(one.right) for one in answered),
        first_right=_mean(one.right.mean() for one in answered),
        precision=FitSettings().precision,
        mixed_with=mixed_with,
        calibration_error=_mean(errors),
        calibration_error_worst=max(errors),
        calibration_error_answered=_mean(
            calibration_error(one.value, one.right, np.ones(len(one.right))) for one in answered
        ),
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
    """What is held out with a seed; see the module. Nothing that is asked, nor a pair of its intent, is known."""
    random = np.random.default_rng(seed)
    intents = np.array(examples.intents)
    with_skills = np.isin(intents, _intents_of_skills(examples, random))
    others = random.permutation(np.unique(intents[~with_skills]))
    held_out = np.isin(intents, others[: round(INTENTS_OUT * len(others))])
    inside = np.flatnonzero(~(with_skills | held_out))
    split = phrasing_split([examples.pairs[row] for row in inside.tolist()], seed)
    asked = {
        ANSWERED: inside[split.test],
        SKILLS: np.flatnonzero(with_skills),
        INTENTS: np.flatnonzero(held_out),
    }
    return Sides(inside[split.train], {name: rows for name, rows in asked.items() if len(rows)})


def _intents_of_skills(examples: Examples, random: np.random.Generator) -> list[str]:
    """All intents that mention the skills drawn, of a tenth of the pairs or a little more."""
    skills = sorted({skill for pair in examples.pairs for skill in pair.related_skills})
    drawn: set[str] = set()
    for skill in random.permutation(np.array(skills, dtype=object)).tolist():
        if sum(intent in drawn for intent in examples.intents) >= SKILLS_OUT * len(examples):
            break
        drawn |= {pair.cluster_id for pair in examples.pairs if skill in pair.related_skills}
    return sorted(drawn)


def _judge(examples: Examples, foreign: Examples | None, seed: int, advance: Advance) -> Outcome:
    """Fit on one side and ask the other."""
    sides, fit = sides_of(examples, seed), FitSettings(seed=seed)
    known = examples.take(sides.known)
    cases = collect(known, START, fit, advance)
    if cases is None or ANSWERED not in sides.asked or INTENTS not in sides.asked:
        raise CorpusError(
            f"{len(examples)} pairs are too few to calibrate on some and judge on others",
            hint="Ingest more pairs; several phrasings of every answer are needed.",
        )
    judged = out_of_fold(cases)
    calibration = fit_calibration(cases, judged, fit.precision)
    thresholds = {precision: threshold_at(judged.answered, cases.answered, precision) for precision in PRECISIONS}
    asked_of = {name: examples.take(rows) for name, rows in sides.asked.items()}
    if foreign is not None:
        asked_of[FOREIGN] = foreign
    asked = dict(_asked(known, asked_of, calibration, seed))
    far = asked[INTENTS].nearest < NEAR
    if far.any():
        asked[FAR] = asked[INTENTS].take(far)
    advance(1)
    return Outcome(len(known), calibration, thresholds, asked)


def _asked(
    known: Examples, kinds: Mapping[str, Examples], calibration: Calibration, seed: int
) -> Iterator[tuple[str, Asked]]:
    """Ask every kind; the known side is clustered once."""
    first = make_fold(known, known.take(np.arange(1)), seed)
    for name, examples in kinds.items():
        fold = Fold(known, examples, first.labels, first.count, known)
        found, right = ask(fold, START)
        yield (
            name,
            Asked(
                np.array([calibration.answered.probability(row) for row in found]),
                np.array([calibration.probability(row) for row in found]),
                right & (name == ANSWERED),
                nearest_answers(fold),
            ),
        )


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


def _kind(name: str, outcomes: Sequence[Outcome]) -> Kind:
    asked = [one.asked[name] for one in outcomes]
    return Kind(
        name=name,
        questions=sum(len(one.right) for one in asked),
        nearest=_mean(one.nearest.mean() for one in asked),
        roc_area=_mean(_area(one.asked[ANSWERED].answered, one.asked[name].answered) for one in outcomes),
        calibration_error=_mean(calibration_error(*_mixture(one, name)) for one in outcomes),
        abstained=_mean((one.asked[name].answered < one.calibration.threshold).mean() for one in outcomes),
    )


def _area(inside: Floats, outside: Floats) -> float:
    positive = np.arange(len(inside) + len(outside)) < len(inside)
    return roc_area(np.concatenate([inside, outside]), positive)


def _operation(precision: float, outcomes: Sequence[Outcome], mixed_with: str) -> Operation:
    kept = [_kept(one, ANSWERED, precision) for one in outcomes]
    rights = [one.asked[ANSWERED].right for one in outcomes]
    kinds = [name for name in UNANSWERED if _asked_in_all(name, outcomes)]
    abstained = {name: _mean(1 - _kept(one, name, precision).mean() for one in outcomes) for name in kinds}
    inside = _mean(one.mean() for one in kept)
    total = inside + 1 - abstained[mixed_with]
    return Operation(
        precision=precision,
        threshold=_mean(one.thresholds[precision] for one in outcomes),
        reached=inside / total if total else 0.0,
        kept=inside,
        right_kept=_mean(one[right].mean() for one, right in zip(kept, rights, strict=True)),
        first_right=_mean(right[one].mean() for one, right in zip(kept, rights, strict=True)),
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
    for part in ("answered", "right"):
        fits = [getattr(one.calibration, part) for one in outcomes]
        sums: dict[str, float] = {}
        for fit in fits:
            for feature, value in zip(fit.features, fit.coefficients, strict=True):
                sums[feature] = sums.get(feature, 0.0) + value
        for feature in FEATURES:
            if feature in sums:
                yield Coefficient(part=part, feature=feature, value=sums[feature] / len(fits))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


EXPERIMENT = Experiment("calibration", "Calibration", CalibrationReport, tables, findings, plots)
