"""Skills: ranked for a question, listed, and handed over. Formulas: `qaserve.core.skills`.

**Candidates.** The ranking of answers reads the best 64 pairs, or more, by each part of the score
(`search/ranking.py`); skills are ranked over these pairs. A pair beyond them scores at most what the last of them does
in every part, and counts as the lowest of them, so a skill is ranked as over all pairs but where the last of its five
are beyond. The sections of all documents are compared. With filters only skills count that a pair that passes names.
A skill that the question names comes before the others.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.common.errors import NotFoundError
from qaserve.common.text import did_you_mean, shorten
from qaserve.core.routing import Floats
from qaserve.core.skills import SkillScores, skill_evidence, skill_scores
from qaserve.schemas.ask import AskResult
from qaserve.schemas.documents import (
    DocumentDetail,
    DocumentLink,
    SectionHit,
    SkillDetail,
    SkillHit,
    SkillIndex,
    SkillNeighbour,
    SkillPair,
    SkillParts,
    SkillsFound,
    SkillSummary,
    SupportingPair,
)
from qaserve.schemas.pairs import skill_name, skill_names
from qaserve.search.build import OpenBuild
from qaserve.search.library import Document
from qaserve.search.outcome import Query
from qaserve.search.ranking import Ranked, ScoredPair
from qaserve.store.points import to_pair

SUPPORTING = 3
"""Pairs that are shown for a skill."""
NEIGHBOURS = 10


class RankedSkills(NamedTuple):
    """The first skills for a question, before they are told."""

    names: list[str]
    scores: SkillScores
    """Of these alone, (1, S)."""
    similarities: NDArray[np.float32]
    """(s,) cosine of the projected and whitened question to every section."""
    evidence: Floats
    """(S, 3) see `qaserve.core.skills.skill_evidence`."""
    of_first: Floats
    """(1, 3) the same of the skill that the first answer names first; (0, 3) where it names none."""
    supporting: list[list[ScoredPair]]
    """The best pairs of each."""


def rank_skills(query: Query, found: Ranked, projected: NDArray[np.floating]) -> RankedSkills:
    """The first skills, those that the question names before others, equal scores in the order of names.

    Args:
        query: What is asked. With filters only skills that a pair which passes names may come back, and only such pairs
            count.
        found: The first answers, and the candidates with their scores.
        projected: (D,) projected and whitened question, of any length.
    """
    build, filters = query.build, query.filters
    pairs = found.pairs
    named = [skill_names(pair.skills) for pair in pairs]
    table = build.skill_table_where(filters.given) if filters else build.skill_table
    names, column = table.names, table.column
    is_named = np.zeros((len(pairs), len(names)), dtype=bool)
    cells = [(row, column[name]) for row, skills in enumerate(named) for name in skills if name in column]
    is_named[tuple(np.array(cells, dtype=np.intp).reshape(-1, 2).T)] = True
    similarities = build.library.similarities(projected)
    sections = build.library.best_of_documents(similarities)[table.documents]
    scores = skill_scores(np.array([[pair.score for pair in pairs]]), is_named, table.counts, sections[None, :])
    others = np.array([name not in query.skills for name in names], dtype=bool)
    first = np.lexsort((-scores.total[0], others))[: query.request.top_k]
    first_named = skill_names(found.intents[0].best.skills) if found.intents else ()
    own = np.array([column[name] for name in first_named[:1] if name in column], dtype=np.intp)
    return RankedSkills(
        [names[one] for one in first],
        SkillScores(*(part[:, first] for part in scores)),
        similarities,
        skill_evidence(scores.pairs[0], first, np.array([names[one] in first_named for one in first], dtype=bool)),
        skill_evidence(scores.pairs[0], own, np.ones(len(own), dtype=bool)),
        [[pairs[row] for row in np.flatnonzero(is_named[:, one])[:SUPPORTING].tolist()] for one in first],
    )


def skills_of(query: Query, ranked: RankedSkills, confidences: Sequence[float | None]) -> tuple[SkillHit, ...]:
    """The skills as they are told, each with its confidence."""
    build = query.build
    return tuple(
        SkillHit(
            **dict(summary(build, name)),
            rank=number + 1,
            named=name in query.skills,
            score=float(ranked.scores.total[0, number]),
            confidence=confidence,
            parts=SkillParts(
                pairs=float(ranked.scores.pairs[0, number]), section=float(ranked.scores.section[0, number])
            ),
            supporting=tuple(
                SupportingPair(id=one.id, pair_id=one.pair_id, question=one.question, score=one.score)
                for one in supporting
            ),
            section=_section_hit(build, name, ranked.similarities),
        )
        for number, (name, confidence, supporting) in enumerate(
            zip(ranked.names, confidences, ranked.supporting, strict=True)
        )
    )


def _section_hit(build: OpenBuild, name: str, similarities: NDArray[np.float32]) -> SectionHit | None:
    best = build.library.best_section(name, similarities)
    if best is None:
        return None
    section, similarity = best
    return SectionHit(order=section.order, headings=section.headings, similarity=similarity)


def found_for(result: AskResult) -> SkillsFound:
    """The skills of an answered question, alone."""
    return SkillsFound(
        question=result.question,
        build=result.build,
        skills=result.skills,
        abstained=result.confidence.abstained,
        reason=result.confidence.reason,
    )


# What there is


def summary(build: OpenBuild, name: str) -> SkillSummary:
    """A skill in a list."""
    document = build.library.by_skill.get(name)
    return SkillSummary(
        name=name,
        title=name if document is None else document.title,
        path=None if document is None else document.path,
        when_to_use=build.library.when_to_use.get(name, ""),
        pairs=build.skill_counts.get(name, 0),
    )


def index(build: OpenBuild) -> SkillIndex:
    """Every skill that a pair names or that has a document, by name."""
    return SkillIndex(build=build.ref.build, skills=tuple(summary(build, name) for name in build.skills))


def skill(build: OpenBuild, name: str) -> SkillDetail:
    """A skill with its document, pairs and neighbours. Raises NotFoundError where there is none of that name."""
    known = {one.casefold(): one for one in build.skills}
    own = known.get(skill_name(name).casefold())
    if own is None:
        raise NotFoundError(
            f"no skill {shorten(name, 80)!r} in build {build.ref.build}",
            hint=did_you_mean(skill_name(name), build.skills) or "List the skills to see every name.",
        )
    said = [raw for raw in build.related_skills if skill_name(raw) == own]
    pairs = [to_pair(point) for point in build.points.scroll({"related_skills": said}, vectors=())] if said else []
    document = build.library.by_skill.get(own)
    together = Counter(other for stored in pairs for other in set(map(skill_name, stored.pair.related_skills)) - {own})
    documents = Counter(link for stored in pairs for link in set(stored.pair.related_docs))
    return SkillDetail(
        **dict(summary(build, own)),
        build=build.ref.build,
        document=None if document is None else _detail(build, document),
        questions=tuple(SkillPair(id=one.id, **one.pair.model_dump(include={"pair_id", "question"})) for one in pairs),
        neighbours=tuple(
            SkillNeighbour(name=other, title=summary(build, other).title, pairs=count)
            for other, count in _most(together)[:NEIGHBOURS]
        ),
        links=tuple(
            DocumentLink(name=link, path=build.library.links.resolve(link), pairs=count)
            for link, count in _most(documents)
        ),
    )


def document(build: OpenBuild, path: str) -> DocumentDetail:
    """A document of the build, by its path there; no file is read. Raises NotFoundError where there is none."""
    found = build.library.by_path.get(path)
    if found is None:
        raise NotFoundError(
            f"no document {shorten(path, 80)!r} in build {build.ref.build}",
            hint=did_you_mean(path, build.library.by_path) or "GET /v1/skill-index lists the documents of skills.",
        )
    return _detail(build, found)


def _detail(build: OpenBuild, found: Document) -> DocumentDetail:
    sections = build.library.sections_of(found)
    return DocumentDetail(
        build=build.ref.build,
        path=found.path,
        title=found.title,
        skill=found.skill,
        characters=sum(len(section.text) for section in sections),
        sections=sections,
    )


def _most(counted: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counted.items(), key=lambda one: (-one[1], one[0]))
