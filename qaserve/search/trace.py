"""Why the answers are what they are: what an engine found, said as a trace, and how sure the first answer is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qaserve.builds.bundle import Bundle
from qaserve.builds.manifest import UNIFORM, Manifest
from qaserve.core.calibration import Top, evidence
from qaserve.core.routing import Floats, normalized_entropy
from qaserve.core.student import Student
from qaserve.schemas.ask import Answer, ClusterVote, Confidence, Excluded, Filters, Hit, RawAnswer, Timings, Trace
from qaserve.schemas.builds import ClusterInfo
from qaserve.schemas.pairs import StoredPair
from qaserve.schemas.params import Defaults
from qaserve.store.points import AnswerHit, QuestionHit
from qaserve.store.qdrant import CollectionInfo

NOT_CALIBRATED = Confidence(
    value=None, abstained=False, reason="This build has no calibration, for it has too few pairs: judge by similarity."
)
Pairs = Mapping[str, tuple[StoredPair, NDArray[np.float32]]]
"""Pairs by the id of their point, each with its (D,) answer vector."""
NO_MATCH = Confidence(value=None, abstained=True, reason="No pair matches the filters.")
OTHER_OPTIONS = Confidence(
    value=None,
    abstained=False,
    reason="The calibration holds for the options that the build chose, and these are others: judge by similarity.",
)


class Options(Defaults):
    """How a question is answered: what the build says, as the settings and the question change it."""

    priors: bool = True

    def are_of(self, manifest: Manifest) -> bool:
        """Whether a build answers so when nobody says otherwise."""
        own = Options.model_validate(manifest.defaults.model_dump())
        return self == own or (manifest.prior == UNIFORM and self.model_copy(update={"priors": True}) == own)


@dataclass(frozen=True)
class LiveBuild:
    """What the engine holds of the live build."""

    info: CollectionInfo
    bundle: Bundle

    @property
    def clusters(self) -> tuple[ClusterInfo, ...]:
        """Names and sizes of the clusters."""
        return self.bundle.manifest.clusters

    @cached_property
    def student(self) -> Student | None:
        """The build's student, read when it is first asked for; None where there is none."""
        info, weights = self.bundle.manifest.student, self.bundle.model.student
        return None if info is None or weights is None else Student.from_bytes(info.spec, weights)


@dataclass(frozen=True)
class Route:
    """Outcome of routing: who voted, and what each cluster weighs."""

    hits: list[QuestionHit]
    probabilities: Floats
    votes: Floats | None
    """(K,) sums of the hits' probabilities; None with centroid routing."""
    weights: Floats
    """(K,) what the projections are blended with."""
    similarities: Floats | None
    """(K,) cosine to the mean questions; None with question routing."""


def confidence_of(
    how: Options, route: Route, scores: Sequence[float], answers: Sequence[Answer], live: LiveBuild
) -> Confidence:
    """How sure the first answer is; only where it was asked for in the way that the build was calibrated for.

    Args:
        how: The options that it was asked with.
        route: Who voted.
        scores: Of the first intents, best first, also of those that are not shown.
        answers: What is shown.
        live: The build.
    """
    manifest = live.bundle.manifest
    if not answers:
        return NO_MATCH
    if manifest.calibration is None:
        return NOT_CALIBRATED
    if not how.are_of(manifest):
        return OTHER_OPTIONS
    first = answers[0]
    return manifest.calibration.confidence(
        evidence(
            similarities=np.array([hit.similarity for hit in route.hits]),
            probabilities=route.probabilities,
            clusters=np.array([hit.cluster for hit in route.hits]),
            weights=route.weights,
            scores=np.array(scores),
            top=Top(
                similarity=first.similarity,
                raw_similarity=first.raw_similarity,
                lexical=first.parts.lexical,
                cluster=first.cluster,
            ),
        )
    )


