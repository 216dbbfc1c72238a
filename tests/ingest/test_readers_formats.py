"""JSON arrays, Markdown and Parquet."""

import gzip
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from ingest.readers import Located, find_files, json_array, read_files
from qaserve.common.errors import CorpusError
from qaserve.schemas.ingest import Rejection
from qaserve.settings import ReadSettings


def read(path, **options):
    return list(read_files(find_files([path]), ReadSettings(), **options))


def pairs(path):
    items = read(path)
    assert [item for item in items if isinstance(item, Rejection)] == []
    return [(item.line, item.pair.question, item.pair.answer) for item in items]


# JSON arrays


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_an_array_gives_its_elements_with_their_lines(tmp_path, indent, packed):
    rows = [{"question": f"Q {n}?", "answer": "Ö" * n, "deep": [{"a": "]"}]} for n in range(1, 4)]
    data = json.dumps(rows, indent=indent, ensure_ascii=False).encode()
    path = tmp_path / "faq.json"
    path.write_bytes(gzip.compress(data) if packed else b"\xef\xbb\xbf" + data)
    lines = (2, 11, 20) if indent else (1, 1, 1)
    assert pairs(path) == [(line, f"Q {n}?", "Ö" * n) for n, line in zip((1, 2, 3), lines, strict=True)]


def test_an_array_is_read_by_parts_of_any_size(tmp_path, monkeypatch):
    rows = [{"question": f"Q {n}?", "answer": 'ä 1 \\ " ] , ' * n} for n in range(1, 20)]
    path = tmp_path / "faq.json"
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1))
    whole = pairs(path)
    for chunk in (1, 2, 7):
        monkeypatch.setattr(json_array, "CHUNK", chunk)
        assert pairs(path) == whole
    assert len(whole) == 19


def test_a_bad_element_is_rejected_with_its_line_and_can_be_corrected(tmp_path):
    path = tmp_path / "faq.json"
    path.write_text(
        '[{"question": "Why?", "answer": "So."},\n 7,\n {"question":\n "How?"}, {"question": NaN, "answer": "a"}]'
    )
    kept = []
    items = read(path, on_bad_line=kept.append)
    assert [type(item) for item in items] == [Located, Rejection, Rejection, Rejection]
    assert [(item.line, item.element, item.field, item.reason) for item in items[1:]] == [
        (2, 2, None, "a JSON object is needed, this is a number"),
        (3, 3, "answer", "missing"),
        (4, 4, None, "NaN is not a JSON number"),
    ]
    assert items[2].said == "3, element 3, field answer: missing"
    assert kept[:2] == [b"7", b'{"question": "How?"}']


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('[\n{"question": "q" "answer"}]', "line 2, element 1: not JSON: Expecting ',' delimiter"),
        (
            '[\n{"question": "q"}\n{"a": 1}]',
            "line 3, after element 1: not JSON: a comma or the end of the array is missing",
        ),
        ('[{"question": "q"},', "line 1, element 2: not JSON: Expecting value"),
        ('[{"question": "q"', "line 1, element 1: not JSON"),
        ('[{"question": "q"}, 3]', "line 1, element 1, field answer: missing; line 1, element 2: a JSON object is"),
        ("[]", "holds no pair; it is empty"),
        (b'[{"question": "\xff"}]', "line 1: not UTF-8"),
        (b'[\n{"question": "q",\n"answer": "\xff"}]', "line 3: not UTF-8"),
        ("[" * 100_000, "line 1, element 1: not JSON"),
    ],
)
def test_what_is_no_array_is_refused_with_its_line(tmp_path, data, reason):
    path = tmp_path / "faq.json"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(CorpusError, match=reason):
        read(path)


def test_json_that_is_no_array_is_read_as_lines(tmp_path):
    path = tmp_path / "faq.json"
    path.write_text('{"question": "Why?", "answer": "So."}\n' * 2)
    assert [line for line, *_ in pairs(path)] == [1, 2]


# Markdown


def test_headings_that_ask_have_the_text_below_them(tmp_path):
    path = tmp_path / "faq.md"
    path.write_text(
        "# Help?\n\nIt helps.\n\n## How do I [pay](x) `now`?\n\nBy *card*.\n\n### By card\n\n```sh\n# why?\n```\n\n"
        "## Contact\n\nNobody.\n\nReally?\n------\nYes.\n",
    )
    assert pairs(path) == [
        (1, "Help?", "It helps."),
        (5, "How do I pay now?", "By *card*.\n\n### By card\n\n```sh\n# why?\n```"),
        (19, "Really?", "Yes."),
    ]


def test_lines_of_questions_have_the_lines_of_answers(tmp_path):
    path = tmp_path / "faq.md"
    path.write_text(
        "Hello.\n\n**Q:** Why?\n**A:** So.\n\nMore of it.\n\nQ: How?\nA: Thus.\n\n```\nQ: no\n```\n\n# End\n\nNo.\n"
    )
    assert pairs(path) == [(3, "Why?", "So.\n\nMore of it."), (8, "How?", "Thus.\n\n```\nQ: no\n```")]


