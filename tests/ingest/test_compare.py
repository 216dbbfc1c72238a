import json
import os
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import compare as compare_module
from ingest.compare import Changes, compare, corpus_hash, point_ids
from ingest.pairs import Names, PairLog, PairTable
from ingest.readers import Located, find_files, read_files
from ingest.report import repeated_questions
from qaserve.schemas.ingest import Place
from qaserve.schemas.pairs import Pair
from qaserve.settings import ReadSettings

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus" / "skills_qa.jsonl"


def pair(**fields):
    return Pair(**({"pair_id": "p", "cluster_id": "c", "question": "q", "answer": "a", "source_file": "f"} | fields))


def log_of(rows, corpus="corpus"):
    log = PairLog(corpus, Names(), None)
    for number, row in enumerate(rows, 1):
        log.append(row, "f.jsonl", number)
    return log


def ids_of(corpus, rows, live=None):
    return point_ids(corpus, log_of(rows, corpus), None if live is None else PairTable.of(live, corpus))


def hash_of(pairs):
    return corpus_hash(PairTable.of(pairs))


FEW = st.sampled_from(["", "a", "A", "a!", "b", "0", "1", '","', "ä"])
PAIRS = st.builds(pair, pair_id=FEW, cluster_id=FEW, question=FEW | st.text(), answer=FEW)


@pytest.fixture
def real_rows():
    if not CORPUS.is_file():
        if os.environ.get("CI"):
            pytest.fail(f"CI needs the real corpus, and {CORPUS} is not there")
        pytest.skip(f"needs the real corpus, and {CORPUS} is not there")
    return [item for item in read_files(find_files([CORPUS]), ReadSettings()) if isinstance(item, Located)]


# Ids


@settings(deadline=None)
@given(st.lists(PAIRS, max_size=30))
def test_every_row_has_an_id_of_its_own(pairs):
    ids = ids_of("corpus", pairs)
    assert len(set(ids)) == len(ids) == len(pairs)
    assert {uuid.UUID(point).version for point in ids} <= {5}


@settings(deadline=None)
@given(st.lists(PAIRS, max_size=30))
def test_the_same_rows_have_the_same_ids(pairs):
    assert ids_of("corpus", pairs) == ids_of("corpus", [row.model_copy(deep=True) for row in pairs])


