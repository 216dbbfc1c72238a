"""Drift on the real corpus: what its docstring says of random pairs and of whole topics, on a few of its draws."""

import json

import numpy as np
import pytest

from ingest.drift import centroids, clustering_of, measure_drift
from qaserve.core.chunked import nearest
from qaserve.core.clustering import cluster_answers, cluster_count

pytestmark = pytest.mark.corpus
FORM = "participation"


@pytest.fixture
def answers(real_corpus):
    """(n, D) unit rows in the order of the corpus."""
    with np.load(real_corpus.parents[1] / "embeddings" / "minilm.npz") as arrays:
        return arrays["A"].astype(np.float64)


@pytest.fixture
def drift_of(answers):
    """The drift that giving these rows again brings, when the clusters were made without them."""

    def drift_of(rows):
        new = np.zeros(len(answers), dtype=bool)
        new[rows] = True
        known = answers[~new]
        count = cluster_count(known, FORM, 2_000)
        before = cluster_answers(known, count, seed=0)
        means = centroids(known, before, count)
        made = clustering_of(known, before, count, FORM).model_copy(update={"changed": int(new.sum())})
        labels = np.empty(len(answers), dtype=np.int64)
        labels[~new], labels[new] = before, nearest(answers[new], means)
        return measure_drift(made, answers, labels, means, new, FORM)

    return drift_of


@pytest.mark.parametrize("seed", range(2))
def test_a_random_tenth_given_again_is_no_drift(drift_of, answers, seed):
    drift = drift_of(np.random.default_rng(seed).choice(len(answers), len(answers) // 10, replace=False))
    assert drift.reasons == ()
    assert drift.far < 0.3


@pytest.mark.parametrize("topic", ["Find Executable", "Component Library"])
def test_a_topic_of_its_own_given_again_is_drift(real_corpus, drift_of, topic):
    pairs = [json.loads(line) for line in real_corpus.read_text(encoding="utf-8").splitlines()]
    drift = drift_of([row for row, pair in enumerate(pairs) if topic in pair["topics"]])
    assert [reason for reason in drift.reasons if "far from every cluster" in reason]
