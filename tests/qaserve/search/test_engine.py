import numpy as np
import pytest
from store_builds import stored

from ingest.refit import refit
from qaserve.builds import bundle as bundles
from qaserve.common.errors import BuildNotFoundError, BundleError, EncoderMismatchError, NotFoundError, UsageError
from qaserve.core.projection import project_by_pairs
from qaserve.core.routing import final_softmax, redistribute, softmax
from qaserve.schemas.ask import AskRequest, Filters
from qaserve.schemas.params import MAX_ASKED_CHARS, PLAIN_SEARCH
from qaserve.search.engine import Engine
from qaserve.settings import SearchSettings
from qaserve.store.points import pair_text
from qaserve.store.words import BM25Index

NOBODY = ("centroid", "pair")
QUESTION = "Which recipe gives the best bread and cheese?"


def recompute(engine, result):
    """The answers of a result, from its trace and the build alone, by direct NumPy."""
    live = engine.load()
    trace = result.explained
    query = engine.encoder.encode_questions([result.question])[0].astype(float)
    rows = stored(engine.store, live.ref)
    by_id = {row.stored.id: row for row in rows}
    weights = np.zeros(len(live.clusters))
    for vote in trace.clusters:
        weights[vote.cluster] = vote.weight
    if trace.params.projection == "cluster":
        bank = live.bundle.model.bank
        moved = sum(weights[k] * (query @ bank[k].dense()) for k in range(len(bank)))
    elif trace.params.projection == "pair":
        shares = np.array([hit.probability for hit in trace.hits])
        if trace.params.routing == "question2":
            labels = [hit.cluster for hit in trace.hits]
            votes = np.bincount(labels, weights=shares, minlength=len(weights))
            shares = redistribute(shares, labels, votes, weights)
        hits = [by_id[hit.id] for hit in trace.hits]
        moved = project_by_pairs(query, [hit.question for hit in hits], [hit.answer for hit in hits], shares)
    else:
        moved = query
    moved = (1 - trace.params.projection_share) * query + trace.params.projection_share * moved
    whitened = moved @ live.bundle.model.whitening
    moved = (1 - trace.params.whitening) * moved + trace.params.whitening * whitened
    moved = moved / np.linalg.norm(moved)
    cosines = np.array([row.answer @ moved for row in rows])
    relative = BM25Index([pair_text(row.stored.pair) for row in rows]).relative(result.question)
    share, weight, second = trace.params.topic_weight, trace.params.lexical_weight, trace.params.second_share
    topics = np.array(
        [cosine if row.topic is None else row.topic @ query for row, cosine in zip(rows, cosines, strict=True)]
    )
    dense = (1 - share) * cosines + share * topics
    scores = {}
    for row, score in zip(rows, (1 - weight) * dense + weight * max(0.0, dense.max()) * relative, strict=True):
        scores.setdefault(row.stored.pair.cluster_id, []).append(score)
    ranked = {name: sorted(found, reverse=True) for name, found in scores.items()}
    found = {name: (1 - second) * one[0] + second * one[min(1, len(one) - 1)] for name, one in ranked.items()}
    return sorted(found.items(), key=lambda item: -item[1])


@pytest.mark.parametrize(
    "weights", [{}, {"topic_weight": 0.4, "second_share": 0.3, "projection_share": 0.5, "whitening": 0.6}]
)
@pytest.mark.parametrize(
    ("routing", "projection"),
    [(r, p) for r in ("question", "question2", "centroid") for p in ("cluster", "pair", "none") if (r, p) != NOBODY],
)
def test_the_answer_can_be_recomputed_from_the_trace(engine, routing, projection, weights):
    result = engine.ask(AskRequest(question=QUESTION, routing=routing, projection=projection, top_k=6, **weights))
    expected = recompute(engine, result)
    assert [answer.cluster_id for answer in result.answers] == [intent for intent, _ in expected]
    for answer, (_, score) in zip(result.answers, expected, strict=True):
        assert answer.score == pytest.approx(score, abs=1e-5)
        params, parts = result.explained.params, answer.parts
        best = parts.projected + parts.topic + parts.lexical
        second = best if answer.second is None else answer.second
        assert answer.score == pytest.approx((1 - params.second_share) * best + params.second_share * second, abs=1e-9)
        assert parts.projected == pytest.approx(
            (1 - params.lexical_weight) * (1 - params.topic_weight) * answer.similarity, abs=1e-9
        )
        assert (parts.topic != 0) == bool(weights)
    assert [answer.rank for answer in result.answers] == list(range(1, 7))


