"""What every store does. Expected scores are computed here, from the definitions."""

import math
import re
from collections import Counter

import numpy as np
import pytest
from qdrant_edge import Bm25, Bm25Config, TokenizerType
from store_builds import REF, TEXTS, D, metadata, write

from qaserve.common.errors import BuildNotFoundError, NotFoundError, StoreError, UsageError
from qaserve.common.failpoints import armed
from qaserve.schemas.ask import Filters
from qaserve.store import BuildRef, EdgeStore, Search
from qaserve.store.edge_build import PAGE
from qaserve.store.points import (
    ContentHash,
    nearest,
    nearest_answers,
    nearest_questions,
    to_pair,
    to_pair_vectors,
    to_point,
)
from qaserve.store.words import Sparse


def test_pairs_come_back_bit_for_bit_in_the_order_of_ids(store, crowd):
    rows = crowd(2 * PAGE + 3)
    write(store, rows)
    found = [to_pair_vectors(point) for point in store.open(REF).scroll()]
    assert [row.stored for row in found] == [row.stored for row in rows]
    for before, after in zip(rows, found, strict=True):
        assert after.question.tobytes() == before.question.tobytes()
        assert after.answer.tobytes() == before.answer.tobytes()
        assert (after.topic is None) == (before.topic is None)
        assert before.topic is None or after.topic.tobytes() == before.topic.tobytes()


def test_metadata_and_seal_come_back(built):
    build = built.open(REF)
    assert build.metadata == built.metadata(REF) == metadata()
    assert build.seal.points == len(TEXTS) == build.count()
    assert build.seal.content_hash == build.content_hash()
    assert built.verify(REF) == build.seal


@pytest.mark.parametrize("using", ["question", "answer", "topic"])
def test_scores_are_cosines_best_first(built, rows, rng, using):
    query = 3 * rng.normal(size=D)
    hits = built.open(REF).nearest(using, query, 3, fields=["cluster"], vectors=["answer"])
    having = [row for row in rows if getattr(row, using) is not None]
    cosines = {row.stored.id: float(getattr(row, using) @ query / np.linalg.norm(query)) for row in having}
    expected = sorted(cosines, key=lambda one: -cosines[one])[:3]
    assert [hit.id for hit in hits] == expected
    by_id = {row.stored.id: row for row in rows}
    for hit in hits:
        assert hit.score == pytest.approx(cosines[hit.id], abs=1e-6)
        assert hit.payload == {"cluster": by_id[hit.id].stored.cluster}
        assert list(hit.vectors) == ["answer"]
        np.testing.assert_array_equal(hit.vectors["answer"], by_id[hit.id].answer)


def test_typed_hits(built, rows):
    build = built.open(REF)
    first = nearest_questions(build, rows[2].question, 2, with_vectors=True)[0]
    stored = rows[2].stored
    assert (first.id, first.cluster, first.prior) == (stored.id, stored.cluster, stored.prior)
    assert (first.pair_id, first.question) == (stored.pair.pair_id, stored.pair.question)
    np.testing.assert_array_equal(first.vectors[1], rows[2].answer)
    assert nearest_questions(build, rows[2].question, 1)[0].vectors is None
    answer = nearest_answers(build, rows[3].answer, 1, Filters(cluster=(1,)))[0]
    assert (answer.id, answer.cluster_id) == (rows[3].stored.id, rows[3].stored.pair.cluster_id)


@pytest.mark.parametrize(("questions", "answers"), [(2, 3), (0, 3), (2, 0), (0, 0)])
@pytest.mark.parametrize("filters", [Filters(), Filters(cluster=(1,))])
def test_questions_and_answers_found_together_are_those_found_apart(built, rows, questions, answers, filters):
    build, vector = built.open(REF), 3 * rows[2].question
    found = nearest(build, vector, questions, answers, filters)
    assert found == (
        nearest_questions(build, vector, questions, filters),
        nearest_answers(build, vector, answers, filters),
    )
    by_id = {row.stored.id: row.stored.pair for row in rows}
    for hit in found[1]:
        pair = by_id[hit.id]
        assert (hit.pair_id, hit.cluster_id, hit.question) == (pair.pair_id, pair.cluster_id, pair.question)


