"""A JSON array of objects, read element by element, so that memory is bounded by the largest of them."""

import codecs
import json
from collections.abc import Callable, Iterator
from typing import IO

from ingest.readers import json_lines
from ingest.readers.parsed import BadFileError, Opened, Parsed
from ingest.readers.shapes import BadRowError

SUFFIXES = (".json", ".json.gz")
CHUNK = 1 << 16
BLANK = " \t\r\n"
CORRECT = "Correct it there, or write one object in each line and name the file .jsonl."
DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def read(open_file: Callable[[], IO[bytes]], limit: int) -> Opened:
    """The elements of an array of which each has at most `limit` bytes; a file that is no array is JSON Lines."""
    with open_file() as file:
        start = file.read(CHUNK).removeprefix(codecs.BOM_UTF8).lstrip()
    if not start.startswith(b"["):
        return json_lines.read(open_file, limit)
    return Opened("JSON array", _rows(open_file, limit))


class _Window:
    """The part of a text that is being parsed: it grows at its end and is let go of at its beginning."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.line, self.ended = "", 0, 1, False
        self.element = 0
        """The number of the element that is parsed or was parsed last; 1 is the first."""

    def grow(self) -> None:
        """Read as much again as is held."""
        self.line += self.text.count("\n", 0, self.at)
        self.text, self.at = self.text[self.at :], 0
        data = self._file.read(max(CHUNK, len(self.text)))
        self.ended = not data
        try:
            self.text += self._decoder.decode(data, final=self.ended)
        except UnicodeDecodeError as error:
            line = self.place(len(self.text)) + error.object.count(b"\n", 0, error.start)
            raise BadFileError(f"cannot be read: line {line}: not UTF-8", CORRECT) from error

    def peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in BLANK:
                    return self.text[self.at]
                self.at += 1
            if self.ended:
                return ""
            self.grow()

    def place(self, at: int) -> int:
        """The line of a character."""
        return self.line + self.text.count("\n", 0, at)

    def error(self, reason: str, at: int, where: str | None = None) -> BadFileError:
        """What is wrong at a character, and at which element: a line may hold them all."""
        place = f"line {self.place(at)}" if where is None else f"line {self.place(at)}, {where}"
        return BadFileError(f"cannot be read: {place}: {reason}", CORRECT)


def _rows(open_file: Callable[[], IO[bytes]], limit: int) -> Iterator[Parsed]:
    with open_file() as file:
        window = _Window(file)
        window.peek()
        window.at += 1
        while window.peek() != "]":
            yield _element(window, limit)
            if window.peek() not in {",", "]"}:
                where = f"after element {window.element}"
                raise window.error("not JSON: a comma or the end of the array is missing", window.at, where)
            if window.peek() == ",":
                window.at += 1
        window.at += 1
        if window.peek():
            raise window.error("not JSON: something follows the end of the array", window.at)


def _element(window: _Window, limit: int) -> Parsed:
    window.element += 1
    number, where = window.element, f"element {window.element}"
    while True:
        try:
            value, end = DECODER.raw_decode(window.text, window.at)
        except json.JSONDecodeError as error:
            if window.ended:
                raise window.error(f"not JSON: {error.msg}", error.pos, where) from error
            if len(window.text) - window.at > limit:
                raise window.error(f"longer than {limit:,} bytes", window.at, where) from error
            window.grow()
        except (RecursionError, ValueError) as error:
            raise window.error(f"not JSON that can be read: {str(error)[:80]}", window.at, where) from error
        else:
            break
    line, text = window.place(window.at), window.text[window.at : end].encode()
    window.at = end
    raw = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        return Parsed(line, json_lines.parse(text), raw=raw, element=number)
    except BadRowError as bad:
        return Parsed(line, None, bad, raw, number)
