import json
import re

import numpy as np
import pytest

from ingest.readers import Located, find_files, read_files
from qaserve.cli import load_all
from qaserve.common.errors import EncoderError
from qaserve.settings import ReadSettings, get_settings
from train.experiments import projection as projection_experiment
from train.experiments.projection import EXPERIMENT
from train.experiments.registry import EXPERIMENTS
from train.experiments.reports import read
from train.experiments.results import page

THINGS = [f"thing{number}" for number in range(12)]


@pytest.fixture
def files(write_rows, rows, encoder, tmp_path):
    """A corpus file, and a function that writes vectors of its pairs under a name."""
    corpus = write_rows(rows(THINGS))
    pairs = [item.pair for item in read_files(find_files([corpus]), ReadSettings()) if isinstance(item, Located)]

    def embed(name, **changed):
        arrays = {
            "Q": encoder.encode_questions([pair.question for pair in pairs]),
            "A": encoder.encode_answers([pair.answer for pair in pairs]),
        }
        np.savez(tmp_path / f"{name}.npz", **(arrays | changed))
        return tmp_path / f"{name}.npz"

    return corpus, embed


def test_every_experiment_is_a_command():
    (bench,) = [group.typer_instance for group in load_all().registered_groups if group.name == "bench"]
    names = {command.name or command.callback.__name__ for command in bench.registered_commands}
    assert names == {*EXPERIMENTS, "cold", "golden", "latency", "load", "publish", "scale"}


def test_the_live_builds_vectors_are_measured(run, write_rows, rows):
    run("ingest", write_rows(rows(THINGS)))
    code, out, err = run("bench", "projection", "--quick", "--json")
    assert code == 0, err
    document = json.loads(out)
    (found,) = document["report"]["runs"]
    assert (found["encoder"], found["dimension"], found["pairs"]) == ("minilm", 48, 48)
    assert document["provenance"]["command"] == "qaserve bench projection --seeds 1 --quick"
    assert (document["provenance"]["quick"], document["provenance"]["seeds"]) == (True, [0])


def test_routing_writes_runs_and_judgements_in_which_the_other_encoder_judges(run, files, tmp_path):
    corpus, embed = files
    vectors = [part for name in ("one", "two") for part in ("--embeddings", embed(name))]
    code, out, err = run("bench", "routing", "--quick", "--corpus", corpus, *vectors, "--trec", tmp_path / "trec")
    assert code == 0, err
    for name, judge in (("one", "two"), ("two", "one")):
        assert f"{name}: graded by {judge}" in out
        kinds = {path.name for path in (tmp_path / "trec" / name / "phrasing-0").glob("qrels.*")}
        assert kinds == {"qrels.intent.txt", "qrels.skill.txt", "qrels.graded.txt"}
        assert len(list((tmp_path / "trec" / name).glob("*-0/run.raw_answers.txt"))) == 3


def test_only_an_experiment_that_can_writes_runs(run, tmp_path):
    code, _, err = run("bench", "projection", "--trec", tmp_path / "trec")
    assert code == 2
    assert "bench projection writes no TREC runs" in err
    assert not (tmp_path / "trec").exists()