def test_equal_scores_are_in_the_order_of_ids(store, rows):
    same = [row._replace(answer=rows[0].answer) for row in rows]
    write(store, same)
    assert [hit.id for hit in store.open(REF).nearest("answer", rows[0].answer, 10)] == [r.stored.id for r in rows]


@pytest.mark.parametrize("limit", [0, 1, 3, 12, 60])
def test_of_equally_near_questions_those_with_the_first_ids_vote(store, crowd, limit):
    """Fifty ask the same, three ask something nearer; written last to first, so that an engine keeps others."""
    rows = crowd(53)
    same, nearer = np.eye(D, dtype=np.float32)[:2]
    leaning = (0.6 * nearer + 0.8 * same).astype(np.float32)
    rows = [row._replace(question=nearer if number in {20, 21, 40} else leaning) for number, row in enumerate(rows)]
    write(store, rows[::-1])
    found = nearest_questions(store.open(REF), nearer, limit)
    first = [rows[number].stored.id for number in (20, 21, 40)]
    others = [row.stored.id for row in rows if row.stored.id not in first]
    assert [hit.id for hit in found] == [*first, *others][:limit]


def test_several_searches_at_once_are_as_one_by_one(built, rows):
    build = built.open(REF)
    asked = [
        Search("question", rows[0].question, 3),
        Search("words", build.encoder.query("zzz unheard of"), 3),
        Search("answer", rows[1].answer, 2, where={"cluster": [1]}, fields=["pair_id"]),
        Search("words", build.encoder.query("records"), 3),
    ]
    together = build.search(asked)
    assert together == [build.search([one])[0] for one in asked]
    assert [len(hits) for hits in together] == [3, 0, 2, 2]
    assert build.search([]) == []


def test_scores_of_some_points_are_those_of_a_search(built, rows, rng):
    build, vector = built.open(REF), rng.normal(size=D).astype(np.float32)
    vector /= np.linalg.norm(vector)
    asked = [
        Search("answer", vector, 0),
        Search("words", build.encoder.query("extract json records and read files"), 0),
        Search("topic", vector, 0),  # every third pair has none
        Search("words", build.encoder.query("zzz unheard of"), 0),
    ]
    ids = [row.stored.id for row in rows[:4]] + ["00000000-0000-0000-0000-000000000000"]
    for some in (ids[1:2], ids):  # the second time some of it is known
        found = build.scores(asked, some)
        for search, scores in zip(asked, found, strict=True):
            (hits,) = build.search([search._replace(limit=100, among=some)])
            there = {one: score for one, score in zip(some, scores, strict=True) if not np.isnan(score)}
            assert there == pytest.approx({hit.id: hit.score for hit in hits}, abs=1e-6)
    assert [np.isfinite(scores).sum() for scores in found] == [4, 4, 2, 0]
    assert [scores.tolist() for scores in build.scores(asked, [])] == [[], [], [], []]


def test_equal_vectors_score_alike_wherever_they_stand(store, crowd):
    rows = crowd(37)
    rows = [row._replace(answer=rows[0].answer) for row in rows]
    write(store, rows)
    (scores,) = store.open(REF).scores([Search("answer", rows[1].question, 0)], [row.stored.id for row in rows])
    assert len(scores) == len(rows)
    assert len(set(scores.tolist())) == 1


def test_payloads_of_points_that_have_a_value(built, rows):
    found = built.open(REF).payloads({"cluster_id": ["intent 1", "intent 3"], "cluster": [1]}, ("cluster_id",))
    expected = [row.stored for row in rows if row.stored.cluster == 1]
    assert found == {one.id: {"cluster_id": one.pair.cluster_id} for one in expected}
    assert built.open(REF).payloads({"cluster": [7]}, ("cluster_id",)) == {}


def test_payloads_of_points_of_some_intents(built, rows):
    build = built.open(REF)
    for names in (["intent 1"], ["intent 3", "no such intent", "intent 1"]):  # the second time one is known
        expected = [row.stored for row in rows if row.stored.pair.cluster_id in names]
        assert expected
        for _ in range(2):
            found = build.payloads({"cluster_id": names}, ("pair_id",))
            assert found == {one.id: {"pair_id": one.pair.pair_id} for one in expected}


# Words


