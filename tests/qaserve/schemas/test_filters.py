"""Filters act inside Qdrant on both searches, and the trace says what kept an expected answer out."""

import pytest
from pydantic import ValidationError

from qaserve.schemas.ask import AskRequest, Filters
from qaserve.search.trace import matches
from qaserve.store.points import to_pair

QUESTION = "Which recipe gives the best bread and cheese?"


@pytest.fixture
def stored(engine):
    return {point.id: to_pair(point) for point in engine.load().points.scroll(vectors=())}


@pytest.mark.parametrize(
    "filters",
    [
        Filters(topics=("wine",)),
        Filters(topics=("wine", "glass")),
        Filters(topics=("making",), related_skills=("skill_steel.md", "skill_wine.md")),
        Filters(source_file=("pairs.jsonl",), topics=("paper",)),
        Filters(cluster=(0, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("projection", ["cluster", "pair", "none"])
def test_only_what_matches_votes_and_is_found(engine, stored, filters, projection):
    result = engine.ask(AskRequest(question=QUESTION, filters=filters, projection=projection, top_k=20))
    passing = {point for point, one in stored.items() if matches(filters, one)}
    assert {hit.id for hit in result.trace.hits} == passing
    assert {answer.cluster_id for answer in result.answers} == {stored[point].pair.cluster_id for point in passing}
    assert all(answer.id in passing for answer in result.answers)
    assert result.trace.filters == filters


def test_ours_and_qdrants_idea_of_a_match_are_the_same(engine, stored):
    points = engine.load().points
    for filters in (Filters(topics=("wine", "no such")), Filters(cluster=(2,)), Filters(tags=("none",)), Filters()):
        found = {point.id for point in points.scroll(filters.given)}
        assert found == {point for point, one in stored.items() if matches(filters, one)}
        assert points.count(filters.given) == len(found)


@pytest.mark.parametrize("routing", ["question", "question2", "centroid"])
def test_filters_that_match_nothing_answer_nothing_and_say_so(engine, routing):
    result = engine.ask(AskRequest(question=QUESTION, routing=routing, filters=Filters(topics=("no such",))))
    assert result.answers == result.trace.hits == result.trace.raw_answers == ()
    assert result.confidence.abstained
    assert result.confidence.reason == "No pair matches the filters. No pair has 'no such' in topics."
    assert {one.by for one in result.trace.excluded} == {"filter"}


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        (Filters(topics=("wine", "bread"), tags=("none",)), " No pair has 'none' in tags."),
        (Filters(topics=("WINES",)), " No pair has 'WINES' in topics. Did you mean 'wine'?"),
        (
            Filters(related_skills=("deep/skill_win.md",)),
            " No pair has 'deep/skill_win.md' in related_skills. Did you mean 'skill_wine'?",
        ),
        (Filters(source_file=("pair.jsonl",)), " No pair has 'pair.jsonl' in source_file. Did you mean 'pairs.jsonl'?"),
        (Filters(cluster=(99,)), " There is no cluster 99."),
        (Filters(topics=("wine",), related_skills=("skill_bread.md",)), ""),
        (
            Filters(tags=tuple("abcdefgh")),
            " No pair has 'a' in tags. No pair has 'b' in tags. No pair has 'c' in tags.",
        ),
    ],
)
def test_a_value_of_a_filter_that_no_pair_has_is_named(engine, filters, said):
    result = engine.ask(AskRequest(question=QUESTION, filters=filters))
    assert result.answers == ()
    assert result.confidence.reason == f"No pair matches the filters.{said}"


def test_a_value_beyond_those_that_are_compared_is_not_said_to_be_missing(engine, monkeypatch):
    monkeypatch.setattr("qaserve.search.confidence.KNOWN_VALUES", 1)
    result = engine.ask(AskRequest(question=QUESTION, filters=Filters(topics=("wine", "bread"), tags=("none",))))
    assert result.confidence.reason == "No pair matches the filters. No pair has 'none' in tags."


def test_an_answer_that_a_filter_keeps_out_is_told(engine):
    open_result = engine.ask(AskRequest(question="bread recipe please", top_k=1))
    first = open_result.answers[0]
    assert first.topics[1] == "bread"
    result = engine.ask(AskRequest(question="bread recipe please", top_k=1, filters=Filters(topics=("wine",))))
    told = {one.cluster_id: one for one in result.trace.excluded}
    assert told[first.cluster_id].by == "filter"
    plain = {one.cluster_id: one.similarity for one in open_result.trace.raw_answers}
    assert told[first.cluster_id].raw_similarity == pytest.approx(plain[first.cluster_id], abs=1e-6)


def test_what_is_near_but_did_not_come_back_is_told_once_per_intent(engine):
    result = engine.ask(AskRequest(question=QUESTION, top_k=1))
    intents = [one.cluster_id for one in result.trace.excluded]
    assert intents
    assert len(set(intents)) == len(intents)
    assert result.answers[0].cluster_id not in intents
    for one in result.trace.excluded:
        assert (
            one.by == "words" if one.similarity >= result.answers[0].similarity else one.by in {"routing", "similarity"}
        )


def test_with_all_answers_shown_none_is_missing(engine):
    assert engine.ask(AskRequest(question=QUESTION, top_k=20)).trace.excluded == ()


def test_without_reasons_nothing_is_looked_up(engine):
    assert engine.ask(AskRequest(question=QUESTION, top_k=1, explain=False)).trace is None


@pytest.mark.parametrize("number", [-1, 2**31, 2**63, True])
def test_a_cluster_that_no_engine_takes_is_refused(number):
    with pytest.raises(ValidationError, match="cluster"):
        Filters(cluster=(number,))


def test_facets_count_pairs(engine):
    found = dict(engine.load().points.facet("topics", 10))
    assert found["making"] == 24
    assert found["wine"] == 4