@pytest.mark.parametrize("routing", ["question", "question2"])
def test_probabilities_sum_to_one_and_votes_are_exactly_their_sums(engine, routing):
    trace = engine.ask(AskRequest(question=QUESTION, routing=routing)).trace
    assert sum(hit.probability for hit in trace.hits) == pytest.approx(1, abs=1e-12)
    assert sum(vote.weight for vote in trace.clusters) == pytest.approx(1, abs=1e-12)
    for vote in trace.clusters:
        share = 0.0
        for hit in trace.hits:
            share += hit.probability if hit.cluster == vote.cluster else 0.0
        assert vote.vote == share
        assert vote.hits == sum(hit.cluster == vote.cluster for hit in trace.hits)
        if routing == "question":
            assert vote.weight == vote.vote


def test_each_cluster_says_how_far_its_w_turns_the_question(engine):
    trace = engine.ask(AskRequest(question=QUESTION)).trace
    bank = engine.load().bundle.model.bank
    vector = engine.encoder.encode_questions([QUESTION])[0].astype(float)
    for vote in trace.clusters:
        moved = vector @ bank[vote.cluster].dense()
        assert np.cos(np.radians(vote.angle)) == pytest.approx(vector @ moved / np.linalg.norm(moved), abs=1e-6)
        assert 0 < vote.rank <= bank.ranks[vote.cluster] + 1e-9
    plain = engine.ask(AskRequest(question=QUESTION, projection="pair")).trace
    assert {(vote.angle, vote.rank) for vote in plain.clusters} == {(None, None)}


def test_probabilities_follow_from_similarity_prior_and_temperature(engine):
    trace = engine.ask(AskRequest(question=QUESTION, temperature=0.3, hits=7)).trace
    assert len(trace.hits) == 7
    expected = softmax([hit.similarity for hit in trace.hits], 0.3, [hit.prior for hit in trace.hits])
    np.testing.assert_allclose([hit.probability for hit in trace.hits], expected, rtol=1e-12)


@pytest.fixture
def weighed(engine, edge, encoder, make_builder):
    """The same pairs with priors that differ."""
    refit(make_builder(edge, encoder), "entropy")
    return engine


def shares_of(result):
    return {hit.id: hit.probability for hit in result.explained.hits}


@pytest.mark.parametrize("routing", ["question", "question2"])
@pytest.mark.parametrize("projection", ["cluster", "pair"])
@pytest.mark.parametrize("priors", [None, True, False])
def test_priors_count_in_the_vote_unless_they_are_left_out(weighed, routing, projection, priors):
    result = weighed.ask(AskRequest(question=QUESTION, routing=routing, projection=projection, priors=priors, top_k=6))
    trace = result.explained
    similarities, weights = ([getattr(hit, name) for hit in trace.hits] for name in ("similarity", "prior"))
    assert len(set(weights)) > 1, "what is stored is shown either way"
    assert trace.params.priors is (priors is not False)
    counted = np.array(weights) if trace.params.priors else 1
    powers = counted * np.exp(np.array(similarities) / trace.params.temperature)
    np.testing.assert_allclose([hit.probability for hit in trace.hits], powers / powers.sum(), rtol=1e-9)
    assert [answer.cluster_id for answer in result.answers] == [intent for intent, _ in recompute(weighed, result)]


def test_leaving_priors_out_changes_nothing_where_there_are_none(engine):
    with_them, without = (engine.ask(AskRequest(question=QUESTION, priors=priors)) for priors in (True, False))
    assert [answer.id for answer in without.answers] == [answer.id for answer in with_them.answers]
    assert shares_of(without) == pytest.approx(shares_of(with_them))
    assert (with_them.trace.params.priors, without.trace.params.priors) == (True, False)


