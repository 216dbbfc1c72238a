"""Answers are text from strangers: what of their Markdown reaches the page, and how.

Streamlit escapes HTML by itself. What is left to take away is whatever loads from elsewhere (images), and what
Streamlit adds to Markdown and corpus text does not mean: $formulas$, :colour[directives] and :emoji_codes:. A link says
where it leads, and only http, https, mailto and relative addresses are links.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.common.utils import unescapeAll
from markdown_it.token import Token

MAX_CHARS = 20_000


class _EveryLink(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: ARG002, N802 - the name is the library's
        """Every link is found, so that it can be judged here."""
        return True


_PARSER = MarkdownIt("commonmark")
_DIRECTIVE = re.compile(r":(?=[\w+-]+(?:\[|:|/))")
_EMOJI = re.compile(r"(?<![\w:])(\\?):(?=[\w+/-]+\\?:)")
_JOINER = "\u2060"
"""Keeps a colon and a word apart and cannot be seen: an escape is undone before codes of emoji and icons are found."""
_CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_DESTINATION = re.compile(r"\]\(\s*<?\s*([^\s<>()]+)")
_DEFINITION = re.compile(r"^(\s*(?:[>*+-]\s*)*)\[(?=[^\]]+\]:)", re.MULTILINE)
_LANGUAGE = re.compile(r"^[A-Za-z0-9+#_-]{1,24}")
_LINKED = frozenset({"", "http", "https", "mailto"})
_LINKS = _EveryLink("commonmark")
_FENCE = re.compile(r"^[ \t]*(?:(?:[>*+-]|\d+[.)])[ \t]+)*(`{3,})[^`]*$")
_FENCE_AFTER_TEXT = re.compile(r"^((?:(?!```).)*[^\s`])[ \t]*(`{3,}[A-Za-z0-9+#_-]*)[ \t]*$")
_FENCE_WITH_TEXT = re.compile(r"^((?:(?!```).)*?)[ \t]*(`{3,})(?:[ \t]+([^`]*))?$")


class Block(NamedTuple):
    """A part of an answer: Markdown, or the text of a fenced code block."""

    text: str
    language: str | None
    """None for Markdown; "" for code that does not say what it is."""


def blocks(text: str) -> list[Block]:
    """Markdown split into safe Markdown and code; a text over the limit is cut, and says so."""
    cut = mend_fences(text[:MAX_CHARS])
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


def mend_fences(text: str) -> str:
    """Code fences that stand in a line of text, each on a line of its own.

    Markdown knows a fence only at the start of a line. One that opens after text is none, so its closing fence opens
    another and the text below is shown as code. A fence is moved only where that makes a pair: a mention of ``` in a
    sentence stays.
    """
    lines = text.splitlines()
    mended: list[str] = []
    fence = ""
    for number, line in enumerate(lines):
        alone = _FENCE.match(line)
        if fence:
            closes = _closes(line, fence)
            ends = None if closes or _closed_later(lines[number + 1 :], fence) else _FENCE_WITH_TEXT.match(line)
            if ends and len(ends[2]) >= len(fence):
                mended += [part for part in (ends[1], fence, ends[3]) if part]
            else:
                mended.append(line)
            fence = "" if closes or ends else fence
        elif alone:
            mended.append(line)
            fence = alone[1]
        elif (opens := _FENCE_AFTER_TEXT.match(line)) and _closed_later(lines[number + 1 :], opens[2]):
            mended += [opens[1], opens[2]]
            fence = "`" * opens[2].count("`")
        else:
            mended.append(line)
    return "\n".join(mended)


def _closes(line: str, fence: str) -> bool:
    bare = line.strip()
    return len(bare) >= fence.count("`") and set(bare) == {"`"}


def _closed_later(lines: list[str], fence: str) -> bool:
    """Whether the next line that looks like a fence closes this one."""
    return _closes(next((line for line in lines if _FENCE.match(line)), ""), fence)


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
    shown = re.sub(r"^#{1,4} ", "##### ", "".join(pieces), flags=re.MULTILINE)
    if all(_linked(target) for target in _targets(_LINKS.parse(shown))):
        return shown
    return shown.replace("](", "\\](").replace("<", "\\<")


def _targets(tokens: Sequence[Token]) -> Iterator[str]:
    """Where the links lead, as a browser would read it."""
    for token in tokens:
        if token.type == "link_open":
            yield str(token.attrs["href"])
        yield from _targets(token.children or ())


def _linked(target: str) -> bool:
    """Whether an address may be a link."""
    try:
        return urlsplit(re.sub(r"%(?:0[\dA-F]|1[\dA-F]|20)|[\0-\x20]", "", target)).scheme in _LINKED
    except ValueError:
        return False


def _plain(text: str) -> str:
    text = _DESTINATION.sub(_with_host, _DEFINITION.sub(r"\1\\[", text))  # a link by reference would hide its host
    return _DIRECTIVE.sub(r"\\:", _EMOJI.sub(rf"\1:{_JOINER}", text.replace("$", "\\$")))


def _with_host(link: re.Match[str]) -> str:
    target = unescapeAll(link.group(1))
    if not _linked(target):
        return f"\\{link.group()}"
    host = urlsplit(target).hostname
    return f" ({literal(host)}){link.group()}" if host else link.group()


def literal(text: str) -> str:
    """A text that is no Markdown at all, such as a question or a file name, on one line."""
    line = _EMOJI.sub(rf"\1:{_JOINER}", " ".join(text.split()))
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])", r"\\\1", line)
