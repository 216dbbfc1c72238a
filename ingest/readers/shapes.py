"""Shapes: what the fields of one row mean. Rows in, pairs out.

Four shapes are understood, recognised per row by their fields:

pair       `question` and `answer`, with `pair_id`
single     the same without `pair_id`: an older shape
variants   `question`, `question_variants` and `answer`: one pair per phrasing
questions  a list `questions` and an `answer`: one pair per question

`question` and `answer` are texts, or objects with `text`; the other fields of such an object stay with the pair as
`question_details` and `answer_details`.

To add a shape, write a function that turns a row into pairs and name it in `_shape_of`.
"""

import json
from collections.abc import Callable
from typing import Any

from qaserve.common.text import control_character, digest, fold, has_surrogate, shorten
from qaserve.schemas.pairs import Pair, skill_name
from qaserve.settings import ReadSettings

KNOWN = tuple(field for field in Pair.model_fields if field != "extra")
EXPORTED = ("qaserve_cluster", "qaserve_skill", "qaserve_build")
"""What an export adds to a pair, and what follows from pairs when they are read again."""
EXTRA = "qaserve_extra"
"""Field of an exported table that holds `extra`, as JSON."""
LISTS = ("topics", "tags", "related_skills", "related_docs")
ID_CHARS = 512
HALF_PAIR = "holds half a surrogate pair, which is not text"

Row = dict[str, Any]


class BadRowError(Exception):
    """A row that cannot be read, with the field to blame."""

    def __init__(self, field: str | None, reason: str) -> None:
        super().__init__(reason)
        self.field, self.reason = field, reason


def pairs_of(row: Row, name: str) -> list[Pair]:
    """The pairs of one row of the file `name`.

    Raises:
        BadRowError: The row cannot be read.
    """
    flat = _flattened(row)
    return _shape_of(flat)(flat, name)


def _flattened(row: Row) -> Row:
    """The row with the `text` of a question or answer that is an object, and its other fields beside it."""
    flat = {key: value for key, value in row.items() if key != EXTRA} | _extra(row.get(EXTRA))
    for field in ("question", "answer"):
        value = row.get(field)
        if isinstance(value, dict):
            flat[field] = _text(value, "text", path=f"{field}.")
            rest = {key: item for key, item in value.items() if key != "text"}
            flat |= {f"{field}_details": rest} if rest else {}
    return flat


def _extra(value: object) -> Row:
    """What an exported table holds in one cell."""
    try:
        found = {} if value is None else json.loads(str(value))
    except (ValueError, RecursionError) as error:
        raise BadRowError(EXTRA, "not JSON") from error
    if not isinstance(found, dict):
        raise BadRowError(EXTRA, f"an object is needed, this is {kind(found)}")
    return found


def _shape_of(row: Row) -> Callable[[Row, str], list[Pair]]:
    if row.get("questions") is not None:
        return _from_questions
    if row.get("question_variants") is not None:
        return _from_variants
    if "question" in row or "answer" in row:
        return _from_pair
    fields = ", ".join(sorted(row)[:8]) or "none"
    raise BadRowError(
        None, f"unknown shape: neither `question` nor `questions` among its fields ({shorten(fields, 120)})"
    )


def _from_pair(row: Row, name: str) -> list[Pair]:
    return [_pair(row, name, question=_text(row, "question"), answer=_text(row, "answer"), used=())]


def _from_variants(row: Row, name: str) -> list[Pair]:
    questions = [_text(row, "question"), *_texts(row, "question_variants")]
    answer = _text(row, "answer")
    return [
        _pair(row, name, question=question, answer=answer, used=("id", "question_variants")) for question in questions
    ]


def _from_questions(row: Row, name: str) -> list[Pair]:
    questions = _texts(row, "questions")
    if not questions:
        raise BadRowError("questions", "the list is empty")
    answer, used = _text(row, "answer"), ("id", "questions", "question_variants")
    questions += _texts(row, "question_variants")
    return [_pair(row, name, question=question, answer=answer, used=used) for question in questions]


