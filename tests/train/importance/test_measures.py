import numpy as np
import pytest

from qaserve.common.errors import UsageError
from qaserve.core.routing import leave_one_out_weights
from train.folds import make_fold
from train.importance.measures import PRIORS, ROUTING_MEASURES, importance, normalized, uncertainty
from train.importance.uncertainty import dropout_spread, embedding_norms, token_entropy


@pytest.fixture
def fold(rows, encoded, write_rows):
    examples = encoded(write_rows(rows([f"thing{number} part{number % 5}" for number in range(12)])))
    return make_fold(examples, examples, 0)


def measured(fold, name, **more):
    return importance(name, fold.train, fold.labels, fold.count, temperature=0.05, hits=8, **more)


def one_by_one(fold, temperature, hits):
    """Leave-one-out weights from their definition, a question at a time."""
    found = []
    for row, question in enumerate(fold.train.questions):
        similar = fold.train.questions @ question
        similar[row] = -np.inf
        nearest = np.argsort(-similar)[: min(hits, len(similar) - 1)]
        powers = np.exp(similar[nearest] / temperature)
        found.append([powers[fold.labels[nearest] == k].sum() / powers.sum() for k in range(fold.count)])
    return np.array(found)


def test_a_repeat_of_a_question_in_another_cluster_makes_it_uncertain():
    questions = np.eye(4)[[0, 0, 0, 1, 1, 1]]
    labels = np.array([0, 1, 1, 2, 2, 2])
    weights = leave_one_out_weights(questions, labels, 3, 0.05, 2)
    np.testing.assert_allclose(weights[1], [0.5, 0.5, 0])
    entropies = uncertainty("entropy", weights, labels, {})
    assert entropies[1] == pytest.approx(np.log(2) / np.log(3))
    assert entropies[4] == 0


def test_the_fisher_scores_are_what_the_gradient_says(rng):
    """By finite differences of -log softmax(z)_k."""
    logits, labels = rng.normal(size=(6, 5)), rng.integers(0, 5, 6)

    def loss(z, k):
        return np.log(np.exp(z).sum()) - z[k]

    step = 1e-6
    squared = np.array(
        [
            [
                sum(((loss(z + step * e, k) - loss(z - step * e, k)) / (2 * step)) ** 2 for e in np.eye(5))
                for k in range(5)
            ]
            for z in logits
        ]
    )
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    empirical = uncertainty("fisher-empirical", weights, labels, {})
    np.testing.assert_allclose(empirical, squared[np.arange(6), labels], atol=1e-8)
    expected = uncertainty("fisher-expected", weights, labels, {})
    np.testing.assert_allclose(expected, (weights * squared).sum(axis=1), atol=1e-8)


@pytest.mark.parametrize("name", ROUTING_MEASURES)
def test_at_a_boundary_a_pair_counts_more_than_where_all_agree(name):
    weights = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [0.8, 0.2, 0]])
    sure, torn, leaning = uncertainty(name, weights, np.array([0, 0, 0]), {})
    assert sure == 0 < leaning < torn


def test_uniform_is_one_for_all():
    assert uncertainty("uniform", np.eye(3), np.array([0, 1, 2]), {}).tolist() == [1, 1, 1]


def test_combined_weighs_both_alike_whatever_their_units():
    weights = np.array([[0.5, 0.5], [1.0, 0.0]])
    token = np.array([1.0, 3.0])
    found = uncertainty("combined", weights, np.array([0, 0]), {"token": token})
    np.testing.assert_allclose(found, [(2 + 0.5) / 2, (0 + 1.5) / 2])
    scaled = uncertainty("combined", weights, np.array([0, 0]), {"token": 1e3 * token})
    np.testing.assert_allclose(found, scaled)
    for alpha in (0.0, 0.3, 1.0):
        mostly = uncertainty("combined", weights, np.array([0, 0]), {"token": token}, alpha)
        np.testing.assert_allclose(mostly, [alpha * 2 + (1 - alpha) * 0.5, (1 - alpha) * 1.5])
    sure = uncertainty("combined", np.array([[1.0, 0.0]] * 2), np.array([0, 0]), {"token": token})
    np.testing.assert_allclose(sure, [(1 + 0.5) / 2, (1 + 1.5) / 2])


