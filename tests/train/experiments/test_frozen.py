"""Figures on pairs and vectors that ship with the tests, to three decimals: a changed formula shows without a corpus.

The reference W is left out: what it does outside the span of a few pairs is decided by rounding.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from frozen_pairs import examples

from qaserve.core.calibration import Calibration
from qaserve.core.splits import intent_split, phrasing_split
from qaserve.schemas.params import SearchParams
from train.experiments import routing
from train.experiments.harness import evaluate, row_cosines
from train.folds import split_fold
from train.tuning import START

WORDS = SearchParams(lexical_weight=0.2)
ROOT = Path(__file__).parents[3]
MRR_AND_COSINE = {
    "raw answers": (0.840, 0.762, 0.423),
    "anchored W, centroid τ=0.1": (0.839, 0.764, 0.457),
    "anchored W, question τ=0.1": (0.840, 0.754, 0.449),
    "anchored W, question τ=0.05": (0.823, 0.747, 0.460),
    "anchored W, question τ=0.05, 32 hits": (0.823, 0.747, 0.461),
    "anchored W, question2 τ=0.05": (0.815, 0.719, 0.456),
    "anchored W, best question of each cluster τ=0.05": (0.823, 0.734, 0.459),
    "per-pair W, τ=0.1": (0.828, 0.757, 0.458),
    "per-pair W, τ=0.05, 32 hits": (0.788, 0.671, 0.482),
    "BM25 over question and answer": (0.695, 0.685, None),
    "reciprocal rank fusion of raw answers and BM25": (0.821, 0.748, None),
    "words 0.2": (0.835, 0.779, None),
}


@pytest.fixture(scope="module")
def frozen():
    return examples()


def measured(examples):
    """(MRR on phrasings, MRR on intents, cosine on phrasings or None) of every method."""
    folds = [
        split_fold(examples, phrasing_split(examples.pairs, 0), 0),
        split_fold(examples, intent_split(examples.pairs, 0), 0, whole=True),
    ]
    found = {}
    for fold in folds:
        for name, project in routing.METHODS.items():
            rows = project(fold)
            figures = evaluate(fold.cosines(rows), fold.candidates.intents, fold.queries.intents)
            found.setdefault(name, []).append((figures["mrr"].mean(), row_cosines(rows, fold.queries.answers).mean()))
        scorings = routing.SCORINGS | {"words 0.2": lambda fold: fold.parts(fold.cosines_of(START), WORDS).total}
        for name, scores in scorings.items():
            figures = evaluate(scores(fold), fold.candidates.intents, fold.queries.intents)
            found.setdefault(name, []).append((figures["mrr"].mean(), None))
    return {name: (one[0][0], one[1][0], one[0][1]) for name, one in found.items()}


def test_every_method_finds_what_it_found(frozen):
    found = measured(frozen)
    assert found.keys() == MRR_AND_COSINE.keys()
    for name, expected in MRR_AND_COSINE.items():
        assert found[name] == pytest.approx(expected, abs=6e-4), name


CALIBRATE = """
from frozen_pairs import examples
from qaserve.settings import FitSettings
from train.calibration import calibrate
from train.tuning import START
print(calibrate(examples(), START, FitSettings(), lambda _: None).model_dump_json())
"""


def test_the_calibration_is_what_it_was():
    """In a process of its own, whose algebra adds in one order on every x86: near ties decide where cases belong."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", CALIBRATE], env=environment, capture_output=True, text=True, check=True
    )
    found = Calibration.model_validate_json(done.stdout)
    assert found.cases == {"answered": 275, "unanswered": 224}
    expected = {"calibration_error": 0.035, "roc_area": 0.772, "first_right": 0.695, "precision": 0.591}
    assert found.figures == pytest.approx(expected, abs=6e-4)
    assert (found.threshold, found.coverage) == pytest.approx((0.274, 0.902), abs=6e-4)
