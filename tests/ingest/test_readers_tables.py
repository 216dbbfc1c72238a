"""CSV and TSV."""

import codecs
import csv
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


@pytest.mark.parametrize("code", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_known_without_a_mark_and_said(tmp_path, code):
    files = []
    path = tmp_path / "faq.csv"
    path.write_bytes("question;answer\nWarum?;Schön.\n".encode(code))
    (row,) = read_files(find_files([path]), ReadSettings(), on_file=files.append)
    assert (row.pair.answer, files[0].format) == ("Schön.", f"table, semicolon between cells, {code.upper()}")


def test_what_is_not_text_in_the_encoding_is_placed_even_far_in_the_file(tmp_path):
    rows = "question,answer\n" + "Why?,So.\n" * 200_000
    with pytest.raises(CorpusError, match=r"line 200002, character 6: not UTF-8"):
        read(tmp_path, rows.encode() + "Why?,ö\n".encode("latin-1"))


def test_the_limit_of_a_cell_is_not_left_raised_for_the_process(tmp_path):
    before = csv.field_size_limit()
    read(tmp_path, f"question,answer\nWhy?,{'a' * 200_000}\n")
    assert csv.field_size_limit() == before


def test_a_table_that_breaks_off_after_pairs_stops_all(tmp_path):
    (tmp_path / "a.csv").write_text('question,answer\nWhy?,So.\nHow?,"Thus.\n')
    (tmp_path / "b.csv").write_text("question,answer\nWho?,Me.\n")
    with pytest.raises(CorpusError, match=r"a\.csv cannot be read after line 2: not CSV"):
        list(read_files(find_files([tmp_path]), ReadSettings()))


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
        (
            "prompt,answer\na,b\n",
            r"read: a column `question` is needed; the columns are prompt, answer",
        ),
        (
            "question,answer\nWarum?,Schön.\n".encode("latin-1"),
            r"read: line 2, character 11: not UTF-8 text \(byte 0xF6\)",
        ),
        ("question,Answer,answer\n", r"read: line 1: two columns are `answer`"),
        ('question,answer\nWhy?,"So.\n', r"faq\.csv cannot be read after line 1: not CSV"),
        (b"PK\x03\x04", r"faq\.csv looks like an Excel file"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_a_remedy(tmp_path, data, message):
    with pytest.raises(CorpusError, match=message) as caught:
        read(tmp_path, data)
    assert caught.value.hint
