"""A dry run says everything that the real run then does, and does nothing."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, FakeEncoder, Silent, rows_about
from store_builds import stored

from ingest.builder import Builder
from ingest.golden import golden_file
from ingest.pipeline import Ingest
from ingest.selection import Selection
from qaserve.builds import bundle as bundles
from qaserve.common.errors import CorpusError, EncoderMismatchError, QualityError, StoreWriteError
from qaserve.common.failpoints import STEPS, armed
from qaserve.settings import FitSettings, ReadSettings, StoreSettings
from qaserve.store import BuildRef, open_store
from qaserve.store.build_files import REWRITTEN

MANY = [f"thing{number}" for number in range(24)]
TOLD_APART = {"dry_run", "seconds", "stages"}
"""What alone may differ between a dry run's report and that of the real run after it."""


@pytest.fixture
def many(rows):
    return rows(MANY)


@pytest.fixture
def shuffled(many, rng):
    """The same questions with the answers of others."""
    answers = [many[row]["answer"] for row in rng.permutation(len(many))]
    return [row | {"answer": answer} for row, answer in zip(many, answers, strict=True)]


@pytest.fixture
def corpus(store, encoder, make_builder, tmp_path):
    """Ingest of corpus `things`, with a data folder."""

    def make(**fit):
        return Ingest(make_builder(store, encoder, **fit), encoder, ReadSettings(), tmp_path / "data")

    return make


def dumped(report):
    return report.model_dump(exclude=TOLD_APART)


def snapshot(store):
    """Every build, with all that is in it."""
    return store.live_builds(), {
        info: [
            (row.stored, row.question.tobytes(), row.answer.tobytes())
            for row in stored(store, BuildRef("things", info.build))
        ]
        for info in store.builds("things")
    }


def bytes_of(*folders: Path) -> dict[str, bytes]:
    """Every file and folder, a file by its hash; but not the note of who holds a lock, which a killed process leaves.

    Two small files of a shard are written again whenever it is opened, with the same content in another order.
    """

    def content(path: Path) -> bytes:
        if path.name in REWRITTEN:
            return json.dumps(json.loads(path.read_text()), sort_keys=True).encode()
        return hashlib.sha256(path.read_bytes()).digest()

    return {
        str(path): content(path) if path.is_file() else b""
        for folder in folders
        for path in folder.rglob("*")
        if path.name != "holder.json"
    }


@pytest.mark.parametrize("replace", [False, True])
def test_it_says_what_the_real_run_says(store, corpus, write_rows, many, rows, replace, tmp_path):
    corpus().run([write_rows(many)])
    edited = many[:40]
    edited[3] = edited[3] | {"answer": "Something quite different about steam engines."}
    path = write_rows([*edited, *rows(["amber", "brass"])], "more.jsonl")
    before, files = snapshot(store), bytes_of(tmp_path / "models")
    planned = corpus().run([path], replace=replace, dry_run=True)
    assert snapshot(store) == before
    assert bytes_of(tmp_path / "models") == files
    done = corpus().run([path], replace=replace)
    assert dumped(planned) == dumped(done)
    assert store.live("things").build == planned.build
    assert planned.dry_run
    assert planned.gate.held_out.questions > 0
    assert planned.cluster_changes is not None
    assert planned.encoded == 17 + 2  # topics of two things
    assert set(done.stages) - set(planned.stages) == {"write", "seal"}


def test_the_first_ingest_is_foretold_too(store, corpus, write_rows, many):
    planned = corpus().run([write_rows(many)], dry_run=True)
    assert store.builds("things") == []
    done = corpus().run([write_rows(many)])
    assert dumped(planned) == dumped(done)
    assert (planned.gate, planned.cluster_changes, planned.params.live) == (None, None, None)
    assert planned.params.new.search.hits > 0


def test_a_removal_and_a_re_encoding_are_foretold(store, encoder, corpus, make_builder, write_rows, many, tmp_path):
    corpus().run([write_rows(many)])
    chosen = Selection(filters={"topics": ("thing3",)})
    planned = corpus().remove(chosen, dry_run=True)
    assert dumped(planned) == dumped(corpus().remove(chosen))
    assert planned.removed == 4
    other = FakeEncoder("other", 32)
    again = Ingest(make_builder(store, other), other, ReadSettings(), tmp_path / "data")
    planned = again.run(re_encode=True, dry_run=True, force=True)
    assert dumped(planned) == dumped(again.run(re_encode=True, force=True))
    assert planned.encoded == 2 * (len(many) - 4) + len(many) // 4 - 1


def test_nothing_changed_is_foretold_without_encoding(store, encoder, corpus, write_rows, many):
    build = corpus().run([write_rows(many)]).build
    encoder.encoded = []
    planned = corpus().run([write_rows(many)], dry_run=True)
    assert (planned.build, planned.params, planned.gate, encoder.encoded) == (build, None, None, [])
    assert dumped(planned) == dumped(corpus().run([write_rows(many)]))


def test_other_settings_alone_are_foretold(corpus, write_rows, many):
    corpus().run([write_rows(many)])
    planned = corpus(regularization=3.0).run([write_rows(many)], dry_run=True)
    assert dumped(planned) == dumped(corpus(regularization=3.0).run([write_rows(many)]))
    assert (planned.params.live.regularization, planned.params.new.regularization) != (3.0, 3.0)
    assert planned.params.new.regularization == 3.0


def test_drift_and_numbers_chosen_anew_are_foretold(corpus, write_rows, rows):
    corpus().run([write_rows(rows([f"thing{number}" for number in range(32)]))])
    others = write_rows(rows([f"other{number}" for number in range(16)]), "others.jsonl")
    planned = corpus().run([others], dry_run=True)
    assert planned.cluster_changes.reclustered
    assert planned.cluster_changes.drift.reasons
    assert planned.params.tuning is not None
    assert dumped(planned) == dumped(corpus().run([others]))


