"""CSV and TSV."""

import codecs
import json

import pytest

from ingest.readers import Located, find_files, read_files
from qaserve.common.errors import CorpusError
from qaserve.schemas.ingest import Rejection
from qaserve.settings import ReadSettings


def read(tmp_path, data, name="faq.csv", on_bad_line=None):
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return list(read_files(find_files([path]), ReadSettings(), on_bad_line=on_bad_line))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_headers(tmp_path, delimiter):
    data = "Question|Answer|topics|price\nWhy?|So.|a|7\n".replace("|", delimiter)
    (row,) = read(tmp_path, data)
    assert (row.line, row.pair.question, row.pair.answer) == (2, "Why?", "So.")
    assert (row.pair.topics, row.pair.extra) == (("a",), {"price": "7"})


def test_a_quoted_cell_may_hold_delimiters_quotes_and_lines(tmp_path):
    (row,) = read(tmp_path, 'question,answer\r\n"Why, ""you""?","one\ntwo"\r\n')
    assert (row.pair.question, row.pair.answer) == ('Why, "you"?', "one\ntwo")


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_a_mark_tells_the_encoding(tmp_path, mark):
    code = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}[mark]
    (row,) = read(tmp_path, mark + "question,answer\nWarum?,Schön.\n".encode(code))
    assert row.pair.answer == "Schön."


@pytest.mark.parametrize("cells", ["Why?", "Why?,So.,too many"])
def test_a_ragged_row_is_rejected_and_the_rest_is_read(tmp_path, cells):
    kept = []
    bad, good = read(tmp_path, f"question,answer\n{cells}\nHow?,Thus.\n", on_bad_line=kept.append)
    assert isinstance(bad, Rejection)
    assert (bad.file, bad.line) == ("faq.csv", 2)
    assert "the header has 2 columns" in bad.reason
    assert isinstance(good, Located)
    assert json.loads(kept[0])["question"] == "Why?"


def test_an_empty_or_huge_cell_is_rejected_by_column(tmp_path):
    empty, huge, good = read(tmp_path, f"question,answer\nWhy?,\nHow?,{'a' * 10_000_000}\nWho?,Me.\n")
    assert (empty.line, empty.field, empty.reason) == (2, "answer", "missing")
    assert (huge.line, huge.field) == (3, "answer")
    assert huge.reason.startswith("10,000,000 characters")
    assert good.pair.answer == "Me."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("prompt,answer\na,b\n", r"faq\.csv, line 1: one column `question` is needed; the columns are prompt, answer"),
        ("question,answer\nWarum?,Schön.\n".encode("latin-1"), r"faq\.csv, after line 1: not UTF-8"),
        ('question,answer\nWhy?,"So.\n', r"faq\.csv, after line 1: not CSV"),
        (b"PK\x03\x04", r"faq\.csv is not CSV; it looks like an Excel file"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_a_remedy(tmp_path, data, message):
    with pytest.raises(CorpusError, match=message) as caught:
        read(tmp_path, data)
    assert caught.value.hint
