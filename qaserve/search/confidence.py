"""How sure the first answer is, and when to abstain: decided here for the API, the page, the terminal and agents.

A question that is a known one but for case, spacing and punctuation has an answer, so nothing abstains on it.
"""

from collections.abc import Sequence

import numpy as np

from qaserve.builds.manifest import UNIFORM, Manifest
from qaserve.common.text import fold
from qaserve.core.calibration import Top, evidence
from qaserve.schemas.ask import Answer, Confidence
from qaserve.schemas.params import SearchParams
from qaserve.search.outcome import Found, Query

NO_MATCH = Confidence(value=None, abstained=True, reason="No pair matches the filters.")
NOT_CALIBRATED = Confidence(
    value=None, abstained=False, reason="This build has no calibration, for it has too few pairs: judge by similarity."
)
OTHER_PARAMS = Confidence(
    value=None,
    abstained=False,
    reason="The calibration holds for the parameters of the build, and these are others: judge by similarity.",
)


def confidence_of(query: Query, found: Found, answers: Sequence[Answer]) -> Confidence:
    """How sure the first of the answers is."""
    if not answers:
        return NO_MATCH
    sure = _calibrated(query, found, answers[0])
    if not found.hits or fold(found.hits[0].question) != fold(query.question):
        return sure
    return sure.model_copy(
        update={"known": True, "abstained": False, "reason": _of_known(found.hits[0].cluster_id, answers)}
    )


def _of_known(intent: str, answers: Sequence[Answer]) -> str:
    """Where the known question's own answer is."""
    rank = next((answer.rank for answer in answers if answer.cluster_id == intent), None)
    if rank is None:
        return f"Its own answer is not among the first {len(answers)}."
    return "The first answer is its own." if rank == 1 else f"Its own answer is number {rank}."


def _calibrated(query: Query, found: Found, first: Answer) -> Confidence:
    manifest = query.build.bundle.manifest
    if manifest.calibration is None:
        return NOT_CALIBRATED
    routing = found.projected.routing
    if routing is None or not _as_calibrated(query.params, manifest):
        return OTHER_PARAMS
    sure = manifest.calibration.confidence(
        evidence(
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
    )
    return sure if first.related_skills else sure.model_copy(update={"skill": None})


def _as_calibrated(params: SearchParams, manifest: Manifest) -> bool:
    own = manifest.hyperparameters.search
    return params == own or (manifest.prior == UNIFORM and params.model_copy(update={"priors": own.priors}) == own)
