"""Fitting the calibration of a build: four logistic regressions on cases from its own pairs, and the threshold.

Where the first answer names several skills, what is fitted on the first stands for all of them; other skills are fitted
on those that are ranked.

No coefficient may point against its feature's direction: features that do are dropped, the most contrary first, and the
rest is fitted again. Figures and threshold come from predictions for each region that the others were fitted for.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from qaserve.common.progress import Advance
from qaserve.core.calibration import (
    DIRECTIONS,
    FEATURES,
    NAMED_FEATURES,
    SKILL_FEATURES,
    Calibration,
    Logistic,
    is_named,
    named_rows,
    skill_rows,
)
from qaserve.core.routing import Floats
from qaserve.schemas.params import Hyperparameters
from qaserve.settings import FitSettings
from train.calibration_cases import MIN_CASES, Bools, Cases, collect, half_and_half
from train.folds import Examples

MIN_COVERAGE = 0.9
"""Of the questions that the corpus answers: to call one of them unanswered is worse than to show what is nearest."""
PENALTY = 1.0
"""C, for features of unit variance; with thousands of cases it hardly matters."""
MAX_ITERATIONS = 1_000
MIN_PROBABILITY = 1e-6
"""Keeps log odds finite."""
MIN_SPREAD = 1e-6
"""A feature that varies less says nothing."""
BINS = 10


class Judged(NamedTuple):
    """Predictions for cases that they were not fitted on."""

    answered: Floats
    """(n,) probability that the corpus answers."""
    right: Floats
    """(n,) probability that the first answer is right, where it does."""
    skill: Floats | None
    """(n,) probability that it names the right skill; None where no case has it right."""
    skills: Floats | None
    """(n, R) probability that each ranked skill is right, NaN where there is none; None as above."""

    @property
    def value(self) -> Floats:
        """(n,) probability that the first answer is right."""
        return np.asarray(self.answered * self.right)


def calibrate(
    examples: Examples, hyperparameters: Hyperparameters, fit: FitSettings, advance: Advance
) -> Calibration | None:
    """The calibration of a build that is fitted on these examples and answers with these hyperparameters.

    Args:
        examples: All pairs of the build; nothing else is looked at.
        hyperparameters: How the build answers; their mrr is not looked at.
        fit: How the build is fitted; the seed is also that of splits and regions. Its precision is the stated one, see
            `Calibration`; above 0.5 it holds something back, as half of the cases are answered.
        advance: Told 1 after each phrasing split and each region.

    Returns:
        The same for the same arguments; None with fewer than `MIN_CASES` answered questions per split or unanswered
        questions in all, or with fewer than two different intents to a region.
    """
    cases = collect(examples, hyperparameters, fit, advance)
    return None if cases is None else fit_calibration(cases, out_of_fold(cases), fit.precision)


# Fitting


def fit_calibration(cases: Cases, judged: Judged, precision: float) -> Calibration:
    """All regressions on all cases; threshold and figures from predictions that were not fitted on the case.

    Args:
        cases: What to fit on.
        judged: `out_of_fold(cases)`.
        precision: Stated, see `Calibration`.
    """
    answered, right = _fit_both(cases)
    skill, named = (None, None) if judged.skills is None else _fit_skills(cases, *_odds(judged))
    threshold = threshold_at(judged.answered, cases.answered, precision, MIN_COVERAGE)
    kept = judged.answered >= threshold
    return Calibration(
        answered=answered,
        right=right,
        skill=skill,
        named_skill=named,
        threshold=threshold,
        precision=precision,
        coverage=round(float(kept[cases.answered].mean()), 6),
        cases={"answered": int(cases.answered.sum()), "unanswered": int((~cases.answered).sum())},
        figures={name: round(figure, 6) for name, figure in _figures(cases, judged, kept).items()},
    )


def out_of_fold(cases: Cases) -> Judged:
    """Predictions for the cases of each region by regressions on the cases of all others."""
    answered, right = np.zeros((2, len(cases.answered)))
    for region in np.unique(cases.regions):
        inside = cases.regions == region
        first, second = _fit_both(cases.take(~inside))
        answered[inside] = [first.probability(row) for row in cases.evidence[inside]]
        right[inside] = [second.probability(row) for row in cases.evidence[inside]]
    judged = Judged(answered, right, None, None)
    if not cases.skills_right.any():
        return judged
    skills = _out_of_fold_skills(cases, *_odds(judged))
    return judged._replace(skill=np.fmax(skills[:, -1], judged.value), skills=skills[:, :-1])


def _odds(judged: Judged) -> tuple[Floats, Floats]:
    return log_odds(judged.answered), log_odds(judged.right)


def _out_of_fold_skills(cases: Cases, answered: Floats, right: Floats) -> Floats:
    """(n, R + 1) probability that each skill is right; NaN where there is none."""
    found = np.full(cases.skills_right.shape, np.nan)
    for region in np.unique(cases.regions):
        inside = cases.regions == region
        others, named = _fit_skills(cases.take(~inside), answered[~inside], right[~inside])
        for row in np.flatnonzero(inside):
            there = ~np.isnan(cases.skills[row, :, 0])
            skills = cases.skills[row, there]
            found[row, there] = np.where(
                is_named(skills),
                [named.probability(one, NAMED_FEATURES) for one in named_rows(answered[row], right[row], skills)],
                [others.probability(one, SKILL_FEATURES) for one in skill_rows(answered[row], skills)],
            )
    return found


def _fit_skills(cases: Cases, answered: Floats, right: Floats) -> tuple[Logistic, Logistic]:
    """Of the ranked skills that the first answer does not name, and of the one that it names first.

    Args:
        cases: What to fit on.
        answered: (n,) log odds of predictions that were not fitted on the case.
        right: (n,) the same, that the first answer is right where the corpus answers.
    """
    ranked, first = cases.skills[:, :-1], cases.skills[:, -1]
    rows = ranked.reshape(-1, ranked.shape[2])
    other = ~np.isnan(rows).any(axis=1) & ~is_named(rows)
    there = ~np.isnan(first).any(axis=1)
    return (
        fit_logistic(
            skill_rows(np.repeat(answered, ranked.shape[1]), rows)[other],
            cases.skills_right[:, :-1].ravel()[other],
            np.repeat(cases.weights, ranked.shape[1])[other],
            SKILL_FEATURES,
            np.ones(len(SKILL_FEATURES)),
        ),
        fit_logistic(
            named_rows(answered, right, first)[there],
            cases.skills_right[there, -1],
            cases.weights[there],
            NAMED_FEATURES,
            np.ones(len(NAMED_FEATURES)),
        ),
    )


def log_odds(probabilities: Floats) -> Floats:
    """log(p / (1 - p)), of probabilities that are kept off 0 and 1."""
    kept = np.clip(probabilities, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.asarray(np.log(kept / (1 - kept)))


def threshold_at(probabilities: Floats, answered: Bools, precision: float, coverage: float = 0.0) -> float:
    """The smallest probability from which on at least `precision` of the questions are answered ones.

    Both kinds count alike in all. Where no threshold with at least `MIN_CASES` questions above it gets there, the one
    that comes nearest is taken. If it would keep less than `coverage`, the highest that keeps that share is taken.

    Args:
        probabilities: (n,) that the corpus answers.
        answered: (n,) whether it does; both kinds occur.
        precision: Stated.
        coverage: Share of the answered questions that must stay.
    """
    order = np.argsort(-probabilities, kind="stable")
    falling, weights = probabilities[order], half_and_half(answered)[order]
    reached = np.cumsum(weights * answered[order]) / np.cumsum(weights)
    kept = np.cumsum(answered[order]) / np.count_nonzero(answered)
    last_of_equals = np.append(falling[1:] < falling[:-1], True)
    enough = np.arange(len(order)) + 1 >= min(MIN_CASES, len(order))
    allowed = np.flatnonzero(last_of_equals & enough)
    reaching = allowed[reached[allowed] >= precision]
    chosen = reaching[-1] if reaching.size else allowed[reached[allowed].argmax()]
    if kept[chosen] < coverage:
        chosen = allowed[np.searchsorted(kept[allowed], coverage)]
    return _short(float(falling[chosen]), down=True)


def fit_logistic(
    found: Floats,
    positive: Bools,
    weights: Floats,
    names: Sequence[str] = FEATURES,
    directions: NDArray[np.floating] | NDArray[np.integer] = DIRECTIONS,
) -> Logistic:
    """Logistic regression with every coefficient in its feature's direction.

    Args:
        found: (n, F) evidence.
        positive: (n,) what is predicted. If all are alike, or there are none, the result has no features.
        weights: (n,) of the cases.
        names: Of the features.
        directions: (F,) theirs.
    """
    kept, coefficients, total = np.empty(0, np.intp), np.empty(0), weights.sum()
    mean = scale = np.zeros(found.shape[1])
    if positive.any() and not positive.all():
        mean = np.average(found, axis=0, weights=weights)
        scale = np.sqrt(np.average((found - mean) ** 2, axis=0, weights=weights))
        kept = np.flatnonzero(scale > MIN_SPREAD)
    share = (weights[positive].sum() + 1) / (total + 2)
    intercept = float(np.log(share / (1 - share)))
    while kept.size:
        unit = (found[:, kept] - mean[kept]) / scale[kept]
        model = LogisticRegression(C=PENALTY, max_iter=MAX_ITERATIONS).fit(unit, positive, sample_weight=weights)
        coefficients, fitted = model.coef_[0], float(model.intercept_[0])
        along = coefficients * directions[kept]
        if along.min() >= 0:
            intercept = fitted
            break
        kept, coefficients = np.delete(kept, along.argmin()), np.empty(0)
    return Logistic(
        features=tuple(names[feature] for feature in kept.tolist()),
        mean=tuple(_short(float(value)) for value in mean[kept]),
        scale=tuple(_short(float(value)) for value in scale[kept]),
        coefficients=tuple(_short(float(value)) for value in coefficients),
        intercept=_short(intercept),
    )


def _fit_both(cases: Cases) -> tuple[Logistic, Logistic]:
    """Answered, and right where it is."""
    answered = cases.take(cases.answered)
    return (
        fit_logistic(cases.evidence, cases.answered, cases.weights),
        fit_logistic(answered.evidence, answered.right, np.ones(len(answered.right))),
    )


def _short(value: float, *, down: bool = False) -> float:
    """Six digits: the last bits differ between machines, and a build's id is a hash of these values."""
    if down:
        return float(np.floor(value * 1e6) / 1e6)
    return float(f"{value:.6g}")


