"""The documents of an open build in memory: sections with their vectors, and which skill they are about."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.core.routing import Floats
from qaserve.schemas.documents import Links, Section
from qaserve.store.base import Point, unit
from qaserve.store.points import to_sections

WHEN_TO_USE = re.compile(r"^[\W\d]*(when to use|use when|when should)", re.IGNORECASE)
WHEN_CHARS = 1_000
_DESCRIPTION = re.compile(r"^description:[ \t]*(\S.*)$", re.MULTILINE)
_HEADING = re.compile(r"\A[ ]{0,3}#{1,6}(?:[ \t][^\n]*)?\n|\A[^\n]+\n[ ]{0,3}(?:=+|-+)[ \t]*\n")
_BLANK = re.compile(r"\n[ \t]*\n")


class BestSection(NamedTuple):
    """The section of a document that is nearest to a question."""

    section: Section
    similarity: float


class Document(NamedTuple):
    """A document, and which rows of the vectors are its sections'."""

    path: str
    title: str
    skill: str | None
    rows: slice


class Library:
    """All documents of a build. They are bounded when they are read: 64 MiB of text."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        """Read the points of the sections."""
        self.sections, self.vectors = to_sections(points)
        self.by_path: dict[str, Document] = {}
        start = 0
        for row, section in enumerate(self.sections):
            if row + 1 == len(self.sections) or self.sections[row + 1].path != section.path:
                own = slice(start, row + 1)
                self.by_path[section.path] = Document(section.path, section.title, section.skill, own)
                start = row + 1
        self.by_skill = {one.skill: one for one in self.by_path.values() if one.skill is not None}
        self.numbers = {one.skill: number for number, one in enumerate(self.by_path.values())}
        self.links = Links(tuple(self.by_path))

    def sections_of(self, document: Document) -> tuple[Section, ...]:
        """The sections of a document, in order."""
        return self.sections[document.rows]

    @cached_property
    def starts(self) -> list[int]:
        """Row of the first section of every document."""
        return [document.rows.start for document in self.by_path.values()]

    def similarities(self, projected: NDArray[np.floating]) -> NDArray[np.float32]:
        """(s,) cosine of a projected and whitened question (D,), of any length, to every section."""
        return np.asarray(self.vectors @ unit(projected)) if self.sections else np.empty(0, dtype=np.float32)

    def best_of_documents(self, similarities: NDArray[np.floating]) -> Floats:
        """(d + 1,) the best of `similarities` for each document, and NaN, which stands for none."""
        best = np.full(len(self.by_path) + 1, np.nan)
        if self.sections:
            best[:-1] = np.maximum.reduceat(similarities, self.starts)
        return best

    def best_section(self, skill: str, similarities: NDArray[np.floating]) -> BestSection | None:
        """The section of a skill's document with the highest of `similarities`; None without a document."""
        document = self.by_skill.get(skill)
        if document is None:
            return None
        row = document.rows.start + int(similarities[document.rows].argmax())
        return BestSection(self.sections[row], float(similarities[row]))

    @cached_property
    def when_to_use(self) -> Mapping[str, str]:
        """Of every skill with a document: the section of that name, or its description or first paragraph."""
        return {skill: self._when(self.sections_of(document)) for skill, document in self.by_skill.items()}

    def _when(self, sections: Sequence[Section]) -> str:
        named = next((one for one in sections if WHEN_TO_USE.match(one.name)), None)
        if named is not None:
            return _cut(_body(named))
        if not sections[0].headings:
            said = _DESCRIPTION.search(sections[0].text)
            if said is not None:
                return _cut(said[1].strip().strip("\"'"))
        texts = (_body(one) for one in sections if one.headings or not one.text.startswith("---"))
        paragraphs = (_BLANK.split(text)[0] for text in texts)
        return _cut(next((text for text in paragraphs if text), ""))


def _body(section: Section) -> str:
    """The text of a section without its own heading."""
    text = section.text.replace("\r\n", "\n").strip("\n")
    return (_HEADING.sub("", text + "\n", count=1) if section.headings else text).strip()


def _cut(text: str) -> str:
    return text if len(text) <= WHEN_CHARS else f"{text[: WHEN_CHARS - 1].rstrip()}…"
