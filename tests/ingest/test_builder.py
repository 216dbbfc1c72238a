"""What a build holds is the mathematics of its pairs, computed here from their vectors alone."""

import numpy as np
from sklearn.cluster import KMeans
from store_builds import stored

from qaserve.builds import bundle as bundles
from qaserve.core.clustering import KMEANS_STARTS


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def same_groups(one, other):
    return len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


def test_a_build_is_fitted_from_questions_to_answers_with_its_own_regularization(
    edge, encoder, make_ingest, write_rows, rows, tmp_path
):
    things = ["bread", "cheese", "wine", "paper", "glass", "steel", "soap", "rope"]
    # Questions that group otherwise than their answers: by what is asked, not by what is made.
    odd = [
        row | {"question": f"{('why', 'how')[number % 2]} {number // 4} ever"}
        for number, row in enumerate(rows(things))
    ]
    make_ingest(edge, encoder, regularization=4.0, seed=3).run([write_rows(odd)])
    live = edge.live("things")
    bundle, points = bundles.read(tmp_path / "models", live), stored(edge, live)
    questions, answers = (
        np.stack([getattr(point, name) for point in points]).astype(float) for name in ("question", "answer")
    )
    labels, model = np.array([point.stored.cluster for point in points]), bundle.model
    count = len(bundle.manifest.clusters)
    assert bundle.manifest.hyperparameters.regularization == 4.0

    def grouped(rows):
        return KMeans(count, n_init=KMEANS_STARTS, random_state=3).fit(rows).labels_

    assert same_groups(labels, grouped(answers))
    assert not same_groups(labels, grouped(questions))
    for cluster in range(count):
        s, t = questions[labels == cluster], answers[labels == cluster]
        left, _, right = np.linalg.svd(s.T @ t + 4.0 * np.eye(s.shape[1]))
        np.testing.assert_allclose(model.bank[cluster].dense(), left @ right, atol=1e-5)
        np.testing.assert_allclose(model.mean_questions[cluster], unit(s.mean(axis=0)), atol=1e-6)
        np.testing.assert_allclose(model.mean_answers[cluster], unit(t.mean(axis=0)), atol=1e-6)
