"""Sentences and bars of the pages that follow from an answer, without a page."""

import pytest

from qaserve.schemas.ask import AskRequest, Confidence, ScoreParts
from qaserve.schemas.params import SearchParams
from ui import state
from ui.cards import by_skill, chips_of, lines_of
from ui.charts import share_bar
from ui.neighbors import changes
from ui.pages.search import badges
from ui.pages.why import in_short
from ui.projection import WIDTH, part_rows, w_rows
from ui.state import OPTIONS
from ui.theme import sureness
from ui.whatif import _said


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


def test_the_summary_says_that_words_decide_on_names(result):
    named = result.model_copy(update={"trace": result.trace.model_copy(update={"names": ("dry-run", "a_b")})})
    text = in_short(named)
    assert "Few pairs hold **dry\\-run, a\\_b**, so words decide: first comes the answer to **“" in text
    assert "nearest" not in text
    assert "nearest answer" in in_short(result)


def test_the_summary_says_that_the_very_question_comes_before_a_better_score(result):
    ahead = result.answers[1].score + 0.1
    known = with_first(result, known=True, score=ahead)
    assert "nearest answer" in in_short(known)
    known = with_first(result, known=True, score=result.answers[2].score - 1e-6)
    better, text = sum(one.score > known.answers[0].score for one in known.answers), in_short(known)
    said = f"**“{result.answers[0].question}”** is what you ask, so its answer comes first; by its score it would be"
    assert f"{said} number {better + 1}." in text
    assert "nearest" not in text


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


NUMBERS = [name for name in OPTIONS if isinstance(getattr(SearchParams(), name), float)]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_that_was_changed_is_told(result, name):
    trace = result.trace
    usual = trace.model_copy(update={"params": trace.params.model_copy(update={name: 0.2})})
    now = trace.model_copy(update={"params": trace.params.model_copy(update={name: 0.7})})
    assert _said(usual, now).endswith(" 0.2 → 0.7")
    assert _said(usual, usual) == ""


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


def sure(**changes):
    return Confidence(**{"value": 0.54, "abstained": False, "reason": "So it is."} | changes)


def test_the_badges_state_both_confidences_in_the_colour_of_the_skills():
    said = badges(sure(skill=0.94))
    assert said == ":green-badge[The right skill: 94%] :gray-badge[This very answer: 54%]"
    assert badges(sure(skill=0.54)).startswith(":orange-badge[The right skill: 54%]")
    assert badges(sure()) == ":orange-badge[This very answer: 54%]", "without skills the answer's has the colour"
    assert badges(sure(value=None)) == ""
    known = badges(sure(skill=0.3, known=True))
    assert known == ":green-badge[:material/check: Matches a known question]"


def test_answers_of_one_skill_are_together_and_the_skill_of_the_best_is_first(result):
    made = [
        result.answers[0].model_copy(update={"rank": rank, "related_skills": skills})
        for rank, skills in enumerate([("b", "a"), ("a",), (), ("b",)], 1)
    ]
    groups = by_skill(made)
    assert {name: [one.rank for one in answers] for name, answers in groups.items()} == {"b": [1, 4], "a": [2], "": [3]}
    assert list(groups) == ["b", "a", ""]


def test_chips_have_no_name_twice_and_are_at_most_six(result):
    fields = {
        "related_skills": ("skill_csv_source.md",),
        "topics": ("CSV Source", "Files"),
        "tags": ("csv-source", "files", "a", "b", "c", "d", "e"),
    }
    answer = result.answers[0].model_copy(update=fields)
    shown, rest = chips_of(answer, {})
    assert shown[:3] == [("related_skills", "skill_csv_source.md"), ("topics", "Files"), ("tags", "a")]
    assert (len(shown), rest) == (6, [("tags", "e")])
    assert chips_of(answer, {"tags": ["e"]})[0][0] == ("tags", "e"), "what is filtered by is never folded away"


def test_an_answer_is_as_long_as_its_lines_are():
    assert lines_of("short\n\nshort") == 2
    assert lines_of("x" * 1_000) > 8


def test_every_parameter_of_a_question_can_be_in_the_address_but_the_centroids():
    assert set(state.OPTIONS) == set(SearchParams.model_fields) - {"centroids"}


def test_weights_before_and_after_hold_every_cluster_of_both_the_largest_first(engine):
    sharp = engine.ask(AskRequest(question="how to make bread", hits=2)).trace
    flat = engine.ask(AskRequest(question="how to make bread", hits=24, temperature=1.0)).trace
    found = changes(sharp, flat)
    assert {one.cluster for one in found} == {vote.cluster for vote in (*sharp.clusters, *flat.clusters)}
    assert sum(one.before for one in found) == pytest.approx(1)
    assert sum(one.after for one in found) == pytest.approx(1)
    first = found[0]
    assert (first.cluster, first.name, first.before) == (
        sharp.clusters[0].cluster, sharp.clusters[0].name, sharp.clusters[0].weight
    )  # fmt: skip
    largest = [max(one.before, one.after) for one in found]
    assert largest == sorted(largest, reverse=True)
    assert [one.before for one in changes(flat, sharp)] == [one.after for one in found]


def test_the_w_of_each_cluster_has_its_weight_angle_and_rank(result):
    votes = result.trace.clusters
    frame = w_rows(votes)
    assert frame["cluster"].tolist() == [vote.name for vote in votes]
    assert frame["weight"].sum() == pytest.approx(100)
    assert frame["angle"].tolist() == [vote.angle for vote in votes]
    assert frame["rank"].tolist() == [vote.rank for vote in votes]


def test_a_confidence_has_the_colour_of_the_highest_bound_that_it_reaches():
    assert [sureness(value) for value in (0.75, 0.74, 0.4, 0.39)] == ["green", "orange", "orange", "gray"]