@pytest.mark.parametrize("name", ["uniform", *ROUTING_MEASURES])
def test_an_importance_has_mean_1_within_its_bounds(fold, name):
    values = measured(fold, name)
    assert values.shape == (48,)
    assert values.dtype == np.float64
    assert values.mean() == pytest.approx(1, abs=1e-12)
    assert values.min() >= 0.5
    assert values.max() <= 2
    assert (np.ptp(values) > 0) == (name != "uniform")


def test_an_importance_is_its_measure_normalized(fold):
    weights = one_by_one(fold, 0.05, 8)
    own = weights[np.arange(48), fold.labels]
    expected = normalized((weights**2).sum(axis=1) - 2 * own + 1)
    np.testing.assert_allclose(measured(fold, "fisher-empirical"), expected, atol=1e-9)


def test_measures_of_the_text_are_the_encoders(fold, tiny_encoder):
    texts = [pair.question for pair in fold.train.pairs]
    told = []
    found = {name: measured(fold, name, model=tiny_encoder, seed=3, advance=told.append) for name in PRIORS[4:]}
    token = token_entropy(tiny_encoder, texts, own_head_only=True).values
    np.testing.assert_allclose(found["token"], normalized(token))
    np.testing.assert_allclose(found["dropout"], normalized(dropout_spread(tiny_encoder, texts, seed=3)))
    entropies = uncertainty("entropy", one_by_one(fold, 0.05, 8), fold.labels, {})
    combined = 0.5 * entropies / entropies.mean() + 0.5 * token / token.mean()
    np.testing.assert_allclose(found["combined"], normalized(combined), atol=1e-9)
    assert told == [48] * 4
    norms = embedding_norms(tiny_encoder, texts)
    np.testing.assert_array_equal(np.argsort(found["norm"], kind="stable"), np.argsort(1 / norms, kind="stable"))
    np.testing.assert_allclose(found["norm"], normalized(1 / norms))


def test_what_is_missing_is_named(fold):
    with pytest.raises(UsageError, match="importance 'best' is not known") as unknown:
        measured(fold, "best")
    assert unknown.value.hint == f"Choose one of: {', '.join(PRIORS)}."
    for name in ("token", "norm", "dropout", "combined"):
        with pytest.raises(UsageError, match=f"importance '{name}' .* no encoder") as missing:
            measured(fold, name)
        assert missing.value.hint.endswith("uniform, entropy, fisher-empirical, fisher-expected.")


def test_normalized_has_mean_1_and_its_bounds_at_once(rng):
    for spread in (0.01, 0.5, 3.0):
        values = np.exp(spread * rng.normal(size=101)) * 10.0 ** rng.integers(-9, 9)
        found = normalized(values)
        assert found.mean() == pytest.approx(1, abs=1e-12)
        assert found.min() >= 0.5
        assert found.max() <= 2
        assert (np.diff(found[np.argsort(values)]) >= 0).all()
        np.testing.assert_allclose(found, normalized(7 * values), atol=1e-9)
        free = (found > 0.5) & (found < 2)
        ratios = found[free] / values[free]
        np.testing.assert_allclose(ratios, np.full(len(ratios), ratios.mean()), rtol=1e-9)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([3.0], [1.0]),
        ([0.1, 0.1, 0.1], [1.0, 1.0, 1.0]),
        ([0, 0], [1.0, 1.0]),
        ([0.9, 1.1], [0.9, 1.1]),
        ([0, 1], [0.5, 1.5]),
        ([0, 0, 0, 1e300], [2 / 3, 2 / 3, 2 / 3, 2.0]),
        ([0, 0, 7], [0.5, 0.5, 2.0]),
        ([0, 0, 1e-3, 1e3], [0.5, 0.5, 1.0, 2.0]),
    ],
)
def test_normalized_by_hand(values, expected):
    np.testing.assert_allclose(normalized(values), expected, atol=1e-12)


def test_normalized_within_other_bounds():
    np.testing.assert_allclose(normalized([0, 1, 1], (0.8, 3.0)), [0.8, 1.1, 1.1])
    np.testing.assert_allclose(normalized([0, 0, 0, 7], (0.1, 1.3)), [0.9, 0.9, 0.9, 1.3])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1])
def test_a_value_that_is_no_importance_is_named_with_its_row(bad):
    with pytest.raises(ValueError, match=f"importance of row 2 is {bad}; it must be finite and not below 0"):
        normalized([1.0, 2.0, bad, bad])
