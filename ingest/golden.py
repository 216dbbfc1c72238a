"""The golden set: questions that people said must find a pair.

One JSON object a line: `question`, `pair_id` and, where other pairs answer it as well, their ids in the list `also`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, StringConstraints, ValidationError

from qaserve.common.errors import CorpusError
from qaserve.encoders.base import Encoder
from qaserve.schemas.builds import EncoderIdentity
from qaserve.schemas.record import Record

MAX_QUESTIONS = 1_000
"""The latest lines are asked; more would make every ingest wait for them."""

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4_000)]


class GoldenQuestion(Record):
    """A line of the golden set; what else it says is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    question: _Text
    pair_id: _Text = Field(description="One of the pairs that answers it; any answer of its intent will do.")
    also: tuple[_Text, ...] = Field((), description="Further pairs that answer it, as of other intents.")

    @property
    def accepted(self) -> tuple[str, ...]:
        """The pair_id of every pair that answers it."""
        return tuple(dict.fromkeys((self.pair_id, *self.also)))


@dataclass(frozen=True)
class Golden:
    """A golden set with its vectors."""

    questions: list[str]
    accepted: list[tuple[str, ...]]
    """The pair_ids of which each question must find one."""
    vectors: NDArray[np.float32]
    """(g, D) unit rows."""
    encoder: EncoderIdentity


def golden_file(data_dir: Path, corpus: str) -> Path:
    """Where the golden set of a corpus is."""
    return data_dir / "golden" / f"{corpus}.jsonl"


def read_golden(path: Path) -> list[GoldenQuestion]:
    """The golden set of a file, each question once with its last pair; empty where there is no file.

    Raises:
        CorpusError: The file cannot be read, or a line is not a golden question.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or error}", hint="Check its permissions.") from error
    found: dict[str, GoldenQuestion] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            golden = GoldenQuestion.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise CorpusError(
                f"{path}:{number} is not a golden question: {where}: {first['msg']}",
                hint='A line is {"question": "…", "pair_id": "…"}, and may have "also": ["…"]; mend it or take it out.',
            ) from error
        found.pop(golden.question, None)
        found[golden.question] = golden
    return list(found.values())[-MAX_QUESTIONS:]


def encode_golden(golden: list[GoldenQuestion], encoder: Encoder) -> Golden | None:
    """The golden set with its vectors; None where it is empty."""
    if not golden:
        return None
    texts = [one.question for one in golden]
    return Golden(texts, [one.accepted for one in golden], encoder.encode_questions(texts), encoder.identity)
