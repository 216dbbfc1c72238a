import json

import numpy as np
import pytest

from ingest.readers import Located, find_files, read_files
from qaserve.cli.bench import _from_files
from qaserve.records import Pair
from qaserve.settings import ReadSettings, get_settings
from qaserve.text import fold
from train.metrics import intent_ranks, mean_cosine, summarize
from train.routing_experiment import run, steps
from train.splits import phrasing_split

# Published for MiniLM, mean of three seeds: MRR, Hit@3, cosine to the answer. A reproduction lands within ±0.02.
PUBLISHED = {
    "raw answers": (0.616, 0.744, 0.647),
    "raw questions": (0.560, 0.681, None),
    "seed W, centroid τ=0.1": (0.353, 0.420, 0.178),
    "seed W, question τ=0.1": (0.421, 0.489, 0.240),
    "anchored W, centroid τ=0.1": (0.644, 0.790, 0.716),
    "anchored W, question τ=0.05": (0.649, 0.789, 0.724),
    "per-pair W, τ=0.1": (0.652, 0.792, 0.722),
}


@pytest.mark.corpus
def test_the_published_figures_come_out_on_one_seed(real_corpus):
    embeddings = real_corpus.parents[1] / "embeddings" / "minilm.npz"
    pairs, questions, answers = _from_files(get_settings(), real_corpus, embeddings)
    done = []
    report = run(pairs, questions, answers, encoder="minilm", seeds=[0], anchor=1.0, advance=done.append)
    assert sum(done) == steps([0])
    found = {result.method: result.metrics for result in report.results}
    for method, (mrr, hit3, cosine) in PUBLISHED.items():
        assert found[method]["mrr"] == pytest.approx(mrr, abs=0.02), method
        assert found[method]["hit3"] == pytest.approx(hit3, abs=0.02), method
        if cosine is not None:
            assert found[method]["cosine"] == pytest.approx(cosine, abs=0.02), method
    assert found["seed W, question τ=0.1"]["mrr"] < found["raw answers"]["mrr"]
    assert found["anchored W, question τ=0.05, 32 hits"]["mrr"] > found["raw answers"]["mrr"]


@pytest.mark.corpus
def test_a_held_out_question_is_not_on_the_training_side(real_corpus):
    items = read_files(find_files([real_corpus]), ReadSettings())
    pairs = [item.pair for item in items if isinstance(item, Located)]
    split = phrasing_split(pairs, seed=3)
    asked = {fold(pairs[row].question) for row in split.test}
    assert not asked & {fold(pairs[row].question) for row in split.train}
    assert len(split.test) == 552
    np.testing.assert_array_equal(split.test, phrasing_split(pairs, seed=3).test)
    assert set(split.test) != set(phrasing_split(pairs, seed=4).test)


def test_small_families_are_not_split():
    pairs = [
        Pair(
            pair_id=str(n), cluster_id="c", question=f"q{n}", answer="a", source_file="f", extra={"original_answer": o}
        )
        for n, o in enumerate(["x", "x", "y", "y", "y"])
    ]
    split = phrasing_split(pairs, seed=0)
    assert len(split.test) == 1
    assert split.test[0] in {2, 3, 4}


def test_ranks_count_every_intent_once_by_its_best_answer():
    scores = np.array([[0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.4]])
    intents = ["a", "a", "b", "c"]
    assert intent_ranks(scores, intents, ["b", "a"]).tolist() == [2, 3]
    assert intent_ranks(scores, intents, ["c", "nobody"]).tolist() == [3, np.inf]


def test_metrics_are_their_definitions():
    found = summarize(np.array([1, 2, 4, np.inf]))
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 4) / 4)
    assert (found["hit1"], found["hit3"], found["hit5"]) == (0.25, 0.5, 0.75)
    assert found["ndcg10"] == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(5)) / 4)
    assert summarize(np.array([11.0]))["ndcg10"] == 0
    assert mean_cosine(np.array([[3.0, 4.0]]), np.array([[1.0, 0.0]])) == pytest.approx(0.6)


def test_embeddings_of_another_corpus_are_refused(tmp_path, rows):
    from qaserve.errors import CorpusError

    corpus, embeddings = tmp_path / "c.jsonl", tmp_path / "e.npz"
    corpus.write_text("\n".join(map(json.dumps, rows())))
    np.savez(embeddings, Q=np.zeros((3, 4)), A=np.zeros((3, 4)))
    with pytest.raises(CorpusError, match=r"Q \(3, 4\) and A \(3, 4\); .* gives 24 pairs"):
        _from_files(get_settings(), corpus, embeddings)
    embeddings.write_text("no")
    with pytest.raises(CorpusError, match="not an npz file"):
        _from_files(get_settings(), corpus, embeddings)
