import json

import numpy as np
import pytest
from conftest import Silent

from qaserve.core.clustering import cluster_answers
from qaserve.settings import FitSettings
from train.experiments.scale import SyntheticEncoder, run, write_corpus


def test_every_stage_is_measured(tmp_path):
    report = run(60, tmp_path, FitSettings(), 32, Silent())
    assert (report.pairs, report.dimension) == (60, 32)
    assert report.clusters > 1
    assert {"read", "encode", "cluster", "fit", "write"} <= set(report.stages)
    assert report.seconds >= sum(report.stages.values()) * 0.99
    assert len(report.write_rates) == 10
    assert min(report.write_rates) > 0
    assert report.peak_bytes >= report.start_bytes > 1 << 20
    assert report.unchanged_seconds > 0 < report.added_seconds
    assert report.disk_bytes > 60 * 2 * 32 * 4  # two vectors of each pair at least
    assert report.ask_p99_ms >= report.ask_ms > 0 < report.open_seconds


def test_a_larger_corpus_begins_with_the_smaller_one(tmp_path):
    write_corpus(tmp_path / "few.jsonl", 20, 3)
    write_corpus(tmp_path / "more.jsonl", 30, 3)
    few, more = ((tmp_path / name).read_text().splitlines() for name in ("few.jsonl", "more.jsonl"))
    assert (len(few), len(more)) == (20, 30)
    assert more[:20] == few
    assert len({json.loads(row)["question"] for row in more}) == 30


def test_synthetic_texts_of_one_intent_are_nearer_than_those_of_others(tmp_path):
    write_corpus(tmp_path / "pairs.jsonl", 200, 0)
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    vectors = SyntheticEncoder(64).encode_questions([row["question"] for row in rows])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    cosines = vectors @ vectors.T
    intent = np.array([row["cluster_id"] for row in rows])
    topic = np.array([row["topics"][0] for row in rows])
    own, same_topic = intent[:, None] == intent, topic[:, None] == topic
    others = ~np.eye(len(rows), dtype=bool)
    assert cosines[own & others].mean() > cosines[same_topic & ~own].mean() + 0.1
    assert cosines[same_topic & ~own].mean() > cosines[~same_topic].mean() + 0.1


def test_many_answers_are_clustered_in_batches_and_as_well(monkeypatch, rng):
    centres = rng.normal(size=(6, 16))
    truth = np.sort(rng.integers(0, 6, 900))
    answers = centres[truth] + 0.05 * rng.normal(size=(900, 16))
    answers /= np.linalg.norm(answers, axis=1, keepdims=True)
    whole = cluster_answers(answers, 6, 0)
    monkeypatch.setattr("qaserve.core.clustering.MANY", 100)
    batched = cluster_answers(answers, 6, 0)
    assert len(np.unique(batched)) == 6
    assert (cluster_answers(answers, 6, 0) == batched).all()
    assert (np.bincount(whole) == np.sort(np.bincount(truth))[::-1]).all()
    agreement = np.array([np.bincount(batched[whole == label]).max() for label in range(6)]).sum() / 900
    assert agreement > 0.8


def test_the_command_prints_what_was_measured():
    from typer.testing import CliRunner

    from qaserve.cli import load_all

    app = load_all()

    done = CliRunner().invoke(app, ["bench", "scale", "--pairs", "40", "--dimension", "16", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["pairs"] == 40
    shown = CliRunner().invoke(app, ["bench", "scale", "--pairs", "40", "--dimension", "16"]).stdout
    assert "40 pairs of D 16" in shown
    assert "KiB for each pair" in shown


@pytest.mark.parametrize("name", ["topic", "intent"])
def test_the_encoder_reads_topic_and_intent_off_a_text(name):
    encoder = SyntheticEncoder(64)
    one, other = "topic1 intent1 a", {"topic": "topic2 intent1 a", "intent": "topic1 intent2 a"}[name]
    vectors = encoder.encode_answers([one, other, one])
    assert (vectors[0] == vectors[2]).all()
    assert vectors[0] @ vectors[1] < 0.95
