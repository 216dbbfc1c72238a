import pytest

from qaserve.store.words import Bm25Params, WordCounter, WordEncoder, terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Use `--file-filter KEY=VALUE`.", ["Use", "file", "filter", "file-filter", "KEY", "VALUE"]),
        ("generate_json_reader()", ["generate", "json", "reader", "generate_json_reader"]),
        ("perl extract_records.pl -f", ["perl", "extract", "records", "pl", "extract_records.pl", "f"]),
        ("C++ and C# in v1.2.", ["C++", "and", "C#", "in", "v1", "2", "v1.2"]),
        ("__init__ _ - ...", ["init"]),
        ("Größe naïve 日本", ["Größe", "naïve", "日本"]),
        ("", []),
    ],
)
def test_compound_names_are_words_as_a_whole_and_in_parts(text, expected):
    assert list(terms(text)) == expected


def test_words_are_counted_without_stop_words_and_as_often_as_they_occur():
    count = WordCounter()
    assert count("the file and the file-filter of a file") == 5  # file, file, filter, file-filter, file
    assert count("of the") == count("") == 0
    assert count("word " * 5_000) == 5_000


def test_a_document_weighs_words_by_frequency_and_length():
    encoder = WordEncoder(Bm25Params(k=1.5, b=0.5, average_length=4))
    found = encoder.document("alpha alpha beta gamma delta epsilon")
    assert len(found.indices) == 5
    held_back = 1.5 * (1 - 0.5 + 0.5 * 6 / 4)
    once, twice = 2.5 / (1 + held_back), 2 * 2.5 / (2 + held_back)
    assert sorted(found.values) == pytest.approx([once] * 4 + [twice], rel=1e-6)


def test_queries_weigh_each_word_once_whatever_its_form():
    encoder = WordEncoder(Bm25Params(average_length=4))
    assert encoder.query("Reading, reads, READ the").values == [1.0]
    assert encoder.query("reading").indices == encoder.query_term("reads").indices == encoder.document("Read").indices
    assert encoder.query_term("the").indices == []


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match="klingon"):
        WordEncoder(Bm25Params(average_length=4, language="klingon"))
