"""A fold is clustered by its answers, and its mean questions are those of the questions."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.cluster import KMeans

from qaserve.core.clustering import KMEANS_STARTS
from qaserve.core.projection import project_by_pairs
from qaserve.core.splits import Split
from qaserve.schemas.params import Hyperparameters, SearchParams
from train.folds import make_fold, split_fold


@pytest.fixture
def examples(rows, encoded, write_rows):
    """Questions that group otherwise than their answers."""
    made = rows([f"thing{number}" for number in range(12)])
    odd = [row | {"question": f"{('why', 'how')[number % 2]} {number // 4} ever"} for number, row in enumerate(made)]
    return encoded(write_rows(odd))


@pytest.fixture
def fold(examples):
    return make_fold(examples.take(np.arange(40)), examples.take(np.arange(40, 48)), 3)


def same_groups(one, other):
    return len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


def test_answers_are_what_is_clustered(fold):
    def grouped(rows):
        return KMeans(fold.count, n_init=KMEANS_STARTS, random_state=3).fit(rows).labels_

    singular = np.linalg.svd(fold.train.answers, compute_uv=False)
    assert fold.count == round(singular.sum() ** 2 / (singular**2).sum())
    assert same_groups(fold.labels, grouped(fold.train.answers))
    assert not same_groups(fold.labels, grouped(fold.train.questions))


def test_mean_questions_are_of_questions_and_w_takes_questions_to_answers(fold):
    bank = fold.bank(2.0)
    for cluster in range(fold.count):
        s, t = fold.train.questions[fold.labels == cluster], fold.train.answers[fold.labels == cluster]
        mean = s.mean(axis=0)
        np.testing.assert_allclose(fold.mean_questions[cluster], mean / np.linalg.norm(mean), atol=1e-6)
        left, _, right = np.linalg.svd(s.T @ t + 2.0 * np.eye(s.shape[1]))
        np.testing.assert_allclose(bank[cluster].dense(), left @ right, atol=1e-5)


def test_scores_are_of_projected_queries_and_topics_of_the_questions(fold):
    projected = 3 * fold.queries.questions[::-1]
    params = SearchParams(topic_weight=0.25, lexical_weight=0.0)
    for query, (moved, scores) in enumerate(zip(projected, fold.scores(projected, params), strict=True)):
        answers = fold.train.answers @ moved / np.linalg.norm(moved)
        topics = fold.train.topics @ fold.queries.questions[query]
        np.testing.assert_allclose(scores, 0.75 * answers + 0.25 * topics, atol=1e-9)


@pytest.mark.parametrize("own", [True, False])
def test_priors_of_the_training_side_vote_unless_others_are_given(fold, rng, own):
    given = rng.uniform(0.5, 2, len(fold.train))
    neighbors = fold.neighbors(5, None if own else given)
    assert neighbors.rows.shape == (8, 5)
    np.testing.assert_array_equal(neighbors.rows[:, 0], fold.similarities.argmax(axis=1))
    if own:
        assert neighbors.priors is None
        fold = replace(fold, train=replace(fold.train, priors=given))
    np.testing.assert_array_equal(fold.neighbors(5, None if own else given).priors, given[neighbors.rows])


def test_a_pair_projects_by_its_own_question_and_answer(fold):
    params = SearchParams(projection="pair", hits=1)
    for query, moved in zip(fold.queries.questions, fold.through(params, fold.bank(1.0)).vectors, strict=True):
        nearest = (fold.train.questions @ query).argmax()
        q, a = fold.train.questions[nearest], fold.train.answers[nearest]
        np.testing.assert_allclose(moved, project_by_pairs(query, q[None], a[None], [1.0]), atol=1e-9)


def test_rows_are_taken_with_all_that_belongs_to_them(fold, rng):
    examples = replace(fold.train, priors=rng.uniform(size=len(fold.train)))
    rows = np.array([7, 0, 3])
    taken = examples.take(rows)
    assert len(taken) == 3
    assert taken.pairs == [examples.pairs[row] for row in rows]
    assert taken.intents == [examples.pairs[row].cluster_id for row in rows]
    for part in ("questions", "answers", "topics", "priors"):
        np.testing.assert_array_equal(getattr(taken, part), getattr(examples, part)[rows])
    bare = replace(examples, topics=None, priors=None).take(rows)
    assert (bare.topics, bare.priors) == (None, None)


def test_single_precision_is_of_vectors_alone(fold, rng):
    examples = replace(fold.train, priors=rng.uniform(size=len(fold.train)))
    single = examples.in_single_precision()
    for part in ("questions", "answers", "topics"):
        assert getattr(single, part).dtype == np.float32
        np.testing.assert_array_equal(getattr(single, part), getattr(examples, part).astype(np.float32))
    assert single.priors is examples.priors
    assert single.pairs is examples.pairs
    assert replace(examples, topics=None).in_single_precision().topics is None


def test_a_pair_names_the_skills_of_its_related_skills(fold):
    pairs = [pair.model_copy(update={"related_skills": ("b.md", "a.md")[: row % 3]}) for row, pair in
             enumerate(fold.train.pairs)]  # fmt: skip
    other = [pair.model_copy(update={"related_skills": ("b.md", "unknown.md")}) for pair in fold.queries.pairs]
    named = replace(fold, candidates=replace(fold.train, pairs=pairs), queries=replace(fold.queries, pairs=other))
    assert named.skills == ["a", "b"]
    expected = [[row % 3 == 2, row % 3 > 0] for row in range(len(pairs))]
    np.testing.assert_array_equal(named.named(named.candidates), expected)
    np.testing.assert_array_equal(named.named(named.queries), [[False, True]] * len(other))


def by_hand(fold, query, params, bank):
    """The nearest known questions vote, and x' = (1 - π) x + π Σ_k w_k x W_k."""
    nearest = sorted(range(len(fold.train)), key=lambda row: -(fold.train.questions[row] @ query))[: params.hits]
    powers = np.exp([fold.train.questions[row] @ query / params.temperature for row in nearest])
    weights = np.bincount(fold.labels[nearest], weights=powers / powers.sum(), minlength=fold.count)
    moved = sum(w * (query @ bank[k].dense()) for k, w in enumerate(weights))
    return weights, (1 - params.projection_share) * query + params.projection_share * moved


