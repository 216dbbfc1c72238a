import numpy as np
import pytest

from qaserve.schemas.params import SearchParams
from qaserve.settings import ReadSettings
from train.experiments import projection as projection_experiment
from train.experiments.datasets import Source, from_files
from train.experiments.harness import Report
from train.experiments.projection import (
    EXPERIMENT,
    ProjectionRun,
    run,
    steps,
)
from train.procrustes import fit_bank


@pytest.fixture
def source(rows, encoded, write_rows):
    return Source("fake", encoded(write_rows(rows([f"thing{number} part{number % 5}" for number in range(15)]))))


def measure(source, *, quick=False, seeds=(0,)):
    told = []
    found = run(source, seeds=seeds, quick=quick, advance=told.append)
    assert sum(told) == steps(seeds, quick)
    return found


def test_dense_and_low_rank_are_the_same_w_and_the_bytes_are_theirs(source):
    found = measure(source, seeds=(0, 1))
    assert [one.seed for one in found.measurements] == [0, 1]
    dimension = source.examples.questions.shape[1]
    assert found.dense_pairs_bytes == 60 * dimension**2 * 4
    for one in found.measurements:
        assert one.difference <= 1e-12
        assert one.difference < one.stored_difference <= 1e-6
        assert one.costs["dense"].bytes == one.clusters * dimension**2 * 4
        assert 0 < one.costs["low rank"].bytes < one.costs["dense"].bytes
        assert one.costs["per pair"].bytes == 0
        assert 1 <= one.voting <= one.clusters


def test_w_of_another_anchor_are_told_apart(source):
    fold = projection_experiment._fold(source.examples, 0, quick=False)
    other = fit_bank(source.examples.questions, source.examples.answers, fold.labels, fold.count, 3.0)
    fitted = projection_experiment._fit_dense(fold, other, 4, lambda _: None)
    assert fitted.difference <= 1e-12
    assert fitted.stored_difference > 1e-3


def test_dense_w_move_a_question_as_the_bank_does(source):
    fold = projection_experiment._fold(source.examples, 0, quick=False)
    bank, _ = projection_experiment._fit_low_rank(fold)
    fitted = projection_experiment._fit_dense(fold, bank, 1, lambda _: None)
    for query, weights in zip(fold.queries.questions, fold.weights(SearchParams()), strict=True):
        moved = projection_experiment._through_dense(query.astype(np.float32), fitted.matrices, weights)
        np.testing.assert_allclose(moved, bank.project(query, weights), atol=1e-6)


def test_quick_measures_the_largest_clusters_only(source):
    found = measure(source, quick=True)
    assert found.measurements[0].clusters == projection_experiment.QUICK_CLUSTERS


def test_what_is_shown_is_made_from_the_report_alone(source):
    report = Report[ProjectionRun](runs=(measure(source),))
    again = Report[ProjectionRun].model_validate_json(report.model_dump_json())
    assert again == report
    assert EXPERIMENT.tables(again) == EXPERIMENT.tables(report)
    (table,) = EXPERIMENT.tables(report)
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert len(EXPERIMENT.findings(report)) == 4
    assert "nothing is ranked" in EXPERIMENT.findings(report)[0]
    assert "so they are the same W" in EXPERIMENT.findings(report)[2]
    assert [plot.name for plot in EXPERIMENT.plots(report)] == ["ratios"]
    assert EXPERIMENT.report is Report[ProjectionRun]


def test_findings_follow_the_figures(source):
    document = Report[ProjectionRun](runs=(measure(source),)).model_dump()
    (one,) = document["runs"][0]["measurements"]
    one["difference"] = 1e-3
    one["costs"]["dense"] |= {"fit_seconds": 600.0, "bytes": 50, "question_ms": 0.1}
    one["costs"]["low rank"] |= {"fit_seconds": 0.5, "bytes": 100, "question_ms": 0.2}
    one["costs"]["per pair"] |= {"question_ms": 0.1}
    _, first, second, third = EXPERIMENT.findings(Report[ProjectionRun].model_validate(document))
    assert "1,200 times faster to fit, 2 times larger and 2 times slower to ask" in first
    assert "1.0e-03 in double precision, so they are not the same W" in second
    assert "per-pair W need no fit and are 2 times faster to ask" in third


@pytest.mark.corpus
def test_the_real_vectors_at_768_dimensions(real_corpus):
    embeddings = real_corpus.parents[1] / "embeddings" / "mpnet.npz"
    found = measure(from_files(real_corpus, embeddings, ReadSettings()), quick=True)
    assert found.dimension == 768
    assert found.measurements[0].difference <= 1e-10
    assert found.ratios()[1] >= 20
