"""Answers are text from strangers: what of their Markdown reaches the page, and how.

Streamlit escapes HTML by itself. What is left to take away is whatever loads from elsewhere (images), and what
Streamlit adds to Markdown and corpus text does not mean: $formulas$, :colour[directives] and :emoji_codes:. A link says
where it leads, and leads to the web or to a mail address. A code fence that starts in the middle of a line is moved to
a line of its own, for Markdown does not know it there.
"""

import re
from collections.abc import Collection
from html import unescape
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.common.utils import unescapeAll

from qaserve.common.fences import fences_on_own_lines

MAX_CHARS = 20_000

SCHEMES = frozenset({"http", "https", "mailto"})


class _Parser(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: ARG002, N802 - the name is the library's
        """Find every link: which are shown is decided here."""
        return True


_PARSER = _Parser("commonmark")
_DIRECTIVE = re.compile(r":(?=[\w+-]+(?:\[|:|/))")
_EMOJI = re.compile(r"(?<![\w:])(\\?):(?=[\w+/-]+\\?:)")
_JOINER = "\u2060"
"""Keeps a colon and a word apart and cannot be seen: an escape is undone before codes of emoji and icons are found."""
_CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_UNMARKED = re.compile(rf"{_CODE_SPAN.pattern}|\[[^\]]*\]\([^)]*\)|<[^>]*>|(?:https?://|www\.)\S+", re.DOTALL)
"""What `marked` leaves alone: code, links and addresses."""
_DESTINATION = re.compile(r"\]\(\s*<?\s*([^\s<>()]+)")
_DEFINITION = re.compile(r"^(\s*(?:[>*+-]\s*)*)\[(?=[^\]]+\]:)", re.MULTILINE)
_AUTOLINK = re.compile(r"<(?=([A-Za-z][A-Za-z0-9+.-]{1,31}):)")
_SCHEME = re.compile(r"([^/?#]*?):")
_LANGUAGE = re.compile(r"^[A-Za-z0-9+#_-]{1,24}")


class Block(NamedTuple):
    """A part of an answer: Markdown, or the text of a fenced code block."""

    text: str
    language: str | None
    """None for Markdown; "" for code that does not say what it is."""


def blocks(text: str) -> list[Block]:
    """Markdown split into safe Markdown and code; a text over the limit is cut, and says so."""
    cut = fences_on_own_lines(text[:MAX_CHARS])
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
    """Markdown in which an image is a link, a link shows its host, and a heading is no larger than the page's own.

    A link of another scheme than `SCHEMES` is no link.
    """
    text = text.replace("![", "\\!\\[")  # everywhere, even in code: what looks like code to us may not to the browser
    pieces, start = [], 0
    for span in _CODE_SPAN.finditer(text):
        pieces += [_plain(text[start : span.start()]), span.group()]
        start = span.end()
    pieces.append(_plain(text[start:]))
    made = "".join(pieces)
    if not all(map(_is_link, _links(made))):  # it looked like code to us only, or its destination holds blanks
        made = _plain(text).replace("](", "]\\(")
    return re.sub(r"^#{1,4} ", "##### ", made, flags=re.MULTILINE)


def _links(text: str) -> list[str]:
    children = [child for token in _PARSER.parse(text) for child in token.children or ()]
    return [str(child.attrGet("href")) for child in children if child.type == "link_open"]


def _is_link(destination: str) -> bool:
    """Whether a destination is relative or of a scheme that may be shown. Browsers skip blanks in it."""
    scheme = _SCHEME.match("".join(unquote(unescape(destination)).split()))
    return scheme is None or scheme.group(1).lower() in SCHEMES


def _plain(text: str) -> str:
    text = _DESTINATION.sub(_with_host, _DEFINITION.sub(r"\1\\[", text))  # a link by reference would hide its host
    text = _AUTOLINK.sub(lambda link: "<" if _is_link(f"{link.group(1)}:") else "\\<", text)
    return _DIRECTIVE.sub(r"\\:", _EMOJI.sub(rf"\1:{_JOINER}", text.replace("$", "\\$")))


def marked(text: str, words: Collection[str]) -> str:
    """Safe Markdown in which these words are marked, inflected ones too; not in code, nor in the address of a link."""
    stems = sorted({re.sub(r"(ing|ed|es|e|s)$", "", word) for word in words if len(word) > 1}, key=len, reverse=True)
    if not stems:
        return text
    forms = re.compile(rf"(?<![\w\\])(?:{'|'.join(map(re.escape, stems))})(?:ing|ed|es|e|s)?(?!\w)", re.IGNORECASE)
    pieces, start = [], 0
    for kept in _UNMARKED.finditer(text):
        pieces += [forms.sub(_mark, text[start : kept.start()]), kept.group()]
        start = kept.end()
    return "".join([*pieces, forms.sub(_mark, text[start:])])


def _mark(word: re.Match[str]) -> str:
    return f":yellow-background[{word.group()}]"


def _with_host(link: re.Match[str]) -> str:
    if not _is_link(unescapeAll(link.group(1))):
        return link.group().replace("](", "]\\(", 1)
    try:
        host = urlsplit(unescapeAll(link.group(1))).hostname
    except ValueError:
        host = "?"
    return f" ({literal(host)}){link.group()}" if host else link.group()


def plain_name(value: str) -> str:
    """A skill without what only its file needs: skill_csv_source.md is csv source."""
    if not value.endswith(".md") and not value.startswith("skill_"):
        return value
    return value.removesuffix(".md").removeprefix("skill_").replace("_", " ")


def literal(text: str) -> str:
    """A text that is no Markdown at all, such as a question or a file name, on one line."""
    line = _EMOJI.sub(rf"\1:{_JOINER}", " ".join(text.split()))
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])", r"\\\1", line)
