"""A Markdown FAQ: a heading that ends in a question mark, or a `Q:` line, and the text below it as the answer.

The text of a question heading goes to the next question, or to the next heading that is not below it. That of a `Q:`
line begins at its `A:` line, and goes to the next question or heading. What stands in a code block is neither.

Other headings give no pair. Where text below one is in no answer, the heading is told to the report.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import IO, NamedTuple

from markdown_it import MarkdownIt

from ingest.readers.parsed import BadFileError, Heading, Opened, Parsed
from ingest.readers.shapes import BadRowError, Row
from qaserve.common.text import shorten

SUFFIXES = (".md", ".markdown")
QUESTION = re.compile(r"\W*(?:Q|Question)\b[*_ ]*[:.][*_ ]*(?P<text>.*)")
ANSWER = re.compile(r"\W*(?:A|Answer)\b[*_ ]*[:.][*_ ]*(?P<text>.*)")
LINE_END = re.compile(r"\r\n?|\n")
"""As CommonMark has it: `str.splitlines` also ends lines at characters that it does not."""
MARKS = "?？؟"
"""Question marks: Latin, of full width, Arabic."""
WORD = re.compile(r"\w")
DEEPEST = 7
SHOWN = 3
TITLE_CHARS = 80


class _Mark(NamedTuple):
    """A line at which a question begins, or the text of one ends."""

    line: int
    """0 is the first."""
    end: int
    """The first line of its text."""
    level: int
    """Of a heading, 1 … 6; 7 of a `Q:` line."""
    title: str
    asks: bool


def read(open_file: Callable[[], IO[bytes]], limit: int) -> Opened:
    """The questions of a document of at most `limit` bytes.

    Raises:
        BadFileError: It is longer, not UTF-8, or asks nothing.
    """
    with open_file() as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadFileError(f"has more than {limit:,} bytes", "Split it, or have QASERVE_MAX_LINE_BYTES raised.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadFileError(f"cannot be read: line {line}: not UTF-8 text", "Save it in UTF-8.") from error
    lines, marks = LINE_END.split(text), _marks(text)
    if not any(mark.asks for mark in marks):
        hint = "Each question is a heading that ends in `?`, or a line that begins with `Q:`, with `A:` below it."
        raise BadFileError(f"holds no question: {_why_none(marks)}", hint)
    return Opened("Markdown", _rows(lines, marks), passed_over=tuple(_passed_over(lines, marks)))


def _why_none(marks: Sequence[_Mark]) -> str:
    if not marks:
        return "it has no heading and no `Q:` line"
    shown = "; ".join(f"line {mark.line + 1}: {shorten(mark.title, TITLE_CHARS)!r}" for mark in marks[:SHOWN])
    return f"none of its headings ends in `?` ({shown}{f'; {len(marks):,} in all' if len(marks) > SHOWN else ''})"


def _end(marks: Sequence[_Mark], number: int, end: int) -> int:
    """The line at which the answer of a question ends; `end` is that of the document."""
    after = (marks[later] for later in range(number + 1, len(marks)))
    return next((one.line for one in after if one.asks or one.level <= marks[number].level), end)


def _passed_over(lines: list[str], marks: Sequence[_Mark]) -> Iterator[Heading]:
    """The headings that ask nothing, with text of their own that is in no answer: a mere title has none."""
    answered = 0
    ends = [mark.line for mark in marks[1:]] + [len(lines)]
    for number, (mark, end) in enumerate(zip(marks, ends, strict=True)):
        if mark.asks:
            answered = _end(marks, number, len(lines))
        elif mark.line >= answered and any(map(WORD.search, lines[mark.end : end])):
            yield Heading(mark.line + 1, shorten(mark.title, TITLE_CHARS))


def _rows(lines: list[str], marks: Sequence[_Mark]) -> Iterator[Parsed]:
    for number, mark in enumerate(marks):
        if not mark.asks:
            continue
        answer = lines[mark.end : _end(marks, number, len(lines))]
        if mark.level == DEEPEST:
            answer = _from_answer_line(answer)
        row: Row = {"question": mark.title, "answer": "\n".join(answer).strip("\n")}
        bad = None if row["answer"].strip() else BadRowError("answer", "missing: no text below the question")
        yield Parsed(mark.line + 1, row, bad, json.dumps(row, ensure_ascii=False).encode())


def _from_answer_line(lines: list[str]) -> list[str]:
    """The lines from the `A:` line on, without its mark."""
    for number, line in enumerate(lines):
        if found := ANSWER.fullmatch(line):
            return [found["text"], *lines[number + 1 :]]
    return []


def _marks(text: str) -> list[_Mark]:
    """Every heading and `Q:` line, in their order."""
    tokens, found, lines = MarkdownIt("commonmark").parse(text), list[_Mark](), LINE_END.split(text)
    for token, inline in pairwise(tokens):
        first, end = token.map or (0, 0)
        if token.type == "heading_open":
            title = "".join(child.content for child in inline.children or () if child.type in {"text", "code_inline"})
            asks = title.rstrip().endswith(tuple(MARKS))
            found.append(_Mark(first, end, int(token.tag[1]), title.strip(), asks))
        elif token.type == "paragraph_open":
            for line in range(first, end):
                if asked := QUESTION.fullmatch(lines[line]):
                    found.append(_Mark(line, line + 1, DEEPEST, asked["text"].strip(" *_"), asks=True))
    return found
