"""Fitting the calibration of a build: cases from its own pairs, four logistic regressions, and the threshold.

Questions that the corpus answers are held-out phrasings, asked of the rest. Questions that it does not answer are made
by taking away a whole region of topics (intents whose mean answers K-means puts together) and asking what was taken.
Not all of these go unanswered: what is left may say nearly the same under another intent. So a question counts as
unanswered only where nothing left is as near to its own answer as answers of one intent usually are to each other
(`sibling_bound`); the others are no cases.

Whether the first answer names the right skill has cases of both kinds: a region's skills may have answers elsewhere.
The answer's skill is the first that its pair names; it is right where the question's own pair names it too. What is
fitted on these stands for all skills that the first answer names; the others are fitted on those that are ranked.

No coefficient may point against its feature's direction: features that do are dropped, the most contrary first, and the
rest is fitted again. Figures and threshold come from predictions for each region that the others were fitted for.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from qaserve.common.progress import Advance
from qaserve.core.calibration import (
    DIRECTIONS,
    FEATURES,
    NAMED_FEATURES,
    NEAREST,
    SKILL_FEATURES,
    Calibration,
    Logistic,
    Top,
    evidence,
    is_named,
    named_rows,
    skill_rows,
)
from qaserve.core.clustering import KMEANS_STARTS
from qaserve.core.routing import Floats
from qaserve.core.scoring import intent_scores
from qaserve.core.skills import skill_evidence, skill_scores
from qaserve.core.splits import phrasing_split
from qaserve.encoders.base import cores
from qaserve.schemas.pairs import skill_names
from qaserve.schemas.params import Hyperparameters
from qaserve.settings import FitSettings
from train.folds import Examples, Fold, make_fold

SPLITS = 5
"""Phrasing splits that answered cases come from."""
REGIONS = 8
MAX_QUERIES = 600
"""Most queries of one fold; where there are more, this many are drawn."""
MIN_CASES = 30
"""Of each kind; also the fewest questions that a threshold is judged by."""
MIN_COVERAGE = 0.9
"""Of the questions that the corpus answers: to call one of them unanswered is worse than to show what is nearest."""
SIBLINGS = 0.25
"""Quantile of the cosines between answers of one intent from which another answer counts as saying the same."""
PENALTY = 1.0
"""C, for features of unit variance; with thousands of cases it hardly matters."""
MAX_ITERATIONS = 1_000
MIN_PROBABILITY = 1e-6
"""Keeps log odds finite."""
MIN_SPREAD = 1e-6
"""A feature that varies less says nothing."""
BINS = 10
STEPS = SPLITS + REGIONS
"""How often `collect` calls `advance`, where it gives cases."""

Bools = NDArray[np.bool_]


class Cases(NamedTuple):
    """Questions asked as the engine would be, and how it went. n of them."""

    evidence: Floats
    """(n, F) see `qaserve.core.calibration.evidence`."""
    answered: Bools
    """(n,) whether the corpus answers the question."""
    right: Bools
    """(n,) whether the first answer is of the relevant intent."""
    skills: Floats
    """(n, R + 1, 3) evidence of the ranked skills and of the one that the first answer names first, see
    `qaserve.core.skills.skill_evidence`; NaN where there is none."""
    skills_right: Bools
    """(n, R + 1) whether each is a right one."""
    regions: NDArray[np.int64]
    """(n,) the region of the relevant intent; predictions are made for a region from all others."""

    @property
    def weights(self) -> Floats:
        """(n,) so that answered and unanswered questions count alike; their mean is 1."""
        return half_and_half(self.answered)

    def take(self, chosen: Bools) -> "Cases":
        """Some of the cases."""
        return Cases(
            self.evidence[chosen],
            self.answered[chosen],
            self.right[chosen],
            self.skills[chosen],
            self.skills_right[chosen],
            self.regions[chosen],
        )


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


class Answered(NamedTuple):
    """The questions of a fold, answered. m of them."""

    evidence: Floats
    """(m, F)."""
    right: Bools
    """(m,) whether the first answer is of the relevant intent."""
    skills: Floats
    """(m, R + 1, 3) as of `Cases`."""
    skills_right: Bools
    """(m, R + 1)."""


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


# Cases


def collect(examples: Examples, hyperparameters: Hyperparameters, fit: FitSettings, advance: Advance) -> Cases | None:
    """The cases that `calibrate` is fitted on; None where they are too few."""
    regions = regions_of(examples, fit.seed)
    if regions is None or len(phrasing_split(examples.pairs, fit.seed).test) < MIN_CASES:
        return None
    random = np.random.default_rng(fit.seed)
    splits = [phrasing_split(examples.pairs, fit.seed + number) for number in range(SPLITS)]
    sides = [(split.train, split.test) for split in splits]
    sides += [(np.flatnonzero(regions != region), np.flatnonzero(regions == region)) for region in range(REGIONS)]
    held = [(train, _drawn(test, random)) for train, test in sides]
    bound = sibling_bound(examples)

    def cases_of(number: int) -> Cases:
        train, queries = held[number]
        fold = _fold(examples, train, queries, fit)
        cases = _cases(ask(fold, hyperparameters), regions[queries], answered=number < SPLITS)
        return cases if number < SPLITS else cases.take(nearest_answers(fold) < bound)

    found: list[Cases] = []
    with ThreadPoolExecutor(cores(), thread_name_prefix="calibration") as pool:  # NumPy lets go of Python's lock
        for cases in pool.map(cases_of, range(len(held))):
            found.append(cases)
            advance(1)
    cases = Cases(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    return cases if np.count_nonzero(~cases.answered) >= MIN_CASES else None


def regions_of(examples: Examples, seed: int) -> NDArray[np.int64] | None:
    """(n,) region of topics of every pair, 0 … `REGIONS` - 1; no intent is in two.

    K-means of the intents' mean answers. None where fewer than two different ones come to a region.
    """
    names, numbers = np.unique(np.array(examples.intents), return_inverse=True)
    means = np.zeros((len(names), examples.answers.shape[1]))
    np.add.at(means, numbers, examples.answers)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), MIN_SPREAD)
    if len(np.unique(means.astype(np.float32), axis=0)) < 2 * REGIONS:
        return None
    labels = KMeans(REGIONS, n_init=KMEANS_STARTS, random_state=seed).fit(means).labels_
    return np.asarray(labels[numbers], dtype=np.int64)


def sibling_bound(examples: Examples) -> float:
    """Cosine from which an answer counts as saying the same: three of four answers of one intent are as near.

    Pairs of the same answer text are left out. Infinite where no intent has two different answers.
    """
    rows = {text: row for row, text in enumerate(pair.answer for pair in examples.pairs)}
    kept = np.array(sorted(rows.values()))
    intents, found = np.array(examples.intents)[kept], []
    for name in np.unique(intents):
        own = examples.answers[kept[intents == name]]
        found.append((own @ own.T)[np.triu_indices(len(own), 1)])
    cosines = np.concatenate(found)
    return float(np.quantile(cosines, SIBLINGS)) if cosines.size else float("inf")


def nearest_answers(fold: Fold) -> Floats:
    """(m,) cosine of every query's own answer to the nearest candidate."""
    return np.asarray((fold.queries.answers @ fold.candidates.answers.T).max(axis=1))


