import uuid

import bm25s
import numpy as np
import pytest

from qaserve.core.lexical import Lexicon, words

IDS = [str(uuid.UUID(int=number)) for number in range(4)]
TEXTS = dict(
    zip(
        IDS,
        [
            "Call generate_json_reader/3 to read JSON.",
            "The flag --file-filter keeps some files; run suggest_folder.py first.",
            "Nothing of the kind, in C++ or C#.",
            "!!!",
        ],
        strict=True,
    )
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`generate_json_reader/3`", ["generate_json_reader", "generate", "json", "reader", "3"]),
        ("--file-filter", ["file-filter", "file", "filter"]),
        ("suggest_folder.py.", ["suggest_folder.py", "suggest_folder", "suggest", "folder", "py"]),
        ("C++, C# and C", ["c++", "c#", "and", "c"]),
        ("Straße ＡＢＣ", ["strasse", "abc"]),
        ("__", ["__"]),
        ("?! …", []),
        ("", []),
    ],
)
def test_names_count_as_a_whole_and_in_parts(text, found):
    assert words(text) == found


def fitted(texts):
    return Lexicon.fit(list(texts), texts.values())


@pytest.mark.parametrize(
    ("question", "best"),
    [("generate_json_reader", 0), ("what is --file-filter?", 1), ("suggest_folder", 1), ("c#", 2)],
)
def test_exact_names_are_found(question, best):
    lexicon = fitted(TEXTS)
    scores = lexicon.scores(question)
    assert scores.argmax() == best
    assert scores.min() == 0
    assert lexicon.relative(question).max() == 1
    assert lexicon.rows([IDS[best]]) == [best]


def test_scores_are_bm25s_own():
    peer = bm25s.BM25(method="lucene")
    peer.index([words(text) for text in TEXTS.values()], show_progress=False)
    question = "read json of files"
    known = [word for word in words(question) if word in peer.vocab_dict]
    np.testing.assert_allclose(fitted(TEXTS).scores(question), peer.get_scores(known), atol=1e-6)


def test_words_in_common_are_told_rarest_first():
    lexicon = fitted({IDS[0]: "a rare word", IDS[1]: "a word", IDS[2]: "a thing"})
    assert lexicon.shared("A word that is rare, a word", IDS[0]) == ("rare", "word", "a")
    assert lexicon.shared("nothing", IDS[0]) == ()


@pytest.mark.parametrize("texts", [TEXTS, {IDS[0]: "!!"}, {}])
def test_it_comes_back_as_it_was(texts):
    lexicon = fitted(texts)
    again = Lexicon.from_tensors(lexicon.tensors())
    assert again.ids == list(texts)
    for question in ("json files", "unknown", ""):
        np.testing.assert_array_equal(again.scores(question), lexicon.scores(question))
        assert again.relative(question).max(initial=0) <= 1


def test_the_order_of_texts_does_not_change_a_score():
    forward, back = fitted(TEXTS), fitted(dict(reversed(TEXTS.items())))
    np.testing.assert_array_equal(forward.scores("json file"), back.scores("json file")[::-1])


def test_parts_that_contradict_each_other_are_refused():
    tensors = fitted(TEXTS).tensors()
    with pytest.raises(ValueError, match="do not fit together"):
        Lexicon.from_tensors(tensors | {"data": tensors["data"][:-1]})
    with pytest.raises(ValueError, match="a score is of pair 9; there are 4"):
        Lexicon.from_tensors(tensors | {"indices": np.full_like(tensors["indices"], 9)})
