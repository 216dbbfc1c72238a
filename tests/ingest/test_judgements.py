import json

import pytest

from ingest.judgements import KnownPairs, read_judgements, said
from qaserve.common.errors import CorpusError
from qaserve.schemas.pairs import Pair, StoredPair
from qaserve.settings import ReadSettings

GOOD = '{"question": "How?", "pair_id": "a"}'


@pytest.fixture
def read(tmp_path):
    def read(*lines, **settings):
        path = tmp_path / "said.jsonl"
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
        return read_judgements(path, ReadSettings(**settings))

    return read


def test_plain_lines_and_exported_feedback_are_read(read):
    exported = {"question": " Why? ", "pair_id": "b", "point": "p", "helpful": False, "id": "x", "comment": "no"}
    found = read(GOOD, "", json.dumps(exported))
    assert [(one.question, one.pair_id, one.point, one.helpful) for one in found.judgements] == [
        ("How?", "a", None, True),
        ("Why?", "b", "p", False),
    ]
    assert found.bad == ()


def test_the_last_word_on_a_question_and_a_pair_counts(read):
    found = read(
        GOOD, GOOD.replace("How?", "HOW"), '{"question": "how", "pair_id": "a", "helpful": false}', GOOD[:-2] + 'b"}'
    )
    assert [(one.pair_id, one.helpful) for one in found.judgements] == [("a", False), ("ab", True)]
    assert found.lines == (3, 4)


@pytest.mark.parametrize(
    ("line", "field", "value", "reason"),
    [
        ("{broken", None, None, "Invalid JSON"),
        ("[]", None, None, "Input should be an object"),
        (b"\xff", None, None, "Invalid JSON"),
        ('{"pair_id": "a"}', "question", None, "Field required"),
        ('{"question": "x"}', "pair_id", None, "Field required"),
        ('{"question": "  ", "pair_id": "a"}', "question", "' '", "at least 1 character"),
        ('{"question": 7, "pair_id": "a"}', "question", "7", "valid string"),
        ('{"question": "a\\u0000b", "pair_id": "a"}', "question", r"'a\x00b'", "U+0000"),
        ('{"question": "a", "pair_id": "\\u0007"}', "pair_id", r"'\x07'", "U+0007"),
        ('{"question": "a", "pair_id": "b", "also": "c"}', "also", "'c'", "valid array"),
        ('{"question": "a", "pair_id": "b", "also": ["c", ""]}', "also.1", "''", "at least 1 character"),
        ('{"question": "a", "pair_id": "b", "also": ["\\u0007"]}', "also", r"'\x07'", "U+0007"),
        ('{"question": "a", "pair_id": "b", "helpful": "yes"}', "helpful", "'yes'", "valid boolean"),
        (json.dumps({"question": "x" * 200, "pair_id": "a"}), "question", "'" + "x" * 78 + "…", "has 200 characters"),
        ('{"question": "\\ud800", "pair_id": "a"}', None, None, "Invalid JSON"),
        ("[" * 3_000, None, None, "Invalid JSON"),
    ],
)
def test_a_bad_line_is_told_with_its_field_and_value(read, line, field, value, reason):
    found = read(GOOD, line, GOOD.replace("How", "Why"), max_question_chars=100)
    assert len(found.judgements) == 2
    (bad,) = found.bad
    assert (bad.file, bad.line, bad.field, bad.value) == ("said.jsonl", 2, field, value)
    assert reason in bad.reason
    shown = said(bad)
    assert shown.startswith(f"said.jsonl:2{': ' + field if field else ''}: ")
    assert value is None or value in shown


def test_a_line_without_end_is_not_held_in_memory(read):
    found = read(GOOD, b"x" * 5_000, GOOD.replace("How", "Why"), max_line_bytes=1_024)
    assert len(found.judgements) == 1
    assert "more than 1,024 bytes; what follows it is not read" in found.bad[0].reason


def test_a_file_without_a_judgement_is_an_error(read, tmp_path):
    with pytest.raises(CorpusError, match="holds no judgement; it is empty"):
        read("", "\n")
    with pytest.raises(CorpusError, match=r"holds no judgement; said\.jsonl:1: question: Field required"):
        read("{}")
    with pytest.raises(CorpusError, match="nowhere cannot be read: No such file"):
        read_judgements(tmp_path / "nowhere", ReadSettings())


def test_a_judgement_means_its_point_or_all_pairs_of_its_pair_id(read):
    def stored(point, pair_id):
        pair = Pair(pair_id=pair_id, cluster_id="c", question="q", answer="a", source_file="f")
        return StoredPair(id=point, pair=pair, cluster=0)

    known = KnownPairs([stored("1", "a"), stored("2", "a"), stored("3", "b")])
    lines = [
        '{"question": "0", "pair_id": "a"}',
        '{"question": "1", "pair_id": "a", "point": "2"}',
        '{"question": "2", "pair_id": "b", "point": "gone"}',
        '{"question": "3", "pair_id": "c"}',
    ]
    found = [[one.id for one in known.of(judgement)] for judgement in read(*lines).judgements]
    assert found == [["1", "2"], ["2"], ["3"], []]
