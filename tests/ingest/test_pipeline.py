import json
import shutil

import numpy as np
import pytest
from dying import Died, dying_at
from store_builds import lose_points, stored

from ingest.report import _around
from ingest.selection import Selection
from qaserve.builds import bundle as bundles
from qaserve.builds.catalog import activate, list_builds, prune, verify
from qaserve.common.errors import (
    CorpusError,
    DamagedBuildError,
    EncoderError,
    EncoderMismatchError,
    NotFoundError,
    StoreWriteError,
    UsageError,
)
from qaserve.common.failpoints import STEPS
from qaserve.schemas.ask import AskRequest
from qaserve.store import BuildRef


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


def snapshot(store, corpus="things"):
    """Everything that a reader of the live build could see."""
    live = store.live(corpus)
    return live, [(row.stored, row.question.tobytes(), row.answer.tobytes()) for row in stored(store, live)]


def test_every_row_becomes_a_point_with_its_vectors_and_cluster(store, encoder, make_ingest, write_rows, rows, models):
    report = make_ingest(store, encoder).run([write_rows(rows())])
    assert (report.read, report.added, report.pairs, report.removed, report.unchanged) == (24, 24, 24, 0, 0)
    live = store.live("things")
    assert live.build == report.build
    manifest = bundles.read(models, live).manifest
    found = stored(store, live)
    assert len(found) == 24
    assert {row.stored.cluster for row in found} == set(range(len(manifest.clusters)))
    for row in found:
        np.testing.assert_allclose(row.question, encoder.encode_questions([row.stored.pair.question])[0], atol=1e-6)
        np.testing.assert_allclose(row.answer, encoder.encode_answers([row.stored.pair.answer])[0], atol=1e-6)
        assert row.stored.prior == 1.0
    assert sum(cluster.size for cluster in manifest.clusters) == 24


def test_the_same_file_again_encodes_and_writes_nothing(store, encoder, make_ingest, write_rows, rows):
    path = write_rows(rows())
    make_ingest(store, encoder).run([path])
    before, encoder.encoded = snapshot(store), []
    report = make_ingest(store, encoder).run([path])
    assert (report.unchanged, report.added, report.updated, report.encoded) == (24, 0, 0, 0)
    assert encoder.encoded == []
    assert snapshot(store) == before
    assert len(store.builds("things")) == 1


def test_the_same_input_gives_the_same_bytes(edge, memory_server, encoder, make_ingest, write_rows, rows, models):
    path = write_rows(rows())
    first = make_ingest(edge, encoder).run([path]).build
    folder = bundles.folder_of(models, BuildRef("things", first))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    bundles.remove(models, BuildRef("things", first))
    assert make_ingest(memory_server, encoder).run([path]).build == first
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_other_settings_make_another_build_of_the_same_pairs(edge, encoder, make_ingest, write_rows, rows, models):
    path = write_rows(rows())
    first = make_ingest(edge, encoder).run([path])
    encoder.encoded = []
    second = make_ingest(edge, encoder, max_clusters=2).run([path])
    assert (second.unchanged, second.clusters, encoder.encoded) == (24, 2, [])
    assert second.build != first.build
    assert edge.live("things").build == second.build
    assert len(bundles.read(models, BuildRef("things", second.build)).manifest.clusters) == 2


def test_rows_that_share_pair_id_and_question_all_live(edge, encoder, make_ingest, write_rows, rows):
    twins = [rows()[0] | {"answer": f"answer number {number}"} for number in range(3)]
    report = make_ingest(edge, encoder).run([write_rows(rows() + twins)])
    assert report.pairs == 27
    assert report.repeats == 3
    assert report.conflicts == 1
    assert report.repeated_questions[0].answers == 4
    assert [row.line for row in report.repeated_questions[0].rows] == [1, 25, 26, 27]


