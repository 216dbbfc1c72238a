"""What each experiment says in plain sentences, against the reports that are published and against changed ones."""

import json
import re
from pathlib import Path

import pytest

from train.experiments import reports
from train.experiments.registry import EXPERIMENTS

PUBLISHED = Path(__file__).parents[3] / "train" / "published"
PRODUCT = "the product, hyperparameters tuned on the training side"


@pytest.fixture
def said(tmp_path):
    """The summary of a published report, after a change of its first run."""

    def saying(name, change=lambda _: None):
        document = json.loads((PUBLISHED / f"{name}.json").read_text(encoding="utf-8"))
        run = document["report"]["runs"][0]
        change(run)
        (tmp_path / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
        measured = reports.read(tmp_path / f"{name}.json", EXPERIMENTS[name].load().EXPERIMENT)
        return measured.experiment.summary(measured.document.report), run

    return saying


@pytest.mark.parametrize("name", sorted(path.stem for path in PUBLISHED.glob("*.json")))
def test_every_published_report_is_summed_up_without_the_terms_of_the_experiment(said, name):
    sentences, _ = said(name)
    assert sentences
    for sentence in sentences:
        assert sentence.endswith(".")
        assert not re.search(r"τ|β|\bW\b|cosine|split|minilm|mpnet|the product|no difference|[+-]\d", sentence), (
            sentence
        )


def gain(low, high):
    return {"low": low, "mean": (low + high) / 2, "high": high}


@pytest.mark.parametrize(
    ("low", "high", "verb"), [(0.01, 0.02, "finds more than"), (-0.02, 0.01, "ties"), (-0.02, -0.01, "finds less than")]
)
def test_routing_says_who_finds_more(said, low, high, verb):
    def change(run):
        for part in run["splits"]:
            for one in part["results"]:
                if one["method"] == PRODUCT:
                    one["gain"] = gain(low, high)

    sentences, run = said("routing", change)
    mrr = {
        part["split"]: {one["method"]: f"{one['metrics']['mrr']:.3f}" for one in part["results"]}
        for part in run["splits"]
    }
    assert sentences == [
        f"{asked}, qaserve {verb} plain search (MRR {mrr[split][PRODUCT]} and {mrr[split]['raw answers']})."
        for split, asked in (
            ("phrasing", "On new phrasings of known questions"),
            ("intent", "On questions with no known phrasing"),
        )
    ]


def test_hypotheses_count_the_readings(said):
    def change(run):
        for one in run["hypotheses"]:
            one["difference"]["gain"] = gain(-0.1, 0.1)
        helps = [one for one in run["hypotheses"] if one["claim"] == "The projection finds better than none"]
        for one, ends in zip(
            [one for one in helps if "τ 0.1" not in one["test"]],
            [(0.1, 0.2), (-0.2, -0.1), (-0.2, -0.1), (-0.2, -0.1)],
            strict=False,
        ):
            one["difference"]["gain"] = gain(*ends)

    sentences, _ = said("hypotheses", change)
    assert sentences == [
        "Of 5 ways to read the proposal's projection, 1 find more than a search without it and 3 find less.",
        "Of 5 ways, 0 find more with votes of known questions than with clusters' centres; 0 find less.",
    ]


def test_finetuning_says_what_it_costs_and_what_the_same_evidence_makes_of_it(said):
    def change(run):
        run["costs"]["training"]["cpu_seconds"] = 3_000.0
        run["costs"]["fitting"]["cpu_seconds"] = 2.0
        own = {one["reference"]: one for one in run["differences"] if one["method"] == PRODUCT}
        own["fine-tuned encoder"] |= {"base": 0.6, "gain": gain(0.01, 0.03)}
        own["fine-tuned encoder with all that the product has but projection"] |= {
            "base": 0.61,
            "gain": gain(-0.01, 0.03),
        }

    (alone, alike), _ = said("finetuning", change)
    assert alone == (
        "qaserve finds more than a fine-tuned language model (MRR 0.620 and 0.600). Fine-tuning took 1,500 times as "
        "much computing as fitting qaserve."
    )
    assert alike == (
        "qaserve ties a fine-tuned language model with the same words, topics and whitening (MRR 0.620 and 0.610)."
    )


def test_distill_names_the_most_faithful_student(said):
    def change(run):
        (ours,) = [one for one in run["teachers"] if one["name"] == "ours"]
        ours["product_mrr"] = 0.5
        ours["students"][0] |= {"teacher_cosine": 0.999, "parameters": 1_234, "product_gain": gain(-0.03, -0.01)}

    sentences, _ = said("distill", change)
    assert sentences == [
        "A network of 1,234 numbers finds less than the vote and projection it learned from (MRR 0.480 and 0.500)."
    ]


@pytest.mark.parametrize("ends", [(-0.002, 0.0312), (-0.0312, 0.002)])
def test_importance_says_the_largest_change_but_for_the_control(said, ends):
    def change(run):
        for one in run["results"]:
            if one["gains"]:
                control = one["weighting"] == "shuffled entropy"
                one["gains"]["product_mrr"] = gain(*((-0.5, 0.5) if control or one["queries"] == "boundary" else ends))

    (sentence,), run = said("importance", change)
    measures = {one["weighting"] for one in run["spreads"]} - {"uniform", "shuffled entropy"}
    assert sentence == (
        f"Counting some pairs more than others changes MRR by 0.031 at most (95% intervals), by any of {len(measures)} "
        "measures of importance."
    )


def test_calibration_says_how_far_it_is_off_and_who_gets_no_answer(said):
    def change(run):
        run |= {"calibration_error": 0.0712, "calibration_floor": 0.0261}
        (own,) = [one for one in run["operations"] if one["precision"] == run["precision"]]
        own["kept"] = 0.91
        own["abstained"]["another corpus"] = 0.87

    sentences, _ = said("calibration", change)
    assert sentences == [
        (
            "The stated confidence is off by 7 percentage points on average where half of the questions have no answer "
            "here; exact ones would be off by 3, by chance."
        ),
        "Of questions about something else 87% get no answer; of new phrasings of known questions 9% get none.",
    ]


def test_skills_say_how_often_the_right_one_is_near_the_top(said):
    sentences, run = said("skills")
    (found,) = [one for one in run["results"] if one["metrics"]["hit3"] == pytest.approx(0.963, abs=5e-4)]
    assert found["method"].endswith("of the best section")
    assert sentences == ["The right skill is among the first three for 96.3% of new phrasings."]


def test_projection_says_what_low_rank_saves(said):
    def change(run):
        (run["measurements"][0]) |= {"difference": 1.0}
        for one in run["measurements"]:
            one["costs"]["dense"] |= {"bytes": 500, "fit_seconds": 1.0}
            one["costs"]["low rank"] |= {"bytes": 100, "fit_seconds": 4.0}

    (sentence,), _ = said("projection", change)
    assert sentence == (
        "Projections as qaserve keeps them are 5 times smaller and 4 times slower to fit than full matrices, and give "
        "other results."
    )
