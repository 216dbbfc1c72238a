"""What must hold while builds change: one changes them at a time, readers see one build, what is removed is gone."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import FakeEncoder

from ingest.builder import Builder
from ingest.selection import Selection
from qaserve.builds.catalog import activate, mark_unfinished, prune, unfinished
from qaserve.common.errors import NotFoundError, StoreLockedError
from qaserve.common.failpoints import armed
from qaserve.common.locks import corpus_lock
from qaserve.schemas.ask import AskRequest
from qaserve.search.engine import Engine
from qaserve.settings import StoreSettings
from qaserve.store import BuildRef, open_store

MARKER = "zanzibarmarker"
SWAPS, ASKERS = 20, 3
PAUSE = 0.01
"""Seconds between two questions of an asker: without, who swaps hardly comes to run."""


# One at a time


def test_a_second_ingest_of_a_corpus_fails_at_once_and_says_who_has_it(
    store, encoder, make_ingest, make_builder, write_rows, rows
):
    with (
        make_builder(store, encoder).alone("ingest"),
        pytest.raises(StoreLockedError, match=rf"in use by process {os.getpid()} \(ingest of corpus things\)$"),
    ):
        make_ingest(store, encoder).run([write_rows(rows())])
    assert store.builds("things") == []
    assert make_ingest(store, encoder).run([write_rows(rows())]).pairs == 24


def test_other_corpora_and_dry_runs_are_not_kept_out(edge, encoder, make_ingest, make_builder, write_rows, rows):
    path = write_rows(rows())
    with make_builder(edge, encoder).alone("ingest"):
        assert make_ingest(edge, encoder).run([path], dry_run=True).added == 24
        assert make_ingest(edge, encoder, "others").run([path]).added == 24


def test_a_second_ingest_waits_as_long_as_it_is_told(edge, encoder, make_ingest, make_builder, write_rows, rows):
    builder, entered, leave = make_builder(edge, encoder), threading.Event(), threading.Event()

    def hold():
        with builder.alone("first"):
            entered.set()
            leave.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait()
    impatient = make_ingest(edge, encoder)
    impatient._builder._lock_wait = 0.1
    with pytest.raises(StoreLockedError, match=r"\(first of corpus things\), also after 0\.1 seconds"):
        impatient.run([write_rows(rows())])
    patient = make_ingest(edge, encoder)
    patient._builder._lock_wait = 60
    threading.Timer(0.2, leave.set).start()
    assert patient.run([write_rows(rows())]).pairs == 24
    holder.join()


HOLD = """
import sys, time
from pathlib import Path
from qaserve.common.locks import corpus_lock
with corpus_lock(Path(sys.argv[1]), "things", "doomed ingest", 0):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(StoreLockedError, match=rf"in use by process {process.pid} \(doomed ingest\)"):
        corpus_lock(tmp_path, "things", "second", 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with corpus_lock(tmp_path, "things", "third", 0):
        assert json.loads((tmp_path / "things" / ".lock" / "holder.json").read_text())["purpose"] == "third"


@contextmanager
def stopped_before_the_swap(run):
    """A thread that does this, and waits before the live build changes until the context is left."""
    there, leave, failures = threading.Event(), threading.Event(), []

    def hook(step):
        if step == "swap due" and threading.current_thread() is thread:
            there.set()
            leave.wait()

    def work():
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)
        finally:
            there.set()

    thread = threading.Thread(target=work)
    with armed(hook):
        thread.start()
        there.wait()
        try:
            yield
        finally:
            leave.set()
            thread.join()
    assert failures == []


@pytest.mark.parametrize("change", ["activate", "prune", "remove", "fit"])
def test_nothing_comes_between_an_ingest_and_its_swap(
    store, encoder, make_ingest, make_builder, write_rows, rows, tmp_path, change
):
    models = tmp_path / "models"
    first = make_ingest(store, encoder).run([write_rows(rows(["bread"]))]).build
    second = make_ingest(store, encoder).run([write_rows(rows(["wine"]))]).build
    changes = {
        "activate": lambda: activate(store, models, BuildRef("things", first)),
        "prune": lambda: prune(store, models, "things", keep=0),
        "remove": lambda: make_ingest(store, encoder).remove(Selection(ids=("bread_q0",))),
        "fit": lambda: make_builder(store, encoder).alone("fit"),
    }
    path = write_rows(rows(["steel"]))
    with stopped_before_the_swap(lambda: make_ingest(store, encoder).run([path])):
        with pytest.raises(StoreLockedError, match=rf"in use by process {os.getpid()} \(ingest of corpus things\)$"):
            changes[change]()
        assert store.live("things").build == second
        assert len(store.builds("things")) == 3
    assert store.live("things").build not in {first, second}
    changes["activate"]()
    assert store.live("things").build == first


