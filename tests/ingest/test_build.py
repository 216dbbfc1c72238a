import json

import numpy as np
import pytest

from qaserve import bundle as bundles
from qaserve.builds import activate, list_builds, prune
from qaserve.errors import CorpusError, EncoderError, EncoderMismatchError, StoreWriteError, UsageError
from qaserve.records import AskRequest


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


def snapshot(store, corpus="things"):
    """Everything that a reader of the live build could see."""
    build = store.live(corpus)
    return build, [(row.stored, row.question.tobytes(), row.answer.tobytes()) for row in store.scroll(corpus, build)]


def test_every_row_becomes_a_point_with_its_vectors_and_cluster(store, encoder, make_ingest, write_rows, rows, models):
    report = make_ingest(store, encoder).run([write_rows(rows())])
    assert (report.read, report.added, report.pairs, report.removed, report.unchanged) == (24, 24, 24, 0, 0)
    build = store.live("things")
    assert build == report.build
    manifest = bundles.read(models, "things", build).manifest
    found = list(store.scroll("things", build))
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


def test_the_same_input_gives_the_same_bytes(memory, encoder, make_ingest, write_rows, rows, models, tmp_path):
    from qaserve.store import memory_store

    path = write_rows(rows())
    first = make_ingest(memory, encoder).run([path]).build
    folder = bundles.folder_of(models, "things", first)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    bundles.remove(models, "things", first)
    with memory_store() as other:
        assert make_ingest(other, encoder).run([path]).build == first
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_other_settings_make_another_build_of_the_same_pairs(memory, encoder, make_ingest, write_rows, rows, models):
    path = write_rows(rows())
    first = make_ingest(memory, encoder).run([path])
    encoder.encoded = []
    second = make_ingest(memory, encoder, max_clusters=2).run([path])
    assert (second.unchanged, second.clusters, encoder.encoded) == (24, 2, [])
    assert second.build != first.build
    assert memory.live("things") == second.build
    assert len(bundles.read(models, "things", second.build).manifest.clusters) == 2


def test_rows_that_share_pair_id_and_question_all_live(memory, encoder, make_ingest, write_rows, rows):
    twins = [rows()[0] | {"answer": f"answer number {number}"} for number in range(3)]
    report = make_ingest(memory, encoder).run([write_rows(rows() + twins)])
    assert report.pairs == 27
    assert report.repeats == 3
    assert report.conflicts == 1
    assert report.repeated_questions[0].answers == 4
    assert [row.line for row in report.repeated_questions[0].rows] == [1, 25, 26, 27]


def test_only_new_and_edited_texts_are_encoded(store, encoder, make_ingest, write_rows, rows):
    make_ingest(store, encoder).run([write_rows(rows())])
    encoder.encoded = []
    edited = rows()
    edited[3]["answer"] = "An edited answer about bread."
    edited.append(edited[0] | {"pair_id": "new", "question": "Is bread hard to make?"})
    report = make_ingest(store, encoder).run([write_rows(edited)])
    assert (report.added, report.updated, report.unchanged) == (1, 1, 23)
    assert sorted(encoder.encoded) == ["An edited answer about bread.", "Is bread hard to make?"]
    answers = {row.stored.pair.answer for row in store.scroll("things", store.live("things"))}
    assert "An edited answer about bread." in answers
    assert rows()[3]["answer"] not in answers


def test_edited_fields_other_than_texts_update_without_encoding(memory, encoder, make_ingest, write_rows, rows):
    make_ingest(memory, encoder).run([write_rows(rows())])
    encoder.encoded = []
    edited = rows()
    edited[0]["topics"] = ["baking"]
    report = make_ingest(memory, encoder).run([write_rows(edited)])
    assert (report.updated, report.unchanged, report.encoded) == (1, 23, 0)
    assert encoder.encoded == []


def test_files_are_added_unless_they_replace(store, encoder, make_ingest, write_rows, rows):
    make_ingest(store, encoder).run([write_rows(rows(["bread", "wine"]))])
    added = make_ingest(store, encoder).run([write_rows(rows(["steel"]), "more.jsonl")])
    assert (added.added, added.removed, added.pairs) == (4, 0, 12)
    assert store.info("things", store.live("things")).sources == ("pairs.jsonl", "more.jsonl")
    replaced = make_ingest(store, encoder).run([write_rows(rows(["steel"]), "more.jsonl")], replace=True)
    assert (replaced.unchanged, replaced.removed, replaced.pairs, replaced.encoded) == (4, 8, 4, 0)
    assert {row.stored.pair.cluster_id for row in store.scroll("things", store.live("things"))} == {"make_steel"}


