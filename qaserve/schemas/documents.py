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