def test_code_fences_in_the_middle_of_a_line_are_reported_and_kept(edge, encoder, make_ingest, write_rows, rows):
    found = rows()
    found[1]["answer"] = "Write: ```sh\nls\n```"
    found[2]["answer"] = "Write:\n```sh\nls\n```"
    found[3]["answer"] = "A fence is three of them: ```"
    report = make_ingest(edge, encoder).run([write_rows(found)])
    assert report.late_fences == 1
    assert [(one.question, one.line) for one in report.late_fence_pairs] == [(found[1]["question"], 2)]
    assert found[1]["answer"] in {row.stored.pair.answer for row in stored(edge, edge.live("things"))}


def test_only_new_and_edited_texts_are_encoded(store, encoder, make_ingest, write_rows, rows):
    make_ingest(store, encoder).run([write_rows(rows())])
    encoder.encoded = []
    edited = rows()
    edited[3]["answer"] = "An edited answer about bread."
    edited.append(edited[0] | {"pair_id": "new", "question": "Is bread hard to make?"})
    report = make_ingest(store, encoder).run([write_rows(edited)])
    assert (report.added, report.updated, report.unchanged) == (1, 1, 23)
    assert sorted(encoder.encoded) == ["An edited answer about bread.", "Is bread hard to make?"]
    answers = {row.stored.pair.answer for row in stored(store, store.live("things"))}
    assert "An edited answer about bread." in answers
    assert rows()[3]["answer"] not in answers


def test_edited_fields_other_than_texts_update_without_encoding(edge, encoder, make_ingest, write_rows, rows):
    make_ingest(edge, encoder).run([write_rows(rows())])
    encoder.encoded = []
    edited = rows()
    edited[0]["related_docs"] = ["baking.md"]
    report = make_ingest(edge, encoder).run([write_rows(edited)])
    assert (report.updated, report.unchanged, report.encoded) == (1, 23, 0)
    assert encoder.encoded == []


def test_files_are_added_unless_they_replace(store, encoder, make_ingest, write_rows, rows):
    make_ingest(store, encoder).run([write_rows(rows(["bread", "wine"]))])
    added = make_ingest(store, encoder).run([write_rows(rows(["steel"]), "more.jsonl")])
    assert (added.added, added.removed, added.pairs) == (4, 0, 12)
    assert store.metadata(store.live("things")).sources == ("pairs.jsonl", "more.jsonl")
    replaced = make_ingest(store, encoder).run([write_rows(rows(["steel"]), "more.jsonl")], replace=True)
    assert (replaced.unchanged, replaced.removed, replaced.pairs, replaced.encoded) == (4, 8, 4, 0)
    assert {row.stored.pair.cluster_id for row in stored(store, store.live("things"))} == {"make_steel"}


def test_bad_rows_are_reported_and_the_rest_lives(edge, encoder, make_ingest, tmp_path, rows):
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join([json.dumps(rows()[0]), "{broken", json.dumps({"question": "q"}), json.dumps(rows()[1])]))
    report = make_ingest(edge, encoder).run([path])
    assert report.pairs == 2
    assert [(bad.line, bad.field) for bad in report.rejected] == [(2, None), (3, "answer")]


def test_a_file_without_a_good_line_is_passed_over_unless_that_would_cost_pairs(
    edge, encoder, make_ingest, write_rows, rows, tmp_path
):
    bad, more = write_rows(rows(["bread"]), "bad.jsonl"), write_rows(rows(["steel"]), "more.jsonl")
    before = make_ingest(edge, encoder).run([bad]).build
    bad.write_text("{}\n")
    with pytest.raises(CorpusError, match="holds no pair; line 1: unknown shape"):
        make_ingest(edge, encoder).run([bad])
    for option in ("strict", "replace"):
        with pytest.raises(
            CorpusError, match=rf"1 of 2 files holds nothing good, and `--{option}` .*: bad\.jsonl holds"
        ):
            make_ingest(edge, encoder).run([bad, more], **{option: True})
    assert edge.live("things").build == before
    report = make_ingest(edge, encoder).run([bad, more])
    assert (report.added, report.pairs) == (4, 8)
    assert [(one.file, one.reason[:12]) for one in report.bad_files] == [("bad.jsonl", "holds no pai")]
    assert [(one.file, one.format, one.read) for one in report.files] == [
        ("more.jsonl", "JSON Lines", 4),
        ("bad.jsonl", "JSON Lines", 0),
    ]
    readme = tmp_path / "README.md"
    readme.write_text("# Notes\n")
    assert make_ingest(edge, encoder).run([readme, more], replace=True).removed == 4