def stems(text, sparse_of):
    """Index of the stem of each word, in order, as the engine numbers them."""
    words = []
    for compound in re.findall(r"[\w+#]+(?:[-.][\w+#]+)*", text):
        parts = re.split(r"[-._]+", compound)
        words += [*parts, compound] if len(parts) > 1 else parts
    return [index for word in words for index in sparse_of(word)]


def bm25_of(question, texts, k=1.2, b=0.75, average=12.0):
    """From Robertson & Zaragoza 2009, with Lucene's idf."""
    model = Bm25(Bm25Config(tokenizer=TokenizerType.Whitespace))
    documents = [Counter(stems(text, lambda word: model.embed_query(word).indices)) for text in texts]
    scores = []
    for document in documents:
        length, score = sum(document.values()), 0.0
        for word in set(stems(question, lambda one: model.embed_query(one).indices)):
            holding = sum(word in other for other in documents)
            idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            f = document[word]
            score += idf * f * (k + 1) / (f + k * (1 - b + b * length / average))
        scores.append(score)
    return scores


@pytest.mark.parametrize("question", ["extract the records as json", "--file-filter", "reading files, file by file"])
def test_word_scores_are_bm25(built, rows, question):
    expected = bm25_of(question, [f"{question_}\n{answer}" for question_, answer in TEXTS])
    found = {hit.id: hit.score for hit in built.open(REF).words(question, 10)}
    assert len(found) == sum(score > 0 for score in expected) > 1
    for row, score in zip(rows, expected, strict=True):
        assert found.get(row.stored.id, 0.0) == pytest.approx(score, abs=1e-5)


def test_a_filter_does_not_change_word_scores(built):
    build = built.open(REF)
    everything = {hit.id: hit.score for hit in build.words("records of json files", 10)}
    for hits in (
        build.words("records of json files", 10, {"cluster": [0]}),
        build.words("records of json files", 10, among=list(everything)[:2]),
    ):
        assert 0 < len(hits) < len(everything)
        for hit in hits:
            assert hit.score == pytest.approx(everything[hit.id], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "row"), [("--file-filter", 0), ("generate_json_reader", 1), ("extract_records.pl", 2)]
)
def test_exact_names_find_their_pair_first(built, rows, name, row):
    assert built.open(REF).words(name, 10)[0].id == rows[row].stored.id
    assert built.open(REF).words(f"What does {name.upper()} do?", 10)[0].id == rows[row].stored.id


@pytest.mark.parametrize("text", ["", "   ", "of the and", "zzz"])
def test_a_text_without_known_words_finds_nothing(built, text):
    assert built.open(REF).words(text, 10) == []


def test_shared_words_are_those_that_count(built, rows):
    ids = [row.stored.id for row in rows]
    shared = built.open(REF).shared_words("Can I use --file-filter with the Records of a file?", ids)
    assert len(shared) == len(ids)
    # file three times, the rare ones once each, filter twice, each in two of six texts or in one
    assert shared[0] == ("file", "use", "file-filter", "filter")
    assert shared[2] == ("records",)
    assert shared[5] == ()


# Filters, lists, counts


def test_filters_take_any_value_of_every_field(built, rows, rng):
    build, query = built.open(REF), rng.normal(size=D)

    def ids(where, **more):
        return {hit.id for hit in build.nearest("answer", query, 10, where, **more)}

    def expected(keep):
        return {row.stored.id for row in rows if keep(row.stored)}

    assert ids({"topics": ["t1", "t2"]}) == expected(lambda s: {"t1", "t2"} & set(s.pair.topics))
    assert ids({"topics": ["t1"], "cluster": [0]}) == expected(lambda s: "t1" in s.pair.topics and s.cluster == 0)
    assert ids({"topics": ["unheard of"]}) == set()
    assert ids({}, among=[rows[1].stored.id, rows[4].stored.id]) == {rows[1].stored.id, rows[4].stored.id}
    assert ids({"cluster": [0]}, among=[rows[1].stored.id, rows[4].stored.id]) == {rows[4].stored.id}
    assert ids({}, among=[]) == set()
    assert build.count({"cluster": [1]}) == 3


def test_scroll_by_field(built, rows):
    found = [to_pair(point) for point in built.open(REF).scroll({"pair_id": ["p1"]}, vectors=())]
    assert found == [rows[2].stored, rows[3].stored]


