"""Names of clusters, in words a person understands: the terms that set a cluster apart, and its skills."""

import sys
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from qaserve.schemas.builds import ClusterInfo
from qaserve.schemas.pairs import Pair
from qaserve.store.points import pair_text
from qaserve.store.words import WordCounter

SEPARATOR = " · "
TERMS_SHOWN = 6
TERMS_IN_NAME = 3
SKILLS_SHOWN = 3
ASKING_WORDS = frozenset(
    """best create did difference different do does example examples get happens instead make mean means need possible
    run set should support supported use used using want way ways without work works""".split()  # noqa: SIM905
)
WORD = r"(?u)\b[^\W\d_][\w.-]*\w\b"


class Words:
    """The words of pairs, counted one pair at a time; the texts are not kept."""

    def __init__(self) -> None:
        """Begin without any."""
        stop_words = sorted(ENGLISH_STOP_WORDS | ASKING_WORDS)
        self._analyze = CountVectorizer(stop_words=stop_words, token_pattern=WORD).build_analyzer()
        self._count, self.lengths = WordCounter(), array("i")
        self._numbers: dict[str, int] = {}
        self._terms, self._of = array("i"), array("i")
        self._skills: list[tuple[str, ...]] = []

    def add(self, pair: Pair) -> None:
        """Count those of the next pair."""
        numbers, row = self._numbers, len(self.lengths)
        terms = self._analyze(" ".join([pair.question, *pair.topics, *pair.tags]))
        self._terms.extend(numbers.setdefault(term, len(numbers)) for term in terms)
        self._of.extend([row] * len(terms))
        self._skills.append(tuple(map(sys.intern, pair.related_skills)))
        self.lengths.append(self._count(pair_text(pair)))

    def terms(self, labels: NDArray[np.integer], count: int) -> list[list[str]]:
        """The terms that set each of K clusters apart, the strongest first. `labels`: (n,) clusters of the pairs."""
        names = np.array(list(self._numbers), dtype=object)
        terms, clusters = np.asarray(self._terms), labels[np.asarray(self._of, dtype=np.int64)]
        weight = np.log1p(len(terms) / count / np.bincount(terms, minlength=len(names)))
        cells, times = np.unique(clusters.astype(np.int64) * len(names) + terms, return_counts=True)
        found = []
        for start, end in pairwise(np.searchsorted(cells, np.arange(count + 1) * len(names)).tolist()):
            columns = cells[start:end] % max(1, len(names))
            best = sorted(zip(-times[start:end] * weight[columns], names[columns], strict=True))[:TERMS_SHOWN]
            found.append([str(term) for _, term in best])
        return found

    def skills(self, labels: Sequence[int], count: int) -> list[Counter[str]]:
        """How many pairs of each of K clusters name each skill."""
        found: list[Counter[str]] = [Counter() for _ in range(count)]
        for skills, label in zip(self._skills, labels, strict=True):
            found[label].update(skills)
        return found


def describe_clusters(
    words: Words, labels: NDArray[np.integer], count: int, known: Mapping[int, str] | None = None
) -> tuple[ClusterInfo, ...]:
    """Describe every cluster by the words of its questions, topics and tags that others do not use.

    Terms are ranked by class-based TF-IDF (Grootendorst 2022, BERTopic): a cluster is one document, and a term weighs
    tf · log(1 + mean cluster length / frequency of the term everywhere). Names are made unique by adding terms. A
    cluster that has a name keeps it while a word of it is among the cluster's terms, so that people find it again.

    Args:
        words: Of n pairs.
        labels: (n,) clusters, 0 … count-1.
        count: K.
        known: Names that clusters had before, by number.
    """
    terms, skills, sizes = words.terms(labels, count), words.skills(labels.tolist(), count), np.bincount(labels)
    kept = {k: name for k, name in (known or {}).items() if any(term in name.split(SEPARATOR) for term in terms[k])}
    names = _unique_names(terms, kept)
    return tuple(
        ClusterInfo(
            cluster=k,
            name=names[k],
            terms=tuple(terms[k]),
            skills=tuple(sorted(skills[k], key=lambda skill: (-skills[k][skill], skill))[:SKILLS_SHOWN]),
            size=int(sizes[k]) if k < len(sizes) else 0,
        )
        for k in range(count)
    )


def _unique_names(terms: Sequence[Sequence[str]], kept: Mapping[int, str]) -> list[str]:
    taken = set(kept.values())
    names = []
    for k, words in enumerate(terms):
        name = kept.get(k) or _free_name(words, taken)
        taken.add(name)
        names.append(name)
    return names


def _free_name(words: Sequence[str], taken: Set[str]) -> str:
    for length in range(TERMS_IN_NAME, len(words) + 1):
        name = SEPARATOR.join(words[:length])
        if name not in taken:
            return name
    name, number = SEPARATOR.join(words) or "unnamed", 1
    free = name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free