def test_a_dry_run_says_the_same_and_does_nothing(store, encoder, make_ingest, write_rows, rows, models):
    make_ingest(store, encoder).run([write_rows(rows(["bread", "wine"]))])
    before, encoder.encoded = snapshot(store), []
    path = write_rows(rows(["wine", "steel"]), "other.jsonl")
    planned = make_ingest(store, encoder).run([path], replace=True, dry_run=True)
    assert planned.build is None
    assert encoder.encoded == []
    assert snapshot(store) == before
    done = make_ingest(store, encoder).run([path], replace=True)
    for field in ("read", "added", "updated", "unchanged", "removed", "repeats", "conflicts", "pairs"):
        assert getattr(planned, field) == getattr(done, field)


def test_bad_rows_are_reported_and_the_rest_lives(memory, encoder, make_ingest, tmp_path, rows):
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join([json.dumps(rows()[0]), "{broken", json.dumps({"question": "q"}), json.dumps(rows()[1])]))
    report = make_ingest(memory, encoder).run([path])
    assert report.pairs == 2
    assert [(bad.line, bad.field) for bad in report.rejected] == [(2, None), (3, "answer")]


def test_a_file_without_a_good_line_changes_nothing(store, encoder, make_ingest, write_rows, rows, tmp_path):
    make_ingest(store, encoder).run([write_rows(rows())])
    before = snapshot(store)
    (tmp_path / "bad.jsonl").write_text("{}\n")
    with pytest.raises(CorpusError, match="not one good line"):
        make_ingest(store, encoder).run([tmp_path / "bad.jsonl", write_rows(rows(["steel"]), "more.jsonl")])
    assert snapshot(store) == before


def test_another_encoder_is_refused_with_both_named(memory, encoder, make_encoder, make_ingest, write_rows, rows):
    path = write_rows(rows())
    make_ingest(memory, encoder).run([path])
    with pytest.raises(EncoderMismatchError, match=r"made with fake \(D 48.*the setting is other \(D 32") as refused:
        make_ingest(memory, make_encoder("other", 32)).run([path])
    assert "QASERVE_ENCODER to that of fake" in refused.value.hint


class Crash(BaseException):
    """Stands for what no handler catches."""


def test_a_crash_at_any_step_leaves_the_live_build_and_the_next_run_cleans_up(
    store, encoder, make_ingest, write_rows, rows, models, monkeypatch
):
    make_ingest(store, encoder).run([write_rows(rows(["bread", "wine"]))])
    before = snapshot(store)
    more = write_rows(rows(), "more.jsonl")
    steps = [
        (store, "create"), (store, "_upsert"), (bundles, "write"), (store, "activate"), (encoder, "encode_answers")
    ]  # fmt: skip
    for owner, name in steps:

        def crash(*_, **__):
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, crash)
            patch.setattr(store, "delete", crash)  # a dead process tidies nothing up
            with pytest.raises(Crash):
                make_ingest(store, encoder).run([more])
        assert snapshot(store) == before, name
    report = make_ingest(store, encoder).run([more])
    assert report.pairs == 24
    assert all(build.complete for build in list_builds(store, models, "things"))
    assert len(list_builds(store, models, "things")) == 2


def test_an_orphan_of_other_content_is_removed_and_said(memory, encoder, make_ingest, write_rows, rows, monkeypatch):
    def full(*_, **__):
        raise StoreWriteError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(bundles, "write", full)
        patch.setattr(memory, "delete", full)
        with pytest.raises(StoreWriteError, match="disk full"):
            make_ingest(memory, encoder).run([write_rows(rows(["bread"]))])
    orphan = memory.builds("things")[0].build
    report = make_ingest(memory, encoder).run([write_rows(rows(["wine"]))])
    assert report.cleaned == (orphan,)
    assert [found.build for found in memory.builds("things")] == [report.build]


def test_a_wrong_folder_of_bundles_deletes_no_build(memory, encoder, make_ingest, write_rows, rows, models):
    first = make_ingest(memory, encoder).run([write_rows(rows(["bread"]))]).build
    second = make_ingest(memory, encoder).run([write_rows(rows(["wine"]))]).build
    models.rename(models.with_name("elsewhere"))
    report = make_ingest(memory, encoder).run([write_rows(rows(["wine"]))])
    assert report.cleaned == ()
    assert {first, second} <= {found.build for found in memory.builds("things")}


def test_a_failure_tidies_up_after_itself(memory, encoder, make_ingest, write_rows, rows, monkeypatch):
    def full(*_, **__):
        raise StoreWriteError("disk full")

    monkeypatch.setattr(bundles, "write", full)
    with pytest.raises(StoreWriteError, match="disk full"):
        make_ingest(memory, encoder).run([write_rows(rows())])
    assert memory.builds("things") == []
    assert memory.live_builds() == {}


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors"])
def test_a_damaged_live_bundle_is_made_again_by_the_same_file(
    store, encoder, make_ingest, write_rows, rows, models, name
):
    path = write_rows(rows())
    build = make_ingest(store, encoder).run([path]).build
    (bundles.folder_of(models, "things", build) / name).write_bytes(b"damaged")
    encoder.encoded = []
    report = make_ingest(store, encoder).run([path])
    assert report.unchanged == 24
    assert encoder.encoded == []
    bundles.read(models, "things", store.live("things"))
    assert all(found.complete for found in list_builds(store, models, "things") if found.live)


