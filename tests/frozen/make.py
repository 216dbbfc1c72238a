"""Make the frozen pairs and vectors again: PYTHONPATH=. python tests/frozen/make.py

They are the sample corpus as it was on one day and MiniLM's vectors of it, in half precision. Figures are pinned on
them (tests/train/experiments/test_frozen.py), so they stay as they are when the sample or the encoder changes.
"""

import json
from pathlib import Path

import numpy as np

from ingest.readers import Located, find_files, read_files
from qaserve.encoders.sentence_transformer import SentenceEncoder
from qaserve.settings import EncoderSettings, ReadSettings

HERE = Path(__file__).parent
SAMPLE = HERE.parents[1] / "qaserve" / "sample" / "sample.jsonl"
FIELDS = ("id", "question", "question_variants", "answer")


def main() -> None:
    """Write both files."""
    records = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps({name: record[name] for name in FIELDS}, ensure_ascii=False) for record in records]
    (HERE / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = read_files(find_files([HERE / "pairs.jsonl"]), ReadSettings())
    pairs = [item.pair for item in found if isinstance(item, Located)]
    answers = list(dict.fromkeys(pair.answer for pair in pairs))
    encoder = SentenceEncoder(EncoderSettings(), "unused")
    np.savez_compressed(
        HERE / "vectors.npz",
        questions=encoder.encode_questions([pair.question for pair in pairs]).astype(np.float16),
        answers=encoder.encode_answers(answers).astype(np.float16),
        answer_of=np.array([answers.index(pair.answer) for pair in pairs], dtype=np.uint8),
    )


if __name__ == "__main__":
    main()
