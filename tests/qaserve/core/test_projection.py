import numpy as np
import pytest

from qaserve.core.projection import FixedRows, LowRankProjection, ProjectionBank, project_by_pairs
from train.procrustes import anchored


def unit(rng, *shape):
    rows = rng.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def plane_rotation(q, a):
    """Dense W with q W = a that turns only the plane of q and a."""
    cosine = q @ a
    u = (a - cosine * q) / np.linalg.norm(a - cosine * q)
    sine = u @ a
    frame = np.stack([q, u])
    turn = np.array([[cosine, sine], [-sine, cosine]])
    return np.eye(len(q)) + frame.T @ (turn - np.eye(2)) @ frame


def test_pair_projection_equals_the_dense_rotations(rng):
    q, a, x, shares = unit(rng, 6, 20), unit(rng, 6, 20), unit(rng, 20), rng.dirichlet(np.ones(6))
    expected = sum(p * (x @ plane_rotation(*pair)) for p, *pair in zip(shares, q, a, strict=True))
    np.testing.assert_allclose(project_by_pairs(x, q, a, shares), expected, atol=1e-12)


def test_pair_projection_takes_the_question_exactly_to_its_answer(rng):
    q, a = unit(rng, 1, 384), unit(rng, 1, 384)
    np.testing.assert_allclose(project_by_pairs(q[0], q, a, [1.0]), a[0], atol=1e-12)


def test_pair_projection_keeps_length(rng):
    x = unit(rng, 30)
    moved = project_by_pairs(x, unit(rng, 1, 30), unit(rng, 1, 30), [1.0])
    assert np.linalg.norm(moved) == pytest.approx(1.0, abs=1e-12)


def test_equal_question_and_answer_do_not_move_anything(rng):
    q, x = unit(rng, 3, 12), unit(rng, 12)
    np.testing.assert_allclose(project_by_pairs(x, q, q, [0.2, 0.3, 0.5]), x, atol=1e-12)


def test_an_opposite_answer_turns_a_defined_plane_by_half(rng):
    q, x = unit(rng, 1, 12), unit(rng, 12)
    np.testing.assert_allclose(project_by_pairs(q[0], q, -q, [1.0]), -q[0], atol=1e-12)
    moved = project_by_pairs(x, q, -q, [1.0])
    assert np.linalg.norm(moved) == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_array_equal(moved, project_by_pairs(x, q, -q, [1.0]))
    assert np.linalg.matrix_rank(np.stack([moved - x, q[0]]), tol=1e-9) == 2


@pytest.mark.parametrize("gap", [1e-4, 1e-7, 1e-9, 1e-11, 1e-13])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_nearly_parallel_pairs_stay_accurate(rng, gap, sign):
    q = unit(rng, 1, 40)
    a = sign * q + gap * unit(rng, 1, 40)
    a /= np.linalg.norm(a)
    np.testing.assert_allclose(project_by_pairs(q[0], q, a, [1.0]), a[0], atol=1e-9)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_several_nearly_parallel_pairs_are_each_taken_exactly_to_their_answers(rng, sign):
    q = unit(rng, 5, 40)
    a = sign * q + 1e-6 * unit(rng, 5, 40)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    for row, alone in enumerate(np.eye(5)):
        np.testing.assert_allclose(project_by_pairs(q[row], q, a, alone), a[row], atol=1e-13)


def test_lengths_of_stored_vectors_do_not_matter(rng):
    q, a, x = unit(rng, 4, 10), unit(rng, 4, 10), unit(rng, 10)
    np.testing.assert_allclose(
        project_by_pairs(x, 3 * q, 0.1 * a, np.full(4, 0.25)), project_by_pairs(x, q, a, np.full(4, 0.25)), atol=1e-12
    )


