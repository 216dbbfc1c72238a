"""The confidence that comes with an answer, from ingest to engine."""

from types import SimpleNamespace

import numpy as np
import pytest

from ingest.refit import refit
from qaserve.builds import bundle as bundles
from qaserve.core.calibration import Top, evidence
from qaserve.schemas.ask import AskRequest
from qaserve.search.confidence import Sureness, _or_skill
from qaserve.search.engine import Engine
from qaserve.store import BuildRef

KNOWN = "steps for good thing7 part0"
FOREIGN = "completely unrelated nonsense words everywhere"


@pytest.fixture
def calibrated(edge, encoder, make_ingest, write_rows, rows, tmp_path):
    """An engine over a build with enough phrasings to be calibrated."""
    path = write_rows(rows([f"thing{number} part{number % 7}" for number in range(40)]))
    make_ingest(edge, encoder).run([path])
    return Engine(edge, encoder, tmp_path / "models", "things")


def test_a_known_question_is_answered_and_a_foreign_one_is_not(calibrated):
    known = calibrated.ask(AskRequest(question=KNOWN)).confidence
    foreign = calibrated.ask(AskRequest(question=FOREIGN))
    assert not known.abstained
    assert foreign.confidence.abstained
    assert (known.value, known.skill) == (None, None), "calibrated on questions that are not known"
    assert foreign.confidence.value < 0.5
    assert foreign.confidence.reason.startswith("Nothing here seems to answer this")
    assert foreign.answers, "what is nearest is shown all the same"


def test_a_skill_that_fits_is_said_where_no_pair_answers(calibrated):
    named = calibrated.ask(AskRequest(question=f"{FOREIGN} skill_thing7_part0"))
    assert named.confidence.abstained
    assert named.confidence.reason.endswith(" The question names the skill skill_thing7 part0.")
    assert (named.skills[0].name, named.skills[0].named) == ("skill_thing7 part0", True)
    assert not named.skills[1].named
    assert "skill" not in calibrated.ask(AskRequest(question=FOREIGN)).confidence.reason
    sure = Sureness(named.confidence, [0.2, 0.7])
    ranked = SimpleNamespace(names=["one", "other"])
    said = _or_skill(SimpleNamespace(skills=frozenset()), sure, ranked).reason
    assert said == f"{named.confidence.reason} It is likely about the skill other."


def test_a_known_question_is_never_abstained_on(calibrated, monkeypatch):
    asked = AskRequest(question=f"  {KNOWN.upper()}?!")
    manifest = calibrated.load().bundle.manifest
    strict = manifest.calibration.model_copy(update={"threshold": 1.0})
    monkeypatch.setattr(manifest, "calibration", strict) if not manifest.model_config.get("frozen") else (
        object.__setattr__(manifest, "calibration", strict)
    )
    confidence = calibrated.ask(asked).confidence
    assert (confidence.known, confidence.abstained) == (True, False)
    assert confidence.reason == "The first answer is its own."
    assert calibrated.ask(asked.model_copy(update={"explain": False})).confidence == confidence
    other = calibrated.ask(AskRequest(question=f"{KNOWN} please")).confidence
    assert (other.known, other.abstained) == (False, True)


def test_a_known_question_is_known_without_calibration_too(engine):
    confidence = engine.ask(AskRequest(question="STEPS for good bread?")).confidence
    assert (confidence.value, confidence.known) == (None, True)
    assert confidence.statement == "Matches a known question."


def test_the_skill_has_a_confidence_of_its_own(calibrated):
    result = calibrated.ask(AskRequest(question=f"{KNOWN} please"))
    assert result.answers[0].related_skills
    assert result.confidence.value <= result.confidence.skill <= 1
    assert result.confidence.statement.startswith(f"The right skill: {result.confidence.skill:.0%}. This very answer: ")


