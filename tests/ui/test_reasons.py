"""Sentences and bars of the pages that follow from an answer, without a page."""

import pytest

from qaserve.schemas.ask import AskRequest, ScoreParts
from ui.neighbors import share_bar
from ui.pages.search import known_question, nothing_found
from ui.pages.why import in_short
from ui.projection import WIDTH, part_rows


@pytest.fixture
def result(engine):
    return engine.ask(AskRequest(question="how to make bread"))


def with_first(result, **changes):
    return result.model_copy(update={"answers": (result.answers[0].model_copy(update=changes), *result.answers[1:])})


def test_the_summary_says_whether_the_first_answer_is_in_the_strongest_cluster(result):
    leader, second = result.trace.clusters[:2]
    assert "It is in that cluster." in in_short(with_first(result, cluster=leader.cluster))
    text = in_short(with_first(result, cluster=second.cluster))
    assert f"It is **not** in that cluster but in **{second.name}**, which got {second.weight:.0%} of" in text
    assert "in one without votes" in in_short(with_first(result, cluster=999))


def test_the_summary_of_other_routings_is_true_too(engine, result):
    routed = engine.ask(AskRequest(question="how to make bread", routing="centroid"))
    text = in_short(with_first(routed, cluster=999))
    assert "voted" not in text
    assert "of the weight" in text
    assert "in one that was not used" in text
    twice = engine.ask(AskRequest(question="how to make bread", routing="question2"))
    assert f"**{twice.trace.clusters[0].vote:.0%}** of the vote" in in_short(twice)
    plain = engine.ask(AskRequest(question="how to make bread", projection="none"))
    assert "the vote does not change the search" in in_short(plain)


@pytest.mark.parametrize("share", [0.08, 0.42, 1.0])
def test_a_bar_ends_at_its_share_of_a_fixed_axis(share):
    bar = share_bar(0.5, 0.4, share, 0, "red", "")
    assert (bar["x2"] - bar["x"]) / 0.4 == pytest.approx(share)


def test_a_score_is_drawn_as_its_parts_one_after_the_other(result):
    parts = ScoreParts(projected=0.5, topic=0.2, lexical=0.1)
    rows = part_rows([result.answers[0].model_copy(update={"parts": parts})])
    assert (rows["x"] / WIDTH).tolist() == pytest.approx([0, 0.5, 0.7])
    assert (rows["x2"] / WIDTH).tolist() == pytest.approx([0.5, 0.7, 0.8])
    assert rows["colour"].nunique() == 3
    without = ScoreParts(projected=0.5, topic=0.0, lexical=0.1)
    assert len(part_rows([result.answers[0].model_copy(update={"parts": without})])) == 2


def test_a_question_matches_a_known_one_but_for_case_and_punctuation(engine, result):
    known = result.trace.hits[0].question
    spelled = engine.ask(AskRequest(question=f"  {known.upper()} ?!"))
    assert known_question(spelled).question == known
    assert known_question(engine.ask(AskRequest(question=f"{known} today"))) is None
    assert known_question(engine.ask(AskRequest(question=known, routing="centroid"))) is None


def test_a_known_question_is_never_called_unanswered(engine, result):
    def abstaining(found):
        return found.model_copy(update={"confidence": found.confidence.model_copy(update={"abstained": True})})

    known = engine.ask(AskRequest(question=result.trace.hits[0].question))
    assert not nothing_found(abstaining(known))
    assert nothing_found(abstaining(engine.ask(AskRequest(question="something else entirely"))))
    assert not nothing_found(result)
