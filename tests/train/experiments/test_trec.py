import json

import ir_measures
import numpy as np
import pytest

from qaserve.schemas.pairs import Pair
from train.experiments.trec import DEPTH, MEASURES, Judge, Scored, TrecExport, judgements, run_of
from train.folds import Examples, Fold


def examples(*given):
    """Pairs of (intent, skills, answer vector)."""
    pairs = [
        Pair(
            pair_id=f"p{number}",
            cluster_id=intent,
            question=f"Why \t number\n{number}?",
            answer=f"Answer {intent} {number}.",
            related_skills=skills,
            source_file="x",
        )
        for number, (intent, skills, _) in enumerate(given)
    ]
    vectors = np.array([vector for _, _, vector in given], dtype=float)
    return Examples(pairs, vectors, vectors)


@pytest.fixture
def fold():
    """Queries of intents `a b` and `c`; `near` has an answer that is 0.9 like that of `a b`, `far` one that is 0.8."""
    found = examples(
        ("a b", ("one.md",), (1.0, 0.0)),
        ("near", ("two.md",), (0.9, 0.19**0.5)),
        ("far", ("one.md", "two.md"), (0.8, 0.6)),
        ("c", (), (0.0, 1.0)),
    )
    return Fold(found, found.take(np.array([0, 3])), np.zeros(4, dtype=np.int64), 1, found)


def test_what_is_relevant_follows_from_intent_skill_and_the_other_encoders_answers(fold):
    found = judgements(fold, Judge("other", fold.candidates))
    assert found["intent"] == {"0": {"a%20b": 1}, "1": {"c": 1}}
    assert found["skill"] == {"0": {"a%20b": 1, "far": 1}}, "a pair without a skill asks for none"
    assert found["graded"] == {"0": {"a%20b": 2, "near": 1}, "1": {"c": 2}}
    assert set(judgements(fold, None)) == {"intent", "skill"}


def test_the_figures_are_those_of_the_definitions(fold, tmp_path):
    export = TrecExport(tmp_path, "one/encoder", Judge("other", fold.candidates))
    scores = np.array([[0.1, 0.9, 0.5, -np.inf], [0.0, 0.0, 0.0, 0.5]])  # near, far, a b; c
    export.write("phrasing", 3, fold, [Scored("some method", scores)])
    figures = {one["relevant"]: one["seeds"] for one in json.loads(export.close().read_text())["figures"]}
    half = 1 / np.log2(2) + 2 / np.log2(4)  # of gains 1 and 2 at ranks 1 and 3
    ideal = 2 / np.log2(2) + 1 / np.log2(3)
    assert figures["intent"][0]["RR"] == pytest.approx((1 / 3 + 1) / 2, abs=1e-6)
    assert figures["skill"][0]["RR"] == pytest.approx(1 / 2, abs=1e-6)
    assert figures["skill"][0]["Success@1"] == 0
    assert figures["graded"][0]["nDCG@10"] == pytest.approx((half / ideal + 1) / 2, abs=1e-6)


def test_anyone_can_check_them_from_the_files(fold, tmp_path, rng):
    export = TrecExport(tmp_path, "one/encoder", Judge("other", fold.candidates))
    methods = [Scored("raw", rng.random((2, 4))), Scored("the product: β = 0.1", rng.random((2, 4)), 0.5)]
    export.write("phrasing", 0, fold, methods)
    (folder,) = (tmp_path / "one%2Fencoder").glob("phrasing-0")
    assert (folder / "queries.tsv").read_text().splitlines() == ["0\tWhy number 0?", "1\tWhy number 3?"]
    measures = [ir_measures.parse_measure(name) for name in MEASURES]
    runs = {"raw": "run.raw.txt", methods[1].method: "run.the_product%3A_%CE%B2_%3D_0.1.txt"}
    found = json.loads(export.close().read_text())
    assert found["judge"] == "other"
    assert len(found["figures"]) == 6
    for one in found["figures"]:
        qrels = list(ir_measures.read_trec_qrels(str(folder / f"qrels.{one['relevant']}.txt")))
        run = list(ir_measures.read_trec_run(str(folder / runs[one["method"]])))
        again = ir_measures.calc_aggregate(measures, qrels, run)
        assert one["seeds"] == [{name: round(again[m], 6) for name, m in zip(MEASURES, measures, strict=True)}]


def test_a_run_is_cut_and_equal_scores_are_in_the_order_of_names():
    intents = [f"i{number:03}" for number in range(DEPTH + 20)]
    run = run_of(Scored("x", np.zeros((1, len(intents)))), intents)
    assert list(run["0"]) == intents[:DEPTH]
    assert list(run["0"].values()) == list(range(DEPTH, 0, -1))
