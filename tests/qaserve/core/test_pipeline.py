"""The pipeline against the formulas, computed one question at a time; on data where some clusters get no vote."""

import math
from dataclasses import replace

import numpy as np
import pytest

from qaserve.core.pipeline import Neighbors, Pipeline, nearest_neighbors
from qaserve.core.projection import ProjectionBank
from qaserve.core.scoring import combine, intent_scores
from qaserve.schemas.params import SearchParams

D, CLUSTERS, KNOWN, ASKED = 12, 7, 40, 5


class DenseBank:
    """W as matrices: what `ProjectionBank` packs, written out."""

    def __init__(self, matrices):
        self.matrices = matrices

    def __len__(self):
        return len(self.matrices)

    def project_rows(self, rows, weights):
        return np.stack(
            [
                sum(w * (x @ matrix) for w, matrix in zip(row, self.matrices, strict=True))
                for x, row in zip(rows, weights, strict=True)
            ]
        )


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def world(rng):
    """Known pairs in 4 of 7 clusters, and questions near them."""
    questions, answers = unit(rng.normal(size=(KNOWN, D))), unit(rng.normal(size=(KNOWN, D)))
    return {
        "questions": questions,
        "answers": answers,
        "labels": rng.choice([0, 2, 3, 6], KNOWN),
        "priors": rng.uniform(0.2, 3.0, KNOWN),
        "queries": unit(questions[:ASKED] + 0.3 * rng.normal(size=(ASKED, D))),
        "bank": DenseBank([np.linalg.qr(rng.normal(size=(D, D)))[0] for _ in range(CLUSTERS)]),
    }


def neighbors_of(world, count, priors=None):
    similarities = world["queries"] @ world["questions"].T
    return nearest_neighbors(similarities, count, world["labels"], priors, (world["questions"], world["answers"]))


def votes_of(world, query, params):
    """By hand: {row: share} and the weight of every cluster."""
    cosines = {row: float(query @ known) for row, known in enumerate(world["questions"])}
    nearest = sorted(cosines, key=lambda row: -cosines[row])[: params.hits]
    factor = {row: math.exp(cosines[row] / params.temperature) for row in nearest}
    if params.priors:
        factor = {row: value * world["priors"][row] for row, value in factor.items()}
    shares = {row: value / sum(factor.values()) for row, value in factor.items()}
    weights = [sum(share for row, share in shares.items() if world["labels"][row] == k) for k in range(CLUSTERS)]
    if params.routing == "question2":
        powers = [math.exp(weight / params.final_temperature) for weight in weights]
        weights = [power / sum(powers) for power in powers]
    return shares, weights


@pytest.mark.parametrize("routing", ["question", "question2"])
@pytest.mark.parametrize("priors", [True, False])
def test_cluster_projection_follows_the_formulas(world, routing, priors):
    params = SearchParams(routing=routing, temperature=0.2, final_temperature=0.3, hits=9, priors=priors)
    vectors, routed, _ = Pipeline(params, world["bank"]).project(
        world["queries"], neighbors_of(world, 9, world["priors"])
    )
    for number, query in enumerate(world["queries"]):
        shares, weights = votes_of(world, query, params)
        assert routed.weights[number] == pytest.approx(weights, abs=1e-12)
        assert routed.weights[number].sum() == pytest.approx(1)
        assert routed.shares[number] == pytest.approx(sorted(shares.values(), reverse=True)) or priors
        moved = sum(w * (query @ matrix) for w, matrix in zip(weights, world["bank"].matrices, strict=True))
        assert vectors[number] == pytest.approx(moved, abs=1e-12)


def test_a_final_softmax_gives_clusters_without_a_vote_their_share(world):
    params = SearchParams(routing="question2", final_temperature=0.5, hits=9)
    _, routed, _ = Pipeline(params, world["bank"]).project(world["queries"], neighbors_of(world, 9))
    assert routed.votes is not None
    assert (routed.votes[:, [1, 4, 5]] == 0).all()
    assert (routed.weights[:, [1, 4, 5]] > 0.01).all()


@pytest.mark.parametrize("routing", ["question", "question2"])
def test_pair_projection_blends_the_minimal_rotations_of_the_neighbors(world, routing):
    params = SearchParams(
        routing=routing, projection="pair", temperature=0.1, final_temperature=0.2, hits=6, priors=False
    )
    vectors, *_ = Pipeline(params, world["bank"]).project(world["queries"], neighbors_of(world, 6))
    for number, query in enumerate(world["queries"]):
        shares, weights = votes_of(world, query, params)
        if routing == "question2":
            own = {k: sum(s for row, s in shares.items() if world["labels"][row] == k) for k in range(CLUSTERS)}
            shares = {row: s / own[world["labels"][row]] * weights[world["labels"][row]] for row, s in shares.items()}
            shares = {row: s / sum(shares.values()) for row, s in shares.items()}
        moved = np.zeros(D)
        for row, share in shares.items():
            q, a = world["questions"][row], world["answers"][row]
            c = (
                q @ a
            )  # the rotation in the plane of q and a: I + (a qᵀ - q aᵀ) + (a qᵀ - q aᵀ)² / (1 + c), by Rodrigues
            skew = np.outer(q, a) - np.outer(a, q)
            moved += share * (query @ (np.eye(D) + skew + skew @ skew / (1 + c)))
        assert vectors[number] == pytest.approx(moved, abs=1e-9)


