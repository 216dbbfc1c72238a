"""Corpora that are short of what ranking builds on, from the file to the answer."""

import json

import pytest


def without(rows, *fields):
    return [{name: value for name, value in row.items() if name not in fields} for row in rows]


SHAPES = {
    "no topics": lambda rows: without(rows(), "topics", "related_skills"),
    "empty topics": lambda rows: [row | {"topics": [], "related_skills": []} for row in rows()],
    "one topic": lambda rows: [row | {"topics": ["making"], "related_skills": []} for row in rows()],
    "a topic on one pair": lambda rows: [*without(rows()[:-1], "topics", "related_skills"), rows()[-1]],
    "intents of one pair": lambda rows: [row | {"cluster_id": row["pair_id"]} for row in rows()],
    "two pairs": lambda rows: [rows()[0], rows()[4]],
    "two pairs of one intent": lambda rows: rows()[:2],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_ingested_fitted_and_asked(run, write_rows, rows, shape):
    given = SHAPES[shape](rows)
    code, out, err = run("ingest", write_rows(given), "--json")
    assert code == 0, err
    assert json.loads(out)["pairs"] == len(given)
    assert run("fit")[0] == 0
    for routing in ("question", "centroid"):
        for weight in ("0", "0.5"):
            options = ("--set", f"routing={routing}", "--set", f"topic_weight={weight}", "--set", "second_share=0.3")
            code, out, err = run("ask", given[0]["question"], "--json", *options)
            assert code == 0, err
            first = json.loads(out)["answers"][0]
            assert first["cluster_id"] in {row["cluster_id"] for row in given}
            assert first["score"] == pytest.approx(1, abs=1), "a number, not NaN"
            has_topic = bool(given[0].get("topics")) if first["pair_id"] == given[0]["pair_id"] else None
            assert has_topic is None or weight == "0" or (first["parts"]["topic"] != 0) == has_topic


@pytest.mark.parametrize("shape", SHAPES)
def test_it_can_be_looked_at(run, write_rows, rows, shape):
    given = SHAPES[shape](rows)
    assert run("ingest", write_rows(given))[0] == 0
    code, out, _ = run("overlaps", "--threshold", "0.5", "--json")
    assert code == 0
    assert json.loads(out)["intents"] == len({row["cluster_id"] for row in given})


@pytest.mark.parametrize("topics", [{"a": 1}, 7, True, [["nested"]], [7], ["ok", None]])
def test_topics_that_are_no_list_of_texts_are_refused_by_line_and_field(run, write_rows, rows, topics):
    bad = rows()
    bad[2]["topics"] = topics
    path = write_rows(bad)
    code, out, _ = run("ingest", path, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["pairs"] == len(bad) - 1
    (rejected,) = report["rejected"]
    assert (rejected["file"].endswith(path.name), rejected["line"]) == (True, 3)
    assert rejected["field"].startswith("topics")
    assert run("ask", bad[0]["question"])[0] == 0