def ask(fold: Fold, hyperparameters: Hyperparameters) -> Answered:
    """Answer every question of a fold as the engine does.

    Args:
        fold: Its candidates must be its training side.
        hyperparameters: How to answer.
    """
    params = hyperparameters.search
    neighbors = fold.neighbors(params.hits)
    pipeline = fold.pipeline(params, fold.bank(hyperparameters.regularization))
    _, routing, searched = pipeline.project(fold.queries.questions, neighbors)
    if routing is None:
        raise ValueError("a student is not calibrated: its hyperparameters route nothing")
    cosines = fold.cosines(searched)
    parts = fold.parts(cosines, params)
    raw = fold.queries.questions @ fold.candidates.answers.T
    intents = np.array(fold.candidates.intents)
    names, scores = intent_scores(parts.total, fold.candidates.intents, params.second_share)
    best = -np.sort(-scores, axis=1)[:, :NEAREST]
    leading = np.array(names)[scores.argmax(axis=1)]
    first = np.where(intents[None, :] == leading[:, None], parts.total, -np.inf).argmax(axis=1)
    found = [
        evidence(
            similarities=neighbors.similarities[row],
            probabilities=routing.shares[row],
            clusters=neighbors.clusters[row],
            weights=routing.weights[row],
            scores=best[row],
            top=Top(
                similarity=float(cosines[row, top]),
                raw_similarity=float(raw[row, top]),
                lexical=float(parts.words[row, top]),
                cluster=int(fold.labels[top]),
            ),
        )
        for row, top in enumerate(first)
    ]
    right = leading == np.array(fold.queries.intents)
    return Answered(np.stack(found), np.asarray(right), *_skills(fold, parts.total, first))


def _skills(fold: Fold, scores: Floats, first: NDArray[np.intp]) -> tuple[Floats, Bools]:
    """Evidence (m, R + 1, 3) of skills, see `Cases`, and whether each (m, R + 1) is right; by pairs alone.

    Args:
        fold: With the queries.
        scores: (m, c) of the candidates.
        first: (m,) the first answer's candidate.
    """
    found, names = np.full((len(scores), NEAREST + 1, 3), np.nan), fold.skills
    right = np.zeros(found.shape[:2], dtype=bool)
    if not names:
        return found, right
    named, sections = fold.named(fold.candidates), np.full((len(scores), len(names)), np.nan)
    pairs = skill_scores(scores, named, named.sum(axis=0), sections).pairs
    relevant, places = fold.named(fold.queries), {name: place for place, name in enumerate(names)}
    for row, values in enumerate(pairs):
        ranked = np.argsort(-values, kind="stable")[:NEAREST]
        own = [places[name] for name in skill_names(fold.candidates.pairs[first[row]].related_skills)[:1]]
        for slots, skills in ((slice(len(ranked)), ranked), (slice(NEAREST, NEAREST + len(own)), np.array(own, int))):
            found[row, slots] = skill_evidence(values, skills, named[first[row], skills])
            right[row, slots] = relevant[row, skills]
    return found, right


def _cases(asked: Answered, regions: NDArray[np.int64], *, answered: bool) -> Cases:
    kind = np.full(len(asked.right), answered)
    return Cases(asked.evidence, kind, asked.right, asked.skills, asked.skills_right, regions)


def _drawn(rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    return rows if len(rows) <= MAX_QUERIES else np.sort(random.choice(rows, MAX_QUERIES, replace=False))


def _fold(examples: Examples, train: NDArray[np.int64], queries: NDArray[np.int64], fit: FitSettings) -> Fold:
    return make_fold(examples.take(train), examples.take(queries), fit.seed, fit.rank_form, fit.max_clusters)


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


def half_and_half(answered: Bools) -> Floats:
    """(n,) weights of mean 1 with which both kinds count alike, however many there are; 1 if there is only one kind."""
    count = np.count_nonzero(answered)
    if count in {0, len(answered)}:
        return np.ones(len(answered))
    return np.where(answered, len(answered) / (2 * count), len(answered) / (2 * (len(answered) - count)))


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
