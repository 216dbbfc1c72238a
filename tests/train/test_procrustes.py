import numpy as np
import pytest
import scipy.linalg

from qaserve.core.projection import ProjectionBank
from train.procrustes import DenseBank, anchored, centred_reference, fit_bank, mean_rows, polar


def unit(rng, *shape):
    rows = rng.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def dense_reference(s, t, anchor):
    left, _, right = np.linalg.svd(s.T @ t + anchor * np.eye(s.shape[1]))
    return left @ right


@pytest.mark.parametrize("pairs", [1, 2, 10, 40, 100])
@pytest.mark.parametrize("anchor", [0.1, 1.0, 10.0])
def test_low_rank_equals_the_dense_polar_factor(rng, pairs, anchor):
    s, t = unit(rng, pairs, 64), unit(rng, pairs, 64)
    w = anchored(s, t, anchor)
    assert w.core.shape[0] <= min(2 * pairs, 64)
    np.testing.assert_allclose(w.dense(), dense_reference(s, t, anchor), atol=1e-10)


def test_many_pairs_are_fitted_as_few(rng, monkeypatch):
    """Without an SVD of all rows, and summed part by part."""
    monkeypatch.setattr("train.procrustes.MANY_ROWS", 10)
    monkeypatch.setattr("qaserve.core.chunked.ROWS", 7)
    s, t = unit(rng, 40, 12), unit(rng, 40, 12)
    np.testing.assert_allclose(anchored(s, t, 0.7).dense(), dense_reference(s, t, 0.7), atol=1e-10)


def test_w_is_orthogonal(rng):
    w = anchored(unit(rng, 12, 96), unit(rng, 12, 96), 1.0).dense()
    np.testing.assert_allclose(w @ w.T, np.eye(96), atol=1e-12)