def _pair(row: Row, name: str, *, question: str, answer: str, used: tuple[str, ...]) -> Pair:
    """One pair of a row. Its intent is the row's `cluster_id`, else its id, else its answer.

    A pair without any id is named after its question, so that it stays the same pair when its answer changes.
    """
    own_id = _identifier(row, "pair_id") or _identifier(row, "id") or _identifier(row, "cluster_id")
    intent = _identifier(row, "cluster_id") or own_id or f"answer-{digest(fold(answer))[:12]}"
    source = _identifier(row, "source_file")
    if source is None and row.get("source_files"):
        source = _texts(row, "source_files")[0]
    return Pair(
        pair_id=own_id or f"question-{digest(fold(question))[:12]}",
        cluster_id=intent,
        question=question,
        answer=answer,
        question_type=_identifier(row, "question_type"),
        source_file=source or name,
        extra={key: value for key, value in row.items() if key not in KNOWN and key not in (*used, *EXPORTED)},
        related_skills=tuple(_each_once(_texts(row, "related_skills"))),
        **{field: tuple(_texts(row, field)) for field in LISTS if field != "related_skills"},
    )


def _each_once(paths: list[str]) -> list[str]:
    """Each skill once, as it is first spelled: Qdrant counts the pairs of each spelling, and a pair is one of them."""
    spelled: dict[str, str] = {}
    for path in paths:
        spelled.setdefault(skill_name(path) or path, path)
    return list(spelled.values())


def _text(row: Row, field: str, path: str = "") -> str:
    value = row.get(field)
    if value is None:
        raise BadRowError(path + field, "missing")
    if not isinstance(value, str):
        raise BadRowError(path + field, f"a text is needed, this is {kind(value)}")
    if not value.strip():
        raise BadRowError(path + field, "empty")
    return value.strip()


def _texts(row: Row, field: str) -> list[str]:
    value = row.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRowError(field, f"a list of texts is needed, this is {kind(value)}")
    for position, item in enumerate(value):
        if not isinstance(item, str):
            raise BadRowError(f"{field}[{position}]", f"a text is needed, this is {kind(item)}")
        if not item.strip():
            raise BadRowError(f"{field}[{position}]", "empty")
    return [item.strip() for item in value]


def _identifier(row: Row, field: str) -> str | None:
    if row.get(field) is None:
        return None
    value = _text(row, field)
    if len(value) > ID_CHARS:
        raise BadRowError(field, f"{len(value):,} characters; at most {ID_CHARS} are read")
    return value


def check_texts(pair: Pair, settings: ReadSettings) -> None:
    """Refuse texts that are too long or hold what is not text.

    Raises:
        BadRowError: One is.
    """
    for field, text, limit in (
        ("question", pair.question, settings.max_question_chars),
        ("answer", pair.answer, settings.max_answer_chars),
    ):
        if len(text) > limit:
            raise BadRowError(field, f"{len(text):,} characters; at most {limit:,} are read")
    for field in KNOWN:
        value = getattr(pair, field) or ""
        text = value if isinstance(value, str) else " ".join(value)
        control = control_character(text)
        if control is not None:
            raise BadRowError(field, f"holds the control character {control}")
        if has_surrogate(text):
            raise BadRowError(field, HALF_PAIR)
    if has_surrogate(json.dumps(pair.model_dump(), ensure_ascii=False)):
        raise BadRowError(None, HALF_PAIR)
    _check_numbers(pair.extra)


def _check_numbers(extra: Row) -> None:
    for field, value in extra.items():
        if _too_long(value):
            raise BadRowError(field, "holds a whole number of more than 64 bits; write it as a text")


def _too_long(value: object) -> bool:
    """Whether a value of JSON holds a whole number that Qdrant would keep as the float next to it."""
    if isinstance(value, dict | list):
        return any(map(_too_long, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and not -(2**63) <= value < 2**64


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")
