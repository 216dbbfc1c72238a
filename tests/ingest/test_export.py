"""What is exported is read again as the same pairs."""

import csv
import json
import uuid

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from ingest.export import export_pairs, export_vectors
from ingest.readers.delimited import neutralized, restored
from qaserve.common.errors import UsageError
from qaserve.schemas.ask import AskRequest
from qaserve.search.engine import Engine
from qaserve.store.points import to_pair_vectors

ODD = [
    {
        "question": "=1+1?",
        "answer": "+SUM(A1)\n@x",
        "pair_id": "-p",
        "cluster_id": "'=c",
        "n": {"a": [1, None]},
        "t": "=x",
    },
    {
        "question": "Wie, \"so\"; 'was'?",
        "answer": "- Punkt\r\n- \t„Ö“|",
        "topics": ["[a", "b,c"],
        "question_variants": ["-2?"],
    },
    {"question": "no id?", "answer": "'quoted", "source_file": "book.md", "question_type": "short", "flag": True},
]


@pytest.fixture
def build(edge, encoder, make_ingest, write_rows, rows):
    make_ingest(edge, encoder).run([write_rows([*rows(["bread", "wine"]), *ODD])])
    return edge.open(edge.live("things"))


def pairs(store, corpus):
    return {point.id: to_pair_vectors(point).stored for point in store.open(store.live(corpus)).scroll()}


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_a_round_trip_gives_the_same_pairs_and_answers(build, edge, encoder, make_ingest, make_encoder, tmp_path, name):
    path = tmp_path / name
    export_pairs(build, path)
    report = make_ingest(edge, encoder, "others").run([path])
    assert (report.read, report.rejections) == (11 + 1, 0)
    there, again = (
        sorted((one.pair for one in pairs(edge, corpus).values()), key=repr) for corpus in ("things", "others")
    )
    assert again == there
    assert make_ingest(edge, encoder).run([path], replace=True).unchanged == 12
    asked = AskRequest(question="how to make bread", top_k=5)
    first, second = (
        Engine(edge, encoder, tmp_path / "models", corpus).ask(asked).answers for corpus in ("things", "others")
    )
    assert [(one.pair_id, one.answer) for one in second] == [(one.pair_id, one.answer) for one in first]


def test_an_export_says_cluster_skill_and_build(build, tmp_path):
    export_pairs(build, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    stored = list(map(to_pair_vectors, build.scroll()))
    assert [row["qaserve_cluster"] for row in rows] == [one.stored.cluster for one in stored]
    assert {row["qaserve_build"] for row in rows} == {build.metadata.build}
    assert {row["pair_id"]: row["qaserve_skill"] for row in rows}["bread_q0"] == "skill_bread.md"
    assert {row["pair_id"]: row["qaserve_skill"] for row in rows}["-p"] is None


def test_no_cell_of_a_csv_is_a_formula(build, tmp_path):
    export_pairs(build, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert "'=1+1?" in cells
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []


@pytest.mark.parametrize("cell", ["", "a", "=1", "'=1", "''=1", "'a", "'", "-", "＝1", "\t", "a=1"])
def test_a_neutralized_cell_is_restored(cell):
    assert restored(neutralized(cell)) == cell
    assert not neutralized(cell).startswith(("=", "-", "＝", "\t"))


def test_a_quote_in_a_table_of_somebody_else_stays(edge, encoder, make_ingest, tmp_path):
    path = tmp_path / "faq.csv"
    path.write_text("question,answer\n'-f?,'=1\n")
    make_ingest(edge, encoder).run([path])
    (one,) = pairs(edge, "things").values()
    assert (one.pair.question, one.pair.answer) == ("'-f?", "'=1")


@pytest.mark.parametrize("name", ["out.npz", "out.safetensors"])
def test_vectors_are_in_the_order_of_the_pairs(build, tmp_path, name):
    path = tmp_path / name
    export_vectors(build, path, None)
    found = dict(np.load(path)) if name.endswith("npz") else load_file(path)
    stored = list(map(to_pair_vectors, build.scroll()))
    assert [str(uuid.UUID(bytes=bytes(row))) for row in found["id"]] == [one.stored.id for one in stored]
    np.testing.assert_array_equal(found["question"], [one.question for one in stored])
    np.testing.assert_array_equal(found["answer"], [one.answer for one in stored])
    lacking = np.array([one.topic is None for one in stored])
    assert lacking.any()
    np.testing.assert_array_equal(np.isnan(found["topic"][:, 0]), lacking)
    if name.endswith("safetensors"):
        with safe_open(path, "numpy") as file:
            assert file.metadata() == {"build": build.metadata.build, "encoder": "fake"}


def test_an_unknown_format_is_refused_and_nothing_is_written(build, tmp_path):
    with pytest.raises(UsageError, match=r"--out .*out\.xlsx ends in \.xlsx, which is no format") as bad:
        export_pairs(build, tmp_path / "out.xlsx")
    assert bad.value.hint == "It must end in .jsonl, .csv or .parquet."
    with pytest.raises(UsageError, match=r"--out .*out has no suffix"):
        export_pairs(build, tmp_path / "out")
    with pytest.raises(UsageError, match=r"--vectors .*out\.pt ends in \.pt, which is no format") as bad:
        export_vectors(build, tmp_path / "out.pt", None)
    assert bad.value.hint == "It must end in .npz or .safetensors."
    assert not list(tmp_path.glob("out*"))
