import numpy as np
import pytest

from ingest.readers import Located, find_files, read_files
from qaserve.common.errors import CorpusError
from qaserve.common.text import fold
from qaserve.core.splits import check_families, first_families, intent_split, phrasing_split, random_split
from qaserve.schemas.pairs import Pair
from qaserve.settings import ReadSettings


def pair(number, intent="c", question=None, original=None):
    return Pair(
        pair_id=str(number),
        cluster_id=intent,
        question=question or f"q{number}",
        answer=f"a{number}",
        source_file="f",
        extra={"original_answer": original} if original else {},
    )


@pytest.fixture
def real_pairs(real_corpus):
    items = read_files(find_files([real_corpus]), ReadSettings())
    return [item.pair for item in items if isinstance(item, Located)]


@pytest.mark.corpus
def test_a_held_out_question_is_not_on_the_training_side(real_pairs):
    split = phrasing_split(real_pairs, seed=3)
    asked = {fold(real_pairs[row].question) for row in split.test}
    assert not asked & {fold(real_pairs[row].question) for row in split.train}
    assert len(split.test) == 552
    np.testing.assert_array_equal(split.test, phrasing_split(real_pairs, seed=3).test)
    assert set(split.test) != set(phrasing_split(real_pairs, seed=4).test)


@pytest.mark.corpus
def test_a_held_out_intent_is_not_on_the_training_side(real_pairs):
    split = intent_split(real_pairs, seed=3)
    intents = np.array([pair.cluster_id for pair in real_pairs])
    assert not set(intents[split.train]) & set(intents[split.test])
    assert len(set(intents[split.test])) == round(0.2 * len(set(intents)))
    asked = {fold(real_pairs[row].question) for row in split.test}
    assert not asked & {fold(real_pairs[row].question) for row in split.train}


@pytest.mark.parametrize("split", [phrasing_split, intent_split, random_split])
def test_the_seed_decides(split):
    pairs = [pair(number, f"c{number // 4}", original="o") for number in range(80)]
    first, again, other = split(pairs, 1), split(pairs, 1), split(pairs, 2)
    np.testing.assert_array_equal(first.test, again.test)
    np.testing.assert_array_equal(first.train, again.train)
    assert set(first.test) != set(other.test)
    assert not set(first.test) & set(first.train)


@pytest.mark.parametrize(("intents", "held"), [(2, 1), (4, 1), (20, 4), (33, 7)])
def test_a_fifth_of_the_intents_is_held_out_with_all_their_pairs(intents, held):
    pairs = [pair(number, f"c{number % intents}") for number in range(3 * intents)]
    split = intent_split(pairs, 5)
    asked = {pairs[row].cluster_id for row in split.test}
    assert len(asked) == held
    assert split.test.tolist() == [row for row, one in enumerate(pairs) if one.cluster_id in asked]
    assert split.train.tolist() == [row for row, one in enumerate(pairs) if one.cluster_id not in asked]


@pytest.mark.parametrize(("count", "held"), [(2, 1), (3, 1), (14, 1), (26, 3)])
def test_a_tenth_of_the_pairs_is_held_out_at_random(count, held):
    split = random_split([pair(number) for number in range(count)], 0)
    assert len(split.test) == held
    assert split.test.tolist() == sorted(split.test)
    assert split.train.tolist() == [row for row in range(count) if row not in split.test]


def test_rows_are_whole_numbers_where_there_are_none():
    """A list of none is of floats, which no array can be asked by."""
    pairs = [pair(0, original="x"), pair(1, original="x")]
    assert phrasing_split(pairs, 0).test.dtype == np.int64
    assert phrasing_split([pair(number, question="the same", original="x") for number in range(3)], 0).train.size == 0
    everywhere = [pair(number, "a" if number % 2 else "b", question="the same") for number in range(4)]
    for rows in (intent_split(everywhere, 0).train, first_families([], 3)):
        assert rows.size == 0
        assert rows.dtype == np.int64


def test_small_families_are_not_split():
    pairs = [pair(number, original=original) for number, original in enumerate("xxyyy")]
    split = phrasing_split(pairs, seed=0)
    assert len(split.test) == 1
    assert split.test[0] in {2, 3, 4}


def test_a_repeat_of_a_held_out_intents_question_is_not_known_either():
    pairs = [pair(0, "a", "How?"), pair(1, "a"), pair(2, "b", "how?"), pair(3, "b")]
    by_test = {tuple(intent_split(pairs, seed).test): intent_split(pairs, seed).train.tolist() for seed in range(20)}
    assert by_test == {(0, 1): [3], (2, 3): [1]}


def test_one_intent_cannot_be_split():
    with pytest.raises(CorpusError, match="pairs of 1 intent cannot be split by intent"):
        intent_split([pair(0), pair(1)], 0)


def test_a_random_tenth_leaves_repeats_on_the_training_side():
    pairs = [pair(number, question="the same") for number in range(30)]
    split = random_split(pairs, 0)
    assert len(split.test) == 3
    assert sorted([*split.train, *split.test]) == list(range(30))
    with pytest.raises(CorpusError, match="1 pairs cannot be split"):
        random_split(pairs[:1], 0)


def test_families_are_taken_whole():
    pairs = [pair(number, original=original) for number, original in enumerate("xyxyxzz")]
    assert first_families(pairs, 1).tolist() == [0, 2, 4]
    assert first_families(pairs, 3).tolist() == [0, 2, 4]
    assert first_families(pairs, 4).tolist() == [0, 1, 2, 3, 4]
    assert first_families(pairs, 99).tolist() == list(range(7))


def test_pairs_without_a_family_are_refused():
    check_families([pair(number, original="x") for number in range(3)])
    with pytest.raises(CorpusError, match="no answer of 2 pairs has 3 phrasings"):
        check_families([pair(0, original="x"), pair(1, original="x")])
    with pytest.raises(CorpusError, match="no answer of 0 pairs"):
        check_families([])