def test_the_operator_may_leave_priors_out_and_a_question_may_bring_them_back(weighed, tmp_path):
    settings = SearchSettings(priors=False)
    set_by_operator = Engine(weighed.store, weighed.encoder, tmp_path / "models", "things", settings)
    assert not set_by_operator.ask(AskRequest(question=QUESTION)).trace.params.priors
    again = set_by_operator.ask(AskRequest(question=QUESTION, priors=True))
    assert shares_of(again) == pytest.approx(shares_of(weighed.ask(AskRequest(question=QUESTION))))


def test_a_build_says_which_importance_its_priors_are(engine, edge, encoder, make_builder):
    assert [build.prior for build in engine.builds()] == ["uniform"]
    refit(make_builder(edge, encoder), "entropy")
    assert [(build.prior, build.live) for build in engine.builds()] == [("entropy", True), ("uniform", False)]


def test_final_softmax_is_over_every_cluster(engine):
    trace = engine.ask(AskRequest(question=QUESTION, routing="question2")).trace
    count = len(engine.load().clusters)
    assert len(trace.clusters) == count
    votes = np.zeros(count)
    for vote in trace.clusters:
        votes[vote.cluster] = vote.vote
    expected = final_softmax(votes, trace.params.final_temperature)
    for vote in trace.clusters:
        assert vote.weight == pytest.approx(expected[vote.cluster])


def test_more_hits_than_pairs_is_the_full_softmax(engine):
    result = engine.ask(AskRequest(question=QUESTION, hits=10_000))
    rows = stored(engine.store, engine.load().ref)
    assert len(result.explained.hits) == len(rows)
    query = engine.encoder.encode_questions([QUESTION])[0]
    full = softmax([float(row.question @ query) for row in rows], result.explained.params.temperature)
    expected = {row.stored.id: share for row, share in zip(rows, full, strict=True)}
    for hit in result.explained.hits:
        assert hit.probability == pytest.approx(expected[hit.id], rel=1e-4)


def test_one_answer_per_intent_and_never_more_than_there_are(engine):
    result = engine.ask(AskRequest(question=QUESTION, top_k=100))
    intents = [answer.cluster_id for answer in result.answers]
    assert len(intents) == len(set(intents)) == 6


def test_an_intent_with_many_pairs_does_not_crowd_out_the_others(
    edge, encoder, make_ingest, write_rows, rows, tmp_path
):
    crowd = [rows()[0] | {"pair_id": f"x{n}", "question": f"bread {n}"} for n in range(300)]
    make_ingest(edge, encoder, "crowd").run([write_rows(crowd + rows())])
    result = Engine(edge, encoder, tmp_path / "models", "crowd").ask(AskRequest(question="bread", top_k=5))
    assert len({answer.cluster_id for answer in result.answers}) == 5


def test_the_answer_to_the_very_question_comes_first_whatever_its_score(
    edge, encoder, make_ingest, write_rows, rows, tmp_path
):
    near = [
        rows()[0] | {"pair_id": "near", "cluster_id": "near", "question": "about stripes", "answer": "zebra colour"}
    ]
    own = [
        rows()[0] | {"pair_id": "own", "cluster_id": "own", "question": "Zebra colour?", "answer": "black and white"}
    ]
    make_ingest(edge, encoder, "zoo").run([write_rows([*near, *own, *rows()])])
    zoo = Engine(edge, encoder, tmp_path / "models", "zoo")
    unlike = zoo.ask(AskRequest(question="zebra colour stripes", projection="none"))
    assert (unlike.answers[0].pair_id, unlike.ahead_of_known, unlike.confidence.known) == ("near", 0, False)
    result = zoo.ask(AskRequest(question="zebra  COLOUR", projection="none"))
    first, second = result.answers[:2]
    assert [(one.pair_id, one.rank, one.known) for one in (first, second)] == [("own", 1, True), ("near", 2, False)]
    assert first.score < second.score
    assert result.ahead_of_known == sum(one.score > first.score for one in result.answers) >= 1
    assert (result.confidence.known, result.confidence.reason) == (True, "The first answer is its own.")
    filtered = zoo.ask(AskRequest(question="Zebra colour?", filters=Filters(source_file=("elsewhere",))))
    assert (filtered.answers, filtered.confidence.known) == ((), False)


