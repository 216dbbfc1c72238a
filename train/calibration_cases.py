"""The cases that a calibration is fitted on: questions asked as the engine would be, with a known outcome.

Questions that the corpus answers are held-out phrasings, asked of the rest. Questions that it does not answer are made
by taking away a whole region of topics (intents whose mean answers K-means puts together) and asking what was taken.
Not all of these go unanswered: what is left may say nearly the same under another intent. So a question counts as
unanswered only where nothing left is as near to its own answer as answers of one intent usually are to each other
(`sibling_bound`); the others are no cases.

Whether the first answer names the right skill has cases of both kinds: a region's skills may have answers elsewhere.
The answer's skill is the first that its pair names; it is right where the question's own pair names it too.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from qaserve.common.progress import Advance
from qaserve.core.calibration import NEAREST, Top, evidence
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
SIBLINGS = 0.25
"""Quantile of the cosines between answers of one intent from which another answer counts as saying the same."""
STEPS = SPLITS + REGIONS
"""How often `collect` calls `advance`, where it gives cases."""
MIN_LENGTH = 1e-6
"""Keeps a mean of opposite answers finite."""

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
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), MIN_LENGTH)
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


def half_and_half(answered: Bools) -> Floats:
    """(n,) weights of mean 1 with which both kinds count alike, however many there are; 1 if there is only one kind."""
    count = np.count_nonzero(answered)
    if count in {0, len(answered)}:
        return np.ones(len(answered))
    return np.where(answered, len(answered) / (2 * count), len(answered) / (2 * (len(answered) - count)))