def test_retrieve_leaves_out_what_is_not_there(built, rows):
    ids = [rows[4].stored.id, "00000000-0000-5000-8000-00000000ffff", rows[0].stored.id]
    found = built.open(REF).retrieve(ids, vectors=["answer", "topic"])
    assert set(found) == {ids[0], ids[2]}
    assert to_pair(found[ids[0]]) == rows[4].stored
    assert set(found[ids[0]].vectors) == {"answer", "topic"}
    assert set(found[ids[2]].vectors) == {"answer"}  # it has no topic
    assert built.open(REF).retrieve(ids[:1])[ids[0]].vectors == {}


def test_facets_count_points_most_frequent_first(built):
    assert built.open(REF).facet("topics", 2) == [("all", 6), ("t0", 2)]
    assert built.open(REF).facet("cluster", 5) == [("0", 3), ("1", 3)]


# Builds


def test_builds_newest_first_and_live(store, rows):
    other = BuildRef("things", "bbbbbbbbbbbb")
    write(store, rows)
    write(store, rows, metadata(other, created="2026-01-02T00:00:00+00:00"))
    assert [one.build for one in store.builds("things")] == ["bbbbbbbbbbbb", "aaaaaaaaaaaa"]
    assert store.names("things") == ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    assert store.corpora() == ["things"]
    assert store.live_builds() == {}
    store.set_live(REF)
    assert store.live("things") == REF
    store.set_live(other)
    assert store.live_builds() == {"things": "bbbbbbbbbbbb"}
    with pytest.raises(UsageError, match="things@bbbbbbbbbbbb is live"):
        store.delete(other)
    store.delete(REF)
    assert store.names("things") == ["bbbbbbbbbbbb"]


def test_what_is_not_there(store):
    with pytest.raises(NotFoundError, match=r"no corpus 'things' in .*") as error:
        store.live("things")
    assert error.value.hint == f"There is none yet. {store.how_to_start()}"
    for call in (store.metadata, store.open, store.verify, store.delete, store.set_live):
        for ref in (REF, BuildRef("things", "../other"), BuildRef("..", "things")):
            with pytest.raises(BuildNotFoundError, match=r"^no (build|corpus) "):
                call(ref)
    assert store.corpora() == store.names("things") == store.builds("things") == []
    assert store.remove_unfinished("things") == []


def test_an_unfinished_build_is_never_seen_and_is_all_that_cleaning_removes(store, rows):
    write(store, rows)
    started = metadata(BuildRef("things", "bbbbbbbbbbbb"), pairs=6)
    list(store.create(started).append(to_point(row) for row in rows))
    assert store.names("things") == ["aaaaaaaaaaaa"]
    assert [one.build for one in store.builds("things")] == ["aaaaaaaaaaaa"]
    for call in (store.open, store.set_live, store.metadata):
        with pytest.raises(BuildNotFoundError):
            call(started.ref)
    assert store.unfinished("things") == ["bbbbbbbbbbbb"]
    assert store.remove_unfinished("things") == ["bbbbbbbbbbbb"]
    assert store.unfinished("things") == []
    assert store.names("things") == ["aaaaaaaaaaaa"]  # live nowhere, and kept


def test_a_build_is_discarded_when_it_fails(store, rows):
    def failing():
        yield from (to_point(row) for row in rows * PAGE)
        raise RuntimeError("told to")

    with pytest.raises(RuntimeError, match="told to"), store.create(metadata()) as build:
        list(build.append(failing()))
    assert store.unfinished("things") == store.names("things") == []


@pytest.mark.parametrize("twice", [True, False])
def test_points_that_are_missing_are_noticed_when_it_is_sealed(store, rows, twice):
    with store.create(metadata(pairs=7)) as build:
        list(build.append(to_point(row) for row in [*rows, *rows[:twice]]))
        with pytest.raises(StoreError, match=r"was given \d points and holds 6; its metadata says 7"):
            build.seal()
    assert store.names("things") == []