def test_a_question_without_text_is_rejected_and_a_document_without_questions_is_refused(tmp_path):
    path = tmp_path / "faq.md"
    path.write_text("# Why?\n\n# How?\n\nThus.\n\nQ: Who?\nNobody.\n")
    first, good, last = read(path)
    assert (first.line, first.field, good.pair.question, last.line, last.field) == (1, "answer", "How?", 7, "answer")
    path.write_text("# Notes\n\nText.\n\n## Setup\n### A\n### B\n")
    why = r"no question: none of its headings ends in `\?` \(line 1: 'Notes'; line 5: 'Setup'; line 6: 'A'; 4 in all\)"
    with pytest.raises(CorpusError, match=why) as caught:
        read(path)
    assert "Q:" in caught.value.hint
    path.write_text("Text.\n")
    with pytest.raises(CorpusError, match=r"faq\.md holds no question: it has no heading and no `Q:` line"):
        read(path)


def _passed_over(path):
    found = []
    read(path, on_file=found.append)
    return [(one.file, one.line, one.heading) for file in found for one in file.passed_over]


def test_headings_whose_text_is_in_no_pair_are_told_with_their_lines(tmp_path):
    path = tmp_path / "faq.md"
    path.write_text(
        "# FAQ\n\nWelcome.\n\n## Billing\n\n---\n\n### How do I pay?\n\nBy card.\n\n#### Note\n\nIn the answer.\n\n"
        "### Log *in*\n\nAt the top.\n\nSet up\n------\n\nDo that.\n\n#### Sizes\n\nMany.\n\n"
        "Q: Why?\nA: So.\n\n# Legal\nNo.\n"
    )
    titles = [("FAQ", 1), ("Log in", 17), ("Set up", 21), ("Sizes", 26), ("Legal", 33)]
    assert _passed_over(path) == [("faq.md", line, title) for title, line in titles]


def test_a_document_of_questions_below_titles_passes_nothing_over(tmp_path):
    path = tmp_path / "faq.md"
    path.write_text("# FAQ\n## Billing\n### How?\nSo.\n## Other\n### Why?\nThus.\n#### Also\nThis.\n")
    assert _passed_over(path) == []


def test_the_title_of_a_heading_that_is_passed_over_is_cut(tmp_path):
    path = tmp_path / "faq.md"
    path.write_text(f"# Why?\nSo.\n# {'long ' * 100}\nText.\n")
    ((_, line, title),) = _passed_over(path)
    assert (line, len(title) <= 80, title[-1]) == (3, True, "…")
    path.write_bytes("# Wie?\n\nSchön.\n".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"line 3: not UTF-8"):
        read(path)


# Parquet


def test_parquet_gives_its_rows_with_lists_and_other_fields(tmp_path):
    path = tmp_path / "faq.parquet"
    table = {
        "question": ["Why?", "How?", None],
        "answer": [{"text": "So."}, {"text": "Thus."}, {"text": "x"}],
        "topics": [["a", "b"], None, []],
        "score": [1.5, float("nan"), 2.0],
        "when": pa.array([0, 1, 2], pa.date32()),
    }
    parquet.write_table(pa.table(table), path)
    first, second, bad = read(path)
    assert (first.pair.answer, first.pair.topics) == ("So.", ("a", "b"))
    assert first.pair.extra == {"score": 1.5, "when": "1970-01-01"}
    assert second.pair.extra == {"score": None, "when": "1970-01-02"}
    assert (bad.line, bad.field, bad.reason) == (3, "question", "missing")


def test_parquet_of_another_schema_or_damaged_is_refused(tmp_path):
    path = tmp_path / "faq.parquet"
    parquet.write_table(pa.table({"a": [1], "b": ["x"]}), path)
    with pytest.raises(CorpusError, match=r"a column `question` is needed; the columns are a, b") as caught:
        read(path)
    assert "--map question=" in caught.value.hint
    parquet.write_table(pa.table({"question": [b"\xff"], "answer": ["x"]}), path)
    with pytest.raises(CorpusError, match=r"line 1, field question: bytes, not text"):
        read(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorpusError, match=r"faq\.parquet is not Parquet that can be read"):
        read(path)


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_lines_of_markdown_end_where_commonmark_ends_them(tmp_path, end):
    path = tmp_path / "faq.md"
    path.write_text(f"# Where is A?\nHere{5 * end}it is\n\nQ: Where is B?\nA: There\n", encoding="utf-8")
    kept = "" if end in "\x0b\x0c\x1c" else end  # of these three no text may hold any
    found = [(one.pair.question, one.pair.answer) for one in read(path) if isinstance(one, Located)]
    assert found[-1] == ("Where is B?", "There")
    assert not kept or found[0] == ("Where is A?", f"Here{5 * end}it is")


@pytest.mark.parametrize("rest", ["[]", '{"question": "q", "answer": "a"}', "x", ","])
def test_what_follows_an_array_is_said(tmp_path, rest):
    path = tmp_path / "faq.json"
    path.write_text(f'[{{"question": "Why?", "answer": "So."}}]\n{rest}\n')
    with pytest.raises(CorpusError, match="line 2: not JSON: something follows the end of the array"):
        read(path)


def test_a_date_that_is_none_is_said(tmp_path):
    path = tmp_path / "faq.parquet"
    days = pa.array([2**31 - 1], type=pa.date32())
    parquet.write_table(pa.table({"question": ["q"], "answer": ["a"], "day": days}), path)
    with pytest.raises(CorpusError, match="cannot be read after row 0"):
        read(path)
