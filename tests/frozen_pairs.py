"""The frozen pairs with their vectors, for the tests of figures."""

from pathlib import Path

import numpy as np

from ingest.readers import Located, find_files, read_files
from qaserve.settings import ReadSettings
from train.folds import Examples

FROZEN = Path(__file__).parent / "frozen"


def examples() -> Examples:
    """Unit vectors in double precision."""
    found = read_files(find_files([FROZEN / "pairs.jsonl"]), ReadSettings())
    pairs = [item.pair for item in found if isinstance(item, Located)]
    with np.load(FROZEN / "vectors.npz") as arrays:
        questions, answers = (arrays[name].astype(np.float64) for name in ("questions", "answers"))
        answers = answers[arrays["answer_of"]]
    return Examples(pairs, *(rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (questions, answers)))
