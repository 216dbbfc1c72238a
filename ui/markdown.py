"""Answers are text from strangers: what of their Markdown reaches the page, and how.

Streamlit escapes HTML by itself. What is left to take away is whatever loads from elsewhere (images), and what
Streamlit adds to Markdown and corpus text does not mean: $formulas$, :colour[directives] and :emoji_codes:. A link says
where it leads.
"""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.common.utils import unescapeAll

MAX_CHARS = 20_000

_PARSER = MarkdownIt("commonmark")
_DIRECTIVE = re.compile(r":(?=[\w+-]+(?:\[|:|/))")
_EMOJI = re.compile(r"(?<![\w:])(\\?):(?=[\w+/-]+\\?:)")
_JOINER = "\u2060"
"""Keeps a colon and a word apart and cannot be seen: an escape is undone before codes of emoji and icons are found."""
_CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_DESTINATION = re.compile(r"\]\(\s*<?\s*([^\s<>()]+)")
_DEFINITION = re.compile(r"^(\s*(?:[>*+-]\s*)*)\[(?=[^\]]+\]:)", re.MULTILINE)
_LANGUAGE = re.compile(r"^[A-Za-z0-9+#_-]{1,24}")


class Block(NamedTuple):
    """A part of an answer: Markdown, or the text of a fenced code block."""

    text: str
    language: str | None
    """None for Markdown; "" for code that does not say what it is."""


def blocks(text: str) -> list[Block]:
    """Markdown split into safe Markdown and code; a text over the limit is cut, and says so."""
    cut = text[:MAX_CHARS]
    lines = cut.splitlines()
    parts: list[Block] = []
    start = 0
    for token in _PARSER.parse(cut):
        if token.type != "fence" or token.level != 0 or token.map is None:
            continue
        _add_markdown(parts, lines[start : token.map[0]])
        language = _LANGUAGE.match(token.info.strip())
        parts.append(Block(token.content.rstrip("\n"), language.group() if language else ""))
        start = token.map[1]
    _add_markdown(parts, lines[start:])
    if len(text) > MAX_CHARS:
        parts.append(Block(f"*… cut here: the answer has {len(text):,} characters.*", None))
    return parts


def _add_markdown(parts: list[Block], lines: list[str]) -> None:
    text = "\n".join(lines).strip("\n")
    if text:
        parts.append(Block(safe(text), None))


def safe(text: str) -> str:
    """Markdown in which an image is a link, a link shows its host, and a heading is no larger than the page's own."""
    text = text.replace("![", "\\!\\[")  # everywhere, even in code: what looks like code to us may not to the browser
    pieces, start = [], 0
    for span in _CODE_SPAN.finditer(text):
        pieces += [_plain(text[start : span.start()]), span.group()]
        start = span.end()
    pieces.append(_plain(text[start:]))
    return re.sub(r"^#{1,4} ", "##### ", "".join(pieces), flags=re.MULTILINE)


def _plain(text: str) -> str:
    text = _DESTINATION.sub(_with_host, _DEFINITION.sub(r"\1\\[", text))  # a link by reference would hide its host
    return _DIRECTIVE.sub(r"\\:", _EMOJI.sub(rf"\1:{_JOINER}", text.replace("$", "\\$")))


def _with_host(link: re.Match[str]) -> str:
    try:
        host = urlsplit(unescapeAll(link.group(1))).hostname
    except ValueError:
        host = "?"
    return f" ({literal(host)}){link.group()}" if host else link.group()


def literal(text: str) -> str:
    """A text that is no Markdown at all, such as a question or a file name, on one line."""
    line = _EMOJI.sub(rf"\1:{_JOINER}", " ".join(text.split()))
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])", r"\\\1", line)