def test_the_confidence_can_be_computed_again_from_the_result(calibrated):
    result = calibrated.ask(AskRequest(question=f"{KNOWN} please", top_k=5))
    trace, first = result.explained, result.answers[0]
    weights = np.zeros(len(calibrated.load().clusters))
    for vote in trace.clusters:
        weights[vote.cluster] = vote.weight
    found = evidence(
        similarities=[hit.similarity for hit in trace.hits],
        probabilities=[hit.probability for hit in trace.hits],
        clusters=[hit.cluster for hit in trace.hits],
        weights=weights,
        scores=[answer.score for answer in result.answers],
        top=Top(first.similarity, first.raw_similarity, first.parts.lexical, first.cluster),
    )
    calibration = calibrated.load().bundle.manifest.calibration
    again = calibration.confidence(found)
    assert result.confidence.value == pytest.approx(again.value, abs=1e-9)
    assert result.confidence.reason == again.reason


@pytest.mark.parametrize("top_k", [1, 3, 20])
def test_it_does_not_depend_on_how_many_answers_are_asked_for(calibrated, top_k):
    expected = calibrated.ask(AskRequest(question=KNOWN)).confidence
    result = calibrated.ask(AskRequest(question=KNOWN, top_k=top_k))
    assert result.confidence.value == pytest.approx(expected.value, abs=1e-9)
    assert result.confidence.reason == expected.reason
    assert len(result.answers) == top_k


@pytest.mark.parametrize(
    "other",
    [{"temperature": 0.2}, {"hits": 3}, {"projection": "none"}, {"lexical_weight": 0.0}, {"routing": "centroid"}],
)
def test_asked_in_another_way_than_calibrated_it_says_so(calibrated, other):
    confidence = calibrated.ask(AskRequest(question=f"{KNOWN} please", **other)).confidence
    assert (confidence.value, confidence.abstained) == (None, False)
    assert "others" in confidence.reason


def test_the_builds_own_options_said_aloud_are_calibrated(calibrated):
    own = calibrated.load().bundle.manifest.hyperparameters.search
    asked = AskRequest(question=f"{KNOWN} please", temperature=own.temperature, hits=own.hits, routing=own.routing)
    assert calibrated.ask(asked).confidence.value is not None


def test_without_priors_is_another_way_only_where_there_are_priors(calibrated, edge, encoder, make_builder):
    without = AskRequest(question=f"{KNOWN} please", priors=False)
    own = calibrated.ask(AskRequest(question=f"{KNOWN} please")).confidence
    assert own.value is not None
    assert calibrated.ask(without).confidence.value == pytest.approx(own.value), "all are 1: nothing was left out"
    refit(make_builder(edge, encoder), "entropy")
    assert calibrated.ask(AskRequest(question=f"{KNOWN} please")).confidence.value is not None
    confidence = calibrated.ask(without).confidence
    assert (confidence.value, confidence.abstained) == (None, False)
    assert "others" in confidence.reason


def test_too_few_pairs_have_no_calibration(engine):
    confidence = engine.ask(AskRequest(question="bread")).confidence
    assert confidence.value is None
    assert "too few pairs" in confidence.reason


def test_a_stricter_precision_is_another_build_that_abstains_more(
    calibrated, edge, encoder, make_ingest, write_rows, rows, tmp_path
):
    before = calibrated.load().bundle.manifest
    path = write_rows(rows([f"thing{number} part{number % 7}" for number in range(40)]))
    report = make_ingest(edge, encoder, precision=0.95).run([path])
    after = bundles.read(tmp_path / "models", BuildRef("things", report.build)).manifest
    assert report.encoded == 0
    assert report.build != before.build
    assert after.calibration.threshold >= before.calibration.threshold


def test_every_ranked_skill_has_a_confidence_where_the_answers_have_one(calibrated):
    result = calibrated.ask(AskRequest(question=f"{KNOWN} please", top_k=5))
    assert len(result.skills) > 1
    sure = [skill.confidence for skill in result.skills]
    assert all(0 < one < 1 for one in sure)
    assert sure[0] == max(sure)
    alone = calibrated.ask(AskRequest(question=f"{KNOWN} please", top_k=1)).skills
    assert [one.confidence for one in alone] == [pytest.approx(sure[0])]
    other = calibrated.ask(AskRequest(question=f"{KNOWN} please", temperature=0.2)).skills
    assert {one.confidence for one in other} == {None}
