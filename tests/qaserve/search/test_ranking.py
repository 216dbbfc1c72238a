import uuid

import numpy as np
import pytest
from qaserve.core.lexical import Lexicon
from qaserve.store.qdrant import CollectionInfo, now

from ingest.compare import point_ids
from qaserve.schemas.builds import EncoderIdentity
from qaserve.schemas.pairs import Pair, StoredPair
from qaserve.search.ranking import FIRST_LOOK, LexicalQuery, rank_intents
from qaserve.store.points import PairVectors

D, BUILD = 8, "0123456789ab"


@pytest.fixture
def filled(edge, rng):
    """Many pairs of many intents, more than a first look, with words and vectors that disagree."""
    count = 6 * FIRST_LOOK
    letters = list("abcdefghijklmnop")
    pairs = [
        Pair(
            pair_id=str(n),
            cluster_id=f"intent {rng.integers(count // 3)}",
            question=" ".join(rng.choice(letters, 3)),
            answer=" ".join(rng.choice(letters, 8)),
            source_file="f",
        )
        for n in range(count)
    ]
    vectors = rng.normal(size=(2, count, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    info = CollectionInfo(
        corpus="things",
        build=BUILD,
        encoder=EncoderIdentity(id="fake", revision="1", dimension=D),
        pairs=count,
        clusters=1,
        bundle_hash="0" * 64,
        sources=(),
        created=now(),
    )
    edge.create(info)
    ids = point_ids("things", pairs)
    points = [
        PairVectors(StoredPair(id=point, pair=pair, cluster=0), question, answer)
        for point, pair, question, answer in zip(ids, pairs, *vectors, strict=True)
    ]
    list(edge.write("things", BUILD, points))
    return edge, points


@pytest.mark.parametrize("weight", [0.05, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("top_k", [1, 5, 30])
def test_it_is_what_scoring_every_pair_gives(filled, rng, weight, top_k):
    store, points = filled
    lexicon = Lexicon.fit(
        [p.stored.id for p in points], [f"{p.stored.pair.question} {p.stored.pair.answer}" for p in points]
    )
    for question in ("a b c", "p", "zzz"):
        query = rng.normal(size=D)
        relative = lexicon.relative(question)
        cosines = np.stack([p.answer for p in points]) @ (query / np.linalg.norm(query))
        scores = (1 - weight) * cosines + weight * max(0, cosines.max()) * relative
        best = {}
        for point, score in zip(points, scores, strict=True):
            best[point.stored.pair.cluster_id] = max(best.get(point.stored.pair.cluster_id, -2), score)
        expected = sorted(best.values(), reverse=True)[:top_k]
        found = rank_intents(store, "things", BUILD, query, top_k, LexicalQuery(weight, lexicon, relative))
        np.testing.assert_allclose([one.score for one in found], expected, atol=1e-6)
        assert len({one.hit.cluster_id for one in found}) == len(found)
        for one in found:
            assert one.answer == pytest.approx((1 - weight) * one.hit.similarity, abs=1e-9)


def test_more_intents_than_there_are(filled, rng):
    store, points = filled
    found = rank_intents(store, "things", BUILD, rng.normal(size=D), 10_000, None)
    assert len(found) == len({point.stored.pair.cluster_id for point in points})
    assert all(one.words == 0 and one.score == one.hit.similarity for one in found)


def test_only_the_named_points_are_searched(filled, rng):
    store, points = filled
    some = [point.stored.id for point in points[:7]]
    found = store.nearest_answers("things", BUILD, rng.normal(size=D), 7, among=[*some, str(uuid.UUID(int=0))])
    assert {hit.id for hit in found} == set(some)
