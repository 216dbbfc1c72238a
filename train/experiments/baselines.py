"""What a user would reach for instead: rank fusion, and txtai, dense and hybrid; BM25 alone is `Fold.lexical`.

Every function gives (m, n) scores of n documents for m queries, higher is better, for
`qaserve.core.metrics.intent_ranks`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qaserve.common.errors import UsageError

if TYPE_CHECKING:
    from txtai import Embeddings

FUSION_K = 60
EXACT = "IDMap,Flat"
"""faiss compares with every vector; txtai's own choice above 5,000 documents is approximate."""


def reciprocal_rank_fusion(*scores: NDArray[np.floating], k: int = FUSION_K) -> NDArray[np.float64]:
    """Fuse rankings by Σ 1 / (k + rank) (Cormack, Clarke & Büttcher 2009).

    Args:
        scores: One ranking or more, each (m, n), higher is better. Equal scores share the better rank; a document of
            score -inf is not in the ranking and gets nothing from it.
        k: What softens the first ranks; 60 is the authors' choice.

    Returns:
        (m, n) scores ≥ 0.
    """
    fused = np.zeros(scores[0].shape)
    for ranking in scores:
        ranks = np.stack([1 + np.searchsorted(np.sort(row), row) for row in -ranking])
        fused += np.where(ranking > -np.inf, 1 / (k + ranks), 0)
    return fused


def txtai_scores(
    documents: Sequence[str],
    document_vectors: NDArray[np.floating],
    queries: Sequence[str],
    query_vectors: NDArray[np.floating],
    *,
    hybrid: bool = False,
) -> NDArray[np.float64]:
    """Scores of txtai over an exact faiss index, with vectors made beforehand, so that the encoder is the same.

    `hybrid` is txtai's own: 0.5 · cosine + 0.5 · BM25 normalised to [0, 1]. Its MRR depends on what is indexed. On one
    split of the first corpus, MiniLM: answers 0.610; vectors of answers under the text "question answer" 0.630, under
    it the unit means of both vectors 0.627; "question answer" encoded as one text 0.636. The last is the strongest and
    what a user of txtai gets, who hands it one text for both. Compare with that: those texts and their vectors.

    Args:
        documents: (n,) texts.
        document_vectors: (n, D) unit rows.
        queries: (m,) texts.
        query_vectors: (m, D) unit rows.
        hybrid: Search words too; without it the texts only tell the vectors apart, so equal texts need equal vectors.

    Returns:
        (m, n) scores > 0; -inf for what txtai does not return: without `hybrid` all documents of cosine ≤ 0.

    Raises:
        UsageError: txtai is not installed.
    """
    scores = np.full((len(queries), len(documents)), -np.inf)
    with _index(documents, document_vectors, queries, query_vectors, hybrid=hybrid) as index:
        for row, hits in zip(scores, index.batchsearch(list(queries), len(documents)), strict=True):
            for document, score in hits:
                row[document] = score
    return scores


@contextmanager
def _index(
    documents: Sequence[str],
    document_vectors: NDArray[np.floating],
    queries: Sequence[str],
    query_vectors: NDArray[np.floating],
    *,
    hybrid: bool,
) -> "Iterator[Embeddings]":
    """A filled index that will look up the queries' vectors."""
    try:
        from txtai import Embeddings  # noqa: PLC0415 - seconds to import, an extra
    except ImportError as error:
        raise UsageError(
            f"the comparison with txtai needs a package that is not installed: {error.name}",
            hint="pip install 'qaserve[peers]'",
        ) from error
    vectors = dict(zip(documents, document_vectors, strict=True))

    def look_up(texts: list[str]) -> NDArray[np.floating]:
        return np.stack([vectors[text] for text in texts])

    settings = {"method": "external", "transform": look_up, "backend": "faiss", "faiss": {"components": EXACT}}
    with Embeddings({**settings, "hybrid": hybrid}) as index:
        index.index(enumerate(documents))
        vectors = dict(zip(queries, query_vectors, strict=True))  # a text may be a document here and a query there
        yield index
