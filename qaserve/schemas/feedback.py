"""Feedback on answers."""

from typing import Annotated

from pydantic import Field, StringConstraints

from qaserve.schemas.params import BuildId, NotBoolean, SearchParams
from qaserve.schemas.record import Record

MAX_FEEDBACK_PAGE = 1_000

MAX_COMMENT_CHARS = 2_000

MAX_ID_CHARS = 512

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARS)]


class AnswerContext(SearchParams):
    """How the judged answer came about: the parameters that it was asked with, and where it stood."""

    rank: Annotated[int, Field(ge=1), NotBoolean] | None = Field(None, description="Where the pair stood in the list.")
    score: Annotated[float, Field(allow_inf_nan=False), NotBoolean] | None = Field(None, description="Its score there.")


class FeedbackRequest(Record):
    """Whether a pair helped with a question."""

    question: str = Field(description="As it was asked.")
    pair: Identifier = Field(description="The answer's `id`, or its `pair_id`.")
    helpful: bool
    build: BuildId = Field(description="The build that answered, from the answer's document.")
    comment: Annotated[str, StringConstraints(max_length=MAX_COMMENT_CHARS)] = ""
    trace: AnswerContext | None = None


class Feedback(Record):
    """A judgement as it is kept."""

    id: str
    created: str = Field(description="UTC time in ISO 8601.")
    corpus: str
    build: str
    question: str
    point: str = Field(description="Id of the pair's point.")
    pair_id: str
    cluster_id: str = Field(description="The author's intent of the pair.")
    helpful: bool
    comment: str = ""
    trace: AnswerContext | None = None


class FeedbackKept(Record):
    """Said once a judgement is on the disk."""

    id: str


class FeedbackPage(Record):
    """Some of what was said, oldest first."""

    corpus: str
    feedback: tuple[Feedback, ...]
    unreadable: int = Field(description="Records among these that cannot be read and were left out.")
    next: int | None = Field(description="What to give as `after` for the next page; null: this is the last.")