@settings(deadline=None)
@given(st.lists(PAIRS, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_change_the_set_of_ids(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    assert set(ids_of("corpus", shuffled)) == set(ids_of("corpus", pairs))


@settings(deadline=None)
@given(st.lists(PAIRS, max_size=30), PAIRS)
def test_a_row_at_the_end_leaves_the_ids_before_it_alone(pairs, last):
    assert ids_of("corpus", [*pairs, last])[:-1] == ids_of("corpus", pairs)


@settings(deadline=None)
@given(st.lists(PAIRS, min_size=1, max_size=30), st.data())
def test_everything_but_pair_id_and_question_can_be_edited_without_a_new_id(pairs, data):
    index = data.draw(st.integers(0, len(pairs) - 1))
    edits = {"answer": "new", "cluster_id": "new", "topics": ("new",), "source_file": "new", "extra": {"new": 1}}
    edited = [*pairs[:index], pairs[index].model_copy(update=edits), *pairs[index + 1 :]]
    assert ids_of("corpus", edited) == ids_of("corpus", pairs)


@settings(deadline=None)
@given(st.lists(PAIRS, min_size=1, max_size=30))
def test_another_corpus_has_other_ids(pairs):
    assert not set(ids_of("one", pairs)) & set(ids_of("two", pairs))


def test_another_pair_id_or_question_is_another_id():
    ids = [ids_of("corpus", [row])[0] for row in (pair(), pair(pair_id="x"), pair(question="x"))]
    assert len(set(ids)) == 3


def test_questions_that_differ_only_in_case_and_punctuation_share_a_key_and_get_ordinals():
    plain = [pair(question="how do i start")] * 3
    varied = [pair(question=text) for text in ("How do I start?", "how do i start", "  HOW, do I   start!")]
    assert ids_of("corpus", varied) == ids_of("corpus", plain)
    assert len(set(ids_of("corpus", varied))) == 3


def test_ids_are_those_of_earlier_versions():
    """Builds on disk hold these ids: a change of them makes every pair of every user new."""
    assert ids_of("skills", [pair(pair_id="p1", question="How do I start?")] * 2) == [
        "51356cdb-01e2-57c5-862e-64a81f0eeb23",
        "c7108130-a840-5bfc-956f-6a7808295fbc",
    ]


@pytest.mark.corpus
def test_no_row_of_the_real_corpus_is_lost_to_another(real_rows):
    assert len(set(ids_of("skills", [row.pair for row in real_rows]))) == len(real_rows) == 1888


# Differences

FULL = pair(
    question_type="short",
    topics=("t1", "t2"),
    tags=("g",),
    related_skills=("s",),
    related_docs=("d",),
    extra={"level": 1, "tree": {"path": ["x"], "depth": 2}},
)
EDITS = {
    "pair_id": "x",
    "cluster_id": "x",
    "question": "x",
    "answer": "x",
    "question_type": None,
    "topics": ("t2", "t1"),
    "tags": (),
    "related_skills": ("x",),
    "related_docs": ("x",),
    "source_file": "x",
    "extra": {"level": 2, "tree": {"path": ["x"], "depth": 2}},
}
OLD, EDITED, NEW = pair(), pair(answer="better"), pair(question="another")


def test_without_replace_pairs_are_added_and_updated_but_never_removed():
    live = {"kept": OLD, "edited": OLD, "gone": OLD}
    wanted = {"kept": OLD, "edited": EDITED, "new": NEW}
    assert compare(wanted, live, replace=False) == Changes(added={"new"}, updated={"edited"}, unchanged={"kept"})


def test_with_replace_what_is_not_wanted_is_removed():
    live = {"kept": OLD, "edited": OLD, "gone": OLD}
    wanted = {"kept": OLD, "edited": EDITED, "new": NEW}
    assert compare(wanted, live, replace=True) == Changes(
        added={"new"}, updated={"edited"}, unchanged={"kept"}, removed={"gone"}
    )


@pytest.mark.parametrize("replace", [False, True])
def test_the_same_pairs_change_nothing(replace):
    changes = compare({"a": OLD, "b": NEW}, {"b": NEW, "a": OLD}, replace=replace)
    assert changes == Changes(unchanged={"a", "b"})
    assert not changes


@pytest.mark.parametrize("field", Pair.model_fields)
def test_a_pair_is_updated_when_any_field_of_it_changes(field):
    edited = FULL.model_copy(update={field: EDITS[field]})
    assert compare({"a": edited}, {"a": FULL}, replace=False) == Changes(updated={"a"})


@pytest.mark.parametrize("kind", ["added", "updated", "removed"])
def test_any_change_counts(kind):
    assert Changes(**{kind: {"a"}})


@settings(deadline=None)
@given(st.dictionaries(FEW, PAIRS), st.dictionaries(FEW, PAIRS), st.booleans())
def test_every_point_is_in_exactly_one_set(wanted, live, replace):
    changes = compare(wanted, live, replace=replace)
    sets = [changes.added, changes.updated, changes.unchanged, changes.removed]
    assert sum(map(len, sets)) == len(set().union(*sets))
    assert changes.added | changes.updated | changes.unchanged == set(wanted)
    assert changes.removed == (set(live) - set(wanted) if replace else set())


# The hash of a corpus


def test_the_hash_does_not_depend_on_the_order_of_points():
    assert hash_of({"a": OLD, "b": NEW}) == hash_of({"b": NEW, "a": OLD})


def test_equal_pairs_hash_alike_whatever_the_order_of_their_extra_fields():
    """Qdrant gives a payload back as JSON, whose fields have no order: a pair that went there and back is equal."""
    turned = FULL.model_copy(update={"extra": {"tree": {"depth": 2, "path": ["x"]}, "level": 1}})
    assert turned == FULL
    assert hash_of({"a": turned}) == hash_of({"a": FULL})


@pytest.mark.parametrize("field", Pair.model_fields)
def test_the_hash_depends_on_every_field(field):
    edited = FULL.model_copy(update={field: EDITS[field]})
    assert hash_of({"a": edited}) != hash_of({"a": FULL})


def test_the_hash_depends_on_ids_and_on_which_pair_has_which():
    hashes = [
        hash_of(pairs)
        for pairs in ({}, {"a": OLD}, {"b": OLD}, {"a": OLD, "b": NEW}, {"a": NEW, "b": OLD}, {"a": OLD, "b": OLD})
    ]
    assert len(set(hashes)) == len(hashes)


@settings(deadline=None)
@given(st.dictionaries(FEW, PAIRS), st.dictionaries(FEW, PAIRS))
def test_corpora_hash_alike_exactly_when_they_are_equal(one, other):
    assert (hash_of(one) == hash_of(other)) == (one == other)


@settings(deadline=None)
@given(st.dictionaries(FEW, PAIRS))
def test_the_hash_survives_json(pairs):
    restored = {point: Pair.model_validate(json.loads(row.model_dump_json())) for point, row in pairs.items()}
    assert hash_of(restored) == hash_of(pairs)


# Repeated questions, for the report


def test_questions_asked_once_are_not_reported():
    assert repeated_questions(log_of([pair(question="one"), pair(question="two")])) == ((), 0, 0)


def test_repeated_questions_are_told_with_their_places_and_the_number_of_answers():
    rows = [
        pair(question="How?", answer="x"),
        pair(question="why", answer="x"),
        pair(question="how", answer="y"),
        pair(question="Why?", answer="x"),
        pair(question="HOW!", answer="x"),
    ]
    (how, why), repeats, conflicts = repeated_questions(log_of(rows))
    assert (repeats, conflicts) == (3, 1)
    assert (how.question, how.answers) == ("How?", 2)
    assert how.rows == tuple(Place(file="f.jsonl", line=line) for line in (1, 3, 5))
    assert (why.question, why.answers, [place.line for place in why.rows]) == ("why", 1, [2, 4])


@pytest.mark.corpus
def test_the_real_corpus_repeats_26_questions(real_rows):
    assert repeated_questions(log_of(row.pair for row in real_rows)).repeats == 26


def test_rows_that_are_equal_but_for_their_answers_take_one_id_each_to_find(monkeypatch):
    asked, known = [], compare_module.point_id
    monkeypatch.setattr(compare_module, "point_id", lambda *given: asked.append(given) or known(*given))
    ids = ids_of("corpus", [pair(answer=f"a{number}") for number in range(200)])
    assert len(set(ids)) == len(asked) == 200