def test_another_encoder_is_refused_with_both_named(edge, encoder, make_encoder, make_ingest, write_rows, rows):
    path = write_rows(rows())
    make_ingest(edge, encoder).run([path])
    with pytest.raises(EncoderMismatchError, match=r"made with fake \(D 48.*the setting is other \(D 32") as refused:
        make_ingest(edge, make_encoder("other", 32)).run([path])
    assert "QASERVE_ENCODER to that of fake" in refused.value.hint


def test_a_crash_at_any_step_leaves_the_live_build_and_the_next_run_cleans_up(
    store, encoder, make_ingest, write_rows, rows, models
):
    make_ingest(store, encoder).run([write_rows(rows(["bread", "wine"]))])
    before = snapshot(store)
    more = write_rows(rows(), "more.jsonl")
    for step in STEPS[: STEPS.index("swapped")]:
        with dying_at(step), pytest.raises(Died):
            make_ingest(store, encoder).run([more])
        assert snapshot(store) == before, step
    report = make_ingest(store, encoder).run([more])
    assert report.pairs == 24
    assert all(build.complete for build in list_builds(store, models, "things"))
    assert len(list_builds(store, models, "things")) == 2
    assert store.unfinished("things") == []


def test_an_orphan_of_other_content_is_removed_and_said(edge, encoder, make_ingest, write_rows, rows, monkeypatch):
    def full(*_, **__):
        raise StoreWriteError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(bundles, "write", full)
        patch.setattr(edge, "delete", full)
        with pytest.raises(StoreWriteError, match="disk full"):
            make_ingest(edge, encoder).run([write_rows(rows(["bread"]))])
    (orphan,) = edge.names("things")
    report = make_ingest(edge, encoder).run([write_rows(rows(["wine"]))])
    assert report.cleaned == (orphan,)
    assert [found.build for found in edge.builds("things")] == [report.build]


def test_a_wrong_folder_of_bundles_deletes_no_build(edge, encoder, make_ingest, write_rows, rows, models):
    first = make_ingest(edge, encoder).run([write_rows(rows(["bread"]))]).build
    second = make_ingest(edge, encoder).run([write_rows(rows(["wine"]))]).build
    models.rename(models.with_name("elsewhere"))
    report = make_ingest(edge, encoder).run([write_rows(rows(["wine"]))])
    assert report.cleaned == ()
    assert {first, second} <= {found.build for found in edge.builds("things")}


def test_a_failure_tidies_up_after_itself(edge, encoder, make_ingest, write_rows, rows, monkeypatch):
    def full(*_, **__):
        raise StoreWriteError("disk full")

    monkeypatch.setattr(bundles, "write", full)
    with pytest.raises(StoreWriteError, match="disk full"):
        make_ingest(edge, encoder).run([write_rows(rows())])
    assert edge.builds("things") == []
    assert edge.live_builds() == {}


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors"])
def test_a_damaged_live_bundle_is_made_again_by_the_same_file(
    store, encoder, make_ingest, write_rows, rows, models, name
):
    path = write_rows(rows())
    build = make_ingest(store, encoder).run([path]).build
    (bundles.folder_of(models, BuildRef("things", build)) / name).write_bytes(b"damaged")
    encoder.encoded = []
    report = make_ingest(store, encoder).run([path])
    assert report.unchanged == 24
    assert encoder.encoded == []
    bundles.read(models, store.live("things"))
    assert all(found.complete for found in list_builds(store, models, "things") if found.live)