def test_centroids_route_without_neighbors(world, rng):
    means = unit(rng.normal(size=(CLUSTERS, D)))
    params = SearchParams(routing="centroid", centroids=3, temperature=0.2)
    pipeline = Pipeline(params, world["bank"], means)
    assert not pipeline.needs_neighbors
    vectors, routed, _ = pipeline.project(world["queries"], None)
    assert routed.shares.shape == (ASKED, 0)
    assert routed.votes is None
    for number, query in enumerate(world["queries"]):
        top = np.argsort(-(means @ query))[:3]
        powers = np.exp(means[top] @ query / 0.2)
        assert routed.weights[number, top] == pytest.approx(powers / powers.sum())
        assert np.count_nonzero(routed.weights[number]) == 3
        assert routed.similarities[number] == pytest.approx(means @ query)
        moved = sum(w * (query @ world["bank"].matrices[k]) for k, w in zip(top, powers / powers.sum(), strict=True))
        assert vectors[number] == pytest.approx(moved)


def test_a_student_replaces_routing(world):
    class Doubling:
        def project(self, x, /):
            return 2 * x

    pipeline = Pipeline(SearchParams(projection="student"), world["bank"], student=Doubling())
    assert not pipeline.needs_neighbors
    vectors, routed, _ = pipeline.project(world["queries"], None)
    assert routed is None
    assert (vectors == 2 * world["queries"]).all()


def test_without_projection_a_question_stays(world):
    vectors, routed, _ = Pipeline(SearchParams(projection="none"), world["bank"]).project(
        world["queries"], neighbors_of(world, 3)
    )
    assert (vectors == world["queries"]).all()
    assert routed.weights.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_whitening_blends_the_projected_question_with_its_product_by_g(world, rng, share):
    g = rng.normal(size=(D, D))
    params = SearchParams(hits=9, whitening=share, projection_share=0.6)
    vectors, _, searched = Pipeline(params, world["bank"], whitening=g).project(
        world["queries"], neighbors_of(world, 9)
    )
    plain = Pipeline(SearchParams(hits=9, projection_share=0.6), world["bank"])
    assert (vectors == plain.project(world["queries"], neighbors_of(world, 9)).vectors).all()
    for before, after in zip(vectors, searched, strict=True):
        assert after == pytest.approx([(1 - share) * before[j] + share * (before @ g[:, j]) for j in range(D)])


@pytest.mark.parametrize("projection", ["cluster", "pair"])
def test_a_question_that_nobody_votes_for_stays(world, projection):
    nobody = Neighbors(
        np.empty((1, 0)), np.empty((1, 0), np.intp), np.empty((1, 0), np.intp), None, (np.empty((0, D)),) * 2
    )
    bank = ProjectionBank(np.empty((0, D), np.float32), np.empty(0, np.float32), np.zeros(CLUSTERS, np.int64))
    for routing in ("question", "question2"):
        params = SearchParams(projection=projection, routing=routing)
        vectors, routed, _ = Pipeline(params, bank).project(world["queries"][:1], nobody)
        assert (vectors == world["queries"][:1]).all()
        assert not routed.weights.any()


@pytest.mark.parametrize(
    ("params", "missing"),
    [
        ({"routing": "question"}, "known questions"),
        ({"routing": "centroid"}, "the clusters' mean questions"),
        ({"projection": "student"}, "a student"),
        ({"whitening": 0.5}, "G"),
        ({"projection": "pair"}, "the neighbors' vectors"),
        ({"projection": "pair", "routing": "centroid"}, "known questions"),
    ],
)
def test_what_is_missing_is_named(world, params, missing):
    neighbors = replace(neighbors_of(world, 3), vectors=None) if {"whitening", "projection"} & params.keys() else None
    means = world["questions"][:CLUSTERS]
    pipeline = Pipeline(SearchParams(**params), world["bank"], means if missing == "known questions" else None)
    with pytest.raises(ValueError, match=f"^{missing} are needed for this routing or projection and were not given$"):
        pipeline.project(world["queries"], None if missing == "known questions" else neighbors)


