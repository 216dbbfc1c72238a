"""The ranking is what scoring every pair gives, whatever the weights of the parts."""

import numpy as np
import pytest
from store_builds import D, metadata, write

from ingest.pairs import point_id
from qaserve.schemas.ask import Filters
from qaserve.schemas.pairs import Pair, StoredPair
from qaserve.schemas.params import SearchParams
from qaserve.search.ranking import FIRST_LOOK, rank_intents
from qaserve.store.points import PairVectors, QuestionHit, nearest_answers, pair_text
from qaserve.store.words import BM25Index, bm25_params

COUNT = 6 * FIRST_LOOK


@pytest.fixture
def pairs(rng):
    """Many pairs of many intents, more than a first look, with parts that disagree; every fourth has no topic."""
    letters = list("bcdefghjklmnopqr")
    made = [
        Pair(
            pair_id=str(n),
            cluster_id=f"intent {rng.integers(COUNT // 3)}",
            question=" ".join(rng.choice(letters, 3)),
            answer=" ".join(rng.choice(letters, 8)),
            source_file=f"file {n % 3}",
        )
        for n in range(COUNT)
    ]
    ids = [str(point_id("things", row.pair_id, row.question, 0)) for row in made]
    vectors = rng.normal(size=(COUNT, 3, D))
    vectors = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return [
        PairVectors(StoredPair(id=point, pair=pair, cluster=0), question, answer, None if number % 4 == 0 else topic)
        for number, (point, pair, (question, answer, topic)) in enumerate(zip(ids, made, vectors, strict=True))
    ]


@pytest.fixture
def build(store, pairs):
    about = metadata(pairs=COUNT, bm25=bm25_params([pair_text(row.stored.pair) for row in pairs]))
    write(store, pairs, about)
    return store.open(about.ref)


@pytest.fixture
def index(pairs):
    return BM25Index([pair_text(row.stored.pair) for row in pairs])


def brute_force(pairs, index, question, vector, projected, params, filters):
    """The score of each intent, from the definition, one pair after the other."""
    theta, beta, sigma = params.topic_weight, params.lexical_weight, params.second_share
    relevant = [row for row in pairs if not filters.source_file or row.stored.pair.source_file in filters.source_file]
    dense = []
    for row in relevant:
        answer = float(projected @ row.answer)
        dense.append(answer if row.topic is None else (1 - theta) * answer + theta * float(vector @ row.topic))
    bm25 = dict(zip([row.stored.id for row in pairs], index.scores(question).tolist(), strict=True))
    best_words = max(bm25[row.stored.id] for row in relevant)
    of_intent = {}
    for row, value in zip(relevant, dense, strict=True):
        score = value
        if best_words > 0:
            score = (1 - beta) * score + beta * max(0, *dense) * bm25[row.stored.id] / best_words
        of_intent.setdefault(row.stored.pair.cluster_id, []).append(score)
    ranked = [sorted(scores, reverse=True) for scores in of_intent.values()]
    return sorted(((1 - sigma) * one[0] + sigma * one[min(1, len(one) - 1)] for one in ranked), reverse=True)


@pytest.mark.parametrize("beta", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize(("theta", "sigma"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.5), (0.9, 0.4)])
@pytest.mark.parametrize("filters", [Filters(), Filters(source_file=("file 1",))], ids=["all", "filtered"])
def test_it_is_what_scoring_every_pair_gives(build, pairs, index, rng, beta, theta, sigma, filters):
    params = SearchParams(lexical_weight=beta, topic_weight=theta, second_share=sigma)
    for question, top_k in (("b c d", 1), ("p", 5), ("zzz", 30)):
        vector, projected = rng.normal(size=(2, D))
        vector, projected = vector / np.linalg.norm(vector), 3 * projected  # the projected vector may have any length
        aim = projected / np.linalg.norm(projected)
        expected = brute_force(pairs, index, question, vector, aim, params, filters)[:top_k]
        found = rank_intents(build, question, vector, projected, params, top_k, filters).intents
        np.testing.assert_allclose([one.score for one in found], expected, atol=1e-5)
        assert len({one.best.intent for one in found}) == len(found)
        for one in found:
            best = one.best
            assert best.score == pytest.approx(best.answer + best.topic + best.words, abs=1e-9)
            assert one.score == pytest.approx(
                best.score if one.second is None else (1 - sigma) * best.score + sigma * one.second, abs=1e-9
            )


def asking(row):
    pair = row.stored.pair
    return QuestionHit(row.stored.id, pair.pair_id, pair.cluster_id, pair.question, 0, 1.0, 1.0, None)


@pytest.mark.parametrize("sigma", [0.0, 0.4])
@pytest.mark.parametrize("filters", [Filters(), Filters(source_file=("file 1",))], ids=["all", "filtered"])
def test_intents_that_ask_the_very_question_come_first_and_the_others_as_they_were(build, pairs, rng, sigma, filters):
    params = SearchParams(lexical_weight=0.1, topic_weight=0.3, second_share=sigma)
    vector, projected = rng.normal(size=(2, D))
    asked = "b c d", vector / np.linalg.norm(vector), projected, params
    everything = rank_intents(build, *asked, 10_000, filters).intents
    rows = {row.stored.id: row for row in pairs}
    last, middle = rows[everything[-1].best.id], rows[everything[len(everything) // 2].best.id]
    found = rank_intents(build, *asked, 6, filters, [asking(last), asking(middle)]).intents
    named = {last.stored.pair.cluster_id, middle.stored.pair.cluster_id}
    assert [one.best.id for one in found[:2]] == [middle.stored.id, last.stored.id]
    assert found[2:] == [one for one in everything if one.best.intent not in named][:4]
    for one in found[:2]:
        assert one.best.score == pytest.approx(one.best.answer + one.best.topic + one.best.words, abs=1e-9)
        assert (one.score, one.second) == (one.best.score, None)
    first = rows[everything[0].best.id]
    assert rank_intents(build, *asked, 6, filters, [asking(first)]).intents == everything[:6]


def test_the_best_of_several_pairs_that_ask_the_very_question_stands_for_their_intent(build, pairs, rng):
    vector, params = rng.normal(size=D), SearchParams(lexical_weight=0, second_share=0)
    of = {}
    for row in pairs:
        of.setdefault(row.stored.pair.cluster_id, []).append(row)
    rows = sorted(max(of.values(), key=len), key=lambda row: -float(row.answer @ vector))
    assert len(rows) > 2
    first, second = rank_intents(build, "b", vector, vector, params, 2, known=[asking(row) for row in rows[1:]]).intents
    assert first.best.id == rows[1].stored.id
    assert second.best.intent != first.best.intent


def test_more_intents_than_there_are(build, pairs, rng):
    query = rng.normal(size=D)
    found = rank_intents(build, "b", query, query, SearchParams(lexical_weight=0), 10_000).intents
    assert len(found) == len({row.stored.pair.cluster_id for row in pairs})
    assert all(one.best.words == 0 and one.score == one.best.similarity for one in found)


def test_only_the_named_points_are_searched(build, pairs, rng):
    some = [row.stored.id for row in pairs[:7]]
    found = nearest_answers(build, rng.normal(size=D), 7, among=[*some, "00000000-0000-0000-0000-000000000000"])
    assert {hit.id for hit in found} == set(some)