def test_nobody_to_vote_leaves_the_question_alone(rng):
    x = unit(rng, 7)
    np.testing.assert_array_equal(project_by_pairs(x, np.empty((0, 7)), np.empty((0, 7)), []), x)
    bank = ProjectionBank.pack([LowRankProjection(np.eye(7)[:, :2], np.zeros((2, 2)))], 7)
    np.testing.assert_array_equal(bank.project(x, [0.0]), x)


def test_a_low_rank_projection_is_the_identity_and_a_term_of_low_rank(rng):
    part = LowRankProjection(np.linalg.qr(rng.normal(size=(9, 3)))[0], rng.normal(size=(3, 3)))
    expected = np.eye(9) + part.basis @ part.core @ part.basis.T
    rows = rng.normal(size=(4, 9))
    np.testing.assert_allclose(part.dense(), expected, atol=1e-12)
    np.testing.assert_allclose(part.apply(rows), rows @ expected, atol=1e-12)


def test_a_lone_question_is_projected_as_one_of_many(rng):
    bank = ProjectionBank.pack([anchored(unit(rng, n, 24), unit(rng, n, 24), 1.0) for n in (3, 5)], 24)
    rows, weights = unit(rng, 2, 24), rng.dirichlet(np.ones(2), 2)
    both = bank.project_rows(rows, weights)
    for row in range(2):
        alone = bank.project_rows(rows[[row]], weights[[row]])
        assert alone.shape == (1, 24)
        np.testing.assert_allclose(alone[0], both[row], atol=1e-6)


def test_packing_keeps_every_rotation(rng):
    parts = [LowRankProjection(np.linalg.qr(rng.normal(size=(9, r)))[0], rng.normal(size=(r, r))) for r in (3, 0, 5)]
    bank = ProjectionBank.pack(parts, 9)
    for cluster, part in enumerate(parts):
        np.testing.assert_allclose(bank[cluster].dense(), part.dense(), atol=1e-5)
    assert bank.dense_nbytes == 3 * 9 * 9 * 4
    assert bank.nbytes == (8 * 9 + 9 + 25) * 4 + 3 * 8


def test_a_bank_blends_its_dense_matrices(rng):
    """x' = Σ_k w_k · x W_k with W = I + B C Bᵀ, C not symmetric, some weights 0; one question and many alike."""
    parts = [LowRankProjection(np.linalg.qr(rng.normal(size=(9, r)))[0], rng.normal(size=(r, r))) for r in (3, 2, 5)]
    dense = [np.eye(9) + part.basis @ part.core @ part.basis.T for part in parts]
    bank, rows = ProjectionBank.pack(parts, 9), unit(rng, 4, 9)
    weights = rng.dirichlet(np.ones(3), 4)
    weights[1] = [0.0, 1.0, 0.0]
    weights[2] = 0.0
    for row, share, moved in zip(rows, weights, bank.project_rows(rows, weights), strict=True):
        expected = sum(w * (row @ matrix) for w, matrix in zip(share, dense, strict=True)) if share.any() else row
        np.testing.assert_allclose(moved, expected, atol=1e-6)
        np.testing.assert_allclose(bank.project(row, share), expected, atol=1e-6)


def test_angle_and_effective_rank_follow_their_definitions(rng):
    basis = np.linalg.qr(rng.normal(size=(9, 4)))[0]
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    whole = LowRankProjection(basis, turn - np.eye(4))
    bank = ProjectionBank.pack([whole, LowRankProjection(basis, np.zeros((4, 4)))], 9)
    x = 3 * unit(rng, 1, 9)[0]
    moved = x @ (np.eye(9) + basis @ (turn - np.eye(4)) @ basis.T)
    expected = np.degrees(np.arccos((x / np.linalg.norm(x)) @ (moved / np.linalg.norm(moved))))
    assert bank.angle(x, 0) == pytest.approx(expected, abs=1e-3)
    values = np.linalg.svd(whole.dense() - np.eye(9))[1]
    shares = values / values.sum()
    entropy = -sum(share * np.log(share) for share in shares if share > 1e-12)
    assert bank.effective_rank(0) == pytest.approx(np.exp(entropy), rel=1e-5)
    assert bank.effective_rank(0) < 4
    assert bank.effective_rank(1) == 0
    assert bank.angle(x, 1) == pytest.approx(0, abs=1e-3)