def test_an_activation_keeps_an_ingest_out(store, encoder, make_ingest, write_rows, rows, tmp_path):
    first = make_ingest(store, encoder).run([write_rows(rows(["bread"]))]).build
    make_ingest(store, encoder).run([write_rows(rows(["wine"]))])
    with (
        stopped_before_the_swap(lambda: activate(store, tmp_path / "models", BuildRef("things", first))),
        pytest.raises(StoreLockedError, match=r"\(activation in corpus things\)$"),
    ):
        make_ingest(store, encoder).run([write_rows(rows(["steel"]))])
    assert store.live("things").build == first


def test_an_activation_takes_the_lock_of_a_dead_process_over_and_waits_as_long_as_it_is_told(
    edge, encoder, make_ingest, write_rows, rows, tmp_path
):
    models = tmp_path / "models"
    first = make_ingest(edge, encoder).run([write_rows(rows(["bread"]))]).build
    make_ingest(edge, encoder).run([write_rows(rows(["wine"]))])
    with subprocess.Popen([sys.executable, "-c", HOLD, str(models)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StoreLockedError, match=rf"process {process.pid} \(doomed ingest\), also after 0\.1 s"):
            activate(edge, models, BuildRef("things", first), wait=0.1)
        process.kill()
    activate(edge, models, BuildRef("things", first), wait=60)
    assert edge.live("things").build == first


def test_no_lock_is_made_for_a_build_that_is_not_there(edge, tmp_path):
    with pytest.raises(NotFoundError, match="no build"):
        activate(edge, tmp_path / "models", BuildRef("things", "0123456789ab"))
    with pytest.raises(NotFoundError, match="no corpus 'things'"):
        prune(edge, tmp_path / "models", "things", keep=0)
    assert not (tmp_path / "models").exists()


# What is removed is gone


def files_with(text: str, *folders: Path) -> list[Path]:
    wanted = [text.encode(), text.encode("utf-16-le")]
    return [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and any(form in path.read_bytes() for form in wanted)
    ]


@pytest.mark.parametrize("way", ["replaced", "edited"])
def test_removed_text_is_on_no_disk_once_its_builds_are_pruned(tmp_path, encoder, make_ingest, write_rows, rows, way):
    data, models = tmp_path / "data", tmp_path / "models"
    secret = rows(["bread", "wine"])
    secret[0] |= {"answer": f"Take flour, and {MARKER}.", "topics": [MARKER]}
    secret[1] |= {"question": f"How is {MARKER} baked?"}
    with open_store(StoreSettings(data_dir=data)) as store:
        make_ingest(store, encoder).run([write_rows(secret)])
        assert files_with(MARKER, data)
        assert files_with(MARKER, models)
        clean = rows(["bread", "wine"])
        if way == "edited":  # the same pairs, without the word; its question is another pair, so it is replaced
            clean[1] = secret[1] | {"question": "How is bread baked?"}
        make_ingest(store, encoder).run([write_rows(clean)], replace=True)
        assert files_with(MARKER, data)  # its build can still be gone back to
        half_written = models / "things" / ".0123456789ab-x" / "bundle"
        half_written.mkdir(parents=True)
        (half_written / "model.safetensors").write_text(MARKER)
        prune(store, models, "things", keep=0)
        assert files_with(MARKER, data, models) == []
    assert files_with(MARKER, data, models) == []
    with open_store(StoreSettings(data_dir=data)) as store:
        assert store.metadata(store.live("things")).pairs == 8


@pytest.mark.parametrize("lost", ["all", "half"])
def test_a_build_whose_seal_is_damaged_is_kept_until_prune(
    edge, encoder, make_ingest, write_rows, rows, tmp_path, lost
):
    data, models = tmp_path / "data", tmp_path / "models"
    secret = rows(["bread"])
    secret[0] |= {"answer": f"Take flour, and {MARKER}."}
    damaged = make_ingest(edge, encoder).run([write_rows(secret)]).build
    make_ingest(edge, encoder).run([write_rows(rows(["wine", "steel"]))], replace=True)
    seal = data / "things" / damaged / "build.json"
    if lost == "all":
        seal.unlink()
    else:
        seal.write_bytes(seal.read_bytes()[: seal.stat().st_size // 2])
    assert make_ingest(edge, encoder).run([write_rows(rows(["glass"]))]).cleaned == ()
    assert edge.names("things").count(damaged) == 1
    assert damaged not in {one.build for one in edge.builds("things")}
    assert {path.relative_to(data).parts[1] for path in files_with(MARKER, data)} == {damaged}
    assert prune(edge, models, "things", keep=3) == [damaged]
    assert files_with(MARKER, data, models) == []
    assert edge.open(edge.live("things")).count() == 12


@pytest.mark.parametrize("ending", [".ID.deleted", ".ID.unfinished"])
def test_what_an_interruption_left_is_removed_by_the_next_ingest(
    tmp_path, encoder, make_ingest, write_rows, rows, ending
):
    data, models = tmp_path / "data", tmp_path / "models"
    with open_store(StoreSettings(data_dir=data)) as store:
        make_ingest(store, encoder).run([write_rows(rows(["bread"]))])
    left = data / "things" / ending.replace("ID", "0123456789ab") / "shard"
    left.mkdir(parents=True)
    (left / "page_0.dat").write_text(MARKER)
    mark_unfinished(models, BuildRef("things", "0123456789ab"))
    with open_store(StoreSettings(data_dir=data)) as store:
        report = make_ingest(store, encoder).run([write_rows(rows(["bread"]))])
    assert report.cleaned == ("0123456789ab",)
    assert files_with(MARKER, data) == []
    assert unfinished(models, "things") == set()


# Readers see one build


READ = """
import sys
from pathlib import Path
from qaserve.store import EdgeStore
store = EdgeStore(Path(sys.argv[1]))
print(store.live("things").build, store.open(store.live("things")).count())
"""


def test_readers_in_other_processes_do_not_wait_for_who_writes(edge, encoder, make_ingest, write_rows, rows, tmp_path):
    first = make_ingest(edge, encoder).run([write_rows(rows(["bread"]))]).build
    path = write_rows(rows(["wine"]))

    def read():
        command = [sys.executable, "-c", READ, str(tmp_path / "data")]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()

    with stopped_before_the_swap(lambda: make_ingest(edge, encoder).run([path])):
        assert read() == [first, "4"]
    assert read() == [edge.live("things").build, "8"]


def keep_asking(engine: Engine, question: str, results: list, failures: list, done: threading.Event) -> None:
    try:
        while not done.wait(PAUSE):
            results.append(engine.ask(AskRequest(question=question)))
    except BaseException as error:  # noqa: BLE001 - whatever a reader meets is a failure of the test
        failures.append(error)


def test_every_answer_during_many_swaps_is_of_the_build_that_it_names(
    tmp_path, make_builder, make_ingest, write_rows, rows
):
    """Every generation of pairs says in each answer which it is; older builds are pruned while they are asked."""
    with open_store(StoreSettings(data_dir=tmp_path / "data")) as store:
        generation_of, results, failures, done = {}, [], [], threading.Event()

        def swap(generation: int) -> None:
            marked = rows(["bread", "wine", "steel"])
            for row in marked:
                row["answer"] += f" generation {generation}."
            path = write_rows(marked)
            report = make_ingest(store, FakeEncoder(), tune_pairs=0).run([path], replace=True)
            generation_of[report.build] = generation
            prune(store, tmp_path / "models", "things", keep=0)

        swap(0)
        shared = Engine(store, FakeEncoder(), tmp_path / "models", "things")
        own = Engine(store, FakeEncoder(), tmp_path / "models", "things")
        asked = [(shared, "How do I make bread?"), (shared, "steps for good steel"), (own, "wine recipe please")]
        threads = [threading.Thread(target=keep_asking, args=(*one, results, failures, done)) for one in asked]
        for thread in threads:
            thread.start()
        for generation in range(1, SWAPS + 1):
            before = len(results)
            swap(generation)
            while len(results) < before + ASKERS and not failures:
                done.wait(0.01)
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert len(generation_of) == SWAPS + 1
    for result in results:
        ending = f" generation {generation_of[result.build]}."
        assert [answer.answer for answer in result.answers if not answer.answer.endswith(ending)] == []
    assert {generation_of[result.build] for result in results} >= {0, SWAPS}
    assert len({result.build for result in results}) >= SWAPS // 2


def test_a_builder_locks_where_its_bundles_are(tmp_path, edge, make_builder, encoder):
    builder: Builder = make_builder(edge, encoder)
    with builder.alone("ingest"):
        assert (tmp_path / "models" / "things" / ".lock" / "holder.json").is_file()
    assert not (tmp_path / "models" / "things" / ".lock" / "holder.json").exists()
