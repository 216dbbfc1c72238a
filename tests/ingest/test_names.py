import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.names import SKILLS_SHOWN, TERMS_SHOWN, Words, describe_clusters
from qaserve.schemas.pairs import Pair


def pair(question, **fields):
    return Pair(pair_id="p", cluster_id="c", question=question, answer="a", source_file="f", **fields)


def described(pairs, labels, count, known=None):
    words = Words()
    for one in pairs:
        words.add(one)
    return describe_clusters(words, np.array(labels, dtype=np.int64), count, known)


def describe(*clusters, **fields):
    """Describe clusters given as lists of questions."""
    rows = [(pair(question, **fields), label) for label, questions in enumerate(clusters) for question in questions]
    return described([row for row, _ in rows], [label for _, label in rows], len(clusters))


def test_terms_are_the_words_that_other_clusters_do_not_use():
    cooking, sailing = describe(
        ["How do I boil pasta in UnifyWeaver?", "UnifyWeaver pasta sauce"],
        ["How do I hoist a sail in UnifyWeaver?", "UnifyWeaver sail repair"],
    )
    assert (cooking.terms[0], sailing.terms[0]) == ("pasta", "sail")
    assert set(cooking.terms) == {"pasta", "boil", "sauce", "unifyweaver"}
    assert cooking.terms.index("pasta") < cooking.terms.index("unifyweaver")
    assert "pasta" in cooking.name
    assert "sail" in sailing.name


def test_a_word_that_all_use_weighs_less_than_one_that_only_one_uses():
    clusters = describe(*[[f"compile own{letter}"] for letter in "abcde"])
    assert [cluster.terms[0] for cluster in clusters] == ["owna", "ownb", "ownc", "ownd", "owne"]


def test_words_of_asking_are_no_terms():
    (cluster,) = describe(["How can I use the best way to do this? What is the difference?", "compile"])
    assert cluster.terms == ("compile",)


def test_topics_and_tags_count_as_words():
    pairs = [pair("What is it?", topics=("Recursion",), tags=("prolog",)), pair("What is it?", topics=("Sockets",))]
    first, second = described(pairs, [0, 1], 2)
    assert set(first.terms) == {"recursion", "prolog"}
    assert second.terms == ("sockets",)


def test_names_of_flags_files_and_predicates_stay_whole():
    (cluster,) = describe(["compile_with_cte extract_records.pl top-k"])
    assert set(cluster.terms) == {"compile_with_cte", "extract_records.pl", "top-k"}


def test_the_number_of_terms_is_bounded():
    (cluster,) = describe(["alpha bravo charlie delta echo foxtrot golf hotel india"])
    assert len(cluster.terms) == TERMS_SHOWN


def test_names_of_clusters_with_the_same_words_differ():
    names = [cluster.name for cluster in describe(["graph"], ["graph"], ["graph"])]
    assert names == ["graph", "graph (2)", "graph (3)"]


def test_names_grow_by_a_term_before_they_take_a_number():
    shared = " ".join(["alpha bravo charlie"] * 5)
    first, second = describe([shared], [f"{shared} delta"])
    assert (first.name, second.name) == ("alpha · bravo · charlie", "alpha · bravo · charlie · delta")


@pytest.mark.parametrize("question", ["What is it, and how do I do it?", "12 345 6.78", "?! … ++", "a b c"])
def test_a_cluster_without_words_has_no_terms_and_still_a_name(question):
    wordy, bare = describe(["compile recursion"], [question])
    assert set(wordy.terms) == {"compile", "recursion"}
    assert (bare.terms, bare.name, bare.size) == ((), "unnamed", 1)


def test_clusters_none_of_which_has_words_have_different_names():
    clusters = describe(["What is it?"], ["123"], ["!!"])
    assert [cluster.terms for cluster in clusters] == [(), (), ()]
    assert len({cluster.name for cluster in clusters}) == 3


def test_a_cluster_without_pairs_is_described_as_empty():
    clusters = described([pair("compile")], [1], 3)
    assert [(cluster.cluster, cluster.size, cluster.terms) for cluster in clusters] == [
        (0, 0, ()),
        (1, 1, ("compile",)),
        (2, 0, ()),
    ]


def test_sizes_and_numbers_follow_the_labels():
    clusters = described([pair("x"), pair("y"), pair("z")], [2, 0, 2], 3)
    assert [(cluster.cluster, cluster.size) for cluster in clusters] == [(0, 1), (1, 0), (2, 2)]


def test_skills_are_the_most_frequent_ones():
    pairs = [
        pair("q", related_skills=skills) for skills in (("d", "a"), ("a", "b"), ("a", "b", "c"), ("c", "b"), ("c",))
    ]
    (cluster,) = described(pairs, [0] * 5, 1)
    assert set(cluster.skills) == {"a", "b", "c"}
    assert len(cluster.skills) == SKILLS_SHOWN


WORDS = ["graph", "search", "compile", "what", "is", "12", "prolog", "unnamed", "index", "cache"]
SKILLS = st.lists(st.sampled_from(["a.md", "b.md", "c.md", "d.md", "e.md"]), max_size=3).map(tuple)
ROWS = st.builds(pair, st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join), related_skills=SKILLS)
CLUSTERS = st.lists(st.lists(ROWS, max_size=5), min_size=1, max_size=8)


def flat(clusters):
    rows = [(row, label) for label, cluster in enumerate(clusters) for row in cluster]
    return [row for row, _ in rows], [label for _, label in rows], len(clusters)


@settings(deadline=None)
@given(CLUSTERS)
def test_names_are_unique_and_never_empty(clusters):
    names = [cluster.name for cluster in described(*flat(clusters))]
    assert len(set(names)) == len(clusters)
    assert all(names)


@settings(deadline=None)
@given(CLUSTERS, st.randoms(use_true_random=False))
def test_terms_and_names_do_not_depend_on_the_order_of_pairs(clusters, random):
    shuffled = [random.sample(cluster, len(cluster)) for cluster in clusters]
    before, after = described(*flat(clusters)), described(*flat(shuffled))
    assert [(cluster.name, cluster.terms) for cluster in before] == [(cluster.name, cluster.terms) for cluster in after]


def test_skills_that_are_equally_frequent_do_not_depend_on_the_order_of_pairs():
    pairs = [pair("q", related_skills=(skill,)) for skill in ("d", "b", "a", "c")]
    assert described(pairs, [0] * 4, 1) == described(pairs[::-1], [0] * 4, 1)
