"""Names of clusters, in words a person understands: the terms that set a cluster apart, and its skills."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence, Set

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from qaserve.schemas.builds import ClusterInfo
from qaserve.schemas.pairs import Pair

SEPARATOR = " · "
TERMS_SHOWN = 6
TERMS_IN_NAME = 3
SKILLS_SHOWN = 3
ASKING_WORDS = frozenset(
    """best create did difference different do does example examples get happens instead make mean means need possible
    run set should support supported use used using want way ways without work works""".split()  # noqa: SIM905
)
WORD = r"(?u)\b[^\W\d_][\w.-]*\w\b"


def describe_clusters(
    pairs: Collection[Pair], labels: Sequence[int], count: int, known: Mapping[int, str] | None = None
) -> tuple[ClusterInfo, ...]:
    """Describe every cluster by the words of its questions, topics and tags that others do not use.

    Terms are ranked by class-based TF-IDF (Grootendorst 2022, BERTopic): a cluster is one document, and a term weighs
    tf · log(1 + mean cluster length / frequency of the term everywhere). Names are made unique by adding terms. A
    cluster that has a name keeps it while a word of it is among the cluster's terms, so that people find it again.

    Args:
        pairs: n pairs.
        labels: n clusters, 0 … count-1.
        count: K.
        known: Names that clusters had before, by number.
    """
    terms = _terms(pairs, labels, count)
    skills: list[Counter[str]] = [Counter() for _ in range(count)]
    for pair, label in zip(pairs, labels, strict=True):
        skills[label].update(pair.related_skills)
    sizes = Counter(labels)
    kept = {k: name for k, name in (known or {}).items() if any(term in name.split(SEPARATOR) for term in terms[k])}
    names = _unique_names(terms, kept)
    return tuple(
        ClusterInfo(
            cluster=k,
            name=names[k],
            terms=tuple(terms[k]),
            skills=tuple(sorted(skills[k], key=lambda skill: (-skills[k][skill], skill))[:SKILLS_SHOWN]),
            size=sizes[k],
        )
        for k in range(count)
    )


def _terms(pairs: Collection[Pair], labels: Sequence[int], count: int) -> list[list[str]]:
    documents: list[list[str]] = [[] for _ in range(count)]
    for pair, label in zip(pairs, labels, strict=True):
        documents[label].append(" ".join([pair.question, *pair.topics, *pair.tags]))
    stop_words = sorted(ENGLISH_STOP_WORDS | ASKING_WORDS)
    vectorizer = CountVectorizer(stop_words=stop_words, token_pattern=WORD, ngram_range=(1, 1))
    try:
        counts = vectorizer.fit_transform("\n".join(document) for document in documents)
    except ValueError:  # not one word is left: questions of digits, punctuation or stop words only
        return [[] for _ in range(count)]
    vocabulary = vectorizer.get_feature_names_out()
    everywhere = np.asarray(counts.sum(axis=0)).ravel()
    weight = np.log1p(everywhere.sum() / count / everywhere)
    found = []
    for k in range(count):
        row = counts[k]
        scores = row.data * weight[row.indices]
        best = sorted(zip(-scores, vocabulary[row.indices], strict=True))[:TERMS_SHOWN]
        found.append([str(term) for _, term in best])
    return found


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
