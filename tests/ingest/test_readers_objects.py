"""Questions and answers that are objects with `text`."""

import json

from ingest.readers import find_files, read_files
from qaserve.settings import ReadSettings


def pairs(tmp_path, row):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return [item.pair for item in read_files(find_files([path]), ReadSettings())]


def test_a_question_and_an_answer_may_be_objects_and_their_other_fields_stay(tmp_path):
    row = {"pair_id": "p", "question": {"text": " Why? ", "type": "cause"}, "answer": {"text": "So.", "words": 1}}
    (pair,) = pairs(tmp_path, row)
    assert (pair.question, pair.answer) == ("Why?", "So.")
    assert pair.extra == {"question_details": {"type": "cause"}, "answer_details": {"words": 1}}


def test_an_object_with_text_alone_leaves_nothing_behind(tmp_path):
    (pair,) = pairs(tmp_path, {"pair_id": "p", "question": {"text": "Why?"}, "answer": {"text": "So."}})
    assert pair.extra == {}


def test_several_questions_may_share_an_answer_of_either_kind(tmp_path):
    for answer in ("So.", {"text": "So."}):
        found = pairs(tmp_path, {"id": "p", "questions": ["Why?", "What for?"], "answer": answer})
        assert [(pair.question, pair.answer) for pair in found] == [("Why?", "So."), ("What for?", "So.")]


def test_variants_may_stand_beside_a_question_that_is_an_object(tmp_path):
    row = {"id": "p", "question": {"text": "Why?"}, "question_variants": ["What for?"], "answer": {"text": "So."}}
    assert [pair.question for pair in pairs(tmp_path, row)] == ["Why?", "What for?"]