def test_a_live_build_that_lost_pairs_is_not_added_to_and_made_again_by_replacing_it(
    store, encoder, make_ingest, write_rows, rows, models
):
    path = write_rows(rows())
    build = make_ingest(store, encoder).run([path]).build
    said = lose_points(store, store.live("things"))
    for change in (
        lambda: make_ingest(store, encoder).run([path]),
        lambda: make_ingest(store, encoder).run([path], dry_run=True),
        lambda: make_ingest(store, encoder).run(re_encode=True),
        lambda: make_ingest(store, encoder).remove(Selection(ids=("bread_q0",))),
    ):
        with pytest.raises(DamagedBuildError, match=said) as refused:
            change()
        assert "`qaserve ingest --replace`" in refused.value.hint
        assert "`qaserve builds activate`" in refused.value.hint
    report = make_ingest(store, encoder).run([path], replace=True)
    assert (report.added, report.pairs, report.build) == (24, 24, build)
    assert len(stored(store, store.live("things"))) == 24
    assert [(found.build, found.live, found.complete) for found in list_builds(store, models, "things")] == [
        (build, True, True)
    ]
    verify(store, models, store.live("things"))


def test_a_live_build_whose_folder_is_gone_is_said_and_made_again_by_replacing_it(
    edge, encoder, make_ingest, write_rows, rows, models, tmp_path
):
    path = write_rows(rows())
    build = make_ingest(edge, encoder).run([path]).build
    shutil.rmtree(tmp_path / "data" / "things" / build)
    with pytest.raises(DamagedBuildError, match=f"^build things@{build} is damaged: it is live, and it is not") as told:
        make_ingest(edge, encoder).run([path])
    assert "`qaserve ingest --replace`" in told.value.hint
    assert make_ingest(edge, encoder).run([path], replace=True).build == build
    verify(edge, models, edge.live("things"))


def test_going_back_to_an_earlier_build_and_pruning(store, encoder, make_ingest, write_rows, rows, models):
    first = make_ingest(store, encoder).run([write_rows(rows(["bread"]))]).build
    second = make_ingest(store, encoder).run([write_rows(rows(["wine"]))]).build
    third = make_ingest(store, encoder).run([write_rows(rows(["steel"]))]).build
    assert [(found.build, found.live) for found in list_builds(store, models, "things")] == [
        (third, True), (second, False), (first, False)
    ]  # fmt: skip
    activate(store, models, BuildRef("things", first))
    assert store.live("things").build == first
    assert prune(store, models, "things", keep=1) == [second]
    assert {found.build for found in list_builds(store, models, "things")} == {first, third}
    assert not bundles.folder_of(models, BuildRef("things", second)).exists()


def test_an_incomplete_build_cannot_be_made_live(store, encoder, make_ingest, write_rows, rows, models):
    first = make_ingest(store, encoder).run([write_rows(rows(["bread"]))]).build
    second = make_ingest(store, encoder).run([write_rows(rows(["wine"]))]).build
    said = lose_points(store, BuildRef("things", first))
    with pytest.raises(DamagedBuildError, match="is damaged: "):
        activate(store, models, BuildRef("things", first))
    with pytest.raises(DamagedBuildError, match=said):
        store.open(BuildRef("things", first))
    assert store.live("things").build == second
    assert [found.complete for found in list_builds(store, models, "things")] == [True, False]


def test_a_damaged_build_is_no_obstacle_to_making_it_again(store, encoder, make_ingest, write_rows, rows, models):
    bread, wine = write_rows(rows(["bread"]), "bread.jsonl"), write_rows(rows(["wine"]), "wine.jsonl")
    first = make_ingest(store, encoder).run([bread]).build
    make_ingest(store, encoder).run([wine], replace=True)
    lose_points(store, BuildRef("things", first))
    assert make_ingest(store, encoder).run([bread], replace=True).build == first
    assert store.live("things").build == first
    verify(store, models, store.live("things"))


