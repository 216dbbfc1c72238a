"""Questions that found no answer, and the themes that they form."""

import json
from typing import Literal

from pydantic import Field

from qaserve.common.text import digest, fold
from qaserve.schemas.record import Record


class KeptQuestion(Record):
    """A question that was abstained on, or whose answer was judged unhelpful."""

    id: int
    created: str
    build: str = Field(description="The build that was asked.")
    question: str
    reason: Literal["abstained", "unhelpful"]


class GapTheme(Record):
    """Kept questions that ask much the same."""

    question: str = Field(description="The one that is most like the others.")
    count: int
    abstained: int = Field(description="How many of them were abstained on; the others were judged unhelpful.")
    cluster: int = Field(description="The nearest: that of the known question nearest to `question`.")
    cluster_name: str
    known: str = Field(description="That known question.")
    similarity: float = Field(description="Its cosine.")
    questions: tuple[KeptQuestion, ...] = Field(description="Newest first.")

    def skeleton(self) -> str:
        """A line of JSON Lines to be answered and ingested: one intent, its phrasings, and an empty answer."""
        asked = list({fold(one.question): one.question for one in self.questions}.values())
        intent = f"gap_{digest(fold(self.question))[:12]}"
        return json.dumps({"cluster_id": intent, "questions": asked, "answer": ""}, ensure_ascii=False) + "\n"


class GapList(Record):
    """The themes of the kept questions, the largest first."""

    build: str
    keeps: bool = Field(description="Whether questions are kept now.")
    days: int = Field(description="Days after which they are deleted.")
    questions: int = Field(description="Questions that are kept.")
    looked_at: int = Field(description="The newest of them, which were grouped.")
    themes: tuple[GapTheme, ...]


class GapsDeleted(Record):
    """Kept questions that were deleted."""

    deleted: int
