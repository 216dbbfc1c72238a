"""Small pure functions on text that more than one room needs."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

_NOT_WORD = re.compile(r"[^\w+#]+")  # C, C++ and C# are three languages
_VOWEL_SIGNS = {"Mn", "Mc"}  # parts of words that \w does not know
_VARIATIONS = re.compile(r"[\ufe00-\ufe0f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BULLET = re.compile(r"^\s*[-*+]\s+")
CLOSE = 0.75
"""Share of letters that two spellings have in common, above which one may be meant for the other."""
CLOSE_NAMES = 3
COMPARED = 10_000
"""Names that are compared, at most: that takes a quarter of a second."""
NAME_CHARS = 80


def fold(text: str) -> str:
    """Text without case, punctuation or spacing, so that trivially different spellings compare equal.

    A text of punctuation only folds to itself, stripped, so that it still has an identity.
    """
    normal = _VARIATIONS.sub("", unicodedata.normalize("NFKC", text).casefold())
    folded = _NOT_WORD.sub(lambda found: "".join(map(_sign_or_space, found.group())), normal)
    return " ".join(folded.split()) or text.strip()


def _sign_or_space(character: str) -> str:
    return character if unicodedata.category(character) in _VOWEL_SIGNS else " "


def digest(*parts: str) -> str:
    """Hex SHA-256 of the parts; unlike a plain concatenation, ("ab", "c") and ("a", "bc") differ."""
    return digest_of(parts)


def digest_of(parts: Iterable[str]) -> str:
    """`digest` of parts that are made one by one."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()


def short_digest(*parts: str) -> bytes:
    """The first 16 bytes of `digest`: what stands for a text where very many are told apart."""
    return bytes.fromhex(digest_of(parts)[:32])


def control_character(text: str) -> str | None:
    """The first control character other than tab and line breaks, as U+XXXX, or None."""
    found = _CONTROL.search(text)
    return f"U+{ord(found.group()):04X}" if found else None


def has_surrogate(text: str) -> bool:
    """Whether the text holds half a UTF-16 pair, which no encoder and no JSON document can carry."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def one_line(text: str, limit: int) -> str:
    """Text on one line, shortened; the items of a list are separated by semicolons."""
    items = (_BULLET.sub("", line).strip() for line in text.splitlines())
    return shorten("; ".join(filter(None, items)), limit)


def shorten(text: str, limit: int) -> str:
    """Text on one line of at most `limit` characters, with an ellipsis where it was cut."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def did_you_mean(said: str, known: Iterable[str]) -> str:
    """A question that names the known names nearest to what was said, capitals aside; "" where none is close."""
    names = {name.casefold(): name for name in islice(known, COMPARED)}
    close = get_close_matches(said.casefold(), names, CLOSE_NAMES, CLOSE)
    listed = " or ".join(repr(shorten(names[name], NAME_CHARS)) for name in close)
    return f"Did you mean {listed}?" if listed else ""