def test_the_content_of_an_earlier_build_is_only_made_live_again(store, encoder, make_ingest, write_rows, rows):
    bread = write_rows(rows(["bread", "wine"]))
    first = make_ingest(store, encoder).run([bread]).build
    make_ingest(store, encoder).run([write_rows(rows(["steel"]), "steel.jsonl")], replace=True)
    encoder.encoded = []
    report = make_ingest(store, encoder).run([bread], replace=True)
    assert store.live("things").build == report.build == first
    assert len(store.builds("things")) == 2


def test_edges_of_a_corpus_are_answered(edge, encoder, make_ingest, write_rows, tmp_path):
    from qaserve.search.engine import Engine

    one = [{"question": "only one?", "answer": "yes, one"}]
    same = [{"question": f"question {n}", "answer": "one and the same answer"} for n in range(5)]
    for name, rows in (("one", one), ("same", same)):
        report = make_ingest(edge, encoder, name).run([write_rows(rows, f"{name}.jsonl")])
        assert report.clusters == 1
        result = Engine(edge, encoder, tmp_path / "models", name).ask(AskRequest(question="only one?"))
        assert len(result.answers) == 1


def test_an_encoder_that_fails_leaves_the_live_build(edge, encoder, make_ingest, write_rows, rows, monkeypatch):
    make_ingest(edge, encoder).run([write_rows(rows(["bread"]))])
    before = snapshot(edge)

    def fail(*_, **__):
        raise EncoderError("no usable vector")

    monkeypatch.setattr(encoder, "encode_answers", fail)
    with pytest.raises(EncoderError, match="no usable vector"):
        make_ingest(edge, encoder).run([write_rows(rows())])
    assert snapshot(edge) == before


def test_numbers_are_chosen_where_that_is_quick_and_kept_where_it_is_not(
    edge, encoder, make_ingest, write_rows, rows, tmp_path
):
    many = rows([f"thing{number}" for number in range(32)])
    first = make_ingest(edge, encoder).run([write_rows(many)])
    manifest = bundles.read(tmp_path / "models", BuildRef("things", first.build)).manifest
    assert manifest.tuning is not None
    assert manifest.hyperparameters.regularization == manifest.tuning.chosen.regularization
    again = make_ingest(edge, encoder).run([write_rows(many)])
    assert again.build == first.build, "the same again changes nothing"
    more = write_rows(rows(["amber"]), "more.jsonl")
    kept = make_ingest(edge, encoder, tune_pairs=10).run([more])
    later = bundles.read(tmp_path / "models", BuildRef("things", kept.build)).manifest
    assert later.tuning is None
    assert later.hyperparameters == manifest.hyperparameters


# Of equal rows


def test_a_file_with_only_the_second_of_two_equal_rows_does_not_overwrite_the_first(
    edge, encoder, make_ingest, write_rows, rows
):
    first, second = rows()[0] | {"answer": "the one answer"}, rows()[0] | {"answer": "quite another text"}
    make_ingest(edge, encoder).run([write_rows([first, second])])
    again = make_ingest(edge, encoder).run([write_rows([second])])
    assert (again.unchanged, again.updated, again.pairs) == (1, 0, 2)
    edited = make_ingest(edge, encoder).run([write_rows([second | {"answer": "quite another text, edited"}])])
    assert (edited.updated, edited.added, edited.pairs) == (1, 0, 2)
    answers = {row.stored.pair.answer for row in stored(edge, edge.live("things"))}
    assert answers == {"the one answer", "quite another text, edited"}


# What the report says