def test_w_becomes_the_identity_as_the_anchor_grows(rng):
    s, t = unit(rng, 5, 32), unit(rng, 5, 32)
    distances = [np.abs(anchored(s, t, anchor).dense() - np.eye(32)).max() for anchor in (1.0, 1e3, 1e6, 1e9)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-8


def test_w_leaves_alone_what_its_pairs_do_not_span(rng):
    s, t = unit(rng, 3, 32), unit(rng, 3, 32)
    other = unit(rng, 32)
    basis, _ = np.linalg.qr(np.concatenate([s, t]).T)
    other -= basis @ (basis.T @ other)
    np.testing.assert_allclose(anchored(s, t, 1.0).apply(other), other, atol=1e-12)


def test_w_brings_its_pairs_closer(rng):
    s, t = unit(rng, 8, 64), unit(rng, 8, 64)
    moved = anchored(s, t, 1.0).apply(s)
    assert (moved * t).sum() > (s * t).sum()


def test_one_pair_turns_towards_its_answer_in_their_plane_only(rng):
    s, t = unit(rng, 1, 16), unit(rng, 1, 16)
    w = anchored(s, t, 0.01)
    assert w.core.shape == (2, 2)
    np.testing.assert_allclose(w.apply(s), t, atol=0.05)


def test_repeated_pairs_count_like_a_smaller_anchor(rng):
    s, t = unit(rng, 2, 16), unit(rng, 2, 16)
    five = anchored(np.tile(s, (5, 1)), np.tile(t, (5, 1)), 1.0)
    np.testing.assert_allclose(five.dense(), anchored(s, t, 0.2).dense(), atol=1e-10)


def test_equal_question_and_answer_give_the_identity(rng):
    s = unit(rng, 4, 16)
    np.testing.assert_allclose(anchored(s, s, 1.0).dense(), np.eye(16), atol=1e-12)


@pytest.mark.parametrize(("anchor", "expected"), [(0.5, -1.0), (1.0, 1.0), (2.0, 1.0)])
def test_an_opposite_answer_reflects_only_below_the_anchor_and_turns_nothing_else(rng, anchor, expected):
    q = np.zeros((1, 8))
    q[0, 3] = 1.0
    w = anchored(q, -q, anchor).dense()
    np.testing.assert_allclose(np.diag(w), [1, 1, 1, expected, 1, 1, 1, 1], atol=1e-12)
    np.testing.assert_allclose(w, np.diag(np.diag(w)), atol=1e-12)


def test_no_pair_gives_the_identity():
    np.testing.assert_array_equal(anchored(np.empty((0, 6)), np.empty((0, 6)), 1.0).dense(), np.eye(6))


def test_bad_input_is_refused(rng):
    s = unit(rng, 2, 4)
    with pytest.raises(ValueError, match="one shape"):
        anchored(s, unit(rng, 3, 4), 1.0)
    with pytest.raises(ValueError, match="not finite"):
        anchored(np.full((1, 4), np.nan), s[:1], 1.0)
    with pytest.raises(ValueError, match="regularization λ is 0"):
        anchored(s, s, 0.0)


def test_bank_is_the_weighted_sum_of_dense_projections(rng):
    questions, answers, labels = unit(rng, 40, 24), unit(rng, 40, 24), rng.integers(0, 5, 40)
    bank = fit_bank(questions, answers, labels, 6, 1.0)
    assert isinstance(bank, ProjectionBank)
    told = []
    fit_bank(questions, answers, labels, 6, 1.0, told.append)
    assert told == [1] * 6
    assert len(bank) == 6
    weights, x = rng.dirichlet(np.ones(6)), unit(rng, 24)
    dense = [dense_reference(questions[labels == k], answers[labels == k], 1.0) for k in range(6)]
    np.testing.assert_allclose(
        bank.project(x, weights), sum(w * (x @ matrix) for w, matrix in zip(weights, dense, strict=True)), atol=1e-6
    )


def test_mean_rows_are_unit_and_zero_for_an_empty_cluster(rng):
    rows = unit(rng, 10, 6)
    means = mean_rows(rows, np.array([0] * 4 + [2] * 6), 3)
    expected = rows[:4].mean(axis=0)
    np.testing.assert_allclose(means[0], expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_array_equal(means[1], np.zeros(6))
    assert means.dtype == np.float32


def test_rows_that_cancel_out_have_no_mean_and_those_that_nearly_do_have(rng):
    q, other = unit(rng, 2, 6)
    means = mean_rows(np.stack([q, -q, q, 0.5 * other - q]), np.array([0, 0, 1, 1]), 2)
    np.testing.assert_allclose(means, [np.zeros(6), other], atol=1e-6)


def test_seed_w_is_a_scaled_rotation_that_is_optimal_on_centred_pairs(rng):
    s = unit(rng, 30, 6)
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    w = centred_reference(s, 0.5 * s @ rotation)
    np.testing.assert_allclose(w, 0.5 * rotation, atol=1e-10)


def test_rounding_decides_the_proposals_w_where_its_pairs_say_nothing(rng):
    s, t = unit(rng, 8, 64), unit(rng, 8, 64)
    other = s + 1e-15 * rng.normal(size=s.shape)
    w, moved = centred_reference(s, t), centred_reference(other, t)
    assert np.linalg.norm(w - moved) > 0.5 * np.linalg.norm(w)
    centred = s - s.mean(axis=0)
    np.testing.assert_allclose(centred @ w, centred @ moved, atol=1e-9)
    np.testing.assert_allclose(anchored(s, t, 1.0).dense(), anchored(other, t, 1.0).dense(), atol=1e-12)


def test_the_reference_w_is_the_least_squares_scaled_rotation(rng):
    """Schönemann & Carroll 1970: among c R with R orthogonal, none brings the centred pairs nearer; c = tr Σ / ‖S‖²."""
    s, t = unit(rng, 40, 5), unit(rng, 40, 5)
    w = centred_reference(s, t)
    s, t = s - s.mean(axis=0), t - t.mean(axis=0)
    scale = np.sqrt(np.trace(w @ w.T) / 5)
    np.testing.assert_allclose(w @ w.T, scale**2 * np.eye(5), atol=1e-12)
    least = ((s @ w - t) ** 2).sum()
    for _ in range(50):
        turn = np.linalg.qr(np.eye(5) + 0.1 * rng.normal(size=(5, 5)))[0]
        turn *= np.sign(np.diag(turn))
        assert ((s @ w @ turn - t) ** 2).sum() > least
        assert ((s @ w * (1 + 0.1 * rng.normal()) - t) ** 2).sum() > least


def test_seed_w_of_one_pair_is_still_orthogonal(rng):
    w = centred_reference(unit(rng, 1, 5), unit(rng, 1, 5))
    np.testing.assert_allclose(w @ w.T, np.eye(5), atol=1e-12)


@pytest.mark.parametrize("many", [3, 1_000])
def test_float32_is_fitted_in_float64(rng, monkeypatch, many):
    monkeypatch.setattr("train.procrustes.MANY_ROWS", many)
    s, t = unit(rng, 9, 6).astype(np.float32), unit(rng, 9, 6).astype(np.float32)
    exact = [np.array(part.tolist()) for part in (s, t)]
    np.testing.assert_allclose(anchored(s, t, 0.7).dense(), dense_reference(*exact, 0.7), atol=1e-12)
    np.testing.assert_allclose(centred_reference(s, t), centred_reference(*exact), atol=1e-12)
    np.testing.assert_allclose(polar(s[:6]), polar(exact[0][:6]), atol=1e-12)


def test_the_span_of_a_single_direction_is_that_direction(rng):
    q = unit(rng, 1, 16)
    assert anchored(np.tile(q, (5, 1)), np.tile(q, (5, 1)), 1.0).core.shape == (1, 1)
    assert anchored(1e-9 * q, -1e-9 * q, 1.0).core.shape == (1, 1)


def test_where_lapacks_fast_svd_gives_up_the_older_one_is_asked(rng, monkeypatch):
    s, t = unit(rng, 30, 6), unit(rng, 30, 6)
    expected = centred_reference(s, t)

    def gives_up(matrix):
        raise np.linalg.LinAlgError("SVD did not converge")

    drivers, svd = [], scipy.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", gives_up)
    monkeypatch.setattr(
        scipy.linalg,
        "svd",
        lambda a, lapack_driver: drivers.append(lapack_driver) or svd(a, lapack_driver=lapack_driver),
    )
    np.testing.assert_allclose(centred_reference(s, t), expected, atol=1e-12)
    assert drivers == ["gesvd"]


@pytest.mark.parametrize("answers", [1e-8, 0.0])
def test_answers_that_do_not_vary_leave_the_scale_at_one(rng, answers):
    """Beside questions that do: how much longer the ones are than the others cannot be said."""
    w = centred_reference(unit(rng, 5, 4), 1.0 + answers * 1e-6 * unit(rng, 5, 4))
    np.testing.assert_allclose(w @ w.T, np.eye(4), atol=1e-9)


def test_dense_matrices_are_blended_by_their_weights(rng):
    matrices, rows, weights = rng.normal(size=(3, 5, 5)), unit(rng, 4, 5), rng.dirichlet(np.ones(3), 4)
    bank = DenseBank(list(matrices))
    assert len(bank) == 3
    for row, share, moved in zip(rows, weights, bank.project_rows(rows, weights), strict=True):
        np.testing.assert_allclose(moved, sum(w * (row @ m) for w, m in zip(share, matrices, strict=True)), atol=1e-12)
