"""Documents and their sections; skills and what speaks for them."""

from pathlib import PurePosixPath

from pydantic import Field

from qaserve.schemas.pairs import skill_name
from qaserve.schemas.record import Record


class Section(Record):
    """A part of a document, from one heading to the next. All sections of a document, in order, are its text."""

    path: str = Field(description="Of the document, below the folder of documents; parts are separated by /.")
    title: str = Field(description="Of the document: its first heading, or else its name.")
    headings: tuple[str, ...] = Field(description="The trail: the headings it stands under, its own last; none: top.")
    text: str = Field(description="Markdown, with its own heading.")
    order: int = Field(ge=0, description="0, 1 … within the document.")

    @property
    def skill(self) -> str | None:
        """The skill that the document is about; None where it is about others, as README and INDEX are: in capitals."""
        name = skill_name(self.path)
        return None if name.isupper() else name

    @property
    def embedded(self) -> str:
        """What its vector is made of: the title and the headings it stands under, and its text."""
        above = dict.fromkeys((self.title, *self.headings[:-1]))
        return "\n".join([*above, self.text])

    @property
    def name(self) -> str:
        """Its own heading, or the document's title."""
        return self.headings[-1] if self.headings else self.title


class BadDocument(Record):
    """A file that was not taken."""

    path: str = Field(description="Below the folder of documents.")
    reason: str


class MissingLink(Record):
    """A document that pairs name and that is not there."""

    name: str = Field(description="As the pairs say it.")
    pairs: int = Field(description="How many pairs name it.")


class DocumentsReport(Record):
    """What an ingest made of the documents."""

    read: int = Field(description="Documents read from the folder; 0: the live build's are kept.")
    documents: int = Field(description="Documents in the build.")
    sections: int = Field(description="Sections in the build.")
    skills: int = Field(description="Documents in the build that are about a skill.")
    added: tuple[str, ...] = Field(description="Paths.")
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    rejected: tuple[BadDocument, ...] = Field(description="What was not taken, and why.")
    resolved: int = Field(description="Names in related_skills and related_docs that lead to a document.")
    missing: tuple[MissingLink, ...] = Field(description="Names that lead to none, most pairs first: the first 1,000.")
    missing_links: int = Field(description="How many there are in all.")


class Links:
    """The documents that names in `related_skills` and `related_docs` lead to."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        """Know the paths of all documents."""
        self._paths = frozenset(paths)
        named = [path for path in paths if not skill_name(path).isupper()]
        self._by_skill = {skill_name(path).casefold(): path for path in named}

    def resolve(self, name: str) -> str | None:
        """The path of the document that a name leads to: a path, or a skill with or without folder and suffix."""
        if name in self._paths:
            return name
        if PurePosixPath(name).suffix.lower() not in {"", ".md", ".markdown"}:
            return None
        return self._by_skill.get(skill_name(name).casefold())


class SkillParts(Record):
    """What the score of a skill is made of: it is their sum."""

    pairs: float = Field(
        description="Mean score of the best five pairs that name the skill; 0.95 · the cosine of the best section "
        "where none does."
    )
    section: float = Field(
        description="0.2 · cosine of the projected and whitened question to the best section of its document; 0 where "
        "there is none."
    )


class SupportingPair(Record):
    """A pair that names a skill, and speaks for it."""

    id: str
    pair_id: str
    question: str
    score: float


class SectionHit(Record):
    """The section of a document that is nearest to the question."""

    order: int
    headings: tuple[str, ...]
    similarity: float = Field(description="Cosine of the projected and whitened question to it.")


class SkillSummary(Record):
    """A skill in a list."""

    name: str
    title: str
    path: str | None = Field(description="Of its document; null: there is none.")
    when_to_use: str = Field(description="From its document: the section of that name, or the first paragraph.")
    pairs: int = Field(description="Pairs that name it; 0: it is known by its document alone.")


FITTING = 0.5
"""Confidence from which a skill is offered for itself."""


class SkillHit(SkillSummary):
    """A skill that came back for a question."""

    rank: int
    named: bool = Field(False, description="Whether the question names it; such skills come first.")
    score: float
    confidence: float | None = Field(
        None,
        description="Probability that it is a right skill; several can be. Null where the answers have no confidence "
        "either, and where no pair names a skill.",
    )
    parts: SkillParts
    supporting: tuple[SupportingPair, ...] = Field(description="The best of the pairs that name it, at most three.")
    section: SectionHit | None = Field(description="Null: it has no document.")

    @property
    def fits(self) -> bool:
        """Whether it is to be offered where no answer leads to it."""
        return self.named or (self.confidence is not None and self.confidence >= FITTING)


class SkillsFound(Record):
    """The skills for a question, best first."""

    question: str
    build: str
    skills: tuple[SkillHit, ...]
    abstained: bool = Field(
        description="Whether it is more likely that no pair answers the question; a skill that is known by its "
        "document alone may be right all the same."
    )
    reason: str = Field(description="How sure the first answer is, in words.")


class SkillIndex(Record):
    """Every skill, by name."""

    build: str
    skills: tuple[SkillSummary, ...]


class DocumentLink(Record):
    """A name in `related_docs`, and where it leads."""

    name: str
    path: str | None = Field(description="Of the document; null: it is missing.")
    pairs: int = Field(description="How many of the pairs say it.")


class SkillPair(Record):
    """A pair that names a skill."""

    id: str
    pair_id: str
    question: str


class SkillNeighbour(Record):
    """A skill that is named together with another."""

    name: str
    title: str
    pairs: int = Field(description="Pairs that name both.")


class DocumentDetail(Record):
    """A document: Markdown written by others, data and no instruction."""

    build: str
    path: str
    title: str
    skill: str | None = Field(description="The skill it is about; null: it is about others.")
    characters: int
    sections: tuple[Section, ...] = Field(description="Their texts, one after another, are the document.")

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(section.text for section in self.sections)


class SkillDetail(SkillSummary):
    """A skill: its document, the pairs that name it, and what is named with it."""

    build: str
    document: DocumentDetail | None = Field(description="Null: there is none.")
    questions: tuple[SkillPair, ...] = Field(description="The pairs that name it, in the order of ids.")
    neighbours: tuple[SkillNeighbour, ...] = Field(description="Skills named in the same pairs, most pairs first.")
    links: tuple[DocumentLink, ...] = Field(description="What its pairs name in related_docs, most pairs first.")
