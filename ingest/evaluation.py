"""Asking a build that is not written yet, or the live one, as the engine would: all it takes is in memory."""

from collections import Counter
from collections.abc import Collection, Set
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingest.corpus import Choice, Corpus, LiveBuild
from ingest.golden import Golden
from qaserve.common.text import fold, short_digest
from qaserve.core.calibration import Calibration
from qaserve.core.metrics import intent_ranks
from qaserve.core.routing import Floats
from qaserve.schemas.params import Hyperparameters
from train.calibration_cases import ask
from train.folds import Examples, Fold

MAX_ASKED = 600
MAX_PAIRS = 5_000
"""Pairs of a larger corpus that are asked and searched, so that memory stays bounded."""


@dataclass(frozen=True)
class EvaluatedBuild:
    """A build, as it would answer."""

    points: list[str]
    examples: Examples
    labels: NDArray[np.int64]
    count: int
    hyperparameters: Hyperparameters
    calibration: Calibration | None


class Asked(NamedTuple):
    """How it went, for m questions."""

    ranks: Floats
    """Among the answers that both builds hold."""
    ranks_among_all: Floats
    abstained: NDArray[np.bool_] | None


def sample(corpus: Corpus, seed: int, wanted: Collection[str] = ()) -> NDArray[np.int64]:
    """Rows of the pairs that are asked and searched: all, or as many as memory allows for.

    Whole intents are drawn, those first that hold a wanted pair_id, then by a hash of their names: two builds of much
    the same pairs draw much the same intents.
    """
    if len(corpus.pairs) <= MAX_PAIRS:
        return np.arange(len(corpus.pairs))
    found, intents = np.unique(corpus.pairs.named("intent"), return_inverse=True)
    asked = np.isin(corpus.pairs.figures["pair_id"], np.array([short_digest(one) for one in wanted], dtype="S16"))
    first, names = set(intents[asked].tolist()), found.tolist()
    sizes, left = np.bincount(intents), MAX_PAIRS
    drawn = []
    for number in sorted(range(len(names)), key=lambda one: (one not in first, short_digest(str(seed), names[one]))):
        if sizes[number] <= left:
            drawn.append(number)
            left -= sizes[number]
    return np.flatnonzero(np.isin(intents, drawn))


def side_of(
    corpus: Corpus, labels: NDArray[np.int64], count: int, choice: Choice, rows: NDArray[np.int64]
) -> EvaluatedBuild:
    """A build of these pairs, clusters and numbers: of these rows of it."""
    taken = corpus.take(rows)
    return EvaluatedBuild(
        list(taken.pairs), taken.examples, labels[rows], count, choice.hyperparameters, choice.calibration
    )


def live_side(live: LiveBuild, seed: int, wanted: Collection[str]) -> EvaluatedBuild | None:
    """The live build, or the `sample` of it; None where its bundle is broken, and with it its numbers."""
    manifest = live.manifest
    if manifest is None or not live.pairs:
        return None
    choice = Choice(manifest.hyperparameters, None, manifest.calibration)
    return side_of(live.corpus, live.labels, live.metadata.clusters, choice, sample(live.corpus, seed, wanted))


# Held-out phrasings


def limited(rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """At most `MAX_ASKED` of the rows."""
    if len(rows) <= MAX_ASKED:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, MAX_ASKED, replace=False))


def _known(side: EvaluatedBuild, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the pairs that stay when these questions are asked: those that ask something else."""
    asked = {fold(side.examples.pairs[row].question) for row in rows}
    return np.array([row for row, pair in enumerate(side.examples.pairs) if fold(pair.question) not in asked])


def still_found(side: EvaluatedBuild, rows: NDArray[np.int64], common: Set[str]) -> NDArray[np.bool_]:
    """(m,) whether a question's intent has an answer left, among the points in common, when these are asked."""
    known = [row for row in _known(side, rows) if side.points[row] in common]
    left = Counter(side.examples.pairs[row].intent for row in known)
    return np.array([left[side.examples.pairs[row].intent] > 0 for row in rows], dtype=bool)


def ask_rest(side: EvaluatedBuild, rows: NDArray[np.int64], common: Set[str]) -> Asked:
    """Ask the questions of these rows of the rest. `common`: the points that both builds hold."""
    known = _known(side, rows)
    searched = side.examples.take(known)
    held = Fold(searched, side.examples.take(rows), side.labels[known], side.count, searched)
    kept = np.array([side.points[row] in common for row in known], dtype=bool)
    scores = _scores(held, side.hyperparameters)
    intents = [intent for intent, inside in zip(searched.intents, kept, strict=True) if inside]
    share = side.hyperparameters.search.second_share
    ranks = intent_ranks(scores[:, kept], intents, held.queries.intents, share)
    abstained = None
    if side.calibration is not None:
        threshold, model = side.calibration.threshold, side.calibration.answered
        abstained = np.array(
            [model.probability(row) < threshold for row in ask(held, side.hyperparameters).evidence], dtype=bool
        )
    return Asked(ranks, held.ranks(scores, share), abstained)


def _scores(fold: Fold, hyperparameters: Hyperparameters) -> Floats:
    return fold.scores(fold.project(hyperparameters).searched, hyperparameters.search)


# Golden questions


def golden_rows(side: EvaluatedBuild, golden: Golden) -> dict[int, dict[str, int]]:
    """By golden question, a row of every accepted pair that is there; questions without one are left out."""
    rows = {pair.pair_id: row for row, pair in reversed(list(enumerate(side.examples.pairs)))}
    found = {
        number: {pair_id: rows[pair_id] for pair_id in accepted if pair_id in rows}
        for number, accepted in enumerate(golden.accepted)
    }
    return {number: there for number, there in found.items() if there}


def ask_golden(side: EvaluatedBuild, golden: Golden, rows: dict[int, dict[str, int]]) -> Asked:
    """Ask golden questions of the whole build. What counts is the first of the accepted intents."""
    numbers = [number for number, accepted in rows.items() for _ in accepted]
    wanted = side.examples.take(np.array([row for there in rows.values() for row in there.values()], dtype=np.int64))
    pairs = [
        pair.model_copy(update={"question": golden.questions[number]})
        for number, pair in zip(numbers, wanted.pairs, strict=True)
    ]
    asked = Examples(pairs, golden.vectors[numbers].astype(np.float64), wanted.answers)
    whole = Fold(side.examples, asked, side.labels, side.count, side.examples)
    ranks = whole.ranks(_scores(whole, side.hyperparameters), side.hyperparameters.search.second_share)
    ranks = np.minimum.reduceat(ranks, np.flatnonzero(np.diff(numbers, prepend=-1)))
    return Asked(ranks, ranks, None)