def test_raw_ranks_are_those_of_a_search_without_projection(engine):
    result = engine.ask(AskRequest(question=QUESTION, top_k=6))
    raw = engine.ask(AskRequest(question=QUESTION, top_k=6, projection="none", whitening=0.0))
    ranks = {answer.cluster_id: answer.rank for answer in raw.answers}
    for answer in result.answers:
        assert answer.raw_rank == ranks[answer.cluster_id]
    assert [answer.cluster_id for answer in result.explained.raw_answers] == [a.cluster_id for a in raw.answers]
    assert all(answer.raw_similarity == pytest.approx(answer.similarity, abs=1e-6) for answer in raw.answers)
    assert raw.trace.projected_similarity == pytest.approx(1)


def test_a_plain_search_scores_by_the_cosine_of_the_question_as_it_is(engine):
    assert engine.load().defaults.whitening > 0
    result = engine.ask(AskRequest(question=QUESTION, top_k=6, **PLAIN_SEARCH.given))
    for answer in result.answers:
        assert answer.score == pytest.approx(answer.raw_similarity, abs=1e-6)
    assert [answer.cluster_id for answer in result.explained.raw_answers] == [a.cluster_id for a in result.answers]


def test_what_the_projection_did_is_told_apart_from_whitening(engine):
    whitened = engine.ask(AskRequest(question=QUESTION, top_k=6))
    projected = engine.ask(AskRequest(question=QUESTION, top_k=6, whitening=0.0))
    similarities = {answer.id: answer.similarity for answer in projected.answers}
    for answer in whitened.answers:
        assert answer.projected_similarity == pytest.approx(similarities[answer.id], abs=1e-6)
        assert answer.similarity != pytest.approx(answer.projected_similarity, abs=1e-3)


def test_without_explanation_there_is_no_trace(engine):
    result = engine.ask(AskRequest(question=QUESTION, explain=False))
    assert result.trace is None
    with pytest.raises(ValueError, match="asked without `explain`"):
        _ = result.explained
    assert result.confidence == engine.ask(AskRequest(question=QUESTION)).confidence
    assert {answer.raw_rank for answer in result.answers} == {None}


def test_settings_come_between_the_question_and_the_build(edge, engine, tmp_path):
    operator = Engine(
        edge, engine.encoder, tmp_path / "models", "things", SearchSettings(temperature=0.7, routing="question2")
    )
    trace = operator.ask(AskRequest(question=QUESTION, routing="question")).trace
    assert (trace.params.routing, trace.params.temperature) == ("question", 0.7)
    trace = engine.ask(AskRequest(question=QUESTION)).trace
    assert (trace.params.routing, trace.params.temperature) == ("question", 0.05)


def test_pair_projection_with_centroids_is_refused_with_a_way_out(engine):
    with pytest.raises(UsageError, match="needs known questions that vote") as refused:
        engine.ask(AskRequest(question="x", routing="centroid", projection="pair"))
    assert "question2" in refused.value.hint


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "the question is empty"),
        (" \n\t ", "the question is empty"),
        ("x" * 100_000, "100,000 characters; at most 4,000"),
        ("a\x00b", r"holds U\+0000"),
        ("a\x1bb", r"holds U\+001B"),
        ("a\ud800b", "surrogate"),
    ],
)
def test_a_question_that_is_none_is_refused(engine, question, message):
    with pytest.raises(UsageError, match=message):
        engine.ask(AskRequest(question=question))


@pytest.mark.parametrize("question", ["?", "x" * MAX_ASKED_CHARS, "日本語の質問", "🙂", "\u200fمرحبا", "a\tb\nc"])
def test_odd_questions_are_answered(engine, question):
    assert engine.ask(AskRequest(question=question)).answers


def test_a_build_made_live_is_seen_by_a_running_engine(edge, encoder, make_ingest, write_rows, rows, engine):
    first = engine.ask(AskRequest(question="gold")).build
    make_ingest(edge, encoder).run([write_rows(rows(["gold"]), "gold.jsonl")])
    result = engine.ask(AskRequest(question="gold"))
    assert result.build != first
    assert result.answers[0].cluster_id == "make_gold"