def trace_of(
    how: Options,
    route: Route,
    live: LiveBuild,
    *,
    filters: Filters,
    projected_similarity: float,
    raw: Sequence[RawAnswer],
    excluded: Sequence[Excluded],
    timings: Timings,
) -> Trace:
    """Everything that led to the answers, enough to compute them again from the build."""
    hits = tuple(
        Hit(
            id=hit.id,
            pair_id=hit.pair_id,
            question=hit.question,
            similarity=hit.similarity,
            prior=hit.prior,
            probability=float(probability),
            cluster=hit.cluster,
        )
        for hit, probability in zip(route.hits, route.probabilities, strict=True)
    )
    return Trace(
        routing=how.routing,
        projection=how.projection,
        temperature=how.temperature,
        final_temperature=how.final_temperature if how.routing == "question2" else None,
        lexical_weight=how.lexical_weight,
        priors=how.priors,
        entropy=normalized_entropy(route.weights),
        hits=hits,
        clusters=_cluster_votes(route, live),
        projected_similarity=projected_similarity,
        filters=filters,
        raw_answers=tuple(raw),
        excluded=tuple(excluded),
        timings_ms=timings,
    )


def _cluster_votes(route: Route, live: LiveBuild) -> tuple[ClusterVote, ...]:
    counts = np.bincount(np.array([hit.cluster for hit in route.hits], dtype=np.intp), minlength=len(live.clusters))
    order = np.argsort(-route.weights, kind="stable")
    return tuple(
        ClusterVote(
            cluster=int(k),
            name=live.clusters[k].name,
            weight=float(route.weights[k]),
            hits=int(counts[k]),
            vote=None if route.votes is None else float(route.votes[k]),
            similarity=None if route.similarities is None else float(route.similarities[k]),
        )
        for k in order[: np.count_nonzero(route.weights)]
    )


@dataclass(frozen=True)
class Expected:
    """Answers that one might expect: where a plain search looks first, and where the known questions point."""

    near: Sequence[AnswerHit]
    """First in a plain search of everything, whatever is filtered."""
    voters: Sequence[QuestionHit]
    """The known questions that voted most."""

    @property
    def ids(self) -> list[str]:
        """Ids of the points."""
        return list(dict.fromkeys([*(hit.id for hit in self.near), *(hit.id for hit in self.voters)]))

    def excluded(
        self,
        answers: Sequence[Answer],
        pairs: Pairs,
        query: Floats,
        projected: Floats,
        filters: Filters,
    ) -> list[Excluded]:
        """Those that did not come back, and what kept them out; an intent that came back by another pair did.

        Args:
            answers: What came back.
            pairs: The expected pairs by id, each with its answer vector.
            query: (D,) question.
            projected: (D,) the same, moved.
            filters: What was filtered.
        """
        told = {answer.cluster_id for answer in answers}
        near, farthest = {hit.id for hit in self.near}, min((answer.similarity for answer in answers), default=1.0)
        found = []
        for point in self.ids:
            if point not in pairs or pairs[point][0].pair.cluster_id in told:
                continue
            stored, vector = pairs[point]
            told.add(stored.pair.cluster_id)
            similarity = cosine(projected, vector)
            by: Literal["filter", "similarity", "routing", "words"] = "similarity"
            if not matches(filters, stored):
                by = "filter"
            elif similarity >= farthest:
                by = "words"
            elif point in near:
                by = "routing"
            found.append(
                Excluded(
                    id=point,
                    pair_id=stored.pair.pair_id,
                    cluster_id=stored.pair.cluster_id,
                    question=stored.pair.question,
                    raw_similarity=cosine(query, vector),
                    similarity=similarity,
                    by=by,
                )
            )
        return found


def matches(filters: Filters, stored: StoredPair) -> bool:
    """Whether a pair passes, as Qdrant decides it."""
    for field, wanted in filters.given.items():
        value = stored.cluster if field == "cluster" else getattr(stored.pair, field)
        if not set(value if isinstance(value, tuple) else (value,)) & set(wanted):
            return False
    return True


def cosine(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Cosine of two (D,) vectors; 0 where one of them is 0."""
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(np.clip(x @ y / lengths, -1.0, 1.0)) if lengths > 0 else 0.0