def test_pairs_lost_from_the_live_collection_are_put_back(memory, encoder, make_ingest, write_rows, rows, models):
    path = write_rows(rows())
    build = make_ingest(memory, encoder).run([path]).build
    lost = next(iter(memory.scroll("things", build))).stored.id
    memory._client.delete("things", points_selector=[lost])
    report = make_ingest(memory, encoder).run([path])
    assert (report.added, report.unchanged) == (1, 23)
    live = memory.live("things")
    assert memory.count("things", live) == 24
    assert next(found for found in list_builds(memory, models, "things") if found.live).complete


def test_going_back_to_an_earlier_build_and_pruning(store, encoder, make_ingest, write_rows, rows, models):
    first = make_ingest(store, encoder).run([write_rows(rows(["bread"]))]).build
    second = make_ingest(store, encoder).run([write_rows(rows(["wine"]))]).build
    third = make_ingest(store, encoder).run([write_rows(rows(["steel"]))]).build
    assert [(found.build, found.live) for found in list_builds(store, models, "things")] == [
        (third, True), (second, False), (first, False)
    ]  # fmt: skip
    activate(store, models, "things", first)
    assert store.live("things") == first
    assert prune(store, models, "things", keep=1) == [second]
    assert {found.build for found in list_builds(store, models, "things")} == {first, third}
    assert not bundles.folder_of(models, "things", second).exists()


def test_an_incomplete_build_cannot_be_made_live(memory, encoder, make_ingest, write_rows, rows, models):
    first = make_ingest(memory, encoder).run([write_rows(rows(["bread"]))]).build
    second = make_ingest(memory, encoder).run([write_rows(rows(["wine"]))]).build
    lost = next(iter(memory.scroll("things", first))).stored.id
    memory._client.delete(f"things@{first}", points_selector=[lost])
    with pytest.raises(UsageError, match="3 of 4 pairs are in its collection"):
        activate(memory, models, "things", first)
    assert memory.live("things") == second


def test_the_content_of_an_earlier_build_is_only_made_live_again(store, encoder, make_ingest, write_rows, rows):
    bread = write_rows(rows(["bread", "wine"]))
    first = make_ingest(store, encoder).run([bread]).build
    make_ingest(store, encoder).run([write_rows(rows(["steel"]), "steel.jsonl")], replace=True)
    encoder.encoded = []
    report = make_ingest(store, encoder).run([bread], replace=True)
    assert store.live("things") == report.build == first
    assert len(store.builds("things")) == 2


def test_edges_of_a_corpus_are_answered(memory, encoder, make_ingest, write_rows, tmp_path):
    from qaserve.engine import Engine

    one = [{"question": "only one?", "answer": "yes, one"}]
    same = [{"question": f"question {n}", "answer": "one and the same answer"} for n in range(5)]
    for name, rows in (("one", one), ("same", same)):
        report = make_ingest(memory, encoder, name).run([write_rows(rows, f"{name}.jsonl")])
        assert report.clusters == 1
        result = Engine(memory, encoder, tmp_path / "models", name).ask(AskRequest(question="only one?"))
        assert len(result.answers) == 1


def test_an_encoder_that_fails_leaves_the_live_build(memory, encoder, make_ingest, write_rows, rows, monkeypatch):
    make_ingest(memory, encoder).run([write_rows(rows(["bread"]))])
    before = snapshot(memory)

    def fail(*_, **__):
        raise EncoderError("no usable vector")

    monkeypatch.setattr(encoder, "encode_answers", fail)
    with pytest.raises(EncoderError, match="no usable vector"):
        make_ingest(memory, encoder).run([write_rows(rows())])
    assert snapshot(memory) == before


def test_numbers_are_chosen_where_that_is_quick_and_kept_where_it_is_not(
    memory, encoder, make_ingest, write_rows, rows, tmp_path
):
    many = rows([f"thing{number}" for number in range(32)])
    first = make_ingest(memory, encoder).run([write_rows(many)])
    manifest = bundles.read(tmp_path / "models", "things", first.build).manifest
    assert manifest.tuning is not None
    assert manifest.anchor == manifest.tuning.chosen.anchor
    again = make_ingest(memory, encoder).run([write_rows(many)])
    assert again.build == first.build, "the same again changes nothing"
    more = write_rows(rows(["amber"]), "more.jsonl")
    kept = make_ingest(memory, encoder, tune_pairs=10).run([more])
    later = bundles.read(tmp_path / "models", "things", kept.build).manifest
    assert later.tuning is None
    assert (later.anchor, later.defaults) == (manifest.anchor, manifest.defaults)
