import numpy as np
import pytest

from qaserve.core.pipeline import Pipeline
from qaserve.schemas.params import SearchParams
from train.distillation.teachers import RoutedTeacher
from train.procrustes import DenseBank, fit_bank


def unit(rng, *shape):
    rows = rng.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("with_prior", [True, False])
def test_what_is_taught_is_routing_and_projection_of_every_row(rng, with_prior):
    """The five nearest known questions vote, each by its prior; a known question votes for itself."""
    known, labels, prior = unit(rng, 30, 6), rng.integers(0, 4, 30), rng.uniform(0.2, 3, 30)
    matrices = [np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(4)]
    pipeline = Pipeline(SearchParams(hits=5, temperature=0.2), DenseBank(matrices))
    teacher = RoutedTeacher(known, labels, pipeline, prior if with_prior else None)
    rows = np.concatenate([unit(rng, 3, 6), known[:2]])
    for row, taught in zip(rows, teacher(rows.astype(np.float64)), strict=True):
        nearest = sorted(range(30), key=lambda one: -(known[one] @ row))[:5]
        powers = np.array([np.exp(known[one] @ row / 0.2) * (prior[one] if with_prior else 1.0) for one in nearest])
        expected = sum(p * (row @ matrices[labels[one]]) for p, one in zip(powers / powers.sum(), nearest, strict=True))
        np.testing.assert_allclose(taught, expected, atol=1e-12)


def test_rows_of_float32_are_taught_in_float64(rng):
    known = unit(rng, 12, 6)
    labels = np.arange(12) % 2
    pipeline = Pipeline(SearchParams(hits=4), fit_bank(known, unit(rng, 12, 6), labels, 2, 1.0))
    teacher = RoutedTeacher(known, labels, pipeline)
    rows = unit(rng, 3, 6).astype(np.float32)
    np.testing.assert_allclose(teacher(rows), teacher(np.array(rows.tolist())), atol=1e-14)
