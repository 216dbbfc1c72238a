import fcntl
import json

import pytest

from qaserve.cli.prompt import completions
from qaserve.common.errors import EncoderError
from qaserve.search.many import ask_many


@pytest.fixture
def loaded(run, write_rows, rows):
    code, _, err = run("ingest", write_rows(rows(), "things_qa.jsonl"))
    assert code == 0, err


@pytest.fixture
def ask(run, tmp_path):
    """Ask the questions of a text; gives exit code, lines of the output, and stderr in one line."""

    def execute(text, name="q.txt", *options):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        code, _, err = run("ask", "--input", tmp_path / name, "--output", tmp_path / "a.jsonl", *options)
        lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
        return code, [json.loads(line) for line in lines], " ".join(err.split())  # as long as folders' names are

    return execute


def test_every_line_is_answered_in_order(ask, loaded):
    code, found, err = ask("\ufeffhow to make bread\n\nhow to make wine\nhow to make glass")
    assert code == 0, err
    assert [(one["line"], one["question"]) for one in found] == [
        (1, "how to make bread"),
        (3, "how to make wine"),
        (4, "how to make glass"),
    ]
    assert [one["answers"][0]["cluster_id"] for one in found] == ["make_bread", "make_wine", "make_glass"]
    assert "trace" not in found[0]
    assert "3 of 3 questions are answered" in err


def test_lines_of_json_have_parameters_and_ids(ask, loaded):
    text = '"how to make bread"\n{"question": "how to make wine", "id": 7, "top_k": 1}\n'
    code, found, err = ask(text, "q.jsonl", "--top-k", "2")
    assert code == 0, err
    assert [len(one["answers"]) for one in found] == [2, 1]
    assert ["id" in found[0], found[1]["id"]] == [False, 7]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("q.txt", b"\xff", "not UTF-8: byte 1 is 0xFF"),
        ("q.txt", b"x" * 5_000, "5,000 characters"),
        ("q.txt", b"x\x01", "U+0001"),
        ("q.jsonl", b"{broken", "not JSON"),
        ("q.jsonl", b'"\\ud800"', "not JSON"),
        ("q.jsonl", b'{"text": "x"}', "no text under `question`"),
        ("q.jsonl", b'{"question": "x", "id": true}', "id True"),
        ("q.jsonl", b'{"question": "x", "top_k": 0}', "top_k: Input should be greater than or equal to 1 (got 0)"),
        ("q.jsonl", b'{"question": "x", "colour": 1}', "colour: There is no such field (got 1)"),
        ("q.jsonl", b'{"question": "x", "topk": 2}', "topk: There is no such field (got 2). Did you mean 'top_k'?"),
        ("q.jsonl", b'{"question": " "}', "the question is empty"),
    ],
)
def test_an_error_of_one_question_is_its_line(ask, loaded, name, line, message):
    good = b'"how to make wine"' if name == "q.jsonl" else b"how to make wine"
    code, found, err = ask(line + b"\n" + good + b"\n", name)
    assert code == 1
    assert found[0]["error"]["code"] == "invalid_request"
    assert message in found[0]["error"]["message"]
    assert found[1]["answers"][0]["cluster_id"] == "make_wine"
    assert "1 failed" in err


