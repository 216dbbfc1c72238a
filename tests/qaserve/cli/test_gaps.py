import json

import pytest

from qaserve.service.gaps import QuestionLog


@pytest.fixture
def kept(run, write_rows, rows, tmp_path):
    """A corpus, and questions that it did not answer."""
    code, _, err = run("ingest", write_rows(rows(), "things.jsonl"))
    assert code == 0, err
    log = QuestionLog(tmp_path / "data", "things", keeps=True, days=30)
    for text in ("polish [b]silver[/b] spoons", "polish [b]silver[/b] spoons!", "POLISH [b]silver[/b] spoons"):
        log.keep(text, "abstained", "0123456789ab")
    return log


def test_themes_are_listed(run, kept, monkeypatch):
    code, out, _ = run("gaps")
    assert code == 0
    assert "[b]silver[/b]" in out
    assert "3 questions kept, 1 themes." in out
    assert "QASERVE_KEEP_QUESTIONS=true" in out
    monkeypatch.setenv("QASERVE_KEEP_QUESTIONS", "true")
    monkeypatch.setenv("QASERVE_KEEP_DAYS", "7")
    assert "Questions are kept for 7 days." in run("gaps")[1]
    (theme,) = json.loads(run("gaps", "--json")[1])["themes"]
    assert theme["count"] == 3


def test_the_exported_skeleton_is_ingested_once_it_is_answered(run, kept, tmp_path):
    path = tmp_path / "gaps.jsonl"
    assert run("gaps", "--export", path)[0] == 0
    line = json.loads(path.read_text())
    assert len(line["questions"]) == 1, "phrasings that differ in case and punctuation alone stand once"
    code, out, err = run("ingest", path)
    assert (code, "answer" in out + err) == (1, True)
    path.write_text(json.dumps(line | {"answer": "With chalk."}))
    assert run("ingest", path)[0] == 0
    document = json.loads(run("ask", line["questions"][0], "--json")[1])
    assert (document["answers"][0]["answer"], document["answers"][0]["cluster_id"]) == (
        "With chalk.",
        line["cluster_id"],
    )


def test_an_export_takes_the_place_of_no_file(run, kept, tmp_path):
    path = tmp_path / "gaps.jsonl"
    path.write_text("answers")
    code, _, err = run("gaps", "--export", path)
    assert (code, "is there already" in err, path.read_text()) == (2, True, "answers")


def test_all_are_deleted(run, kept, tmp_path):
    code, _, err = run("gaps", "--delete", "--export", tmp_path / "x")
    assert (code, "exclude each other" in err) == (2, True)
    assert json.loads(run("gaps", "--delete", "--json")[1]) == {"deleted": 3}
    assert json.loads(run("gaps", "--json")[1])["questions"] == 0


def test_a_question_asked_here_that_is_abstained_on_is_kept_where_the_operator_says_so(
    run, kept, monkeypatch, tmp_path
):
    def ask_all():
        assert run("ask", "how is silver polished", "--filter", "topics=none such")[0] == 0
        path = tmp_path / "questions.jsonl"
        path.write_text(json.dumps({"question": "how is tin polished", "filters": {"topics": ["none such"]}}) + "\n")
        assert run("ask", "--input", path, "--output", tmp_path / "answers.jsonl")[0] == 0
        (tmp_path / "answers.jsonl").unlink()
        return json.loads(run("gaps", "--json")[1])["questions"]

    assert ask_all() == 3
    monkeypatch.setenv("QASERVE_KEEP_QUESTIONS", "true")
    assert ask_all() == 5