def test_the_report_says_where_every_change_comes_from_and_what_differs(edge, encoder, make_ingest, write_rows, rows):
    make_ingest(edge, encoder).run([write_rows(rows(["bread", "wine"]))])
    edited = rows(["bread"])
    edited[1]["answer"] = edited[1]["answer"].replace("heat it", "chill it for long")
    edited[2]["tags"] = ["x"]
    paths = [write_rows(edited), write_rows(rows(["steel"]), "metal.jsonl")]
    report = make_ingest(edge, encoder).run(paths, replace=True)
    assert [(one.pair_id, one.file, one.line) for one in sorted(report.changes.updated, key=lambda one: one.line)] == [
        ("bread_q1", "pairs.jsonl", 2), ("bread_q2", "pairs.jsonl", 3)
    ]  # fmt: skip
    assert {(one.file, one.line) for one in report.changes.added} == {("metal.jsonl", n) for n in (1, 2, 3, 4)}
    assert {one.pair_id for one in report.changes.removed} == {f"wine_q{n}" for n in range(4)}
    edits = {one.pair_id: one for one in report.edits}
    assert edits["bread_q1"].fields == ("answer",)
    assert "heat it" in edits["bread_q1"].before
    assert "chill it for long" in edits["bread_q1"].after
    assert edits["bread_q2"].fields == ("tags",)
    assert edits["bread_q2"].before is None
    assert [(one.file, one.read, one.added, one.updated, one.unchanged) for one in report.files] == [
        ("pairs.jsonl", 4, 0, 2, 2), ("metal.jsonl", 4, 4, 0, 0)
    ]  # fmt: skip


X, Y = "x", "y"
WORDS, LEFT, RIGHT = " word" * 30 + " ", "…" + "word " * 7, " word" * 7 + "…"


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("same head A same tail", "same head BB same tail", ("same head A same tail", "same head BB same tail")),
        ("ab", "abc", ("ab", "abc")),
        (f"{WORDS}one{WORDS}", f"{WORDS}2{WORDS}", (f"{LEFT}one{RIGHT}", f"{LEFT}2{RIGHT}")),
        ("aa", "aaa", ("aa", "aaa")),
        (f"{X * 99}A{Y * 99}", f"{X * 99}{Y * 99}", (f"…{X * 40}A{Y * 40}…", f"…{X * 40}{Y * 40}…")),
    ],
)
def test_an_edit_shows_what_differs_with_a_little_context(before, after, shown):
    assert _around(before, after) == shown


def test_a_long_edit_is_cut(edge, encoder, make_ingest, write_rows, rows):
    path = write_rows(rows(["bread"]))
    make_ingest(edge, encoder).run([path])
    edited = rows(["bread"])
    edited[0]["answer"] = "another " * 500
    report = make_ingest(edge, encoder).run([write_rows(edited)])
    assert 390 < len(report.edits[0].after) <= 400
    assert report.edits[0].after.endswith(" another…"), "whole words"


# Another encoder


def test_re_encoding_is_the_way_to_another_encoder(store, encoder, make_encoder, make_ingest, write_rows, rows):
    make_ingest(store, encoder).run([write_rows(rows(["bread", "wine"]))])
    names = {row.stored.pair.pair_id: row.stored.cluster for row in stored(store, store.live("things"))}
    other = make_encoder("other", 32)
    more = write_rows(rows(["steel"]), "metal.jsonl")
    with pytest.raises(EncoderMismatchError, match="made with fake") as refused:
        make_ingest(store, other).run([more])
    assert "--re-encode" in refused.value.hint
    report = make_ingest(store, other).run([more], re_encode=True)
    assert (report.added, report.pairs, report.encoded) == (4, 12, 24 + 3)
    live = store.live("things")
    assert store.metadata(live).encoder == other.identity
    found = stored(store, live)
    for row in found:
        np.testing.assert_allclose(row.question, other.encode_questions([row.stored.pair.question])[0], atol=1e-6)
    assert {row.stored.pair.pair_id for row in found} > set(names)
    assert report.cluster_changes.reclustered