def test_queries_are_routed_and_projected_as_the_formulas_say(fold):
    params = SearchParams(hits=6, temperature=0.1, projection_share=0.7, whitening=0.4)
    given = Hyperparameters(regularization=2.0, search=SearchParams().override(params))
    vectors, _, searched = fold.project(given)
    weights, again = fold.weights(given.search), fold.through(given.search, fold.bank(2.0))
    for row, query in enumerate(fold.queries.questions):
        expected, moved = by_hand(fold, query, given.search, fold.bank(2.0))
        np.testing.assert_allclose(weights[row], expected, atol=1e-12)
        np.testing.assert_allclose(vectors[row], moved, atol=1e-6)
        np.testing.assert_allclose(again.vectors[row], moved, atol=1e-6)
        np.testing.assert_allclose(searched[row], 0.6 * moved + 0.4 * (moved @ fold.whitening), atol=1e-5)
        cosines = fold.train.answers @ searched[row] / np.linalg.norm(searched[row])
        np.testing.assert_allclose(fold.cosines_of(given)[row], cosines, atol=1e-6)


def test_a_prior_that_is_given_changes_the_vote(fold, rng):
    prior = rng.uniform(0.2, 3, len(fold.train))
    params = SearchParams(hits=6, temperature=0.1)
    given = Hyperparameters(regularization=2.0, search=SearchParams().override(params))
    expected = []
    for query in fold.queries.questions:
        nearest = sorted(range(len(fold.train)), key=lambda row: -(fold.train.questions[row] @ query))[:6]
        powers = prior[nearest] * np.exp([fold.train.questions[row] @ query / 0.1 for row in nearest])
        expected.append(np.bincount(fold.labels[nearest], weights=powers / powers.sum(), minlength=fold.count))
    np.testing.assert_allclose(fold.weights(given.search, prior), expected, atol=1e-12)
    moved = fold.bank(2.0).project_rows(fold.queries.questions, np.array(expected))
    np.testing.assert_allclose(fold.project(given, prior).vectors, moved, atol=1e-6)
    np.testing.assert_allclose(fold.through(given.search, fold.bank(2.0), prior).vectors, moved, atol=1e-6)
    assert np.abs(fold.project(given).vectors - moved).max() > 1e-3


