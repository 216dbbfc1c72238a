"""Splits of a corpus into what is fitted and what is asked."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.common.errors import CorpusError
from qaserve.common.text import fold
from qaserve.schemas.pairs import Pair

FAMILY_MIN = 3
INTENT_SHARE = 0.2
RANDOM_SHARE = 0.1


class Split(NamedTuple):
    """Rows to fit on and rows to ask."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def phrasing_split(pairs: Sequence[Pair], seed: int) -> Split:
    """Hold out one phrasing of every answer family of three or more.

    A family is the pairs of one intent whose answers were tailored from the same original (field `original_answer`
    where the source has it). Exact repeats of a held-out question, by folded text, leave the training side as well.
    The answers of the training side are what can be found.

    Args:
        pairs: All pairs.
        seed: Chooses the phrasings.
    """
    random = np.random.default_rng(seed)
    test = [int(random.choice(rows)) for rows in _families(pairs) if len(rows) >= FAMILY_MIN]
    return Split(_without_repeats(pairs, test), np.array(test, dtype=np.int64))


def intent_split(pairs: Sequence[Pair], seed: int) -> Split:
    """Hold out a fifth of the intents, each with all of its pairs; at least one.

    Nothing is fitted on them and none of their questions is known, but their answers stay searchable: all pairs are
    searched. Pairs of other intents that repeat a held-out question, by folded text, leave the training side as well.

    Args:
        pairs: All pairs, of two intents or more.
        seed: Chooses the intents.

    Raises:
        CorpusError: All pairs are of one intent.
    """
    names = list(dict.fromkeys(pair.intent for pair in pairs))
    if len(names) < 2:
        raise CorpusError(
            f"pairs of {len(names)} intent cannot be split by intent", hint="Give pairs with two cluster_id or more."
        )
    chosen = np.random.default_rng(seed).permutation(len(names))[: max(1, round(INTENT_SHARE * len(names)))]
    held = {names[number] for number in chosen}
    test = [row for row, pair in enumerate(pairs) if pair.intent in held]
    return Split(_without_repeats(pairs, test), np.array(test, dtype=np.int64))


def random_split(pairs: Sequence[Pair], seed: int) -> Split:
    """Hold out a tenth of the pairs, whichever; at least one. The answers stay searchable: all pairs are searched.

    This is what upstream's code does (the proposal names no split), here for comparison only. It leaks: near-repeats of
    a held-out question, and exact ones, stay on the training side.

    Args:
        pairs: All pairs, two or more.
        seed: Chooses the pairs.

    Raises:
        CorpusError: There are fewer than two pairs.
    """
    if len(pairs) < 2:
        raise CorpusError(f"{len(pairs)} pairs cannot be split", hint="Give two pairs or more.")
    order = np.random.default_rng(seed).permutation(len(pairs))
    count = max(1, round(RANDOM_SHARE * len(pairs)))
    return Split(np.sort(order[count:]), np.sort(order[:count]))


def check_families(pairs: Sequence[Pair]) -> None:
    """Raise CorpusError where `phrasing_split` would hold nothing out."""
    if max(map(len, _families(pairs)), default=0) < FAMILY_MIN:
        raise CorpusError(
            f"no answer of {len(pairs)} pairs has {FAMILY_MIN} phrasings, so none can be held out",
            hint="Pairs are phrasings of one answer where cluster_id and original_answer (or answer) are the same.",
        )


def first_families(pairs: Sequence[Pair], count: int) -> NDArray[np.int64]:
    """Rows of the first answer families, whole, that hold `count` pairs together or a few more; in their order."""
    rows: list[int] = []
    for family in _families(pairs):
        if len(rows) >= count:
            break
        rows += family
    return np.sort(np.array(rows, dtype=np.int64))


def _families(pairs: Sequence[Pair]) -> list[list[int]]:
    families: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, pair in enumerate(pairs):
        families[pair.intent, str(pair.extra.get("original_answer") or pair.answer)].append(row)
    return list(families.values())


def _without_repeats(pairs: Sequence[Pair], test: Sequence[int]) -> NDArray[np.int64]:
    """All rows but those whose question is asked."""
    asked = {fold(pairs[row].question) for row in test}
    return np.array([row for row, pair in enumerate(pairs) if fold(pair.question) not in asked], dtype=np.int64)
