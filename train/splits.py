"""Splits of a corpus into what is fitted and what is asked."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.records import Pair
from qaserve.text import fold

FAMILY_MIN = 3


class Split(NamedTuple):
    """Rows to fit on and rows to ask; the answers of `train` are what can be found."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def phrasing_split(pairs: Sequence[Pair], seed: int) -> Split:
    """Hold out one phrasing of every answer family of three or more.

    A family is the pairs of one intent whose answers were tailored from the same original (field `original_answer`
    where the source has it). Exact repeats of a held-out question, by folded text, leave the training side as well.

    Args:
        pairs: All pairs.
        seed: Chooses the phrasings.
    """
    families: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, pair in enumerate(pairs):
        families[pair.cluster_id, str(pair.extra.get("original_answer") or pair.answer)].append(row)
    random = np.random.default_rng(seed)
    test = [int(random.choice(rows)) for rows in families.values() if len(rows) >= FAMILY_MIN]
    asked = {fold(pairs[row].question) for row in test}
    train = [row for row, pair in enumerate(pairs) if fold(pair.question) not in asked]
    return Split(np.array(train, dtype=np.int64), np.array(test, dtype=np.int64))
