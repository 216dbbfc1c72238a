import numpy as np
import pytest

from train import whitening
from train.whitening import SHRINKAGE, fit_whitening

D = 6


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def pairs(rng):
    """Intents of one to four pairs whose questions and answers vary most in the first direction."""
    intents = [f"intent{number}" for number in range(20) for _ in range(1 + number % 4)]
    centres = {intent: rng.normal(size=D) for intent in intents}
    spread = np.array([2.0, 1.0, 0.5, 0.3, 0.3, 0.3])
    questions, answers = (
        unit(np.stack([centres[intent] + spread * rng.normal(size=D) for intent in intents])) for _ in range(2)
    )
    return questions, answers, intents


def by_definition(questions, answers, intents):
    """G from the definition, one vector at a time."""
    covariance, count = np.zeros((D, D)), 0
    for intent in set(intents):
        own = [v for q, a, name in zip(questions, answers, intents, strict=True) if name == intent for v in (q, a)]
        mean = sum(own) / len(own)
        for vector in own:
            covariance += np.outer(vector - mean, vector - mean)
            count += 1
    covariance /= count
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / D * np.eye(D)
    inverse = np.linalg.inv(shrunk)
    return inverse / np.sqrt(np.mean([(answer @ inverse) @ (answer @ inverse) for answer in answers]))


def test_g_is_the_scaled_inverse_of_the_shrunk_covariance_within_intents(pairs):
    g = fit_whitening(*pairs)
    assert g.dtype == np.float32
    np.testing.assert_allclose(g, by_definition(*pairs), rtol=1e-5, atol=1e-6)


def test_g_does_not_depend_on_the_order_of_the_pairs(pairs, rng):
    questions, answers, intents = pairs
    order = rng.permutation(len(intents))
    other = fit_whitening(questions[order], answers[order], [intents[row] for row in order])
    np.testing.assert_allclose(other, fit_whitening(*pairs), rtol=1e-4, atol=1e-6)


def test_a_direction_that_varies_within_intents_counts_less(pairs):
    weights = np.diag(fit_whitening(*pairs))
    assert weights[0] == weights.min()
    assert weights[0] < weights[3:].min() / 3


@pytest.mark.parametrize("copies", [1, 3])
def test_without_any_variation_g_is_the_identity(rng, copies):
    rows = np.repeat(unit(rng.normal(size=(4, D))), copies, axis=0)
    g = fit_whitening(rows, rows, [f"intent{row // copies}" for row in range(4 * copies)])
    np.testing.assert_array_equal(g, np.eye(D))
    assert g.dtype == np.float32


def test_a_slight_variation_is_one_too(pairs, rng):
    centres = np.repeat(unit(rng.normal(size=(4, D))), 5, axis=0)
    questions, answers = (centres + 1e-5 * rng.normal(size=(20, D)) for _ in range(2))
    intents = [f"intent{row // 5}" for row in range(20)]
    expected = by_definition(questions, answers, intents)
    np.testing.assert_allclose(fit_whitening(questions, answers, intents), expected, rtol=1e-4, atol=1e-6)


def test_one_pair_is_enough(rng):
    question, answer = unit(rng.normal(size=(2, 1, D)))
    g = fit_whitening(question, answer, ["only"])
    np.testing.assert_allclose(g, by_definition(question, answer, ["only"]), rtol=1e-4)
    along = unit(question - answer)
    assert float((along @ g @ along.T)[0, 0]) == pytest.approx(np.linalg.eigvalsh(g).min(), rel=1e-4)


def test_of_many_pairs_every_kth_intent_is_read(pairs, monkeypatch):
    questions, answers, intents = pairs
    monkeypatch.setattr(whitening, "MAX_PAIRS", -(-len(intents) // 2))
    kept = [row for row, intent in enumerate(intents) if sorted(set(intents)).index(intent) % 2 == 0]
    expected = by_definition(questions[kept], answers[kept], [intents[row] for row in kept])
    np.testing.assert_allclose(fit_whitening(*pairs), expected, rtol=1e-5, atol=1e-6)


def test_what_is_read_in_steps_is_read_wholly(pairs, monkeypatch):
    monkeypatch.setattr("qaserve.core.chunked.ROWS", 7)
    np.testing.assert_allclose(fit_whitening(*pairs), by_definition(*pairs), rtol=1e-5, atol=1e-6)
