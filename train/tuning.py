"""Tuning a build's hyperparameters by cross-validation inside its own pairs, on two kinds of question.

New phrasings: each fold holds one phrasing of every answer family of three or more out of the pairs, clusters and fits
the rest, and asks. Unknown intents: each fold fits nothing on a fifth of the intents, leaves their answers searchable,
and asks their questions. What is maximised is the mean of both mean reciprocal ranks, so neither kind is bought with
the other.

The search goes through the hyperparameters one group at a time, takes the best of the group where it gains more than
the standard error of that gain (the one-standard-error rule of Breiman et al. 1984, paired; the phrasings of one intent
count as one draw), and goes round until nothing changes. What it ends with must not be below a plain search with words
on either kind by more than the standard error: else the best of what was tried and is not, is taken.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.common.errors import CorpusError
from qaserve.common.progress import Advance
from qaserve.core.routing import Floats
from qaserve.core.splits import Split, intent_split, phrasing_split
from qaserve.encoders.base import cores
from qaserve.schemas.params import PLAIN_SEARCH, Hyperparameters, SearchParams, Trial, Tuning
from qaserve.settings import FitSettings
from train.folds import Examples, Fold, split_fold

FOLDS = 3
"""Of each kind."""
MIN_QUERIES = 30
"""Queries that a fold must hold out; with fewer, chance decides."""
ROUNDS = 3
START = Hyperparameters()
"""Routing, projection and words alone."""
DEFAULTS = Hyperparameters(search=SearchParams().override(SearchParams(whitening=0.5)))
"""What the search begins with, and what a corpus gets that is too small to tune on. On parts of a second corpus, of 6
to 100 intents, half the whitening found as well or better than none on both kinds of question."""
REGULARIZATIONS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
PROJECTIONS = (("cluster", 1.0), ("cluster", 0.5), ("pair", 1.0), ("pair", 0.5), ("none", 1.0))
TEMPERATURES = (0.03, 0.05, 0.07, 0.1)
HITS = (16, 32, 64)
FINAL_TEMPERATURES = (0.05, 0.1, 0.2)
WHITENINGS = (0.0, 0.5, 0.75, 1.0)
LEXICAL_WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5)
TOPIC_WEIGHTS = (0.0, 0.1, 0.15, 0.2, 0.3, 0.4)
SECOND_SHARES = (0.0, 0.2, 0.35, 0.5)


def tune(examples: Examples, fit: FitSettings, advance: Advance, *, unknown: bool = True) -> Tuning | None:
    """The hyperparameters that answer best over the folds' queries, beyond the noise; see the module.

    Args:
        examples: The training side; nothing else is looked at.
        fit: How a build is fitted: its seed also makes the splits, and a λ that is set is kept.
        advance: Told 1 after each fold is made and after each set of hyperparameters.
        unknown: Whether unknown intents count; else new phrasings alone do.

    Returns:
        What was chosen and all that was tried; None where a fold would hold out fewer than `MIN_QUERIES` queries.
    """
    with ThreadPoolExecutor(cores(), thread_name_prefix="tuning") as pool:  # NumPy lets go of Python's lock
        search = _Search(examples, fit, advance, pool, unknown=unknown)
        return _tuned(search, fit, topics=examples.topics is not None) if search.kinds else None


def _tuned(search: "_Search", fit: FitSettings, *, topics: bool) -> Tuning:
    """`tune`, with the folds made."""
    best = search.run(hyperparameters_of(None, fit), _groups(fit.regularization, topics=topics))
    unprojected = search.run(_with(best.trial, projection="none"), _scorings(topics=topics))
    if search.is_better(unprojected, best):
        best = unprojected
    plain = max((search.ask(one) for one in _plain(best.trial)), key=lambda one: one.trial.mrr)
    if not search.not_below(best, plain):
        best = max((one for one in search.tried if search.not_below(one, plain)), key=lambda one: one.trial.mrr)
    phrasings, *intents = (len(part) for part in best.reciprocal)
    curve = tuple(one.trial for one in search.tried)
    return Tuning(
        phrasings=phrasings,
        intents=sum(intents),
        plain=plain.trial,
        unprojected=unprojected.trial,
        chosen=best.trial,
        curve=curve,
    )


class Tried(NamedTuple):
    """A trial and the reciprocal rank of every query of every fold, (m,) for each kind of question."""

    trial: Trial
    reciprocal: tuple[Floats, ...]


Change = Callable[[Hyperparameters], Hyperparameters]


class _Search:
    """The folds, and what was tried on them."""

    def __init__(
        self, examples: Examples, fit: FitSettings, advance: Advance, pool: Executor, *, unknown: bool
    ) -> None:
        self._fit, self._advance = fit, advance
        self._found: dict[Hyperparameters, Tried] = {}
        self._pool = pool
        single = examples.in_single_precision()  # enough for ranks, in half the time
        phrasings = self._folds(single, phrasing_split, whole=False)
        intents = self._folds(single, intent_split, whole=True) if phrasings and unknown else []
        self.kinds = [folds for folds in (phrasings, intents) if folds]
        """Folds of new phrasings and, where they count and are enough, of unknown intents; none without the first."""
        self._intents = [
            _numbers([intent for fold in folds for intent in fold.queries.intents]) for folds in self.kinds
        ]

    def _folds(self, examples: Examples, split: Callable[..., Split], *, whole: bool) -> list[Fold]:
        """Of one kind; none where they would hold out too few queries."""
        fit = self._fit
        try:
            splits = [split(examples.pairs, fit.seed + number) for number in range(FOLDS)]
        except CorpusError:  # all pairs are of one intent
            return []
        if min(min(len(one.test), len(one.train)) for one in splits) < MIN_QUERIES:
            return []
        make = partial(split_fold, examples, seed=fit.seed, rank_form=fit.rank_form, max_clusters=fit.max_clusters)
        folds = []
        for fold in self._pool.map(partial(make, whole=whole), splits):
            folds.append(fold)
            self._advance(1)
        return folds

    @property
    def tried(self) -> list[Tried]:
        """Everything, in order."""
        return list(self._found.values())

    def run(self, start: Hyperparameters, groups: Sequence[Sequence[Change]]) -> Tried:
        """The best that the search finds from there."""
        best = self.ask(start)
        for _ in range(ROUNDS):
            before = best
            for group in groups:
                leader = max((self.ask(change(best.trial)) for change in group), key=lambda one: one.trial.mrr)
                best = leader if self.is_better(leader, best) else best
            if best is before:
                break
        return best

    def not_below(self, one: Tried, other: Tried) -> bool:
        """Whether no kind of question is answered worse by more than the standard error."""
        return all(
            np.mean(first - second) >= -_error(first - second, intents)
            for first, second, intents in zip(one.reciprocal, other.reciprocal, self._intents, strict=True)
        )

    def is_better(self, one: Tried, other: Tried) -> bool:
        """Whether the mean over the kinds gains more than its standard error."""
        differences = [first - second for first, second in zip(one.reciprocal, other.reciprocal, strict=True)]
        errors = [_error(part, intents) for part, intents in zip(differences, self._intents, strict=True)]
        return float(sum(part.mean() for part in differences)) > float(np.linalg.norm(errors))

    def ask(self, hyperparameters: Hyperparameters) -> Tried:
        """How well the queries of all folds are answered with these hyperparameters."""
        plain = Hyperparameters(regularization=hyperparameters.regularization, search=hyperparameters.search)
        if plain not in self._found:
            folds = [fold for kind in self.kinds for fold in kind]
            found = iter(self._pool.map(ranks_of, folds, repeat(plain)))
            reciprocal = tuple(np.concatenate([1 / next(found) for _ in kind]) for kind in self.kinds)
            means = [round(float(part.mean()), 6) for part in reciprocal]
            trial = Trial(**dict(plain), phrasings=means[0], intents=means[1] if len(means) > 1 else None)
            self._found[plain] = Tried(trial, reciprocal)
            self._advance(1)
        return self._found[plain]


def _numbers(names: Sequence[str]) -> NDArray[np.intp]:
    return np.asarray(np.unique(np.array(names), return_inverse=True)[1], dtype=np.intp)


def _error(differences: Floats, intents: NDArray[np.intp]) -> float:
    """Standard error of the mean of (m,) where the G intents are drawn, each with its queries (Liang & Zeger 1986).

    √(G/(G-1) · Σ_g (Σ_{i in g} (d_i - mean))²) / m
    """
    sums = np.bincount(intents, weights=differences - differences.mean())
    return float(np.sqrt(len(sums) / max(1, len(sums) - 1) * (sums**2).sum()) / len(differences))


def _groups(regularization: float | None, *, topics: bool) -> list[list[Change]]:
    groups: list[list[Change]] = [
        *_scorings(topics=topics),
        [partial(_with, projection=name, projection_share=share) for name, share in PROJECTIONS],
        [partial(_with, temperature=temperature, hits=hits) for temperature in TEMPERATURES for hits in HITS],
        [
            partial(_with, routing="question", final_temperature=SearchParams().final_temperature),
            *(partial(_with, routing="question2", final_temperature=value) for value in FINAL_TEMPERATURES),
        ],
    ]
    if regularization is None:
        groups.insert(0, [partial(_with, regularization=value) for value in REGULARIZATIONS])
    return groups


def _scorings(*, topics: bool) -> list[list[Change]]:
    """What can be tuned without projecting anything again."""
    groups: list[list[Change]] = [
        [partial(_with, whitening=value) for value in WHITENINGS],
        [partial(_with, topic_weight=value) for value in TOPIC_WEIGHTS],
        [partial(_with, lexical_weight=value) for value in LEXICAL_WEIGHTS],
        [partial(_with, second_share=value) for value in SECOND_SHARES],
    ]
    return groups if topics else [groups[0], *groups[2:]]


def _plain(base: Hyperparameters) -> Iterator[Hyperparameters]:
    """A plain search with words of every weight."""
    for value in LEXICAL_WEIGHTS:
        yield _with(base, **PLAIN_SEARCH.given | {"lexical_weight": value})


def _with(base: Hyperparameters, regularization: float | None = None, **search: Any) -> Hyperparameters:
    """Hyperparameters with some of them changed."""
    return Hyperparameters(
        regularization=base.regularization if regularization is None else regularization,
        search=base.search.override(SearchParams(**search)),
    )


def ranks_of(fold: Fold, hyperparameters: Hyperparameters) -> Floats:
    """(m,) rank of the relevant intent of every query of a fold, answered with these hyperparameters."""
    return fold.ranks_by(fold.cosines_of(hyperparameters), hyperparameters.search)


def hyperparameters_of(tuning: Tuning | None, fit: FitSettings) -> Hyperparameters:
    """The tuned hyperparameters, or those that the search starts from; a λ that is set is kept."""
    if tuning is not None:
        return Hyperparameters(regularization=tuning.chosen.regularization, search=tuning.chosen.search)
    return DEFAULTS if fit.regularization is None else _with(DEFAULTS, regularization=fit.regularization)