def test_alpha_is_for_the_experiment_about_importance(run, write_rows, rows):
    run("ingest", write_rows(rows(THINGS)))
    code, out, err = run("bench", "importance", "--quick", "--alpha", "0.25", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["report"]["runs"][0]["alpha"] == 0.25
    assert document["provenance"]["command"] == "qaserve bench importance --seeds 1 --alpha 0.25 --quick"
    bounds = ("--bounds", "0.8", "1.5", "--trainings", "2")
    document = json.loads(run("bench", "importance", "--quick", *bounds, "--json")[1])
    found = document["report"]["runs"][0]
    assert (found["bounds"], found["trainings"]) == ([0.8, 1.5], 2)
    assert document["provenance"]["command"].endswith("--seeds 1 --bounds 0.8 1.5 --trainings 2 --quick")
    code, _, err = run("bench", "importance", "--bounds", "1.1", "2")
    assert code == 2
    assert "--bounds 1.1 2 do not hold 1" in err
    code, _, err = run("bench", "projection", "--alpha", "0.25")
    assert code == 2
    assert "bench projection weighs no pairs by importance" in err
    code, _, err = run("bench", "importance", "--alpha", "1.5")
    assert code == 2


def test_a_person_sees_tables_and_findings(run, write_rows, rows):
    run("ingest", write_rows(rows(THINGS)))
    code, out, err = run("bench", "projection", "--seeds", "2")
    assert code == 0
    text = " ".join(out.split())
    assert "minilm: D 48, 48 pairs" in text
    assert "in double precision, so they are the same W" in text
    assert "written" not in err
    assert "Measured with --quick" in run("bench", "projection", "--quick")[2]


@pytest.mark.parametrize("width", [20, 200])
def test_no_figure_is_cut_on_a_narrow_terminal(run, write_rows, rows, monkeypatch, width):
    from qaserve.cli import bench

    monkeypatch.setattr(bench.out, "_width", width)
    run("ingest", write_rows(rows(THINGS)))
    code, out, _ = run("bench", "projection", "--quick")
    assert code == 0
    assert "…" not in out
    (line,) = [line for line in out.splitlines() if line.startswith("dense  ")]
    assert re.fullmatch(r"dense +[\d.e-]+ s +[\d.]+ MB +[\d.]+ ms *", line)


def test_files_are_measured_in_turn_and_written(run, files, tmp_path):
    corpus, embed = files
    folder = tmp_path / "reports"
    code, out, err = run(
        *("bench", "projection", "--corpus", corpus, "--embeddings", embed("one"), "--embeddings", embed("two file")),
        *("--reports", folder, "--json"),
    )
    assert code == 0, err
    measured = read(folder / "projection.json", EXPERIMENT)
    assert json.loads(out) == json.loads((folder / "projection.json").read_text())
    assert [one.encoder for one in measured.document.report.runs] == ["one", "two file"]
    command = "qaserve bench projection --seeds 1 --corpus pairs.jsonl --embeddings one.npz --embeddings 'two file.npz'"
    assert measured.document.provenance.command == command
    assert str(tmp_path) not in out
    assert (folder / "projection-ratios.png").is_file()
    assert err.count("written:") == 2


def test_several_corpora_are_measured_in_turn(run, files, tmp_path):
    corpus, embed = files
    (tmp_path / "other").mkdir()
    other = (tmp_path / "other" / "things.jsonl", tmp_path / "other" / "one.npz")
    other[0].write_bytes(corpus.read_bytes())
    other[1].write_bytes(embed("one").read_bytes())
    both = ("--corpus", corpus, "--embeddings", embed("one"), "--corpus", other[0], "--embeddings", other[1])
    code, out, err = run("bench", "projection", "--quick", *both, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert [one["encoder"] for one in document["report"]["runs"]] == ["one on pairs", "one on things"]
    assert document["provenance"]["command"].endswith(
        "--corpus pairs.jsonl --embeddings one.npz --corpus things.jsonl --embeddings one.npz --quick"
    )
    code, _, err = run("bench", "projection", *both, "--embeddings", embed("two"))
    assert code == 2
    assert "2 corpora and 3 files of embeddings" in err
    assert "Give one corpus for all, or one for each." in " ".join(err.split())
    code, _, err = run("bench", "routing", *both, "--trec", tmp_path / "trec")
    assert code == 2
    assert "--trec takes one corpus" in err


def test_what_is_measured_later_stands_beside_the_rest(run, files, tmp_path):
    corpus, embed = files
    folder = ("--reports", tmp_path / "reports", "--add", "--json")
    commands = []
    for name in ("one", "two", "one"):
        code, out, err = run("bench", "projection", "--corpus", corpus, "--embeddings", embed(name), *folder)
        assert code == 0, err
        document = json.loads(out)
        commands.append(document["provenance"]["command"])
    assert json.loads((tmp_path / "reports" / "projection.json").read_text()) == document
    assert [found["encoder"] for found in document["report"]["runs"]] == ["one on pairs", "two on pairs"]
    first, both, again = commands
    assert both == again == f"{first}; {first.replace('one', 'two')}"
    text = page([read(tmp_path / "reports" / "projection.json", EXPERIMENT)])
    assert f"Measured by\n\n    {first}\n    {first.replace('one', 'two')}\n\non " in text
    code, _, err = run("bench", "projection", "--seeds", "2", "--corpus", corpus, "--embeddings", embed("two"), *folder)
    assert code == 2
    assert "has seeds (0,), not (0, 1)" in " ".join(err.split())
    code, _, err = run("bench", "projection", "--reports", tmp_path / "reports", "--add")
    assert code == 2
    assert "--add is for a report of files" in err


def test_the_claims_can_be_tested_without_training_students(run, write_rows, rows):
    run("ingest", write_rows(rows(THINGS)))
    code, out, err = run("bench", "hypotheses", "--quick", "--no-students", "--json")
    assert code == 0, err
    document = json.loads(out)
    claims = {one["claim"] for one in document["report"]["runs"][0]["hypotheses"]}
    assert len(claims) == 4
    assert not any("student" in claim for claim in claims)
    assert document["provenance"]["command"] == "qaserve bench hypotheses --seeds 1 --no-students --quick"
    code, _, err = run("bench", "projection", "--no-students")
    assert code == 2
    assert "bench projection cannot do without students" in err


def test_an_export_can_be_measured(run, write_rows, rows, tmp_path):
    run("ingest", write_rows(rows(THINGS)))
    pairs, vectors = tmp_path / "live.jsonl", tmp_path / "live.npz"
    run("export", "--out", pairs, "--vectors", vectors)
    found = [
        json.loads(run("bench", "hypotheses", "--quick", "--json", *where)[1])["report"]["runs"][0]
        for where in ((), ("--corpus", pairs, "--embeddings", vectors))
    ]
    assert found[0]["pairs"] == 48
    assert found[1] == found[0] | {"encoder": "live"}


def test_a_quick_report_does_not_replace_a_full_one(run, files, tmp_path):
    corpus, embed = files
    arguments = (
        *("bench", "projection", "--corpus", corpus, "--embeddings", embed("one")),
        *("--reports", tmp_path / "reports"),
    )
    assert run(*arguments)[0] == 0
    before = (tmp_path / "reports" / "projection.json").read_bytes()
    code, _, err = run(*arguments, "--quick")
    assert code == 2
    assert "which a --quick one would replace" in " ".join(err.split())
    assert (tmp_path / "reports" / "projection.json").read_bytes() == before


def test_reports_are_published_and_checked(run, files, tmp_path):
    corpus, embed = files
    folder, target = tmp_path / "reports", tmp_path / "docs" / "results.md"
    where = ("--reports", folder, "--page", target)
    assert run("bench", "publish", *where)[0] == 0
    assert target.read_text() == page([])
    run("bench", "projection", "--corpus", corpus, "--embeddings", embed("one"), "--reports", folder)
    code, out, err = run("bench", "publish", "--check", *where, "--json")
    assert code == 1
    assert json.loads(out) == {"page": str(target), "experiments": ["projection"], "stale": [str(target)]}
    assert run("bench", "publish", *where)[0] == 0
    code, out, err = run("bench", "publish", "--check", *where)
    assert code == 0
    assert "is checked: projection" in " ".join(out.split())
    assert err == ""


def test_what_an_interrupted_run_finished_is_kept_until_the_report_is_made(run, write_rows, rows, monkeypatch):
    run("ingest", write_rows(rows(THINGS)))
    parts = get_settings().store.data_dir / "experiments"
    measure, found = projection_experiment.run, []

    def interrupted_once(source, **options):
        found.append(source.cache.load(["half"]))
        if found == [None]:
            source.cache.save(["half"], {}, {}, seconds=1e6)
            raise EncoderError("the encoder is gone")
        return measure(source, **options)

    monkeypatch.setattr(projection_experiment, "run", interrupted_once)
    assert run("bench", "projection", "--quick")[0] == 1
    assert len(list(parts.iterdir())) == 1
    code, out, _ = run("bench", "projection", "--quick", "--json")
    assert code == 0
    assert found == [None, ({}, {})]
    assert json.loads(out)["provenance"]["wall_seconds"] >= 1e6
    assert not parts.exists()


@pytest.mark.parametrize("option", ["--corpus", "--embeddings"])
def test_corpus_and_embeddings_go_together(run, option):
    code, out, err = run("bench", "projection", option, "x")
    assert (code, out) == (2, "")
    assert "--corpus and --embeddings go together" in err


def test_encoders_are_told_apart_by_their_files_names(run, files):
    corpus, embed = files
    code, _, err = run(
        "bench", "projection", "--corpus", corpus, "--embeddings", embed("one"), "--embeddings", "other/one.npz"
    )
    assert code == 2
    assert "2 files are called one" in err


def test_too_few_pairs_are_refused(run, write_rows, rows):
    run("ingest", write_rows(rows()))
    code, _, err = run("bench", "projection")
    assert code == 1
    assert "24 pairs are too few to split; 30 are needed" in err


def test_no_encoder_is_downloaded_for_an_experiment(monkeypatch):
    from qaserve.cli import bench

    monkeypatch.setenv("QASERVE_ENCODER", "nomic")
    get_settings.cache_clear()
    assert bench._encoder_at_hand(get_settings()) is None
    monkeypatch.setenv("QASERVE_ENCODER", "minilm")
    get_settings.cache_clear()
    assert bench._encoder_at_hand(get_settings()).identity.id == "minilm"


def test_a_file_brings_the_encoder_that_it_is_called_after(monkeypatch):
    from qaserve.cli import bench

    monkeypatch.setenv("QASERVE_ENCODER", "nomic")
    get_settings.cache_clear()
    assert bench._encoder_at_hand(get_settings(), "minilm").identity.id == "minilm"
    assert bench._encoder_at_hand(get_settings(), "my-vectors") is None


def test_latency_reports_every_stage(run, write_rows, rows):
    run("ingest", write_rows(rows()))
    code, out, _ = run("bench", "latency", "--questions", "6", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["questions"] == 6
    assert report["engine"]["total"] >= report["engine"]["search"] > 0
    assert report["dense_bank_bytes"] > report["bank_bytes"] > 0
    assert "bare encoder" in run("bench", "latency", "--questions", "6")[1]