def test_re_encoding_needs_no_files_and_changes_no_pair(edge, encoder, make_ingest, write_rows, rows):
    first = make_ingest(edge, encoder).run([write_rows(rows())])
    encoder.encoded = []
    report = make_ingest(edge, encoder).run(re_encode=True)
    assert (report.read, report.pairs, report.encoded, len(encoder.encoded)) == (0, 24, 54, 54)
    assert edge.metadata(BuildRef("things", report.build)).sources == ("pairs.jsonl",)
    assert {row.stored.id for row in stored(edge, BuildRef("things", report.build))} == {
        row.stored.id for row in stored(edge, BuildRef("things", first.build))
    }


def test_what_cannot_be_meant_is_refused(edge, encoder, make_ingest):
    with pytest.raises(UsageError, match="nothing is named to ingest"):
        make_ingest(edge, encoder).run()
    with pytest.raises(UsageError, match="nothing is named to ingest"):
        make_ingest(edge, encoder).run(replace=True, re_encode=True)
    with pytest.raises(NotFoundError, match="no live build, whose pairs are needed"):
        make_ingest(edge, encoder).run(re_encode=True)


# Order of builds


def test_builds_are_in_order_where_the_clock_goes_backwards(
    edge, encoder, make_ingest, write_rows, rows, models, monkeypatch
):
    made = []
    for time, thing in (
        ("2030-01-02", "bread"),
        ("2030-01-01", "wine"),
        ("2030-01-01", "steel"),
        ("2031-01-01", "glass"),
    ):
        monkeypatch.setattr("ingest.builder.now", lambda time=time: f"{time}T00:00:00.000000+00:00")
        made.append(make_ingest(edge, encoder).run([write_rows(rows([thing]), f"{thing}.jsonl")]).build)
    listed = list_builds(edge, models, "things")
    assert [found.build for found in listed] == made[::-1]
    assert listed[1].created == "2030-01-02T00:00:00.000002+00:00"
    assert prune(edge, models, "things", keep=1) == [made[1], made[0]]


def test_an_orphan_is_pruned_and_takes_no_place_of_a_build_that_is_kept(
    store, encoder, make_ingest, write_rows, rows, models
):
    kept = make_ingest(store, encoder).run([write_rows(rows(["bread"]))]).build
    live = make_ingest(store, encoder).run([write_rows(rows(["wine"]))]).build
    with dying_at("bundle begun"), pytest.raises(Died):
        make_ingest(store, encoder).run([write_rows(rows(["steel"]))])
    (orphan,) = set(store.names("things")) - {kept, live}
    assert prune(store, models, "things", keep=1) == [orphan]
    assert sorted(store.names("things")) == sorted([kept, live])


# History


def test_numbers_are_kept_with_the_clusters_and_chosen_anew_with_them(
    edge, encoder, make_ingest, write_rows, rows, models
):
    many = rows([f"thing{number}" for number in range(32)])
    first = make_ingest(edge, encoder).run([write_rows(many)])
    more = rows(["thing1"])[0] | {"pair_id": "more", "question": "thing1 once more"}
    kept = make_ingest(edge, encoder).run([write_rows([more], "more.jsonl")])
    assert not kept.cluster_changes.reclustered
    assert "choose" not in kept.stages
    old, new = (bundles.read(models, BuildRef("things", report.build)).manifest for report in (first, kept))
    assert (new.hyperparameters, new.calibration) == (old.hyperparameters, old.calibration)
    assert new.clustering.changed == 1
    anew = make_ingest(edge, encoder).run([write_rows(rows([f"other{n}" for n in range(16)]), "other.jsonl")])
    assert anew.cluster_changes.reclustered
    assert "choose" in anew.stages
    precise = make_ingest(edge, encoder, precision=0.8).run([write_rows(many)])
    assert "choose" in precise.stages, "another setting is another choice"