@pytest.mark.parametrize("torn", [0, 5, 40])
def test_an_interrupted_output_is_continued(ask, loaded, encoder, tmp_path, torn):
    text = "how to make bread\nhow to make wine\nhow to make glass\n"
    _, whole, _ = ask(text)
    lines = (tmp_path / "a.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "a.jsonl").write_bytes(lines[0] + lines[1][:torn])
    encoder.encoded.clear()
    code, found, err = ask(text)
    assert code == 0, err
    assert "how to make bread" not in encoder.encoded
    assert "an earlier run wrote 1" in err
    for one in (*whole, *found):
        del one["timings_ms"]
    assert found == whole


@pytest.mark.parametrize("left", ["my notes", "my notes\n", '{"line": 1, "question": "other", "answers": []}\n'])
def test_a_file_of_something_else_is_left_alone(run, loaded, tmp_path, left):
    (tmp_path / "q.txt").write_text("how to make bread\n")
    (tmp_path / "a.jsonl").write_text(left)
    code, _, err = run("ask", "--input", tmp_path / "q.txt", "--output", tmp_path / "a.jsonl")
    assert code == 2
    assert "a.jsonl:1 is" in err.replace("\n", "")
    assert (tmp_path / "a.jsonl").read_text() == left


def test_an_output_that_was_asked_with_other_options_is_not_continued(ask, loaded, tmp_path):
    text = "how to make bread\nhow to make wine\n"
    code, found, _ = ask(text, "q.txt", "--top-k", "2", "--filter", "topics=bread", "--filter", "topics=wine")
    assert code == 0
    assert found[0]["options"] == {"top_k": 2, "filters": found[0]["options"]["filters"], "explain": False}
    output = tmp_path / "a.jsonl"
    whole = output.read_bytes()
    output.write_bytes(whole.splitlines(keepends=True)[0])
    code, _, err = ask(text, "q.txt", "--top-k", "3")
    assert code == 2
    assert "a.jsonl:1 was asked with other options: filters {" in err
    assert ", now not given; top_k 2, now 3" in err
    code, found, _ = ask(text, "q.txt", "--top-k", "2", "--filter", "topics=bread", "--filter", "topics=wine")
    assert (code, len(found)) == (0, 2)
    lines = '{"question": "how to make bread", "top_k": 1}\n'
    output.unlink()
    assert ask(lines, "q.jsonl")[1][0]["options"]["top_k"] == 1
    assert "top_k 1, now 4" in ask(lines.replace("1", "4"), "q.jsonl")[2]


def test_an_output_that_another_process_writes_is_refused(ask, loaded, tmp_path):
    with (tmp_path / "a.jsonl").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, found, err = ask("how to make bread\n")
    assert (code, found) == (1, [])
    assert "another process writes" in err


def test_the_api_answers_a_file_too(ask, engine, serve_app, monkeypatch):
    from qaserve.api import create_app
    from qaserve.settings import ServerSettings

    monkeypatch.setenv("QASERVE_API_URL", serve_app(create_app(engine, ServerSettings())))
    code, found, err = ask("how to make bread\nx\x01\nhow to make wine\n")
    assert code == 1, err
    assert "U+0001" in found[1]["error"]["message"]
    assert [found[i]["answers"][0]["cluster_id"] for i in (0, 2)] == ["make_bread", "make_wine"]


def test_an_api_that_does_not_answer_stops_the_file(ask, monkeypatch, unused_port):
    monkeypatch.setenv("QASERVE_API_URL", f"http://127.0.0.1:{unused_port}")
    code, found, err = ask("how to make bread\n")
    assert (code, found) == (1, [])
    assert "0 of 1 questions are answered. The same command continues." in err


def test_a_text_without_a_vector_fails_alone(engine, encoder, monkeypatch):
    from qaserve.schemas.ask import AskRequest

    plain = encoder.encode_questions

    def encode(texts, on_batch=None):
        if "bad" in texts:
            raise EncoderError("no usable vector")
        return plain(texts, on_batch)

    monkeypatch.setattr(encoder, "encode_questions", encode)
    found = ask_many(engine, [AskRequest(question=text) for text in ("how to make wine", "bad", "how to make bread")])
    assert isinstance(found[1], EncoderError)
    assert [found[i].answers[0].cluster_id for i in (0, 2)] == ["make_wine", "make_bread"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "q.txt"], "--input and --output go together"),
        (["--output", "q.txt"], "--input and --output go together"),
        (["x", "--input", "q.txt", "--output", "a"], "takes its questions from the file"),
        (["-i", "--input", "q.txt", "--output", "a"], "takes its questions from the file"),
    ],
)
def test_ways_of_asking_exclude_each_other(run, arguments, message):
    code, _, err = run("ask", *arguments)
    assert code == 2
    assert message in err


def test_a_prompt_answers_explains_opens_and_sets(run, loaded, monkeypatch):
    lines = ["how to make bread", ":why", ":open 2", ":set tau 0.1", ":set n x", ":open 99", ":foo", ":quit", "never"]
    monkeypatch.setattr("sys.stdin", iter_stdin(lines))
    code, out, err = run("ask", "--interactive")
    assert code == 0, err
    for text in (
        "Take material for bread",
        "A plain search would have given these first",
        "intent    make_",
        "temperature 0.1",
        ":set n x: Input should be a valid integer",
        ":open 99: this is not the number of an answer",
        "there is no command ':foo'",
    ):
        assert text in out
    assert "never" not in out


def test_a_parameter_that_is_set_counts_in_the_next_question(run, loaded, monkeypatch):
    monkeypatch.setattr("sys.stdin", iter_stdin([":set n 3", ":why", "how to make bread", ":why", ":set n", ":set"]))
    code, out, _ = run("ask", "-i", "how to make wine")
    assert code == 0
    assert "3 known questions are most like yours" in out
    assert out.count("hits 3") == 1


def test_a_filter_of_the_prompt_counts_until_it_is_taken_back(run, loaded, monkeypatch):
    lines = [
        "how to make bread",
        ":filter topics=wine",
        ":filter topics=glass",
        "how to make bread",
        ":filter topics",
        ":filter cluster=x",
        ":filter colour=red",
        "how to make bread",
    ]
    monkeypatch.setattr("sys.stdin", iter_stdin(lines))
    code, out, _ = run("ask", "-i", "--filter", "topics=rope")
    assert code == 0
    for text in (
        "topics=rope, topics=wine\n",
        "topics=rope, topics=wine, topics=glass\n",
        "Nothing is filtered.",
        ":filter cluster=x: Input should be a valid integer",
        ":filter 'colour=red' is not FIELD=VALUE",
    ):
        assert text in out
    first = [line for line in out.splitlines() if line.startswith("1. ")]
    assert ["bread" in line for line in first] == [False, True], "without an answer for rope"


def iter_stdin(lines):
    import io

    return io.StringIO("\n".join(lines))


def test_lines_are_completed_from_questions_and_commands():
    history = ["How do I a?", ":why", "how do I b?", "How do I a?"]
    assert completions("how", history) == ["How do I a?", "how do I b?"]
    assert completions(":o", history) == [":open "]
    assert completions(":set ta", history) == [":set tau "]
    assert completions(":filter to", history) == [":filter topics="]