def test_arrays_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="do not fit together"):
        ProjectionBank(np.zeros((3, 4), np.float32), np.zeros(4, np.float32), np.array([2]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fixed_rows_are_projected_as_any_rows(rng, dtype):
    bank = ProjectionBank.pack([anchored(unit(rng, n, 24), unit(rng, n, 24), 1.0) for n in (3, 0, 20, 1)], 24)
    rows = unit(rng, 9, 24).astype(dtype)
    fixed = FixedRows(bank, rows)
    assert len(fixed) == len(bank) == 4
    for weights in (rng.dirichlet(np.ones(4), 9), np.eye(4)[rng.integers(0, 4, 9)], np.zeros((9, 4))):
        found = fixed.project_rows(rows, weights)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, bank.project_rows(rows, weights), atol=1e-5)
    with pytest.raises(ValueError, match="other rows"):
        fixed.project_rows(rows.copy(), weights)


def test_float32_is_projected_in_float64(rng):
    q, a, x = (unit(rng, *shape).astype(np.float32) for shape in ((4, 9), (4, 9), (9,)))
    shares = rng.dirichlet(np.ones(4)).astype(np.float32)
    exact = [np.array(part.tolist()) for part in (x, q, a, shares)]
    np.testing.assert_allclose(project_by_pairs(x, q, a, shares), project_by_pairs(*exact), atol=1e-14)
    part = LowRankProjection(np.eye(9, 2, dtype=np.float32), turn_by(rng.uniform(0.1, 3)).astype(np.float32))
    bank = ProjectionBank.pack([part, part], 9)
    for found, expected in (
        (part.apply(x), part.apply(exact[0])),
        (bank.project(x, shares[:2]), bank.project(exact[0], exact[3][:2])),
        (bank.angle(x, 0), bank.angle(exact[0], 0)),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_several_opposite_answers_are_turned_each_by_itself(rng):
    q, x = unit(rng, 3, 12), unit(rng, 12)
    single = [project_by_pairs(x, q[[row]], -q[[row]], [1.0]) for row in range(3)]
    np.testing.assert_allclose(project_by_pairs(x, q, -q, [0.5, 0.3, 0.2]), np.array([0.5, 0.3, 0.2]) @ single)


def test_no_angle_is_beyond_rounding(rng):
    """The cosine of a vector and itself may be a little more than 1."""
    bank = ProjectionBank.pack([LowRankProjection(np.eye(9), c * np.eye(9)) for c in (0.0, -2.0)], 9)
    found = np.array([[bank.angle(x, cluster) for cluster in (0, 1)] for x in rng.normal(size=(500, 9))])
    np.testing.assert_allclose(found, np.tile([0.0, 180.0], (500, 1)), atol=1e-5)


def turn_by(angle):
    """(2, 2) C of a turn by radians in the plane of the basis."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c - 1, s], [-s, c - 1]])


@pytest.mark.parametrize("angle", [1e-7, 1e-4, 0.5, 3.0])
def test_small_angles_are_told_as_exactly_as_large_ones(angle):
    """The cosine of a small angle is 1 to all its digits."""
    bank = ProjectionBank.pack([LowRankProjection(np.eye(9, 2), turn_by(angle))], 9)
    assert bank.angle(np.eye(9)[0], 0) == pytest.approx(np.degrees(angle), rel=1e-5)


def test_the_effective_rank_counts_small_turns_as_large_ones():
    cores = [np.diag([0.5, 0.25]), np.diag([0.5, 0.0])]
    bank = ProjectionBank.pack([LowRankProjection(np.eye(9, 2), core) for core in cores], 9)
    assert bank.effective_rank(0) == pytest.approx(np.exp(-(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))))
    assert bank.effective_rank(1) == pytest.approx(1)
