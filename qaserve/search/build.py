"""A build that is open for search."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.builds.bundle import Bundle
from qaserve.common.text import fold
from qaserve.core.pipeline import Pipeline
from qaserve.core.student import Student
from qaserve.schemas.builds import ClusterInfo
from qaserve.schemas.pairs import skill_name
from qaserve.schemas.params import SearchParams
from qaserve.search.library import Library
from qaserve.search.names import by_plain_name
from qaserve.store import Build, BuildMetadata, BuildRef
from qaserve.store.base import Where
from qaserve.store.points import RELATED_SKILLS

MAX_SKILLS = 10_000


class SkillTable(NamedTuple):
    """Some skills, and what is known of each before a question is asked."""

    names: list[str]
    column: Mapping[str, int]
    """Where each name stands among them."""
    counts: NDArray[np.int64]
    """(S,) pairs that name each."""
    documents: NDArray[np.intp]
    """(S,) the number of each one's document in the library, -1 where it has none."""


@dataclass(frozen=True)
class OpenBuild:
    """What the engine holds of a build."""

    points: Build
    bundle: Bundle
    sections: Build | None = None
    """Of its documents; None: it has none."""

    @property
    def metadata(self) -> BuildMetadata:
        """What it says of itself."""
        return self.points.metadata

    @property
    def ref(self) -> BuildRef:
        """Its name."""
        return self.metadata.ref

    @property
    def clusters(self) -> tuple[ClusterInfo, ...]:
        """Names and sizes of the clusters."""
        return self.bundle.manifest.clusters

    @property
    def defaults(self) -> SearchParams:
        """How it answers when neither the settings nor the question say."""
        return self.bundle.manifest.hyperparameters.search

    @cached_property
    def student(self) -> Student | None:
        """The build's student, read when it is first asked for; None where there is none."""
        info, weights = self.bundle.manifest.student, self.bundle.model.student
        return None if info is None or weights is None else Student.from_bytes(info.spec, weights)

    @cached_property
    def known_questions(self) -> dict[str, str]:
        """Every different question, folded, by its text; read when it is first asked for."""
        questions = (point.payload["question"] for point in self.points.scroll(vectors=()))
        return {question: fold(question) for question in questions}

    @cached_property
    def library(self) -> Library:
        """Its documents, read when they are first needed."""
        return Library() if self.sections is None else Library(self.sections.scroll())

    @cached_property
    def related_skills(self) -> Mapping[str, int]:
        """What pairs say in `related_skills`, and how many say each."""
        return dict(self.points.facet(RELATED_SKILLS, MAX_SKILLS))

    @cached_property
    def skill_counts(self) -> Mapping[str, int]:
        """The pairs that name each skill."""
        return _by_skill(self.related_skills)

    @cached_property
    def skills(self) -> list[str]:
        """Every skill that a pair names or that has a document, by name."""
        return sorted({*self.skill_counts, *self.library.by_skill})

    @cached_property
    def skills_by_plain_name(self) -> Mapping[str, Sequence[str]]:
        """See `qaserve.search.names.by_plain_name`."""
        return by_plain_name(self.skills)

    @cached_property
    def skill_table(self) -> SkillTable:
        """Of all skills."""
        return self._skill_table(self.skills, self.skill_counts)

    def skill_table_where(self, where: Where) -> SkillTable:
        """Of the skills that a pair which passes a filter names, and of these pairs alone."""
        counts = _by_skill(dict(self.points.facet(RELATED_SKILLS, MAX_SKILLS, where)))
        return self._skill_table(sorted(counts), counts)

    def _skill_table(self, names: list[str], counts: Mapping[str, int]) -> SkillTable:
        numbers = self.library.numbers
        return SkillTable(
            names,
            {name: number for number, name in enumerate(names)},
            np.array([counts.get(name, 0) for name in names], dtype=np.int64),
            np.array([numbers.get(name, -1) for name in names], dtype=np.intp),
        )

    def pipeline(self, params: SearchParams) -> Pipeline:
        """How it answers with these parameters."""
        model = self.bundle.model
        student = self.student if params.projection == "student" else None
        return Pipeline(params, model.bank, model.mean_questions, student, model.whitening)


def _by_skill(related_skills: Mapping[str, int]) -> Mapping[str, int]:
    """The pairs of each skill, of those that say each text in `related_skills`."""
    counts: Counter[str] = Counter()
    for said, count in related_skills.items():
        counts[skill_name(said)] += count
    del counts[""]  # of an empty text
    return counts
