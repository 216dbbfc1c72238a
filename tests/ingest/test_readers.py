import gzip
import json
import os
import re
import tempfile
import tracemalloc
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_files import FEW, files

from ingest.readers import Located, find_files, read_files
from ingest.rejected import Rejected
from qaserve.common.errors import CorpusError
from qaserve.schemas.ingest import REPORTED, Rejection
from qaserve.schemas.pairs import Pair
from qaserve.settings import ReadSettings

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"
NAME = "rows.jsonl"
PAIR = {"pair_id": "p1", "cluster_id": "c1", "question": "How do I start?", "answer": "Press the button."}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in [name for name in os.environ if name.upper().startswith("QASERVE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def corpus():
    if not CORPUS.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"CI needs the real corpus, and {CORPUS} is not there")
        pytest.skip(f"needs the real corpus, and {CORPUS} is not there")
    return CORPUS


def line(**fields):
    return json.dumps(PAIR | fields).encode()


def without(field):
    return json.dumps({key: value for key, value in PAIR.items() if key != field}).encode()


GOOD = line()


def write(path, *lines, end=b"\n"):
    path.write_bytes(b"".join(line + end for line in lines))
    return path


def read(*paths, **limits):
    return list(read_files(find_files(paths), ReadSettings(**limits)))


def pairs_of(items):
    assert [item for item in items if isinstance(item, Rejection)] == []
    return [item.pair for item in items]


def reject(tmp_path, bad, **limits):
    """The rejection of a bad line that stands between two good ones, which must survive."""
    first, rejection, last = read(write(tmp_path / NAME, GOOD, bad, GOOD), **limits)
    assert isinstance(first, Located)
    assert isinstance(last, Located)
    assert (first.line, last.line) == (1, 3)
    assert isinstance(rejection, Rejection)
    assert (rejection.file, rejection.line) == (NAME, 2)
    return rejection


def nested(depth):
    return b'{"question": "q", "answer": "a", "tree": ' + b"[" * depth + b"]" * depth + b"}"


# The four shapes


def test_pair_keeps_every_field(tmp_path):
    lists = {"topics": ["t1", "t2"], "tags": ["x"], "related_skills": ["s.md"], "related_docs": ["d.md"]}
    row = PAIR | lists | {"question_type": "short", "source_file": "book.md", "confidence": 0.9, "issues": None}
    (pair,) = pairs_of(read(write(tmp_path / NAME, json.dumps(row).encode())))
    assert pair == Pair(
        **PAIR,
        topics=("t1", "t2"),
        tags=("x",),
        related_skills=("s.md",),
        related_docs=("d.md",),
        question_type="short",
        source_file="book.md",
        extra={"confidence": 0.9, "issues": None},
    )


def test_a_skill_that_is_spelled_twice_is_named_once(tmp_path):
    said = ["skill_a.md", "docs/skill_a", "skill_a/SKILL.md", "skill_b", "skill_a.md"]
    (pair,) = pairs_of(read(write(tmp_path / NAME, json.dumps(PAIR | {"related_skills": said}).encode())))
    assert pair.related_skills == ("skill_a.md", "skill_b")


def test_single_without_pair_id_takes_its_cluster_id(tmp_path):
    (pair,) = pairs_of(read(write(tmp_path / NAME, without("pair_id"))))
    assert (pair.pair_id, pair.cluster_id) == ("c1", "c1")


def test_single_without_any_id_is_named_after_its_question_and_shares_the_intent_of_its_answer(tmp_path):
    rows = [
        {"question": "one?", "answer": "The same."},
        {"question": "two?", "answer": "the SAME"},
        {"question": "ONE", "answer": "Another."},
    ]
    one, two, three = pairs_of(read(write(tmp_path / NAME, *(json.dumps(row).encode() for row in rows))))
    assert one.cluster_id == two.cluster_id != three.cluster_id
    assert one.cluster_id.startswith("answer-")
    assert one.pair_id == three.pair_id != two.pair_id
    assert one.pair_id.startswith("question-")


def test_variants_make_one_pair_per_phrasing(tmp_path):
    row = {
        "id": "skill_1",
        "question": "q0",
        "question_variants": ["q1", "q2"],
        "answer": "a",
        "tags": ["x"],
        "level": 2,
    }
    pairs = pairs_of(read(write(tmp_path / NAME, json.dumps(row).encode())))
    assert [pair.question for pair in pairs] == ["q0", "q1", "q2"]
    for pair in pairs:
        assert (pair.pair_id, pair.cluster_id, pair.answer) == ("skill_1", "skill_1", "a")
        assert (pair.tags, pair.extra) == (("x",), {"level": 2})


@pytest.mark.parametrize("variants", [[], None])
def test_variants_may_be_none(tmp_path, variants):
    assert [pair.question for pair in pairs_of(read(write(tmp_path / NAME, line(question_variants=variants))))] == [
        "How do I start?"
    ]


def test_list_of_questions_makes_one_pair_per_question(tmp_path):
    answer = {"text": "the text", "code": "x = 1"}
    row = {"cluster_id": "c", "questions": ["q0", "q1"], "answer": answer, "source_files": ["a.md", "b.md"], "level": 1}
    pairs = pairs_of(read(write(tmp_path / NAME, json.dumps(row).encode())))
    assert [(pair.question, pair.answer) for pair in pairs] == [("q0", "the text"), ("q1", "the text")]
    for pair in pairs:
        assert (pair.pair_id, pair.cluster_id, pair.source_file) == ("c", "c", "a.md")
        assert pair.extra == {"source_files": ["a.md", "b.md"], "level": 1, "answer_details": {"code": "x = 1"}}


def test_variants_beside_a_list_of_questions_are_pairs_too(tmp_path):
    row = {"questions": ["Q1?"], "question_variants": ["Q2?"], "answer": "A", "id": "x"}
    found = pairs_of(read(write(tmp_path / NAME, json.dumps(row).encode())))
    assert [(pair.question, pair.extra) for pair in found] == [("Q1?", {}), ("Q2?", {})]


def test_shapes_may_be_mixed_in_one_file(tmp_path):
    rows = [
        GOOD,
        without("pair_id"),
        line(question_variants=["another?"]),
        b'{"questions": ["x?", "y?"], "answer": {"text": "z"}}',
    ]
    assert [item.line for item in read(write(tmp_path / NAME, *rows))] == [1, 2, 3, 3, 4, 4]


def test_source_file_is_the_files_own_name_where_the_row_has_none(tmp_path):
    folder = tmp_path / "deep"
    folder.mkdir()
    write(folder / NAME, GOOD)
    assert [pair.source_file for pair in pairs_of(read(tmp_path))] == [f"deep/{NAME}"]


def test_space_around_texts_is_dropped_and_space_inside_is_kept(tmp_path):
    (pair,) = pairs_of(read(write(tmp_path / NAME, line(question="  a  b \n", answer="\n\tx\n\n  y\n"))))
    assert (pair.question, pair.answer) == ("a  b", "x\n\n  y")


def test_space_around_the_texts_of_a_list_is_dropped(tmp_path):
    first, second = pairs_of(read(write(tmp_path / NAME, line(question_variants=[" another? "], topics=[" a b\t"]))))
    assert (second.question, first.topics) == ("another?", ("a b",))


def test_a_field_named_extra_is_kept_as_one_more_field(tmp_path):
    (pair,) = pairs_of(read(write(tmp_path / NAME, line(extra={"a": 1}))))
    assert pair.extra == {"extra": {"a": 1}}


# The real corpus


@pytest.mark.corpus
def test_real_corpus_is_read_whole(corpus):
    pairs = pairs_of(read(corpus / "skills_qa.jsonl"))
    assert len(pairs) == 1888
    assert len({pair.pair_id for pair in pairs}) == 1318
    assert len({pair.cluster_id for pair in pairs}) == 384
    assert len({pair.extra["original_answer"] for pair in pairs}) == 552
    assert sum("manually_reviewed" in pair.extra for pair in pairs) == 81


@pytest.mark.corpus
def test_real_corpus_loses_no_field(corpus):
    path = corpus / "skills_qa.jsonl"
    rows = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    for row, pair in zip(rows, pairs_of(read(path)), strict=True):
        written = pair.model_dump(mode="json")
        written |= written.pop("extra")
        for field, value in row.items():
            assert written[field] == (value.strip() if isinstance(value, str) and field in PAIR else value)


@pytest.mark.corpus
def test_real_topics_give_every_variant(corpus):
    items = read(corpus / "topics")
    records = {(item.file, item.line) for item in items}
    assert len(records) == 567
    rows = [json.loads(text) for file in (corpus / "topics").rglob("*.jsonl") for text in file.read_text().splitlines()]
    assert len(pairs_of(items)) == sum(1 + len(row.get("question_variants") or []) for row in rows)


@pytest.mark.corpus
def test_real_clustered_records_are_read_in_both_older_shapes(corpus):
    items = read(corpus / "clustered")
    assert len({(item.file, item.line) for item in items}) == 8
    pairs = pairs_of(items)
    assert len(pairs) == 4 + 2 + 5 + 5
    assert {pair.cluster_id for pair in pairs} >= {"sql-cte-001", "semantic-001", "prolog-terms", "prolog-facts-rules"}


# Files and folders


def test_folder_is_searched_in_depth_in_the_order_of_names(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("b/c/z.jsonl", "b/y.ndjson", "x.jsonl", "a.txt", "b/notes.yaml"):
        write(tmp_path / name, GOOD)
    for name in ("b/w.jsonl.gz", "v.ndjson.gz"):
        (tmp_path / name).write_bytes(gzip.compress(GOOD))
    assert [name for _, name in find_files([tmp_path])] == [
        "b/c/z.jsonl",
        "b/w.jsonl.gz",
        "b/y.ndjson",
        "v.ndjson.gz",
        "x.jsonl",
    ]
    assert [item.file for item in read(tmp_path)] == [name for _, name in find_files([tmp_path])]


def test_a_file_that_is_named_is_read_whatever_its_suffix(tmp_path):
    assert len(pairs_of(read(write(tmp_path / "rows.txt", GOOD)))) == 1


def test_a_file_named_twice_is_read_once(tmp_path, monkeypatch):
    path = write(tmp_path / NAME, GOOD)
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    monkeypatch.chdir(tmp_path)
    assert find_files([path, path, Path(NAME), tmp_path, tmp_path / "." / NAME, link]) == [(path, NAME)]


def test_equal_files_are_not_taken_for_one(tmp_path):
    assert len(read(write(tmp_path / "a.jsonl", GOOD), write(tmp_path / "b.jsonl", GOOD))) == 2


def test_links_that_loop_end(tmp_path):
    path = write(tmp_path / NAME, GOOD)
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self.jsonl").symlink_to(tmp_path / "self.jsonl")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    assert find_files([tmp_path]) == [(path, NAME)]


def test_pipes_in_a_folder_are_passed_over(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    path = write(tmp_path / NAME, GOOD)
    assert find_files([tmp_path]) == [(path, NAME)]


def test_a_pipe_that_is_named_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(CorpusError, match=r"pipe\.jsonl is not a file or a folder"):
        find_files([tmp_path / "pipe.jsonl"])


def test_a_folder_without_files_to_read_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CorpusError, match=f"folder {tmp_path} holds no file to read") as caught:
        find_files([tmp_path])
    assert ".jsonl.gz" in caught.value.hint


def test_a_missing_path_is_refused_even_beside_a_good_one(tmp_path):
    with pytest.raises(CorpusError, match=r"missing\.jsonl is not a file or a folder"):
        find_files([write(tmp_path / NAME, GOOD), tmp_path / "missing.jsonl"])


def test_a_file_that_is_gone_when_it_is_read_is_refused(tmp_path):
    path = write(tmp_path / NAME, GOOD)
    files = find_files([path])
    path.unlink()
    with pytest.raises(CorpusError, match=r"rows\.jsonl cannot be read: No such file"):
        list(read_files(files, ReadSettings()))


# Bytes


def test_gzip_is_unpacked(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD + b"\n" + GOOD))
    assert len(pairs_of(read(path))) == 2


def test_gzip_is_known_by_its_bytes_not_its_name(tmp_path):
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress(GOOD))
    write(tmp_path / "plain.jsonl.gz", GOOD)
    assert len(pairs_of(read(tmp_path))) == 2


