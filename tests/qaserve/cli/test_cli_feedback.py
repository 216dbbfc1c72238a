import json
import sqlite3
from contextlib import closing

import pytest

from qaserve.schemas.feedback import Feedback
from qaserve.service.feedback import FeedbackLog


@pytest.fixture
def said(run, write_rows, rows, tmp_path):
    """A corpus, and what was said of its answers: one pair helped, one did not."""
    code, out, err = run("ingest", write_rows(rows(), "things.jsonl"), "--json")
    assert code == 0, err
    log = FeedbackLog(tmp_path / "data", "things")
    for pair_id, helpful in (("bread_q0", True), ("wine_q1", False)):
        log.append(
            Feedback(
                id=pair_id,
                created="2026-01-01T00:00:00+00:00",
                corpus="things",
                build=json.loads(out)["build"],
                question="Which [bold]loaf[/bold] is best?",
                point=f"{pair_id}, gone",
                pair_id=pair_id,
                cluster_id="x",
                helpful=helpful,
            )
        )
    return log


def test_what_was_said_is_listed(run, said):
    code, out, _ = run("feedback", "list", "--json")
    document = json.loads(out)
    assert code == 0
    assert [one["pair_id"] for one in document["feedback"]] == ["bread_q0", "wine_q1"]
    assert [one["id"] for one in json.loads(run("feedback", "list", "--last", "1", "--json")[1])["feedback"]] == [
        "wine_q1"
    ]
    code, out, _ = run("feedback", "list")
    assert "Corpus things: 2 records, 1 helpful." in out
    assert "[bold]loaf[/bold]" in "".join(out.split("\n"))


def test_nothing_said_is_an_error(run):
    code, _, err = run("feedback", "list")
    assert code == 1
    assert "there is no feedback in" in err


def test_records_that_cannot_be_read_are_told(run, said):
    with closing(sqlite3.connect(said.path)) as other, other:
        other.execute("INSERT INTO feedback (record) VALUES ('{}')")
    code, out, err = run("feedback", "list", "--json")
    assert (code, json.loads(out)["unreadable"]) == (0, 1)
    assert "1 records of things.db cannot be read" in err


def test_what_is_exported_is_measured_and_fitted_on(run, said, tmp_path):
    target = tmp_path / "out" / "said.jsonl"
    code, out, _ = run("feedback", "export", "--out", target, "--json")
    assert (code, json.loads(out)["records"]) == (0, 2)
    assert [json.loads(line) for line in target.read_text().splitlines()] == [
        one.model_dump() for one in said.page().feedback
    ]
    assert run("feedback", "export")[1] == target.read_text()
    assert len(run("feedback", "export", "--helpful")[1].splitlines()) == 1
    code, out, err = run("bench", "golden", target, "--json")
    report = json.loads(out)
    assert code == 0, err
    assert (report["helpful"]["questions"], report["unhelpful"]["questions"], report["bad"]) == (1, 1, [])
    code, out, _ = run("bench", "golden", target)
    assert "1 questions whose answer is known: MRR " in out
    assert "1 pairs that did not help: 0 still come first (0.0%)" in out
    code, out, err = run("fit", "--feedback", target, "--json")
    assert code == 0, err
    assert json.loads(out)["feedback"] == {"rows": 1, "repeated": 0, "unknown": 0}
    assert "W is fitted on 1 judged questions too; 0 were a pair's own" in run("fit", "--feedback", target)[1]


def test_bad_lines_are_told_with_their_place(run, said, tmp_path):
    golden = tmp_path / "golden.jsonl"
    golden.write_text('{"question": "loaf", "pair_id": "bread_q0"}\n{"question": 7, "pair_id": "x"}\n' + "{}\n" * 12)
    for command in (("bench", "golden", golden), ("fit", "--feedback", golden)):
        code, _, err = run(*command)
        assert code == 0
        told = " ".join(err.split())
        assert "no judgement: golden.jsonl:2: question: Input should be a valid string (got 7)" in told
        assert "… and 3 more lines that are no judgements" in told
    golden.write_text("{}\n")
    for command in (("bench", "golden", golden), ("fit", "--feedback", golden)):
        code, _, err = run(*command)
        assert code == 1
        assert "holds no judgement; golden.jsonl:1: question: Field required" in " ".join(err.split())


def test_judgements_of_unknown_pairs_are_told_with_their_place(run, said, tmp_path):
    golden = tmp_path / "golden.jsonl"
    unknown = [f'{{"question": "loaf", "pair_id": "gone{number}"}}\n' for number in range(12)]
    golden.write_text('{"question": "loaf", "pair_id": "bread_q0"}\n' + "".join(unknown))
    code, out, err = run("bench", "golden", golden)
    assert code == 0, err
    told = " ".join(out.split())
    assert "12 judgements are of pairs that this build does not have, left out: golden.jsonl:2: pair_id:" in told
    assert "golden.jsonl:11: pair_id: the build has no such pair (got 'gone9') and 2 more" in told
    report = json.loads(run("bench", "golden", golden, "--json")[1])
    assert (report["unknown"], [one["line"] for one in report["unknown_lines"]]) == (12, list(range(2, 14)))


def test_an_export_to_stdout_is_nothing_but_the_export(run, said):
    code, _, err = run("feedback", "export", "--json")
    assert code == 2
    assert "--json needs --out" in err
