"""Fields of other names: said, kept, guessed."""

import json

import pytest

from ingest.pipeline import Ingest
from ingest.readers import find_files, mapping, read_files
from ingest.readers.preview import guess_fields
from qaserve.common.errors import CorpusError, StoreError, UsageError
from qaserve.settings import ReadSettings


def read(path, *given, separator=None):
    fields = mapping.parse_map(given, separator)
    return list(read_files(find_files([path]), ReadSettings(), fields=fields, needed=fields.fields))


@pytest.fixture
def write(tmp_path):
    def write(*rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_dotted_paths_and_lists_are_taken_and_the_rest_stays(write):
    row = {"prompt": "Why?", "response": {"text": "So.", "model": "m"}, "category": "a", "meta": {"id": "p1"}}
    given = "question=prompt", "answer=response.text", "topics=category", "pair_id=meta.id"
    (item,) = read(write(row), *given)
    pair = item.pair
    assert (pair.question, pair.answer, pair.topics, pair.pair_id) == ("Why?", "So.", ("a",), "p1")
    assert pair.extra == {"response": {"model": "m"}}


def test_a_field_that_is_displaced_stays_and_fields_can_be_swapped(write):
    (item,) = read(write({"question": "Because.", "answer": "Why?"}), "question=answer", "answer=question")
    assert (item.pair.question, item.pair.answer, item.pair.extra) == ("Why?", "Because.", {})
    (item,) = read(write({"title": "Why?", "question": "Long.", "answer": "So."}), "question=title")
    assert (item.pair.question, item.pair.extra) == ("Why?", {"question_unmapped": "Long."})


def test_of_several_sources_the_first_counts_that_a_row_has(write):
    path = write({"a": "Why?", "b": "no", "answer": "1"}, {"b": "How?", "answer": "2"})
    assert [item.pair.question for item in read(path, "question=a", "question=b")] == ["Why?", "How?"]


def test_columns_are_named_as_in_the_header(tmp_path):
    path = tmp_path / "faq.csv"
    path.write_text("User Question,Reply.Text\nWhy?,So.\n,None.\n")
    good, bad = read(path, "question=User Question", "answer=Reply.Text")
    assert (good.pair.question, good.pair.answer) == ("Why?", "So.")
    assert (bad.line, bad.field) == (3, "question (from User Question)")


def test_a_separator_splits_questions_and_lists(tmp_path):
    path = tmp_path / "faq.csv"
    path.write_text("question,answer,topics\nWhy? | What for?,So.,a|b\n")
    items = read(path, separator="|")
    assert [item.pair.question for item in items] == ["Why?", "What for?"]
    assert {item.pair.topics for item in items} == {("a", "b")}
    assert len({item.pair.pair_id for item in items}) == 2
    assert len({item.pair.cluster_id for item in items}) == 1


def test_a_separator_that_was_kept_splits_cells_alone_is_told_and_is_taken_back(ingest, tmp_path):
    table, lines = tmp_path / "faq.csv", tmp_path / "more.jsonl"
    table.write_text("question,answer\nWhy | How,So.\n")
    lines.write_text(json.dumps({"question": "What is a|b?", "answer": "A pipe."}))
    assert ingest([table], separator="|").added == 2
    report = ingest([table, lines], replace=True)
    assert (report.added, report.unchanged) == (1, 2)
    assert [one.format for one in report.files] == [
        "table, comma between cells, UTF-8, cells split at '|'",
        "JSON Lines",
    ]
    table.write_text("question,answer,qaserve_build\nWhy | How,So.,0\n")
    assert ingest([table], replace=True).pairs == 1, "what an export wrote is read as it is"
    table.write_text("question,answer\nWhy | How,So.\n")
    assert ingest([table], replace=True, separator="").pairs == 1
    assert ingest([table], replace=True).unchanged == 1


@pytest.mark.parametrize("given", ["question", "question=", "colour=red", "=x"])
def test_a_map_of_no_field_of_a_pair_is_refused(given):
    with pytest.raises(UsageError, match=r"is not FIELD=PATH with a field of question, answer"):
        mapping.parse_map([given])


def test_a_map_that_names_no_field_is_refused_with_the_fields_there_are(write, tmp_path):
    path = write({"question": "Why?", "answer": "So.", "meta": {"kind": "x"}})
    with pytest.raises(CorpusError, match=r"^topics=categry names no field; the fields are question, answer, meta\.k"):
        read(path, "topics=categry")
    table = tmp_path / "faq.csv"
    table.write_text("prompt,answer\nWhy?,So.\n")
    with pytest.raises(CorpusError, match=r"`question \(from promt\)` is needed; the columns are prompt, answer"):
        read(table, "question=promt")


def test_usual_names_are_guessed_only_where_nothing_says_it(write, tmp_path):
    path = write({"Prompt": "Why?", "response": {"text": "So."}, "title": "t"})
    full, preview = guess_fields(find_files([path]), ReadSettings(), mapping.FieldMap())
    assert preview.guessed == ("question=Prompt", "answer=response")
    assert [(one.question, one.answer) for one in preview.pairs] == [("Why?", "So.")]
    assert [str(one) for one in full.fields] == ["question=Prompt", "answer=response"]
    for row in ({"question": "q", "answer": "a", "title": "t"}, {"questions": ["q"], "answer": "a", "body": "b"}):
        assert guess_fields(find_files([write(row)]), ReadSettings(), mapping.FieldMap())[1] is None
    # A kept guess does not displace what a later row says itself.
    both = write({"question": "own", "Prompt": "system", "answer": "a"})
    (item,) = read_files(find_files([both]), ReadSettings(), fields=full)
    assert (item.pair.question, item.pair.extra) == ("own", {"Prompt": "system"})


@pytest.fixture
def ingest(edge, encoder, make_builder, tmp_path):
    return Ingest(make_builder(edge, encoder), encoder, ReadSettings(), tmp_path / "data").run


def test_a_guess_needs_a_yes_and_is_kept_with_the_corpus(ingest, write):
    path = write(*({"prompt": f"What is {n}?", "reply": f"It is {n}."} for n in "abc"))
    with pytest.raises(CorpusError, match="by their names it may be question=prompt, answer=reply"):
        ingest([path])
    asked = []
    assert ingest([path], dry_run=True, on_guess=lambda preview: asked.append(preview) or True).added == 3
    assert asked[0].fields == ("prompt", "reply")
    with pytest.raises(CorpusError, match="by their names"):
        ingest([path])  # a dry run keeps nothing
    assert ingest([path], accept_guess=True).added == 3
    assert ingest([path]).unchanged == 3


def test_a_map_is_needed_once(ingest, write, tmp_path):
    path = tmp_path / "faq.csv"
    path.write_text("ask,say\nWhy | How,So.\nWho,Me.\n")
    with pytest.raises(CorpusError, match="a column `question` is needed"):
        ingest([path])
    assert ingest([path], fields=["question=ask", "answer=say"], separator="|").added == 3
    assert ingest([path]).unchanged == 3
    (tmp_path / "data" / "mapping" / "things.json").write_text("{")
    with pytest.raises(StoreError, match=r"things\.json is damaged"):
        ingest([path])


def test_pairs_without_ids_are_the_same_in_another_order_and_a_changed_answer_is_an_edit(ingest, write):
    rows = [{"question": f"What is {n}?", "answer": f"It is {n}, and nothing else."} for n in "abcd"]
    ingest([write(*rows)])
    assert ingest([write(*reversed(rows))], replace=True).unchanged == 4
    rows[1]["answer"] = "It is b, and something else."
    report = ingest([write(*rows)])
    assert (report.added, report.updated, report.unchanged) == (0, 1, 3)
    (edit,) = report.edits
    assert (edit.question, edit.before, edit.after) == ("What is b?", "It is b, and nothing else.", rows[1]["answer"])
