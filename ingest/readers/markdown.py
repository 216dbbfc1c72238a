"""A Markdown FAQ: a heading that ends in a question mark, or a `Q:` line, and the text below it as the answer.

The text of a question heading goes to the next question, or to the next heading that is not below it. That of a `Q:`
line begins at its `A:` line, and goes to the next question or heading. What stands in a code block is neither.
"""

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import IO, NamedTuple

from markdown_it import MarkdownIt

from ingest.readers.parsed import BadFileError, Opened, Parsed
from ingest.readers.shapes import BadRowError, Row

SUFFIXES = (".md", ".markdown")
QUESTION = re.compile(r"\W*(?:Q|Question)\b[*_ ]*[:.][*_ ]*(?P<text>.*)")
ANSWER = re.compile(r"\W*(?:A|Answer)\b[*_ ]*[:.][*_ ]*(?P<text>.*)")
LINE_END = re.compile(r"\r\n?|\n")
"""As CommonMark has it: `str.splitlines` also ends lines at characters that it does not."""
MARKS = "?？؟"
"""Question marks: Latin, of full width, Arabic."""
DEEPEST = 7


class _Mark(NamedTuple):
    """A line at which a question begins, or the text of one ends."""

    line: int
    """0 is the first."""
    end: int
    """The first line of its text."""
    level: int
    """Of a heading, 1 … 6; 7 of a `Q:` line."""
    question: str | None


def read(open_file: Callable[[], IO[bytes]], limit: int) -> Opened:
    """The questions of a document of at most `limit` bytes. Raises BadFileError: it is longer, or not UTF-8."""
    with open_file() as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadFileError(f"has more than {limit:,} bytes", "Split it, or have QASERVE_MAX_LINE_BYTES raised.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadFileError(f"cannot be read: line {line}: not UTF-8 text", "Save it in UTF-8.") from error
    return Opened("Markdown", _rows(text))


def _rows(text: str) -> Iterator[Parsed]:
    lines, marks = LINE_END.split(text), _marks(text)
    if not any(mark.question for mark in marks):
        hint = "Each question is a heading that ends in `?`, or a line that begins with `Q:`, with `A:` below it."
        raise BadFileError("holds no question", hint)
    for number, mark in enumerate(marks):
        if mark.question is None:
            continue
        after = (one.line for one in marks[number + 1 :] if one.question is not None or one.level <= mark.level)
        answer = lines[mark.end : next(after, len(lines))]
        if mark.level == DEEPEST:
            answer = _from_answer_line(answer)
        row: Row = {"question": mark.question, "answer": "\n".join(answer).strip("\n")}
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
            question = title.strip() if title.rstrip().endswith(tuple(MARKS)) else None
            found.append(_Mark(first, end, int(token.tag[1]), question))
        elif token.type == "paragraph_open":
            for line in range(first, end):
                if asked := QUESTION.fullmatch(lines[line]):
                    found.append(_Mark(line, line + 1, DEEPEST, asked["text"].strip(" *_")))
    return found
