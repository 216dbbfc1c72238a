"""How skills look in a terminal, and as an index in Markdown. Everything from a corpus is printed as plain text."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from qaserve.common.text import one_line, shorten

if TYPE_CHECKING:
    from qaserve.schemas.documents import DocumentDetail, SkillDetail, SkillIndex

DIM = "dim"
QUESTIONS_SHOWN = 10
INDEX_CHARS = 400


def show_skill(console: Console, skill: "SkillDetail") -> None:
    """A skill: its document, what it answers, and what is named with it."""
    console.print(Text.assemble((skill.title, "bold"), (f"  {skill.name}", DIM)))
    if skill.document is None:
        console.print(Text("It has no document in this build.", style="yellow"))
    else:
        console.print(Text(f"{skill.document.path} · {skill.document.characters:,} characters\n", style=DIM))
        console.print(Markdown(_markdown_of(skill.document), hyperlinks=False))
    console.print()
    for line in _about(skill):
        console.print(line)


def _markdown_of(document: "DocumentDetail") -> str:
    """The document; front matter as a block of code, which it is not to Markdown."""
    first, rest = document.sections[0], document.sections[1:]
    if first.headings or not first.text.startswith("---"):
        return document.text
    return "".join([f"```yaml\n{first.text}\n```\n", *(section.text for section in rest)])


def _about(skill: "SkillDetail") -> Iterator[Text]:
    yield Text(f"{skill.pairs:,} pairs name it" if skill.pairs else "No pair names it.", style="bold")
    for pair in skill.questions[:QUESTIONS_SHOWN]:
        yield Text(f"  {shorten(pair.question, 120)}")
    if len(skill.questions) > QUESTIONS_SHOWN:
        yield Text(f"  … and {len(skill.questions) - QUESTIONS_SHOWN:,} more", style=DIM)
    if skill.neighbours:
        yield Text("Named together with", style="bold")
        yield Text("  " + ", ".join(f"{other.name} ({other.pairs})" for other in skill.neighbours))
    if skill.links:
        yield Text("Its pairs name these documents", style="bold")
    for link in skill.links[:QUESTIONS_SHOWN]:
        yield Text(f"  {link.name}" + ("" if link.path else " (missing)"), style="" if link.path else DIM)


def show_skills(console: Console, index: "SkillIndex") -> None:
    """Every skill in a line."""
    table = Table(box=None, pad_edge=False, header_style=DIM, expand=True)
    for title, ratio in (("skill", None), ("pairs", None), ("when to use", 1)):
        table.add_column(title, no_wrap=True, overflow="ellipsis", ratio=ratio)
    for skill in index.skills:
        table.add_row(Text(skill.name), f"{skill.pairs:,}", Text(one_line(skill.when_to_use or skill.title, 200)))
    console.print(table)


def markdown_index(index: "SkillIndex") -> str:
    """One list in Markdown: name, title and when to use."""
    lines = [f"# Skills\n\n{len(index.skills)} skills, of build {index.build}.\n"]
    for skill in index.skills:
        when = one_line(skill.when_to_use, INDEX_CHARS)
        lines.append(f"- **{skill.name}** ({skill.title}){f': {when}' if when else ''}")
    return "\n".join(lines) + "\n"
