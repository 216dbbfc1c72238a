"""Questions of a file: one a line, as text or as JSON."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json, to_jsonable_python

from qaserve.common.errors import UsageError
from qaserve.common.text import shorten
from qaserve.common.validation import fault
from qaserve.schemas.ask import AskRequest

JSON_LINES = frozenset({".jsonl", ".ndjson"})
SHOWN_CHARS = 200
BOM = b"\xef\xbb\xbf"
EXAMPLE = '{"question": "How do I parse XML?", "id": "q1", "top_k": 3}'


class Question(NamedTuple):
    """A line of the file that is not blank."""

    line: int
    """1 is the first line."""
    shown: str
    """The question, or the beginning of a line in which there is none."""
    fields: Mapping[str, Any]
    """What the line says of the request."""
    id: str | int | None = None
    """What the caller calls it."""
    error: UsageError | None = None
    """Why the line is no question."""

    def options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What it is asked with, as JSON has it: what the line gives overrides the options of the command."""
        given = {**options, **self.fields}
        given.pop("question", None)
        found: dict[str, Any] = to_jsonable_python(given)
        return found

    def request(self, options: Mapping[str, Any]) -> AskRequest:
        """The request: what the line gives overrides the options of the command.

        Raises:
            UsageError: The line is no question, or a parameter has a bad value.
        """
        if self.error is not None:
            raise self.error
        try:
            return AskRequest.model_validate({**options, **self.fields})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise UsageError(fault(first, names=AskRequest.model_fields), hint=EXAMPLE) from error


def read_questions(path: Path, max_line_bytes: int) -> Iterator[Question]:
    """The questions of a file, in order. `.jsonl` and `.ndjson` hold JSON lines; other files hold a question a line.

    A JSON line is a text or an object with `question`, perhaps `id`, and parameters of the request.

    Args:
        path: The file.
        max_line_bytes: A longer line is no question.

    Raises:
        OSError: The file cannot be read.
    """
    parse = _from_json if path.suffix.lower() in JSON_LINES else _from_text
    with path.open("rb") as file:
        for number, raw in enumerate(_lines(file, max_line_bytes + 1), start=1):
            text = raw.removeprefix(BOM).strip() if number == 1 else raw.strip()
            if not text:
                continue
            if len(raw) > max_line_bytes:
                yield _bad(number, text, f"the line has more than {max_line_bytes:,} bytes")
            else:
                yield parse(number, text)


def _lines(file: IO[bytes], limit: int) -> Iterator[bytes]:
    """Lines; of a long one only the first `limit` bytes."""
    while piece := file.readline(limit):
        rest = piece
        while len(rest) == limit and not rest.endswith(b"\n"):
            rest = file.readline(limit)
        yield piece


def _from_text(number: int, raw: bytes) -> Question:
    try:
        question = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return _bad(number, raw, f"the line is not UTF-8: byte {error.start + 1} is 0x{raw[error.start]:02X}")
    return Question(number, question, {"question": question})


def _from_json(number: int, raw: bytes) -> Question:
    try:
        row = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        return _bad(number, raw, f"the line is not JSON: {error}")
    if isinstance(row, str):
        return Question(number, row, {"question": row})
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        return _bad(number, raw, "the line has no text under `question`")
    name = row.pop("id", None)
    if isinstance(name, bool) or not isinstance(name, str | int | None):
        return _bad(number, raw, f"id {shorten(repr(name), 80)}: it is neither a text nor a whole number")
    return Question(number, row["question"], row, name)


def _bad(number: int, raw: bytes, why: str) -> Question:
    shown = shorten(raw[: 4 * SHOWN_CHARS].decode("utf-8", "replace"), SHOWN_CHARS)
    return Question(
        number, shown, {}, error=UsageError(why, hint=f"A question a line, or JSON lines such as {EXAMPLE}")
    )