def test_equal_similarities_are_in_the_order_of_rows():
    found = nearest_neighbors(np.array([[0.5, 0.9, 0.5, 0.9]]), None, [0, 1, 2, 3])
    assert found.rows.tolist() == [[1, 3, 0, 2]]
    assert found.clusters.tolist() == [[1, 3, 0, 2]]


def test_the_nearest_of_many_come_nearest_first_and_equal_ones_by_row(rng):
    """Of one decimal, so that many are equal; those at the cut are in any order, but as near."""
    similarities, labels = rng.uniform(-1, 1, (4, 300)).round(1), rng.integers(0, 9, 300)
    for count in (40, None, 300, 999):
        found = nearest_neighbors(similarities, count, labels)
        for row, near, rows, clusters in zip(similarities, found.similarities, found.rows, found.clusters, strict=True):
            assert near.tolist() == sorted(row, reverse=True)[:count]
            assert rows.tolist() == sorted(rows, key=lambda one: (-row[one], one))
            assert len(set(rows)) == len(near)
            assert (near == row[rows]).all()
            assert (clusters == labels[rows]).all()


def test_scores_are_the_sum_of_their_parts():
    answers, words = np.array([[0.8, 0.5, -0.2], [-0.1, -0.3, -0.2]]), np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]])
    params = SearchParams(lexical_weight=0.25)
    scores = combine(params, answers, words=words)
    assert scores.answer == pytest.approx(0.75 * answers)
    assert scores.words == pytest.approx(np.array([[0, 0.25 * 0.8, 0.5 * 0.25 * 0.8], [0, 0, 0]]))
    assert not scores.topic.any()
    assert scores.total == pytest.approx(scores.answer + scores.words)
    some = combine(params, answers[:1, 1:], words=words[:1, 1:], best=0.8)
    assert some.total == pytest.approx(scores.total[:1, 1:])
    for nothing in (combine(SearchParams(lexical_weight=0), answers, words=words), combine(params, answers)):
        assert (nothing.total == answers).all()
        np.testing.assert_array_equal(nothing.words, np.zeros_like(answers))


def test_the_topic_takes_its_share_from_the_answer_where_there_is_one():
    params = SearchParams(topic_weight=0.4, lexical_weight=0.25)
    answers, topics = np.array([[0.8, 0.5]]), np.array([[0.1, np.nan]])
    alone = combine(params, answers, topics)
    assert alone.answer == pytest.approx(np.array([[0.6 * 0.8, 0.5]]))
    assert alone.total == pytest.approx(np.array([[0.6 * 0.8 + 0.4 * 0.1, 0.5]]))
    for nothing in (combine(params, answers), combine(SearchParams(topic_weight=0), answers, topics)):
        assert (nothing.total == answers).all()
        assert not nothing.topic.any()
    assert alone.topic == pytest.approx(np.array([[0.4 * 0.1, 0.0]]))
    scores = combine(params, answers, topics, np.array([[0.5, 1.0]]))
    dense = 0.6 * 0.8 + 0.4 * 0.1
    assert scores.total == pytest.approx(np.array([[0.75 * dense + 0.25 * dense * 0.5, 0.75 * 0.5 + 0.25 * dense]]))
    assert scores.total == pytest.approx(scores.answer + scores.topic + scores.words)


def test_words_that_weigh_nothing_are_not_asked_for_the_best_of_no_pairs():
    none = np.empty((2, 0))
    assert combine(SearchParams(lexical_weight=0.5), none, words=none).total.shape == (2, 0)
    weightless = combine(SearchParams(lexical_weight=0), np.array([[0.5]]), words=np.array([[np.nan]]))
    assert weightless.total.tolist() == [[0.5]]
    lone = combine(SearchParams(lexical_weight=1), np.array([[0.5]]), words=np.array([[1.0]]))
    assert (lone.answer, lone.words) == (0, 0.5)


def test_intents_score_in_the_precision_of_their_pairs_and_as_their_best_unless_told():
    scores = np.array([[0.5, 0.9]], np.float32)
    found = intent_scores(scores, ["a", "a"])[1]
    assert found.dtype == np.float32
    assert found.tolist() == scores[:, 1:].tolist()


def test_an_intent_scores_as_its_best_pair_blended_with_its_second(rng):
    intents = ["b", "a", "b", "c", "b", "c", "c"]
    scores = rng.normal(size=(5, 7)).round(1)  # equal scores too
    scores[0, [0, 2]] = 3.0
    for share in (0.0, 0.3, 1.0):
        names, found = intent_scores(scores, intents, share)
        assert names == ["a", "b", "c"]
        for row, of_intents in zip(scores, found, strict=True):
            for name, score in zip(names, of_intents, strict=True):
                best = sorted((x for x, one in zip(row, intents, strict=True) if one == name), reverse=True)
                second = best[1] if len(best) > 1 else best[0]
                assert score == pytest.approx((1 - share) * best[0] + share * second)
