"""Scores of skills, from the scores of the pairs that name them and the sections of their documents. Pure NumPy.

    pairs   = mean of the best five scores of the pairs that name the skill (of as many as there are)
    section = max over the sections of its document of cos(x'', section)
    score   = pairs + 0.2 · section,      and 0.95 · section in the place of pairs where no pair names it

x'' is the projected and whitened question. W, fitted on pairs, also carries a question to documents that it never saw.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.core.routing import Floats

BEST_PAIRS = 5
SECTION_WEIGHT = 0.2
STAND_IN = 0.95
"""Of the section, where no pair names a skill. Chosen on training sides by taking the pairs of some skills away, as
`qaserve bench skills` shows it: more finds these skills better, and puts them before skills with pairs."""


class SkillScores(NamedTuple):
    """Scores of S skills for m questions and what they are the sum of; all (m, S), higher is better."""

    total: Floats
    pairs: Floats
    """What the pairs give, or what stands in for them."""
    section: Floats
    """0.2 · cosine of the best section; 0 without a document."""


def skill_evidence(pairs: NDArray[np.floating], ranked: NDArray[np.intp], named: NDArray[np.bool_]) -> Floats:
    """What the scores of one question say about how right its ranked skills are.

    Args:
        pairs: (S,) what the pairs give each skill, see `SkillScores`.
        ranked: (R,) the skills that are looked at.
        named: (R,) whether the first answer names each.

    Returns:
        (R, 3): what the pairs give the skill; how much that is above the best of all other skills, negative where it is
        below (a lone skill stands against 0); and `named` as 1 or 0.
    """
    if not ranked.size:
        return np.empty((0, 3))
    order = np.argsort(-pairs, kind="stable")
    best, second = pairs[order[0]], pairs[order[1]] if len(order) > 1 else 0.0
    return np.column_stack([pairs[ranked], pairs[ranked] - np.where(ranked == order[0], second, best), named])


def skill_scores(
    scores: NDArray[np.floating],
    named: NDArray[np.bool_],
    counts: NDArray[np.integer],
    sections: NDArray[np.floating],
    *,
    stand_in: float = STAND_IN,
    best: int = BEST_PAIRS,
) -> SkillScores:
    """Score skills.

    Args:
        scores: (m, c) scores of the candidate pairs.
        named: (c, S) whether a pair names a skill.
        counts: (S,) pairs that name each skill, the candidates and all others. One that is no candidate counts as the
            last of them: it scores no better.
        sections: (m, S) cosine of the projected and whitened question to the best section; NaN where a skill has no
            document.
        stand_in: Factor of the section where no pair names a skill.
        best: How many pairs count.
    """
    wanted, seen = np.minimum(counts, best), np.flatnonzero(named.any(axis=0))
    pairs = np.zeros(sections.shape)
    for row, values in enumerate(scores):
        order, least = np.argsort(-values, kind="stable"), values.min() if values.size else 0.0
        mine = named[np.ix_(order, seen)]
        mine &= np.cumsum(mine, axis=0, dtype=np.int32) <= best
        pairs[row] = wanted * least
        pairs[row, seen] = values[order] @ mine + (wanted[seen] - mine.sum(axis=0)) * least
    pairs /= np.maximum(wanted, 1)
    known = np.where(np.isnan(sections), 0.0, sections)
    pairs = np.where(counts > 0, pairs, stand_in * known)
    return SkillScores(pairs + SECTION_WEIGHT * known, pairs, SECTION_WEIGHT * known)
