"""Question/answer pairs."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field

from qaserve.common.text import digest, shorten
from qaserve.schemas.record import Record

PAIRS_NAMED = 3
ID_CHARS = 80


class AuthorNote(Record):
    """What the author said of the answer's text; it says nothing of how well a question finds it."""

    confidence: float | None = Field(None, description="0 to 1: how sure the author was of the answer.")
    confidence_issues: str | None = Field(None, description="What the author doubted.")
    manually_reviewed: bool | None = Field(None, description="Whether a person looked at it.")


class Pair(Record):
    """One question with one answer, as a reader made it. `extra` holds the fields that only its source knows."""

    pair_id: str
    cluster_id: str = Field(description="The author's intent label; not the model's cluster.")
    question: str
    answer: str
    question_type: str | None = None
    topics: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    related_skills: tuple[str, ...] = ()
    related_docs: tuple[str, ...] = ()
    source_file: str
    extra: dict[str, Any] = Field(default_factory=dict)

    @property
    def intent(self) -> str:
        """The author's intent: pairs of one intent have one answer in different words."""
        return self.cluster_id

    @property
    def author(self) -> AuthorNote | None:
        """What the source says in the fields of `AuthorNote`, without what is of another kind; None: nothing."""
        kinds: dict[str, type | tuple[type, ...]] = {
            "confidence": (int, float),
            "confidence_issues": str,
            "manually_reviewed": bool,
        }
        said = {name: self.extra.get(name) for name in kinds}
        fits = {name: value for name, value in said.items() if isinstance(value, kinds[name]) and value != ""}
        if isinstance(fits.get("confidence"), bool):
            del fits["confidence"]
        return AuthorNote.model_validate(fits) if fits else None

    @property
    def content_hash(self) -> str:
        """Hash of the two texts that are embedded: equal hash and equal encoder mean equal vectors."""
        return digest(self.question, self.answer)


@lru_cache(maxsize=10_000)
def skill_name(path: str) -> str:
    """The name of the skill that a path stands for: that of the file, or of the folder where the file is SKILL.md."""
    file = PurePosixPath(path)
    return file.parent.name if file.stem == "SKILL" and file.parent.name else file.stem


@lru_cache(maxsize=10_000)
def skill_names(paths: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the skills that some paths stand for, each once."""
    return tuple(dict.fromkeys(filter(None, map(skill_name, paths))))


class TopicText(Record):
    """How what a pair says it is about becomes one short text, whose vector is the pair's topic."""

    fields: tuple[Literal["topics", "tags", "related_skills"], ...] = ("topics", "tags", "related_skills")
    separator: str = ", "

    def of(self, pair: Pair) -> str:
        """Each value once, skills without path and suffix; empty where the pair has none."""
        found: dict[str, str] = {}
        for field in self.fields:
            for value in getattr(pair, field):
                name = skill_name(value) if field == "related_skills" else value
                spaced = " ".join(name.replace("_", " ").replace("-", " ").split())
                found.setdefault(spaced.casefold(), spaced)
        return self.separator.join(text for text in found.values() if text)


def pairs_of_intent(pair_ids: Iterable[str]) -> str:
    """What to say to someone who gave the id of an intent for that of a pair; "" where no pair is of such an intent."""
    ids = sorted(set(pair_ids))
    named = ", ".join(shorten(one, ID_CHARS) for one in ids[:PAIRS_NAMED])
    more = f" and {len(ids) - PAIRS_NAMED:,} more" if len(ids) > PAIRS_NAMED else ""
    return f"That is the id of an intent (`cluster_id`), with the pairs {named}{more}." if ids else ""


class StoredPair(Record):
    """A pair as a build holds it."""

    id: str = Field(description="Id of the point: unique, unlike pair_id.")
    pair: Pair
    cluster: int = Field(description="The model's cluster, 0 … K-1.")
    prior: float = Field(1.0, gt=0, description="Importance in the routing softmax.")


class PairsFound(Record):
    """The pairs that an id names; several where a pair_id is not unique."""

    build: str
    pairs: tuple[StoredPair, ...]
