"""What a question is inside the engine: checked and resolved, then searched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qaserve.core.pipeline import Neighbors, Projected
from qaserve.core.routing import Floats
from qaserve.schemas.ask import AskRequest, AskResult, Filters
from qaserve.schemas.pairs import StoredPair, skill_name
from qaserve.schemas.params import SearchParams
from qaserve.search.build import OpenBuild
from qaserve.search.ranking import RankedIntent
from qaserve.store.points import QuestionHit

Pairs = Mapping[str, tuple[StoredPair, NDArray[np.float32]]]
"""Pairs by the id of their point, each with its (D,) answer vector."""


@dataclass(frozen=True)
class Query:
    """A question that was checked, with the build that answers it and how."""

    question: str
    request: AskRequest
    build: OpenBuild
    params: SearchParams
    names: tuple[str, ...] = ()
    """Rare names that the question is mainly made of; words then weigh `qaserve.search.names.WEIGHT`."""
    skills: frozenset[str] = frozenset()
    """Skills that the question names."""

    @cached_property
    def filters(self) -> Filters:
        """What is filtered by; a skill in every way that pairs spell it."""
        asked = self.request.filters
        if not asked.related_skills:
            return asked
        wanted = set(map(skill_name, asked.related_skills))
        more = [said for said in self.build.related_skills if skill_name(said) in wanted]
        return asked.model_copy(update={"related_skills": tuple(dict.fromkeys((*asked.related_skills, *more)))})


@dataclass(frozen=True)
class Found:
    """What a search found, before it is told."""

    vector: Floats
    """(D,) the question."""
    hits: Sequence[QuestionHit]
    """Who voted."""
    projected: Projected
    """Of one question, m = 1."""
    best: Sequence[RankedIntent]
    """The first intents."""
    known: frozenset[str]
    """Ids of the pairs that ask this very question, but for case, spacing and punctuation."""


@dataclass(frozen=True)
class Outcome:
    """A result, and the vectors that led to it."""

    result: AskResult
    query: Query
    found: Found


def neighbors_of(hits: Sequence[QuestionHit], dimension: int) -> Neighbors:
    """Hits of one question as a batch of one; with vectors (N, D) where they were read."""
    count = len(hits)
    vectors = [hit.vectors for hit in hits if hit.vectors is not None]
    questions, answers = (
        (np.array(part, dtype=np.float64) for part in zip(*vectors, strict=True))
        if vectors
        else (np.empty((0, dimension)),) * 2
    )
    return Neighbors(
        similarities=np.array([[hit.similarity for hit in hits]], dtype=np.float64).reshape(1, count),
        clusters=np.array([[hit.cluster for hit in hits]], dtype=np.intp).reshape(1, count),
        priors=np.array([[hit.prior for hit in hits]], dtype=np.float64).reshape(1, count),
        rows=np.arange(count)[None, :],
        vectors=(questions, answers),
    )