@pytest.mark.parametrize("name", ["f.jsonl.gz", "f.json.gz", "f.csv.gz", "F.JSONL.GZ"])
@pytest.mark.parametrize("content", [b"BZh91AY&SY\xff\xfe\n", b"PK\x03\x04\x14\x00", b"caf\xe9,answer\n"])
def test_a_name_of_gzip_over_other_data_is_said(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    reason = rf"is not gzip data, though its name ends in \.gz: it begins with the bytes {content[:4].hex(' ')}"
    with pytest.raises(CorpusError, match=reason) as bad:
        read(tmp_path / name)
    assert bad.value.hint == "Pack it again with gzip. If it is not packed, take .gz off its name."


@pytest.mark.parametrize("blanks", [0, 1])
def test_text_whose_first_bytes_cut_a_character_is_read_under_a_name_of_gzip(tmp_path, blanks):
    row = " " * blanks + json.dumps(PAIR | {"answer": "é" * 1_000}, ensure_ascii=False)
    (tmp_path / "f.jsonl.gz").write_text(row, encoding="utf-8")
    assert len(pairs_of(read(tmp_path))) == 1


def test_utf16_is_read_under_a_name_of_gzip(tmp_path):
    (tmp_path / "f.csv.gz").write_bytes("question,answer\nq?,a\n".encode("utf-16"))
    assert len(pairs_of(read(tmp_path))) == 1


def test_gzip_of_several_members_is_read_to_its_end(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(gzip.compress(GOOD + b"\n") + gzip.compress(GOOD + b"\n"))
    assert [item.line for item in read(path)] == [1, 2]


def _many_lines():
    return b"".join(line(pair_id=f"p{number}", answer=f"answer {number * 7919}") + b"\n" for number in range(500))


DAMAGE = {
    "cut short": lambda packed: packed[: len(packed) // 2],
    "cut in its trailer": lambda packed: packed[:-3],
    "wrong checksum": lambda packed: packed[:-8] + bytes(4) + packed[-4:],
    "overwritten": lambda packed: packed[:200] + b"\xff" * 200 + packed[400:],
    "header only": lambda packed: packed[:2],
    "garbage after it": lambda packed: packed + b"garbage",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_gzip_is_refused(tmp_path, damage):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(damage(gzip.compress(_many_lines())))
    with pytest.raises(CorpusError, match=r"rows\.jsonl\.gz cannot be unpacked: .+"):
        read(path)


def test_damaged_gzip_after_a_good_file_is_refused(tmp_path):
    write(tmp_path / "a.jsonl", GOOD)
    (tmp_path / "b.jsonl").write_bytes(gzip.compress(_many_lines())[:-3])
    with pytest.raises(CorpusError, match=r"b\.jsonl cannot be unpacked"):
        read(tmp_path)


def test_byte_order_mark_is_dropped(tmp_path):
    assert len(pairs_of(read(write(tmp_path / NAME, b"\xef\xbb\xbf" + GOOD, GOOD)))) == 2


def test_byte_order_mark_in_gzip_is_dropped(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + GOOD))
    assert len(pairs_of(read(path))) == 1


def test_windows_line_ends_make_the_same_pairs(tmp_path):
    unix = read(write(tmp_path / NAME, GOOD, b"", GOOD))
    windows = read(write(tmp_path / NAME, GOOD, b"", GOOD, end=b"\r\n"))
    assert windows == unix


def test_blank_lines_are_skipped_and_counted(tmp_path):
    assert [item.line for item in read(write(tmp_path / NAME, b"", GOOD, b"   ", b"\t\r", GOOD, b""))] == [2, 5]


def test_last_line_needs_no_line_end(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(GOOD + b"\n" + line(pair_id="last"))
    assert [pair.pair_id for pair in pairs_of(read(path))] == ["p1", "last"]


def test_text_of_other_scripts_and_separators_is_kept(tmp_path):
    question = "Wie groß? 你好 🎉 \u2028 \u0085 ن"
    raw = json.dumps(PAIR | {"question": question}, ensure_ascii=False).encode()
    assert [pair.question for pair in pairs_of(read(write(tmp_path / NAME, raw)))] == [question]


# Files with nothing good in them


@pytest.mark.parametrize("content", [b"", b"\n\n  \r\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_an_empty_file_is_refused(tmp_path, content):
    path = tmp_path / NAME
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"rows\.jsonl holds no pair; it is empty"):
        read(path)


def test_a_file_of_bad_lines_is_refused_with_the_first_of_them(tmp_path):
    path = write(tmp_path / NAME, b"", without("answer"), b"not JSON")
    with pytest.raises(CorpusError, match=r"holds no pair; line 2, field answer: missing"):
        read(path)


def test_a_file_of_lines_that_are_not_json_is_refused_without_a_field(tmp_path):
    path = write(tmp_path / NAME, b"hello", without("answer"))
    with pytest.raises(CorpusError, match=r"holds no pair; line 1: not JSON: .* at column 1"):
        read(path)


def test_a_bad_file_beside_good_ones_is_passed_over_and_said(tmp_path):
    write(tmp_path / "a.jsonl", GOOD)
    write(tmp_path / "b.jsonl", b"[]")
    write(tmp_path / "c.jsonl", GOOD)
    (tmp_path / "d.csv").write_text("question,answer\nWhy?,So.\n")
    (tmp_path / "e.xlsx").write_bytes(b"PK")
    (tmp_path / "f.jsonl").write_bytes(gzip.compress(_many_lines())[:2])
    files = []
    items = list(read_files(find_files([tmp_path]), ReadSettings(), on_file=files.append))
    assert [item.file for item in items] == ["a.jsonl", "b.jsonl", "c.jsonl", "d.csv"]
    assert [file.file for file in files] == ["a.jsonl", "b.jsonl", "c.jsonl", "d.csv", "e.xlsx", "f.jsonl"]
    reasons = [file.problem and file.problem.reason for file in files]
    assert (reasons[0], reasons[2], reasons[3]) == (None, None, None)
    assert reasons[1] == "holds no pair; line 1: a JSON object is needed, this is a list"
    assert reasons[4] == "looks like an Excel file, which is not read"
    assert reasons[5].startswith("cannot be unpacked")


def test_files_of_which_none_holds_a_pair_are_refused_together(tmp_path):
    for number in range(7):
        write(tmp_path / f"{number}.jsonl", b"[]")
    with pytest.raises(CorpusError, match=r"0\.jsonl holds no pair; .*; .*4\.jsonl holds .*; and 2 more files"):
        read(tmp_path)


# Bad lines


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"hello", "not JSON: Expecting value at column 1"),
        (GOOD[:-1], f"not JSON: Expecting ',' delimiter at column {len(GOOD)}"),
        (GOOD + GOOD, f"not JSON: Extra data at column {len(GOOD) + 1}"),
        (b"[1, 2]", "a JSON object is needed, this is a list"),
        (b'"text"', "a JSON object is needed, this is a text"),
        (b"12.5", "a JSON object is needed, this is a number"),
        (b"false", "a JSON object is needed, this is true or false"),
        (b"null", "a JSON object is needed, this is null"),
        (b"{}", "unknown shape: neither `question` nor `questions` among its fields (none)"),
        (b'{"b": 1, "a": 2}', "unknown shape: neither `question` nor `questions` among its fields (a, b)"),
        (b"\x00" + GOOD, "the line holds a NUL byte"),
        (GOOD[:-3] + b"\x00" + GOOD[-3:], "the line holds a NUL byte"),
        (b'{"question": "caf\xe9"}', "not UTF-8: invalid continuation byte at byte 17"),
        (b"\xff\xfe{", "not UTF-8: invalid start byte at byte 0"),
        (b'{"question": "\xed\xa0\x80"}', "not UTF-8: invalid continuation byte at byte 14"),
        (b'{"question": "q", "answer": "a", "x": NaN}', "NaN is not a JSON number"),
        (b'{"question": "q", "answer": "a", "x": -Infinity}', "-Infinity is not a JSON number"),
        (b"[" * 100_000, "JSON nested too deeply"),
        (nested(50_000), "JSON nested too deeply"),
    ],
)
def test_a_line_that_is_no_json_object_is_rejected(tmp_path, bad, reason):
    rejection = reject(tmp_path, bad)
    assert (rejection.field, rejection.reason) == (None, reason)


def test_a_number_of_thousands_of_digits_is_rejected(tmp_path):
    rejection = reject(tmp_path, b'{"question": "q", "answer": "a", "x": ' + b"9" * 10_000 + b"}")
    assert rejection.field is None
    assert "10000 digits" in rejection.reason


def test_a_rejection_of_a_huge_line_is_short(tmp_path):
    for bad in (b"9" * 100_000, b'{"' + b"k" * 100_000 + b'": 1}', b"x" * 100_000):
        assert len(reject(tmp_path, bad).reason) < 300


@pytest.mark.parametrize(
    ("bad", "field", "reason"),
    [
        (without("question"), "question", "missing"),
        (without("answer"), "answer", "missing"),
        (line(question=None), "question", "missing"),
        (line(answer=""), "answer", "empty"),
        (line(question=""), "question", "empty"),
        (line(answer=" \n\t "), "answer", "empty"),
        (line(answer=["a"]), "answer", "a text is needed, this is a list"),
        (line(answer={"type": "a"}), "answer.text", "missing"),
        (line(question={"text": 7}), "question.text", "a text is needed, this is a number"),
        (line(question=[]), "question", "a text is needed, this is a list"),
        (line(answer=7), "answer", "a text is needed, this is a number"),
        (line(question=True), "question", "a text is needed, this is true or false"),
        (line(pair_id=7), "pair_id", "a text is needed, this is a number"),
        (line(cluster_id=" "), "cluster_id", "empty"),
        (line(pair_id="x" * 513), "pair_id", "513 characters; at most 512 are read"),
        (line(topics="one"), "topics", "a list of texts is needed, this is a text"),
        (line(tags=["a", None]), "tags[1]", "a text is needed, this is null"),
        (line(related_docs=["a", ""]), "related_docs[1]", "empty"),
        (line(question_variants=["a", 3]), "question_variants[1]", "a text is needed, this is a number"),
        (line(question_variants="a"), "question_variants", "a list of texts is needed, this is a text"),
        (b'{"question_variants": ["a"], "answer": "a"}', "question", "missing"),
        (b'{"questions": [], "answer": {"text": "a"}}', "questions", "the list is empty"),
        (b'{"questions": ["q", " "], "answer": {"text": "a"}}', "questions[1]", "empty"),
        (b'{"questions": ["q", 1.5], "answer": {"text": "a"}}', "questions[1]", "a text is needed, this is a number"),
        (b'{"questions": "q", "answer": {"text": "a"}}', "questions", "a list of texts is needed, this is a text"),
        (b'{"questions": ["q"], "answer": {}}', "answer.text", "missing"),
        (b'{"questions": ["q"], "answer": {"text": ""}}', "answer.text", "empty"),
        (b'{"questions": ["q"], "answer": {"text": 1}}', "answer.text", "a text is needed, this is a number"),
        (b'{"questions": ["q"]}', "answer", "missing"),
        (line(question="a\x00b"), "question", "holds the control character U+0000"),
        (line(answer="a\x1b[31mb"), "answer", "holds the control character U+001B"),
        (line(topics=["fine", "a\x00b"]), "topics", "holds the control character U+0000"),
        (line(pair_id="a\x7fb"), "pair_id", "holds the control character U+007F"),
    ],
)
def test_a_bad_field_is_rejected_by_name(tmp_path, bad, field, reason):
    rejection = reject(tmp_path, bad)
    assert (rejection.field, rejection.reason) == (field, reason)


@pytest.mark.parametrize("field", ["question", "answer"])
def test_half_a_surrogate_pair_is_rejected_by_the_name_of_its_field(tmp_path, field):
    rejection = reject(tmp_path, line(**{field: "a \ud800 b"}))
    assert (rejection.field, rejection.reason) == (field, "holds half a surrogate pair, which is not text")


def test_half_a_surrogate_pair_is_rejected_wherever_it_is(tmp_path):
    for bad in (line(topics=["\udfff"]), line(notes={"deep": ["\ud800"]}), line(**{"\ud800": 1})):
        assert reject(tmp_path, bad).reason == "holds half a surrogate pair, which is not text"


def test_whole_numbers_that_qdrant_would_keep_as_others_are_rejected_by_the_name_of_their_field(tmp_path):
    for bad in ({"account": 2**64}, {"account": -(2**63) - 1}, {"account": [{"deep": 10**30}]}):
        rejection = reject(tmp_path, line(**bad))
        assert (rejection.field, "more than 64 bits" in rejection.reason) == ("account", True)
    (pair,) = pairs_of(read(write(tmp_path / NAME, line(account=[2**64 - 1, -(2**63), True]))))
    assert pair.extra["account"] == [2**64 - 1, -(2**63), True]


def test_whole_surrogate_pairs_are_text(tmp_path):
    (pair,) = pairs_of(read(write(tmp_path / NAME, rb'{"question": "\ud83c\udf89", "answer": "a"}')))
    assert pair.question == "🎉"


def test_one_bad_phrasing_does_not_cost_the_others(tmp_path):
    row = line(question="good", question_variants=["much too long", "fine", "a\x00b"])
    items = read(write(tmp_path / NAME, row), max_question_chars=5)
    assert [item.pair.question for item in items if isinstance(item, Located)] == ["good", "fine"]
    assert [(item.line, item.field, item.reason) for item in items if isinstance(item, Rejection)] == [
        (1, "question", "13 characters; at most 5 are read"),
        (1, "question", "holds the control character U+0000"),
    ]


# Limits


@pytest.mark.parametrize(("field", "setting"), [("question", "max_question_chars"), ("answer", "max_answer_chars")])
def test_a_text_may_be_as_long_as_its_limit_and_no_longer(tmp_path, field, setting):
    limits = {setting: 1_000}
    assert len(read(write(tmp_path / NAME, line(**{field: "ä" * 1_000})), **limits)) == 1
    rejection = reject(tmp_path, line(**{field: "ä" * 1_001}), **limits)
    assert (rejection.field, rejection.reason) == (field, "1,001 characters; at most 1,000 are read")


def _padded(size):
    return line(notes="x" * (size - len(line(notes=""))))


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_may_be_as_long_as_the_limit(tmp_path, end):
    row = _padded(1024)
    assert len(row) == 1024
    path = tmp_path / NAME
    path.write_bytes(GOOD + b"\n" + row + end)
    assert len(pairs_of(read(path, max_line_bytes=1024))) == 2


@pytest.mark.parametrize("size", [1025, 1026, 4096, (1 << 20) + 1024, 3 << 20])
def test_a_longer_line_is_rejected_and_the_next_one_is_read(tmp_path, size):
    rejection = reject(tmp_path, _padded(size), max_line_bytes=1024)
    assert rejection.field is None
    told = re.fullmatch(r"the line has ([\d,]+) bytes; at most 1,024 are read", rejection.reason)
    assert int(told[1].replace(",", "")) in {size, size + 1}  # without or with its line end


def test_a_last_line_that_is_too_long_is_rejected_with_its_size(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(GOOD + b"\n" + _padded(5_000))
    _, rejection = read(path, max_line_bytes=1024)
    assert (rejection.line, rejection.reason) == (2, "the line has 5,000 bytes; at most 1,024 are read")


def test_limits_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("QASERVE_MAX_ANSWER_CHARS", "3")
    with pytest.raises(CorpusError, match=r"field answer: 17 characters; at most 3 are read"):
        read(write(tmp_path / NAME, GOOD))


def test_progress_counts_every_line_that_is_not_blank(tmp_path):
    path = write(tmp_path / NAME, GOOD, b"", b"bad", line(question_variants=["x", "y"]), _padded(2_000))
    counted = []
    list(read_files(find_files([path]), ReadSettings(max_line_bytes=1024), counted.append))
    assert counted == [1, 1, 1, 1]


# What is true of every line


@pytest.mark.parametrize("depth", [100, 300, 900])
def test_a_nested_field_is_stored_or_rejected(tmp_path, depth):
    _, item, _ = read(write(tmp_path / NAME, GOOD, nested(depth), GOOD))
    assert isinstance(item, Rejection) or Pair.model_validate(item.pair.model_dump(mode="json")) == item.pair


@pytest.mark.parametrize("number", [b"1e999", b"-1e999"])
def test_a_number_that_becomes_infinite_is_rejected(tmp_path, number):
    assert reject(tmp_path, b'{"question": "q", "answer": "a", "weight": ' + number + b"}").field is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = [
    "question",
    "questions",
    "question_variants",
    "answer",
    "pair_id",
    "id",
    "cluster_id",
    "topics",
    "source_files",
]
ROWS = st.dictionaries(st.sampled_from([*NAMES, "text", "extra"]), JSON | st.lists(st.text(min_size=1)), max_size=6)
LIKELY = st.fixed_dictionaries(
    {"question": st.text(min_size=1), "answer": st.text(min_size=1)},
    optional={"notes": JSON, "question_variants": JSON},
)


@settings(deadline=None)
@given(
    st.binary(max_size=200).filter(lambda raw: b"\n" not in raw) | (ROWS | LIKELY).map(lambda r: json.dumps(r).encode())
)
@example(b"\x1f\x8b")
@example(b"\xef\xbb\xbf{}")
def test_any_line_is_a_pair_that_can_be_stored_or_a_rejection_and_costs_no_other(bad):
    with tempfile.TemporaryDirectory() as folder:
        first, *middle, last = read(write(Path(folder) / NAME, GOOD, bad, GOOD))
    assert (first.line, first.pair) == (1, last.pair)
    assert last.line == 3
    for item in middle:
        assert item.line == 2
        if isinstance(item, Rejection):
            assert item.reason
        else:
            assert item.pair.question.strip()
            assert item.pair.answer.strip()
            assert Pair.model_validate(item.pair.model_dump(mode="json")) == item.pair


LIKELY_LINES = {
    ".jsonl": (ROWS | LIKELY).map(lambda row: json.dumps(row).encode()),
    ".json": (ROWS | LIKELY).map(lambda row: json.dumps(row).encode() + b",") | st.sampled_from([b"[", b"]", b"{}"]),
    ".csv": st.lists(st.text(max_size=6), max_size=5).map(lambda cells: ",".join(cells).encode())
    | st.sampled_from([b"question,answer", b'"a,b",c', b'"', b"'=1,2"]),
    ".tsv": st.lists(st.text(max_size=6), max_size=5).map(lambda cells: "\t".join(cells).encode())
    | st.sampled_from([b"question\tanswer", b"how\tso"]),
    ".md": st.text(max_size=12).map(str.encode)
    | st.sampled_from([b"# Q?", b"## How do I start?", b"Press it.", b"```", b"~~~", b"---", b"**Q:** x", b"- x"]),
}


@FEW
@given(st.data())
@pytest.mark.parametrize("suffix", LIKELY_LINES)
def test_any_file_gives_pairs_that_can_be_stored_and_rejections(suffix, data):
    lines = data.draw(files(LIKELY_LINES[suffix]))
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"rows{suffix}", *lines)
        found = []
        with suppress(CorpusError):  # the file as a whole is refused
            found = read(path)
    for item in found:
        if isinstance(item, Located):
            assert item.pair.question.strip()
            assert item.pair.answer.strip()
            assert Pair.model_validate(item.pair.model_dump(mode="json")) == item.pair
        else:
            assert item.reason


@FEW
@given(files(LIKELY_LINES[".jsonl"]))
def test_every_line_of_a_file_is_told_of_once(lines):
    """A line that is not blank gives pairs or one rejection, whatever stands around it."""
    with tempfile.TemporaryDirectory() as folder:
        first, *middle, last = read(write(Path(folder) / NAME, GOOD, *lines, GOOD))
    assert (first.line, last.line, first.pair) == (1, len(lines) + 2, last.pair)
    told = {item.line for item in middle}
    assert told == {number for number, line in enumerate(lines, 2) if line.strip()}
    assert [item.line for item in middle] == sorted(item.line for item in middle)


# Files that are not what they seem


def test_a_folder_with_a_loop_of_links_is_read_once(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self.jsonl").symlink_to(tmp_path / "a" / "self.jsonl")
    (tmp_path / "a" / "pairs.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    (tmp_path / "a" / "b" / "same.jsonl").symlink_to(tmp_path / "a" / "pairs.jsonl")
    assert [name for _, name in find_files([tmp_path / "a"])] == ["b/same.jsonl"]
    with pytest.raises(CorpusError, match=r"self.jsonl is not a file or a folder"):
        find_files([tmp_path / "a" / "self.jsonl"])


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "growing.jsonl"
    line = '{"question": "q", "answer": "a"}\n'
    path.write_text(line * 3)

    def grow(_):
        with path.open("a") as file:
            file.write(line)

    found = read_files(find_files([path]), ReadSettings(), grow)
    with pytest.raises(CorpusError, match=r"growing\.jsonl changed while it was read: it had 99 bytes"):
        list(islice(found, 10_000))  # without the check it would be followed for ever


def test_a_file_that_is_written_anew_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "new.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n')
    found = read_files(find_files([path]), ReadSettings(), lambda _: path.write_text('{"question": "other"}\n'))
    with pytest.raises(CorpusError, match=r"new\.jsonl changed while it was read"):
        list(found)


def test_a_row_of_ten_megabytes_is_rejected_and_the_rest_is_read(tmp_path):
    path = tmp_path / "long.jsonl"
    good = '{"question": "q", "answer": "a"}\n'
    path.write_text(good + '{"question": "long", "answer": "' + "a" * 10_000_000 + '"}\n' + good)
    kept = []
    found = list(read_files(find_files([path]), ReadSettings(), on_bad_line=kept.append))
    assert [type(item) for item in found] == [Located, Rejection, Located]
    assert "the line has 10,000,0" in found[1].reason
    assert kept == [], "it was never in memory as a whole"
    found = list(read_files(find_files([path]), ReadSettings(max_line_bytes=20 << 20)))
    assert found[1].reason == "10,000,000 characters; at most 2,000,000 are read"


def test_a_file_of_two_gigabytes_is_read_in_the_memory_of_a_line(tmp_path):
    path = tmp_path / "huge.jsonl"
    good = b'{"question": "q", "answer": "a"}\n'
    with path.open("wb") as file:
        file.write(good)
        file.seek(2 << 30, 1)  # a hole: nothing of it is on the disk
        file.write(b"\n" + good)
    tracemalloc.start()
    found = list(read_files(find_files([path]), ReadSettings()))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [type(item) for item in found] == [Located, Rejection, Located]
    assert "the line has 2,147,483,649 bytes" in found[1].reason
    assert most < 4 * ReadSettings().max_line_bytes


def test_of_very_many_rows_half_of_them_bad_no_row_stays_in_memory(tmp_path):
    path, count = tmp_path / "many.jsonl", 20_000
    with path.open("w") as file:
        for number in range(count // 2):
            file.write(json.dumps({"question": f"q{number}", "answer": "a" * 500}) + "\n{broken" + "x" * 500 + "\n")
    tracemalloc.start()
    with Rejected() as rejected:
        good = 0
        for item in read_files(find_files([path]), ReadSettings(), on_bad_line=rejected.add_line):
            if isinstance(item, Located):
                good += 1
            else:
                rejected.add(item)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (good, rejected.count, len(rejected.first)) == (count // 2, count // 2, REPORTED)
        kept = rejected.keep(tmp_path / "data", "things")
    assert kept.read_bytes().count(b"\n") == count // 2
    assert most < path.stat().st_size / 4
