"""Tuning a build's hyperparameters: λ, τ, N, a final softmax or none, and β, by cross-validation on the training side.

Each fold holds one phrasing of every answer family of three or more out of the pairs it is given, clusters and fits the
rest, and asks. The search goes through them one group at a time, takes the best of the group where it gains more
than the standard error of that gain (the one-standard-error rule of Breiman et al. 1984, paired), and goes round until
nothing changes.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from qaserve.builds.manifest import Trial, Tuning
from qaserve.common.progress import Advance
from qaserve.core.routing import Floats
from qaserve.core.splits import phrasing_split
from qaserve.schemas.params import Hyperparameters, SearchParams
from qaserve.settings import FitSettings
from train.folds import Examples, Fold, make_fold

FOLDS = 5
MIN_QUERIES = 30
"""Queries that a fold must hold out; with fewer, chance decides."""
ROUNDS = 3
START = Hyperparameters()
REGULARIZATIONS = (0.3, 0.5, 1.0, 2.0, 4.0)
TEMPERATURES = (0.02, 0.03, 0.05, 0.07, 0.1)
HITS = (16, 32, 64)
FINAL_TEMPERATURES = (0.05, 0.1, 0.2)
LEXICAL_WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5)


def tune(examples: Examples, fit: FitSettings, advance: Advance) -> Tuning | None:
    """The hyperparameters with the best mean reciprocal rank over the folds' queries, beyond the noise; see the module.

    Args:
        examples: The training side; nothing else is looked at.
        fit: How a build is fitted: its seed also makes the splits, and a λ that is set is kept.
        advance: Told 1 after each fold is made and after each set of hyperparameters.

    Returns:
        What was chosen and all that was tried; None where a fold would hold out fewer than `MIN_QUERIES` queries.
    """
    if len(phrasing_split(examples.pairs, fit.seed).test) < MIN_QUERIES:
        return None
    folds = []
    for number in range(FOLDS):
        split = phrasing_split(examples.pairs, fit.seed + number)
        train, queries = examples.take(split.train), examples.take(split.test)
        folds.append(make_fold(train, queries, fit.seed, fit.rank_form, fit.max_clusters))
        advance(1)
    tried: dict[Hyperparameters, Tried] = {}
    best = _try(folds, hyperparameters_of(None, fit), tried, advance)
    for _ in range(ROUNDS):
        before = best
        for group in _groups(fit.regularization):
            found = [_try(folds, change(best.trial), tried, advance) for change in group]
            leader = max(found, key=lambda one: one.trial.mrr)
            best = leader if _gains(leader.reciprocal - best.reciprocal) else best
        if best is before:
            break
    curve = tuple(one.trial for one in tried.values())
    return Tuning(folds=FOLDS, queries=len(best.reciprocal), chosen=best.trial, curve=curve)


class Tried(NamedTuple):
    """A trial and the reciprocal rank of every query of every fold, (m,)."""

    trial: Trial
    reciprocal: Floats


Change = Callable[[Hyperparameters], Hyperparameters]


def _gains(differences: Floats) -> bool:
    """Whether the mean difference is above its standard error."""
    return bool(differences.mean() > differences.std(ddof=1) / np.sqrt(len(differences)))


def _groups(regularization: float | None) -> Iterator[list[Change]]:
    if regularization is None:
        yield [partial(_with, regularization=value) for value in REGULARIZATIONS]
    yield [partial(_with, temperature=temperature, hits=hits) for temperature in TEMPERATURES for hits in HITS]
    yield [
        partial(_with, routing="question", final_temperature=SearchParams().final_temperature),
        *(partial(_with, routing="question2", final_temperature=value) for value in FINAL_TEMPERATURES),
    ]
    yield [partial(_with, lexical_weight=value) for value in LEXICAL_WEIGHTS]


def _with(base: Hyperparameters, regularization: float | None = None, **search: Any) -> Hyperparameters:
    """Hyperparameters with some of them changed."""
    return Hyperparameters(
        regularization=base.regularization if regularization is None else regularization,
        search=base.search.override(SearchParams(**search)),
    )


def _try(
    folds: Sequence[Fold], hyperparameters: Hyperparameters, tried: dict[Hyperparameters, Tried], advance: Advance
) -> Tried:
    if hyperparameters not in tried:
        reciprocal = np.concatenate([1 / ranks_of(fold, hyperparameters) for fold in folds])
        trial = Trial(**dict(hyperparameters), mrr=round(float(reciprocal.mean()), 6))
        tried[hyperparameters] = Tried(trial, reciprocal)
        advance(1)
    return tried[hyperparameters]


def ranks_of(fold: Fold, hyperparameters: Hyperparameters) -> Floats:
    """(m,) rank of the relevant intent of every query of a fold, answered with these hyperparameters."""
    return fold.ranks(fold.scores(fold.project(hyperparameters).vectors, hyperparameters.search))


def hyperparameters_of(tuning: Tuning | None, fit: FitSettings) -> Hyperparameters:
    """The tuned hyperparameters, or those that the search starts from; a λ that is set is kept."""
    if tuning is not None:
        return Hyperparameters(regularization=tuning.chosen.regularization, search=tuning.chosen.search)
    return START if fit.regularization is None else Hyperparameters(regularization=fit.regularization)
