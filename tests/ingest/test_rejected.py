import json

import pytest

from ingest import rejected as rejecting
from ingest.pipeline import Ingest
from ingest.rejected import Rejected
from qaserve.common.errors import CorpusError, StoreWriteError
from qaserve.schemas.ingest import Rejection
from qaserve.settings import ReadSettings


@pytest.fixture
def ingest(edge, encoder, make_builder, tmp_path):
    made = Ingest(make_builder(edge, encoder), encoder, ReadSettings(max_line_bytes=2_000), tmp_path / "data")
    return made.run


@pytest.fixture
def kept(tmp_path):
    """The files of rejected lines."""
    return lambda: sorted((tmp_path / "data" / "rejected").glob("*"))


def test_rejected_lines_are_kept_as_they_were_and_can_be_corrected_and_ingested(
    ingest, kept, write_rows, rows, tmp_path
):
    path = write_rows(rows(["bread"]))
    bad = [
        b'{"question": "What is wine?", "answer": 5, "pair_id": "w"}',
        b'  {"question": "\xff", "answer": "x"}',
        '{"questions": ["What is glass?", ""], "answer": {"text": "Gläser"}}'.encode(),
    ]
    path.write_bytes(path.read_bytes() + b"\n".join(bad) + b"\n")
    report = ingest([path])
    lines, reasons = kept()
    assert report.rejected_file == f"rejected/{lines.name}"
    assert report.rejections == 3
    assert lines.read_bytes() == b"\n".join(line.strip() for line in bad) + b"\n"
    said = reasons.read_text().splitlines()
    assert said[0] == "pairs.jsonl:5, field answer: a text is needed, this is a number"
    assert [line.split(",")[0].split(": ")[0] for line in said] == ["pairs.jsonl:5", "pairs.jsonl:6", "pairs.jsonl:7"]
    corrected = tmp_path / "corrected.jsonl"
    corrected.write_bytes(
        lines.read_bytes().replace(b"5,", b'"Pressed grapes.",').replace(b"\xff", b"y").replace(b', ""', b"")
    )
    again = ingest([corrected])
    assert (again.added, again.rejections, again.rejected_file) == (3, 0, None)
    assert len(kept()) == 2


def test_the_same_bad_lines_again_are_one_file(ingest, kept, write_rows, rows):
    path = write_rows([*rows(["bread"]), {"question": "q"}])
    first, again = ingest([path]), ingest([path])
    assert first.rejected_file == again.rejected_file
    assert len(kept()) == 2
    path = write_rows([*rows(["bread"]), {"question": "another"}])
    assert ingest([path]).rejected_file != first.rejected_file


def test_a_dry_run_keeps_no_file(ingest, kept, write_rows, rows):
    report = ingest([write_rows([*rows(["bread"]), {"question": "q"}])], dry_run=True)
    assert (report.rejections, report.rejected_file, kept()) == (1, None, [])


def test_a_line_too_long_is_reported_and_not_kept(ingest, kept, write_rows, rows):
    long = {"question": "q", "answer": "a" * 3_000}
    report = ingest([write_rows([*rows(["bread"]), long])])
    assert report.rejections == 1
    assert "at most 2,000 are read" in report.rejected[0].reason
    assert (report.rejected_file, kept()) == (None, [])


def test_of_very_many_rejections_the_report_lists_the_first_and_the_file_holds_all(ingest, kept, write_rows, rows):
    count = rejecting.REPORTED + 500
    report = ingest([write_rows([*rows(["bread"]), *({"question": f"q{n}"} for n in range(count))])])
    assert report.rejections == count
    assert len(report.rejected) == rejecting.REPORTED
    lines, reasons = (path.read_text().splitlines() for path in kept())
    assert len(lines) == len(reasons) == count
    assert json.loads(lines[-1]) == {"question": f"q{count - 1}"}
    assert [(one.file, one.read, one.rejected) for one in report.files] == [("pairs.jsonl", 4, count)]


def test_a_file_without_a_good_line_keeps_nothing(ingest, kept, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text("{broken\n")
    with pytest.raises(CorpusError, match="holds no pair; line 1: not JSON"):
        ingest([path])
    assert kept() == []


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "data").write_text("a file where a folder should be")
    with Rejected() as rejected:
        rejected.add(Rejection(file="f", line=1, field=None, reason="r"))
        rejected.add_line(b"line")
        with pytest.raises(StoreWriteError, match="cannot be written"):
            rejected.keep(tmp_path / "data", "things")


def test_a_line_whose_names_are_no_text_costs_no_other(ingest, kept, write_rows, rows):
    path = write_rows(rows(["bread"]))
    path.write_bytes(path.read_bytes() + b'{"\\ud800x": 1}\n')
    report = ingest([path])
    assert (report.pairs, report.rejections) == (4, 1)
    assert "ud800x" in kept()[1].read_text(encoding="utf-8")


def test_a_cell_that_is_no_text_costs_no_other(ingest, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text('question,answer,tags\nWhy?,So.,x\nHow?,Thus.,"[""x\\ud800""]"\n')
    report = ingest([path])
    assert (report.pairs, [(one.line, one.field) for one in report.rejected]) == (1, [(3, "tags")])
