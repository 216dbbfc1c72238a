import socket
import sys

import numpy as np
import pytest

from ingest.readers import Located, find_files, read_files
from qaserve.common.errors import UsageError
from qaserve.core.metrics import summarize
from qaserve.core.splits import phrasing_split
from qaserve.settings import ReadSettings
from train.experiments.baselines import reciprocal_rank_fusion, txtai_scores
from train.folds import Examples, make_fold

DOCUMENTS = ["the cat sleeps on a red mat", "a dog barks at the cat", "bread needs flour and water"]


def unit(rows):
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_fusion_adds_reciprocal_ranks():
    first, second = np.array([[3.0, 2.0, 1.0]]), np.array([[0.0, 9.0, 0.0]])
    expected = [1 / 61 + 1 / 62, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62]
    np.testing.assert_allclose(reciprocal_rank_fusion(first, second)[0], expected)
    np.testing.assert_allclose(reciprocal_rank_fusion(first, k=0)[0], [1, 1 / 2, 1 / 3])


def test_fusion_gives_nothing_for_what_a_ranking_lacks():
    ranking = np.array([[-np.inf, 0.5, -np.inf], [-np.inf, -np.inf, -np.inf]])
    np.testing.assert_allclose(reciprocal_rank_fusion(ranking), [[0, 1 / 61, 0], [0, 0, 0]])


def test_txtai_gives_cosines_and_nothing_below_zero(no_network, rng):
    pytest.importorskip("txtai", reason="the extra `peers` is not installed")
    documents, queries = unit(rng.normal(size=(20, 8))), unit(rng.normal(size=(5, 8)))
    names, asked = [f"document {n}" for n in range(20)], [f"query {n}" for n in range(5)]
    cosines = queries @ documents.T
    found = txtai_scores(names, documents, asked, queries)
    np.testing.assert_allclose(found, np.where(cosines > 0, cosines, -np.inf), atol=1e-6)


def test_txtai_takes_a_text_that_is_document_and_query_with_two_vectors():
    pytest.importorskip("txtai", reason="the extra `peers` is not installed")
    found = txtai_scores(["same", "other"], unit([[1, 0], [0, 1]]), ["same", "same too"], unit([[1, 2], [2, 1]]))
    np.testing.assert_allclose(found * np.sqrt(5), [[1, 2], [2, 1]], atol=1e-6)


def test_txtai_hybrid_counts_words_too(no_network):
    pytest.importorskip("txtai", reason="the extra `peers` is not installed")
    vectors = unit([[1, 0, 0], [0, 1, 0], [0, 1, 0.1]])
    asked, query = ["flour"], unit([[0, 1, 0]])
    assert txtai_scores(DOCUMENTS, vectors, asked, query)[0].argmax() == 1
    found = txtai_scores(DOCUMENTS, vectors, asked, query, hybrid=True)[0]
    assert found.argmax() == 2
    assert found[1] == pytest.approx(0.5)  # half the cosine and none of the words
    assert found[0] == -np.inf


def test_a_missing_txtai_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "txtai", None)
    with pytest.raises(UsageError, match=r"package that is not installed: txtai") as missing:
        txtai_scores(["a"], unit([[1, 0]]), ["b"], unit([[1, 0]]))
    assert missing.value.hint == "pip install 'qaserve[peers]'"


# MRR on split seed 0 of the real corpus, MiniLM. txtai is published within ±0.02 of it; its hybrid is published (0.635)
# with vectors of "question answer", which nothing here encodes.
FIGURES = {"fusion": 0.638, "txtai": 0.614, "txtai hybrid": 0.630}


@pytest.mark.corpus
def test_the_figures_of_the_real_corpus_come_out(real_corpus):
    pytest.importorskip("txtai", reason="the extra `peers` is not installed")
    items = read_files(find_files([real_corpus]), ReadSettings())
    pairs = [item.pair for item in items if isinstance(item, Located)]
    with np.load(real_corpus.parents[1] / "embeddings" / "minilm.npz") as arrays:
        examples = Examples(pairs, arrays["Q"], arrays["A"])
    split = phrasing_split(pairs, seed=0)
    fold = make_fold(examples.take(split.train), examples.take(split.test), seed=0)
    known, queries = fold.train.pairs, [pair.question for pair in fold.queries.pairs]
    vectors, cosines = fold.queries.questions, fold.cosines(fold.queries.questions)
    texts = [f"{pair.question} {pair.answer}" for pair in known]
    dense = txtai_scores([pair.answer for pair in known], fold.train.answers, queries, vectors)
    scores = {
        "fusion": reciprocal_rank_fusion(fold.lexical, cosines),
        "txtai": dense,
        "txtai hybrid": txtai_scores(texts, fold.train.answers, queries, vectors, hybrid=True),
    }
    found = {name: summarize(fold.ranks(rows))["mrr"] for name, rows in scores.items()}
    assert found == pytest.approx(FIGURES, abs=1e-3)
    np.testing.assert_allclose(np.where(cosines > 0, cosines, -np.inf), dense, atol=1e-5)