def test_it_ends_well_where_the_gate_would_stop_the_real_run(store, corpus, write_rows, many, shuffled):
    build = corpus().run([write_rows(many)]).build
    path = write_rows(shuffled)
    planned = corpus().run([path], dry_run=True)
    assert (planned.gate.passed, planned.gate.stops, planned.gate.forced) == (False, True, False)
    with pytest.raises(QualityError) as stopped:
        corpus().run([path])
    held_out = planned.gate.held_out
    assert f"MRR {held_out.live.mrr:.3f} → {held_out.new.mrr:.3f}" in stopped.value.message
    assert store.live("things").build == build
    forced = corpus().run([path], dry_run=True, force=True)
    assert (forced.gate.stops, forced.gate.forced) == (False, True)
    assert dumped(forced) == dumped(corpus().run([path], force=True))


def test_golden_questions_are_asked_and_a_bad_one_is_named(corpus, write_rows, many, shuffled, tmp_path):
    path = golden_file(tmp_path / "data", "things")
    path.parent.mkdir(parents=True, exist_ok=True)
    asked = [{"question": f"a good recipe for {thing}", "pair_id": f"{thing}_q0"} for thing in MANY]
    path.write_text("".join(json.dumps(one) + "\n" for one in asked))
    corpus().run([write_rows(many)])
    planned = corpus().run([write_rows(shuffled)], dry_run=True)
    assert planned.gate.golden.questions == len(MANY)
    assert planned.gate.stops
    path.write_text("{broken\n")
    with pytest.raises(CorpusError, match=r"things.jsonl:1 is not a golden question"):
        corpus().run([write_rows(shuffled)], dry_run=True)


def test_orphans_are_named_and_left(edge, encoder, make_ingest, write_rows, rows, monkeypatch):
    def full(*_, **__):
        raise StoreWriteError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(bundles, "write", full)
        patch.setattr(edge, "delete", full)
        with pytest.raises(StoreWriteError, match="disk full"):
            make_ingest(edge, encoder).run([write_rows(rows(["bread"]))])
    (orphan,) = edge.names("things")
    planned = make_ingest(edge, encoder).run([write_rows(rows(["wine"]))], dry_run=True)
    assert planned.cleaned == (orphan,)
    assert edge.names("things") == [orphan]
    assert make_ingest(edge, encoder).run([write_rows(rows(["wine"]))]).cleaned == planned.cleaned


def test_another_encoder_is_refused(edge, encoder, make_ingest, write_rows, rows):
    make_ingest(edge, encoder).run([write_rows(rows())])
    with pytest.raises(EncoderMismatchError, match="made with fake"):
        make_ingest(edge, FakeEncoder("other", 32)).run([write_rows(rows())], dry_run=True)


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_changes_is_told_before_anything_is_encoded(edge, encoder, make_ingest, write_rows, rows, dry_run):
    told = []
    run = make_ingest(edge, encoder).run
    report = run([write_rows(rows())], dry_run=dry_run, on_plan=lambda plan: told.append((plan, list(encoder.encoded))))
    ((plan, encoded),) = told
    assert encoded == []
    assert (plan.added, plan.changes, plan.clusters, plan.build) == (24, report.changes, None, None)


def test_no_step_of_writing_is_reached(edge, encoder, make_ingest, write_rows, rows):
    reached = []
    with armed(reached.append):
        make_ingest(edge, encoder).run([write_rows(rows())], dry_run=True)
    assert reached == list(STEPS[: STEPS.index("texts encoded") + 1])


# On disk


DRY = """
import os, signal, sys, time
from pathlib import Path
from tests.ingest.test_dry_run import dry_run
dry_run(Path(sys.argv[1]), sys.argv[2])
"""


def dry_run(place: Path, stop_at: str) -> None:
    """A dry run over a folder; at a named stage it says so and waits to be killed."""

    class Waiting(Silent):
        def stage(self, name, total):
            if name.startswith(stop_at):
                print("there", flush=True)  # noqa: T201 - what the test waits for
                time.sleep(600)
            return super().stage(name, total)

    encoder = FakeEncoder()
    with open_store(StoreSettings(data_dir=place / "data")) as store:
        builder = Builder(
            store, encoder.identity, place / "models", "things", fit=FitSettings(tune_pairs=0), reporter=Waiting()
        )
        Ingest(builder, encoder, ReadSettings(), place / "data").run([place / "pairs.jsonl"], dry_run=True)
    print("ended", flush=True)  # noqa: T201


@pytest.fixture
def place(tmp_path, make_builder, write_rows):
    """A folder with a live build, and a file of other pairs and a bad line beside it."""
    encoder = FakeEncoder()
    with open_store(StoreSettings(data_dir=tmp_path / "data")) as store:
        Ingest(make_builder(store, encoder, tune_pairs=0), encoder, ReadSettings(), tmp_path / "data").run(
            [write_rows(rows_about(["bread", "wine"]))]
        )
    path = write_rows(rows_about(["wine", "steel", "glass"]))
    path.write_text(path.read_text() + "{broken\n")
    return tmp_path


@pytest.mark.parametrize("stop_at", ["never", "Encoding", "Clustering", "Measuring", "Fitting"])
def test_data_and_models_stay_as_they_were_byte_for_byte_also_when_it_is_killed(place, stop_at):
    before = bytes_of(place / "data", place / "models")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    with subprocess.Popen(
        [sys.executable, "-c", DRY, str(place), stop_at], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == ("ended\n" if stop_at == "never" else "there\n")
        process.kill()
        process.wait()
    assert bytes_of(place / "data", place / "models") == before