def test_another_encoder_than_the_builds_is_refused(edge, engine, make_encoder, tmp_path):
    other = Engine(edge, make_encoder("other", 32), tmp_path / "models", "things")
    with pytest.raises(EncoderMismatchError, match=r"made with fake \(D 48.*the setting is other \(D 32"):
        other.load()


def test_a_bundle_of_another_writing_is_refused(engine, tmp_path):
    live = engine.load()
    path = bundles.folder_of(tmp_path / "models", live.ref) / bundles.MANIFEST
    path.write_text(path.read_text().replace('"regularization": 1.0', '"regularization": 2.0'))
    fresh = Engine(engine.store, engine.encoder, tmp_path / "models", "things")
    with pytest.raises(BundleError, match="its points were written with"):
        fresh.load()


def test_a_missing_corpus_is_named(edge, encoder, tmp_path):
    with pytest.raises(NotFoundError, match="no corpus 'nothing'"):
        Engine(edge, encoder, tmp_path, "nothing").load()


def test_a_corpus_or_build_of_nearly_that_name_is_named(engine, encoder, tmp_path):
    with pytest.raises(NotFoundError, match="no corpus 'thing'") as missing:
        Engine(engine.store, encoder, tmp_path, "thing").load()
    assert missing.value.hint.startswith("Did you mean 'things'? There are: things.")
    build = engine.load().ref.build
    for call in (lambda name: engine.pairs("bread_q0", name), engine.activate):
        with pytest.raises(BuildNotFoundError, match="no build") as missing:
            call(f"{build[:-1]}x")
        assert missing.value.hint == f"Did you mean {build!r}?"


def test_pairs_by_pair_id_and_by_point_id(engine):
    found = engine.pairs("bread_q0")
    assert [pair.pair.question for pair in found.pairs] == ["How do I make bread?"]
    assert engine.pairs(found.pairs[0].id) == found
    for missing in ("nobody", "00000000-0000-5000-8000-000000000000", "\ud800"):
        with pytest.raises(NotFoundError, match="no pair"):
            engine.pairs(missing)


def test_the_id_of_an_intent_is_no_pair_and_its_pairs_are_named(engine):
    with pytest.raises(NotFoundError, match="no pair 'make_bread' in build") as missing:
        engine.pairs("make_bread")
    pairs = "bread_q0, bread_q1, bread_q2 and 1 more"
    assert missing.value.hint == f"That is the id of an intent (`cluster_id`), with the pairs {pairs}."


def test_clusters_and_their_pairs(engine):
    live = engine.load()
    detail = engine.cluster(0)
    assert len(detail.pairs) == detail.cluster.size == live.clusters[0].size
    for number in (-1, len(live.clusters)):
        with pytest.raises(NotFoundError, match=f"no cluster {number}"):
            engine.cluster(number)


def test_the_words_can_be_switched_off_and_up(engine):
    off = engine.ask(AskRequest(question=QUESTION, lexical_weight=0))
    assert all(answer.parts.lexical == 0 and answer.score == answer.similarity for answer in off.answers)
    only = engine.ask(AskRequest(question="steel", lexical_weight=1))
    assert only.answers[0].cluster_id == "make_steel"
    assert only.answers[0].words == ("steel",)
    assert only.answers[0].parts.projected == 0
    assert [answer.score for answer in only.answers][-1] == 0, "nothing else holds the word"


def test_the_operators_weight_of_words_counts_where_the_question_is_silent(engine, tmp_path):
    set_by_operator = Engine(
        engine.store, engine.encoder, tmp_path / "models", "things", SearchSettings(lexical_weight=0.3)
    )
    assert set_by_operator.ask(AskRequest(question=QUESTION)).trace.params.lexical_weight == 0.3
    assert set_by_operator.ask(AskRequest(question=QUESTION, lexical_weight=0.0)).trace.params.lexical_weight == 0
    assert engine.ask(AskRequest(question=QUESTION)).trace.params.lexical_weight == 0.1
