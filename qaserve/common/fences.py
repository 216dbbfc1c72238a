"""Code fences that stand in the middle of a line, where Markdown does not know them."""

import re

_FENCE = re.compile(r"^\s*(?:(?:[-*+>]|\d+[.)])\s+)*(`{3,}(?=[^`]*$)|~{3,})")
_FENCE_AND_TEXT = re.compile(r"^((?:(?!```).)*?)[ \t]*(`{3,})(?:[ \t]+([^`]*))?$")
_LATE_FENCE = re.compile(r"^(.*\S)[ \t]*(?<!`)(`{3,})([A-Za-z0-9+#_-]*)[ \t]*$")


def fences_on_own_lines(text: str) -> str:
    """Text in which code fences stand on lines of their own.

    An opening fence after other words is moved if it is closed below, a closing fence beside other words if none below
    closes the code.
    """
    lines = text.split("\n")
    found: list[str] = []
    fence: str | None = None
    for number, line in enumerate(lines, 1):
        parts, fence = _in_text(line, lines[number:]) if fence is None else _in_code(line, lines[number:], fence)
        found += parts
    return "\n".join(found)


def has_late_fence(text: str) -> bool:
    """Whether a code fence stands in the middle of a line."""
    return "```" in text and fences_on_own_lines(text) != text


def _in_text(line: str, below: list[str]) -> tuple[list[str], str | None]:
    """The line, or its parts, and the fence that it opens."""
    if fence := _FENCE.match(line):
        return [line], fence.group(1)
    late = _LATE_FENCE.match(line)
    if late is None or "```" in late.group(1) or not _is_closed(below, late.group(2)):
        return [line], None
    return [late.group(1), "", late.group(2) + late.group(3)], late.group(2)


def _in_code(line: str, below: list[str], fence: str) -> tuple[list[str], str | None]:
    """The line, or its parts, and the fence unless the line closes it."""
    if _closes(line, fence):
        return [line], None
    end = _FENCE_AND_TEXT.match(line)
    if end is None or not _closes(end.group(2), fence) or _is_closed(below, fence):
        return [line], fence
    return [part for part in (end.group(1), fence, end.group(3)) if part], None


def _is_closed(lines: list[str], fence: str) -> bool:
    """Whether the next fence in these lines closes one that is open."""
    return next((_closes(line, fence) for line in lines if _FENCE.match(line)), False)


def _closes(line: str, fence: str) -> bool:
    text = line.strip()
    return len(text) >= len(fence) and set(text) == {fence[0]}
