"""How sure the first answer is, and when to abstain: decided here for the API, the page, the terminal and agents.

A question that is a known one but for case, spacing and punctuation has an answer, so nothing abstains on it; and it
has no probabilities, for they are calibrated on questions that are not known.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from qaserve.builds.manifest import UNIFORM, Manifest
from qaserve.common.text import did_you_mean, shorten
from qaserve.core.calibration import Top, evidence
from qaserve.schemas.ask import Answer, Confidence
from qaserve.schemas.documents import FITTING
from qaserve.schemas.pairs import skill_name
from qaserve.schemas.params import SearchParams
from qaserve.search.outcome import Found, Query
from qaserve.search.skills import RankedSkills
from qaserve.store.points import RELATED_SKILLS

NO_MATCH = Confidence(value=None, abstained=True, reason="No pair matches the filters.")
KNOWN = Confidence(value=None, known=True, abstained=False, reason="The first answer is its own.")
NOT_CALIBRATED = Confidence(
    value=None, abstained=False, reason="This build has no calibration, for it has too few pairs: judge by similarity."
)
OTHER_PARAMS = Confidence(
    value=None,
    abstained=False,
    reason="The calibration holds for the parameters of the build, and these are others: judge by similarity.",
)

KNOWN_VALUES = 10_000
"""Values of a field that a value of a filter is compared with, the most frequent ones."""
VALUE_CHARS = 80
VALUES_TOLD = 3


class Sureness(NamedTuple):
    """How sure the engine is."""

    first: Confidence
    """Of the first answer."""
    skills: Sequence[float | None]
    """Of each ranked skill."""


def confidences_of(query: Query, found: Found, answers: Sequence[Answer], ranked: RankedSkills) -> Sureness:
    """How sure the first of the answers and each of the skills is."""
    if not answers:
        return Sureness(_no_match(query), [None] * len(ranked.names))
    if found.known:
        return Sureness(KNOWN, [None] * len(ranked.names))
    sure = _calibrated(query, found, answers[0], ranked)
    return sure._replace(first=_or_skill(query, sure, ranked)) if sure.first.abstained else sure


def _no_match(query: Query) -> Confidence:
    """That no pair matches; a filter may be misspelt, so the first values that no pair has at all are named."""
    reasons = [NO_MATCH.reason, *islice(_values_of_no_pair(query), VALUES_TOLD)]
    return NO_MATCH.model_copy(update={"reason": " ".join(reasons)})


def _values_of_no_pair(query: Query) -> Iterator[str]:
    build = query.build
    for field, values in query.request.filters.given.items():
        if field == "cluster":
            yield from (f"There is no cluster {value}." for value in values if value not in range(len(build.clusters)))
            continue
        skills = field == RELATED_SKILLS
        known = build.skill_counts if skills else dict(build.points.facet(field, KNOWN_VALUES))
        for value in map(str, values):
            name = skill_name(value) if skills else value
            if name not in known and not build.points.count({field: (value,)}):
                said = f"No pair has {shorten(repr(value), VALUE_CHARS)} in {field}."
                yield f"{said} {did_you_mean(name, known)}".rstrip()


def _or_skill(query: Query, sure: Sureness, ranked: RankedSkills) -> Confidence:
    """Where no pair seems to answer: that a skill does, where its document says so."""
    for name, probability in zip(ranked.names, sure.skills, strict=True):
        if name in query.skills or (probability is not None and probability >= FITTING):
            fits = "The question names" if name in query.skills else "It is likely about"
            return sure.first.model_copy(update={"reason": f"{sure.first.reason} {fits} the skill {name}."})
    return sure.first


def _calibrated(query: Query, found: Found, first: Answer, ranked: RankedSkills) -> Sureness:
    manifest, routing = query.build.bundle.manifest, found.projected.routing
    nothing = [None] * len(ranked.names)
    if query.names:
        return Sureness(_of_names(query.names, first), nothing)
    if manifest.calibration is None:
        return Sureness(NOT_CALIBRATED, nothing)
    if routing is None or not _as_calibrated(query.params, manifest):
        return Sureness(OTHER_PARAMS, nothing)
    seen = evidence(
        similarities=np.array([hit.similarity for hit in found.hits]),
        probabilities=routing.shares[0],
        clusters=np.array([hit.cluster for hit in found.hits]),
        weights=routing.weights[0],
        scores=np.array([one.score for one in found.best]),
        top=Top(
            similarity=first.similarity,
            raw_similarity=first.raw_similarity,
            lexical=first.parts.lexical,
            cluster=first.cluster,
        ),
    )
    calibration = manifest.calibration
    of_first = calibration.skill_probabilities(seen, ranked.of_first)
    sure = calibration.confidence(seen, of_first[0] if of_first else None)
    return Sureness(sure, calibration.skill_probabilities(seen, ranked.evidence) or nothing)


def _of_names(names: Sequence[str], first: Answer) -> Confidence:
    """Words decide on names, and the calibration is of questions that they do not decide on."""
    held = [name for name in names if name in first.words]
    said = ", ".join(held or names)
    reason = f"The first answer {'holds' if held else 'does not hold'} {said}."
    return Confidence(value=None, abstained=not held, reason=reason)


def _as_calibrated(params: SearchParams, manifest: Manifest) -> bool:
    own = manifest.hyperparameters.search
    return params == own or (manifest.prior == UNIFORM and params.model_copy(update={"priors": own.priors}) == own)