@pytest.mark.parametrize(
    "vectors",
    [
        {"question": np.ones(D + 1, np.float32)},
        {"question": np.ones(D, np.float32)},
        {"question": np.full(D, np.nan, np.float32)},
        {"other": np.eye(D, dtype=np.float32)[0]},
    ],
)
def test_vectors_that_do_not_fit_are_refused(store, rows, vectors):
    point = to_point(rows[0])._replace(vectors=vectors)
    with (
        pytest.raises(StoreError, match=r"has a vector .* takes question, answer, topic of shape \(8,\) and length 1"),
        store.create(metadata()) as build,
    ):
        list(build.append([point]))


def test_an_interrupted_build_is_continued(store, crowd):
    rows = crowd(600)
    about = metadata(pairs=600)
    begun = store.create(about)
    list(begun.append(to_point(row) for row in rows[:400]))
    if isinstance(store, EdgeStore):
        begun._shard.flush()
        begun._shard.close()
    with store.create(about, resume=True) as build:
        assert build.last == rows[399].stored.id
        list(build.append(to_point(row) for row in rows if row.stored.id > build.last))
        seal = build.seal()
    assert seal == store.verify(REF)
    assert [to_pair(point) for point in store.open(REF).scroll(vectors=())] == [row.stored for row in rows]


def test_a_build_begun_again_starts_from_nothing(store, rows):
    list(store.create(metadata()).append(to_point(row) for row in rows[3:]))
    with store.create(metadata(pairs=2)) as build:
        assert build.last is None
        list(build.append(to_point(row) for row in rows[:2]))
        build.seal()
    assert store.open(REF).count() == 2


def test_stores_agree(edge, memory_server, rows):
    """Equal hashes and equal scores, to 1e-5."""
    for one in (edge, memory_server):
        write(one, rows)
    first, second = edge.open(REF), memory_server.open(REF)
    assert first.seal.content_hash == second.seal.content_hash
    for question in ("extract records", "--file-filter", "how do I read files with json"):
        for a, b in zip(first.words(question, 10), second.words(question, 10), strict=True):
            assert (a.id, a.score) == (b.id, pytest.approx(b.score, abs=1e-5))


def test_the_hash_is_of_ids_payload_words_and_every_vector(rows):
    def hash_of(first, words=Sparse([1, 2], [0.5, 0.7])):  # noqa: B008 - not changed
        content = ContentHash()
        for row in (first, *rows[2:]):
            content.add(to_point(row), words)
        return content.hexdigest()

    row = rows[1]
    stored = row.stored
    changed = [
        row._replace(stored=stored.model_copy(update={"prior": 9.0})),
        row._replace(stored=stored.model_copy(update={"id": rows[0].stored.id})),
        row._replace(answer=-row.answer),
        row._replace(topic=None),
        row._replace(topic=row.question, question=row.topic),
    ]
    hashes = [hash_of(row), *map(hash_of, changed), hash_of(row, Sparse([1, 2], [0.7, 0.5]))]
    assert len(set(hashes)) == len(hashes)
    assert hash_of(row, Sparse([2, 1], [0.7, 0.5])) == hash_of(row)


def test_the_order_of_points_does_not_count(store, rows):
    write(store, rows)
    before = store.open(REF).seal.content_hash
    other = BuildRef("things", "bbbbbbbbbbbb")
    write(store, rows[::-1], metadata(other))
    assert store.open(other).seal.content_hash == before


def test_steps_are_reached_in_order(store, rows):
    steps = []
    with armed(steps.append):
        write(store, rows)
        store.set_live(REF)
    assert steps == ["build created", "page written", "build written", "swap due", "swapped"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_live_build_that_is_filled_up_again_is_never_discarded(store, rows, resume):
    write(store, rows)
    store.set_live(REF)

    def failing():
        yield from map(to_point, rows[:2])
        raise RuntimeError("told to")

    with pytest.raises(RuntimeError, match="told to"), store.create(metadata(), resume=resume) as build:
        list(build.append(failing()))
    assert store.live_builds() == {REF.corpus: REF.build}
    assert store.open(REF).count() == len(rows)


def test_values_are_counted_among_the_points_that_pass(store, rows):
    write(store, rows)
    build, every = store.open(REF), {"cluster": [0, 1]}
    assert build.facet("cluster", 5, {"cluster": [1]}) == [("1", 3)]
    assert build.facet("topics", 2, every) == build.facet("topics", 2)
