import json

from qaserve.api import create_app
from qaserve.settings import ServerSettings


def test_overlapping_intents_are_listed_with_the_one_to_keep(run, write_rows, rows):
    asked = {"question": "[bold] Where is the tea?"}
    tea = [
        {"pair_id": "x", "cluster_id": "copy", "answer": "On [i]shelves."} | asked,
        {"pair_id": "y", "cluster_id": "tea", "answer": "Boil leaves."} | asked,
        {"pair_id": "z", "cluster_id": "tea", "answer": "Boil leaves.", "question": "Tea?"},
    ]
    assert run("ingest", write_rows([*rows(), *tea]))[0] == 0
    code, out, _ = run("overlaps", "--threshold", "0.999")
    assert code == 0
    assert "tea (2) ← copy (1)" in out
    assert "[bold] Where is the tea?" in out
    assert "The same question has two answers" in out
    assert "1 pairs of its 8 intents" in out
    document = json.loads(run("overlaps", "--threshold", "0.5", "--limit", "1", "--json")[1])
    assert [(one["keep"], one["merge"]) for one in document["overlaps"]] == [("tea", "copy")]
    assert document["found"] > 1


def test_overlaps_of_an_api_are_those_of_its_build(run, engine, serve_app, monkeypatch, tmp_path):
    monkeypatch.setenv("QASERVE_API_URL", serve_app(create_app(engine, ServerSettings())))
    monkeypatch.setenv("QASERVE_DATA_DIR", str(tmp_path / "nothing here"))
    code, out, _ = run("overlaps", "--threshold", "0.5", "--json")
    assert (code, json.loads(out)["build"]) == (0, engine.load().ref.build)


def test_no_corpus_is_an_error(run):
    code, _, err = run("overlaps")
    assert code == 1
    assert "there is no corpus" in err