def test_what_was_computed_for_one_is_not_taken_for_another(fold):
    """Cosines are kept for the weights of a score, and only for these."""
    first = Hyperparameters(search=SearchParams().override(SearchParams(hits=6, whitening=0.5)))
    cosines = fold.cosines_of(first)
    weighed = first.search.override(SearchParams(lexical_weight=0.4, topic_weight=0.3, second_share=0.2))
    assert fold.cosines_of(Hyperparameters(search=weighed)) is cosines
    for change in (SearchParams(whitening=0.0), SearchParams(hits=2), SearchParams(temperature=0.5)):
        other = Hyperparameters(search=first.search.override(change))
        fresh = make_fold(fold.train, fold.queries, 3)
        np.testing.assert_allclose(fold.cosines_of(other), fresh.cosines_of(other), atol=1e-6)
        assert np.abs(fold.cosines_of(other) - cosines).max() > 1e-6
    stronger = Hyperparameters(regularization=50.0, search=first.search)
    assert np.abs(fold.cosines_of(stronger) - cosines).max() > 1e-6
    np.testing.assert_allclose(fold.cosines_of(first), cosines, atol=1e-9)


def test_centroids_route_by_the_mean_questions_and_only_then_are_they_needed(fold):
    params = SearchParams(routing="centroid", centroids=3, temperature=0.2)
    assert fold.pipeline(SearchParams(), fold.bank(1.0)).mean_questions is None
    weights = fold.weights(params)
    for row, query in enumerate(fold.queries.questions):
        nearest = np.argsort(-(fold.mean_questions @ query))[:3]
        powers = np.exp(fold.mean_questions[nearest] @ query / 0.2)
        np.testing.assert_allclose(weights[row, nearest], powers / powers.sum(), atol=1e-6)
    assert fold.pipeline(SearchParams(whitening=0.0), fold.bank(1.0)).whitening is None


def test_ranks_are_of_the_intents_scores(examples):
    """An intent by its best pair, or half by its second best; without a candidate it has no rank."""
    asked = np.arange(48) % 4 == 1
    fold = make_fold(examples.take(np.flatnonzero(~asked)[:33]), examples.take(np.flatnonzero(asked)), 3)
    params = SearchParams(lexical_weight=0.3, topic_weight=0.2, second_share=0.5)
    cosines = fold.cosines(fold.queries.questions)
    totals, ranks, by_best = fold.parts(cosines, params).total, fold.ranks_by(cosines, params), fold.ranks(cosines)
    np.testing.assert_array_equal(fold.ranks(totals, 0.5), ranks)
    topics, intents = fold.queries.questions @ fold.train.topics.T, np.array(fold.train.intents)
    for row, pair in enumerate(fold.queries.pairs):
        dense = 0.8 * cosines[row] + 0.2 * topics[row]
        np.testing.assert_allclose(totals[row], 0.7 * dense + 0.3 * max(dense.max(), 0) * fold.lexical[row], atol=1e-9)
        for scores, found, share in ((totals[row], ranks[row], 0.5), (cosines[row], by_best[row], 0.0)):
            ordered = {name: sorted(scores[intents == name], reverse=True) for name in set(fold.train.intents)}
            blended = {name: (1 - share) * one[0] + share * [*one, *one][1] for name, one in ordered.items()}
            own = blended.get(pair.cluster_id)
            assert found == (np.inf if own is None else 1 + sum(score > own + 1e-12 for score in blended.values()))
    assert len(set(ranks)) > 2


def test_a_split_side_by_side_or_with_all_answers_to_be_found(fold, monkeypatch):
    examples, split = fold.train, Split(np.arange(4, 40), np.arange(4))
    apart = split_fold(examples, split, 1, "entropy", 5)
    assert (len(apart.train), len(apart.queries), apart.count) == (36, 4, 5)
    assert apart.candidates is apart.train
    assert apart.queries.pairs == examples.pairs[:4]
    whole = split_fold(examples, split, 1, whole=True)
    assert len(whole.candidates) == 40
    assert [pair.question == "" for pair in whole.candidates.pairs] == [True] * 4 + [False] * 36
    assert [pair.answer for pair in whole.candidates.pairs] == [pair.answer for pair in examples.pairs]
    np.testing.assert_array_equal(whole.labels, split_fold(examples, split, 1).labels)
    seen = []
    monkeypatch.setattr("train.folds.cluster_count", lambda answers, form, limit: seen.append((form, limit)) or 3)
    split_fold(examples, split, 1)
    split_fold(examples, split, 1, "entropy", 7)
    make_fold(examples, examples, 1)
    assert seen == [("participation", 2_000), ("entropy", 7), ("participation", 2_000)]


def test_the_seed_is_that_of_the_clusters(fold, monkeypatch):
    seeds = []
    monkeypatch.setattr(
        "train.folds.cluster_answers",
        lambda answers, count, seed: seeds.append((count, seed)) or np.zeros(len(answers), np.int64),
    )
    made = split_fold(fold.train, Split(np.arange(30), np.arange(30, 40)), 17, max_clusters=4)
    assert seeds == [(made.count, 17)]
