import pytest

from ingest.judgements import BadLine, Judged, Judgement, said
from qaserve.common.errors import CorpusError
from qaserve.schemas.ask import AskRequest
from train.experiments.golden import run

ASKED = "Which recipe gives the best bread?"


def judged(*given, bad=()):
    judgements = tuple(Judgement(question=q, pair_id=pair, helpful=helpful) for q, pair, helpful in given)
    return Judged(judgements, bad, tuple(range(1, len(given) + 1)))


@pytest.fixture
def intents(engine):
    """The intents that answer ASKED, best first."""
    return [one.cluster_id for one in engine.ask(AskRequest(question=ASKED, top_k=6)).answers]


def test_the_rank_of_the_judged_pairs_intent_is_what_counts(engine, intents):
    pairs = [intent.removeprefix("make_") + "_q2" for intent in intents]
    done = []
    report = run(engine, judged((ASKED, pairs[0], True), (ASKED, pairs[3], True)), "said.jsonl", done.append)
    assert (report.build, report.corpus, report.file) == (engine.load().ref.build, "things", "said.jsonl")
    assert report.helpful.questions == 2
    assert report.helpful.mrr == pytest.approx((1 + 1 / 4) / 2)
    assert (report.helpful.hit1, report.helpful.hit3, report.helpful.hit5) == (0.5, 0.5, 1.0)
    assert report.helpful.abstained == 0
    assert (report.unhelpful, report.unknown, sum(done)) == (None, 0, 2)


def test_the_first_intent_of_several_accepted_pairs_counts(engine, intents):
    last, third = (f"{intents[place].removeprefix('make_')}_q2" for place in (5, 2))
    several = Judgement(question=ASKED, pair_id=last, also=("nobody", third))
    assert run(engine, Judged((several,), (), (1,)), "said.jsonl", lambda _: None).helpful.mrr == pytest.approx(
        1 / 3, abs=1e-6
    )


def test_a_pair_that_did_not_help_is_counted_where_it_is_still_first(engine):
    first = engine.ask(AskRequest(question=ASKED)).answers[0]
    other = next(f"bread_q{number}" for number in range(4) if first.pair_id != f"bread_q{number}")
    given = judged((ASKED, first.pair_id, False), (ASKED, other, False), (ASKED, "nobody", False))
    report = run(engine, given, "said.jsonl", lambda _: None)
    assert report.unhelpful.model_dump() == {"questions": 2, "first": 1, "share": 0.5}
    assert report.helpful is None
    assert report.unknown == 1
    (unknown,) = report.unknown_lines
    assert said(unknown) == "said.jsonl:3: pair_id: the build has no such pair (got 'nobody')"


def test_bad_lines_are_passed_on_and_pairs_of_another_corpus_are_an_error(engine):
    bad = (BadLine(file="said.jsonl", line=1, field=None, value=None, reason="no"),)
    assert run(engine, judged((ASKED, "bread_q0", True), bad=bad), "said.jsonl", lambda _: None).bad == bad
    with pytest.raises(CorpusError, match=r"has none of the 1 pairs that said\.jsonl names; said\.jsonl:1: pair_id"):
        run(engine, judged((ASKED, "nobody", True)), "said.jsonl", lambda _: None)
