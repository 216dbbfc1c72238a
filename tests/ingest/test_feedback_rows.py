import numpy as np
import pytest
from store_builds import stored

from ingest.feedback_rows import Extra
from ingest.judgements import Judgement
from ingest.refit import add_student, refit
from qaserve.builds import bundle as bundles
from qaserve.store import BuildRef


@pytest.fixture
def ingested(edge, encoder, make_ingest, write_rows, rows):
    return make_ingest(edge, encoder).run([write_rows(rows())])


@pytest.fixture
def fit(edge, encoder, make_builder, tmp_path):
    """Fit again, with judgements; gives the build's bundle."""

    def fit(*said):
        extra = Extra([Judgement(**one) for one in said], encoder) if said else None
        manifest = refit(make_builder(edge, encoder), extra=extra)
        return bundles.read(tmp_path / "models", BuildRef("things", manifest.build))

    return fit


def turned(bundle, encoder):
    """(K, D): a question, through the W of each cluster alone."""
    query = encoder.encode_questions(["loaf please"])[0].astype(np.float64)
    count = len(bundle.manifest.clusters)
    return np.stack([bundle.model.bank.project(query, np.eye(count)[cluster]) for cluster in range(count)])


def test_a_judged_question_turns_the_w_of_its_pairs_cluster_and_nothing_else(edge, encoder, ingested, fit):
    before = fit()
    points = {row.stored.id: row for row in stored(edge, BuildRef("things", before.manifest.build))}
    (pair,) = [row for row in points.values() if row.stored.pair.pair_id == "bread_q1"]
    encoder.encoded.clear()
    after = fit({"question": "loaf please", "pair_id": "bread_q1"})
    assert encoder.encoded == ["loaf please"]
    moved = np.abs(turned(after, encoder) - turned(before, encoder)).max(axis=1)
    assert np.flatnonzero(moved > 1e-6).tolist() == [pair.stored.cluster]
    cosines = [turned(bundle, encoder)[pair.stored.cluster] @ pair.answer for bundle in (before, after)]
    assert cosines[1] > cosines[0], "towards the answer that helped"
    assert after.manifest.feedback.model_dump() == {"rows": 1, "repeated": 0, "unknown": 0}
    assert before.manifest.feedback is None
    again = {row.stored.id: row for row in stored(edge, BuildRef("things", after.manifest.build))}
    assert again.keys() == points.keys(), "it is no pair"
    for point, row in points.items():  # Qdrant normalises what it stores, which can change the last bit
        np.testing.assert_allclose(again[point].question, row.question, atol=1e-6)
    np.testing.assert_allclose(after.model.mean_questions, before.model.mean_questions, atol=1e-6)


def test_what_gives_no_row_is_counted(encoder, ingested, fit, rows):
    bundle = fit(
        {"question": "loaf please", "pair_id": "bread_q1"},
        {"question": "loaf, please!", "pair_id": "wine_q1"},
        {"question": "what of this", "pair_id": "nobody"},
        {"question": rows()[0]["question"].upper(), "pair_id": rows()[0]["pair_id"]},
        {"question": "not this", "pair_id": "bread_q1", "helpful": False},
    )
    assert bundle.manifest.feedback.model_dump() == {"rows": 2, "repeated": 1, "unknown": 1}


def test_nothing_to_add_fits_as_before(encoder, ingested, fit):
    before = fit()
    after = fit({"question": "what of this", "pair_id": "nobody"})
    np.testing.assert_allclose(turned(after, encoder), turned(before, encoder), atol=1e-6)
    assert after.manifest.feedback.model_dump() == {"rows": 0, "repeated": 0, "unknown": 1}


def test_a_student_keeps_what_w_was_fitted_on_and_the_next_fit_does_not(
    edge, encoder, make_builder, ingested, fit, tmp_path
):
    said = fit({"question": "loaf please", "pair_id": "bread_q1"}).manifest.feedback
    report = add_student(make_builder(edge, encoder), "slots-8", tmp_path / "training")
    assert bundles.read(tmp_path / "models", BuildRef("things", report.build)).manifest.feedback == said
    assert fit().manifest.feedback is None
