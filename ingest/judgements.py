"""Judgements: questions with the pair that answers them, or that does not. Read from exported feedback or by hand.

A line is an object with `question` and `pair_id`, and may list in `also` the ids of other pairs that answer it as well.
Exported feedback has more fields, of which `point` and `helpful` are read too. It is one format for `qaserve bench
golden`, for `qaserve fit --feedback` and for a corpus's golden set.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from qaserve.common.errors import CorpusError
from qaserve.common.text import control_character, fold, has_surrogate, shorten
from qaserve.schemas.feedback import Identifier
from qaserve.schemas.pairs import StoredPair
from qaserve.schemas.record import Record
from qaserve.settings import ReadSettings

VALUE_CHARS = 80


class Judgement(BaseModel):
    """A question and a pair that answers it, or does not."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # exported feedback says more than is needed here

    question: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    pair_id: Identifier
    point: Identifier | None = Field(None, description="Id of the pair's point, which is unique; pair_id may not be.")
    also: tuple[Identifier, ...] = Field((), description="The pair_id of further pairs that are meant as well.")
    helpful: Annotated[bool, Field(strict=True)] = True


class BadLine(Record):
    """A line that is left out: it is no judgement, or of a pair that is not there."""

    file: str
    line: int = Field(description="1 is the first line.")
    field: str | None
    value: str | None
    reason: str


class Judged(NamedTuple):
    """What a file of judgements held."""

    judgements: tuple[Judgement, ...]
    bad: tuple[BadLine, ...]
    """The lines that are no judgements."""
    lines: tuple[int, ...]
    """Where each judgement was read; 1 is the first line."""


class KnownPairs:
    """The pairs of a build, to be looked up by what a judgement says of its own."""

    def __init__(self, pairs: Iterable[StoredPair]) -> None:
        """Index them."""
        self._points: dict[str, StoredPair] = {}
        self._ids: dict[str, list[StoredPair]] = {}
        for stored in pairs:
            self._points[stored.id] = stored
            self._ids.setdefault(stored.pair.pair_id, []).append(stored)

    def of(self, judgement: Judgement) -> Sequence[StoredPair]:
        """The pairs that a judgement means, those of `also` last; none where the build lacks them all."""
        exact = self._points.get(judgement.point) if judgement.point is not None else None
        first = [exact] if exact is not None else self._ids.get(judgement.pair_id, [])
        return [*first, *(stored for pair_id in judgement.also for stored in self._ids.get(pair_id, []))]


def read_judgements(path: Path, read: ReadSettings) -> Judged:
    """Read a file of judgements; of several on the same question and pair the last one counts.

    Raises:
        CorpusError: It cannot be read, or no line of it is a judgement.
    """
    found: dict[tuple[str, str], tuple[Judgement, int]] = {}
    bad: list[BadLine] = []
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(iter(lambda: file.readline(read.max_line_bytes + 1), b""), start=1):
                one = _read_line(raw, path.name, number, read) if raw.strip() else None
                if isinstance(one, Judgement):
                    found[fold(one.question), one.point or one.pair_id] = one, number
                elif one is not None:
                    bad.append(one)
                    if len(raw) > read.max_line_bytes:
                        break  # where the next line begins is not known without reading on
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or error}", hint="Check the path.") from error
    if not found:
        why = f"; {said(bad[0])}" if bad else "; it is empty"
        raise CorpusError(
            f"{path} holds no judgement{why}", hint='A line is {"question": "…", "pair_id": "…"}, or exported feedback.'
        )
    return Judged(tuple(one for one, _ in found.values()), tuple(bad), tuple(line for _, line in found.values()))


def said(bad: BadLine) -> str:
    """A bad line in one line."""
    where = f"{bad.file}:{bad.line}"
    field = f": {bad.field}" if bad.field else ""
    value = f" (got {bad.value})" if bad.value is not None else ""
    return f"{where}{field}: {bad.reason}{value}"


def unknown_line(judgement: Judgement, file: str, line: int) -> BadLine:
    """A judgement of a pair that the build does not have, as a line that is left out."""
    value = shorten(repr(judgement.pair_id), VALUE_CHARS)
    return BadLine(file=file, line=line, field="pair_id", value=value, reason="the build has no such pair")


def _read_line(raw: bytes, name: str, number: int, read: ReadSettings) -> Judgement | BadLine:
    def bad(field: str | None, value: Any, reason: str) -> BadLine:
        shown = None if value is None else shorten(repr(value), VALUE_CHARS)
        return BadLine(file=name, line=number, field=field, value=shown, reason=reason)

    if len(raw) > read.max_line_bytes:
        return bad(None, None, f"it has more than {read.max_line_bytes:,} bytes; what follows it is not read")
    try:
        one = Judgement.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or None
        return bad(field, first["input"] if field and first["type"] != "missing" else None, first["msg"])
    for field, text in (("question", one.question), ("pair_id", one.pair_id), *(("also", also) for also in one.also)):
        control = control_character(text)
        if control is not None or has_surrogate(text):
            return bad(field, text, f"holds {control or 'half a surrogate pair'}, which is not text")
    if len(one.question) > read.max_question_chars:
        return bad(
            "question", one.question, f"has {len(one.question):,} characters; at most {read.max_question_chars:,}"
        )
    return one