# Judging


def _figures(cases: Cases, judged: Judged, kept: Bools) -> dict[str, float]:
    weights = cases.weights
    figures = {
        "calibration_error": calibration_error(judged.value, cases.right & cases.answered, weights),
        "roc_area": float(roc_auc_score(cases.answered, judged.answered)),
        "first_right": float(cases.right[cases.answered].mean()),
        "precision": float(np.average(cases.answered[kept], weights=weights[kept])),
    }
    if judged.skill is not None and judged.skills is not None:
        named = cases.skills_right[:, -1]
        figures["skill_calibration_error"] = calibration_error(judged.skill, named, weights)
        figures["skill_right"] = float(named[cases.answered].mean())
        if 0 < named.sum() < len(named):
            figures["skill_roc_area"] = float(roc_auc_score(named, judged.skill, sample_weight=weights))
        there = ~np.isnan(judged.skills)
        each = np.broadcast_to(weights[:, None], there.shape)[there]
        ranked = cases.skills_right[:, :-1][there]
        figures["ranked_skill_calibration_error"] = calibration_error(judged.skills[there], ranked, each)
    return figures


def calibration_error(probabilities: Floats, outcomes: Bools, weights: Floats) -> float:
    """Expected calibration error over ten bins of equal width (Naeini et al. 2015).

    Args:
        probabilities: (n,) predicted.
        outcomes: (n,) what happened.
        weights: (n,) of the predictions.

    Returns:
        Σ over bins of the bin's share of the weight times |mean probability - share of outcomes|, in [0, 1].
    """
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=weights * (probabilities - outcomes), minlength=BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def calibration_floor(probabilities: Floats, weights: Floats) -> float:
    """What `calibration_error` is on average where every probability is exact, for chance alone makes bins differ.

    Args:
        probabilities: (n,) predicted.
        weights: (n,) of the predictions.

    Returns:
        Σ over bins of √(2/π · Σ w² p (1 - p)) / Σ w, the mean absolute value of a normally distributed difference.
    """
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    variances = np.bincount(bins, weights=weights**2 * probabilities * (1 - probabilities), minlength=BINS)
    return float(np.sqrt(2 / np.pi * variances).sum() / weights.sum())
