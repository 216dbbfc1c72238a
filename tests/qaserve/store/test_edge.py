"""What only builds in folders do: damage, crashes, several processes."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import qdrant_edge
from store_builds import REF, metadata, write

from qaserve.common.errors import BuildNotFoundError, NotFoundError, StoreError, StoreWriteError
from qaserve.common.failpoints import STEPS
from qaserve.settings import StoreSettings
from qaserve.store import BuildRef, EdgeStore, build_files, edge_writer, open_store
from qaserve.store.errors import map_errors
from qaserve.store.points import to_pair, to_point

OTHER = BuildRef("things", "bbbbbbbbbbbb")
ROOT = Path(__file__).parents[3]


@pytest.fixture
def sealed(edge, rows):
    write(edge, rows)
    return edge


@pytest.fixture
def folder(sealed, tmp_path) -> Path:
    return tmp_path / "data" / "things" / "aaaaaaaaaaaa"


def python(code: str, *arguments: object, **options) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def test_the_settings_choose_it(tmp_path):
    with open_store(StoreSettings(data_dir=tmp_path / "data")) as store:
        assert isinstance(store, EdgeStore)
        assert store.embedded
        assert store.where == str(tmp_path / "data")
    assert not (tmp_path / "data").exists()  # reading makes no folder


def test_reading_changes_no_file(sealed, folder, rows):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for _ in range(3):
        build = sealed.open(REF)
        build.nearest("answer", rows[0].answer, 3, fields=["pair_id"])
        build.words("records", 3)
        assert len(list(build.scroll())) == len(rows)
        del build
        gc.collect()  # closes it
    assert set(before) == {path for path in folder.rglob("*") if path.is_file()}
    for path, data in before.items():
        assert path.name in build_files.REWRITTEN or path.read_bytes() == data, path


OPEN = """
import gc, sys
from pathlib import Path
import numpy as np
from qaserve.store import EdgeStore

def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

store = EdgeStore(Path(sys.argv[1]))
build = store.open(store.live("things"))
build.nearest("answer", np.ones(8), 3)
"""
LET_GO = "before = anonymous(); del build; gc.collect(); print(anonymous() - before)"
RESIDENT = """
import ctypes, mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
start = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(mapped)))
assert ctypes.CDLL(None).mincore(start, ctypes.c_size_t(len(mapped)), pages) == 0
print(sum(page & 1 for page in pages))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_build_that_is_let_go_of_is_closed_without_errors(sealed, tmp_path):
    """The engine remembers for each error where it came from, and reads its own debug symbols for that: 36 MB."""
    sealed.set_live(REF)
    done = python(OPEN + LET_GO, tmp_path / "data")
    assert int(done.stdout) < 8 << 10, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is in its cache")
def test_a_process_that_ends_leaves_a_build_in_the_cache_of_the_disk(sealed, folder, tmp_path):
    sealed.set_live(REF)
    assert python(OPEN, tmp_path / "data").returncode == 0
    (vectors,) = folder.glob("shard/segments/*/vector_storage-answer/vectors/chunk_0.mmap")
    done = python(RESIDENT, vectors)
    assert int(done.stdout) > 0, done.stderr


def test_a_build_is_deleted_again_after_an_interrupted_deletion(sealed, folder, rows):
    leftover = folder.with_name(f".{folder.name}.deleted")
    leftover.mkdir()
    (leftover / "page_0.dat").touch()
    sealed.delete(REF)
    assert list(folder.parent.iterdir()) == []


# Damage


def test_every_truncated_file_and_every_flipped_byte_is_found_and_named(sealed, folder):
    """`verify` finds both; opening finds the truncated file, but for the two that Edge writes anew, which it checks."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert len(paths) > 50
    for path in paths:
        size = path.stat().st_size
        if size == 0:
            continue
        where = size // 2  # in most files a hole
        with path.open("r+b") as file:
            file.seek(where)
            old = file.read(1)
            file.seek(where)
            file.write(bytes([old[0] ^ 16]))
        with pytest.raises(StoreError, match=f"^build things@aaaaaaaaaaaa is damaged: {path} "):
            sealed.verify(REF)
        with path.open("r+b") as file:
            file.seek(where)
            file.write(old)
            file.seek(size - 1)
            last = file.read(1)
            file.truncate(size - 1)
        with pytest.raises(StoreError, match=f"^build things@aaaaaaaaaaaa is damaged: {path} "):
            sealed.verify(REF)
        with pytest.raises(StoreError, match=r"build things@aaaaaaaaaaaa"):
            sealed.open(REF)
        with path.open("ab") as file:
            file.write(last)
    assert sealed.verify(REF).points == 6


def test_a_missing_file_is_named(sealed, folder):
    lost = next(folder.rglob("segment.json"))
    lost.unlink()
    with pytest.raises(StoreError, match=f"^build things@aaaaaaaaaaaa is damaged: {lost} is missing"):
        sealed.open(REF)


def test_a_damaged_build_does_not_hide_the_others_and_can_be_written_again(sealed, folder, rows):
    write(sealed, rows, metadata(OTHER))
    sealed.set_live(REF)
    (folder / build_files.MANIFEST).write_text("{}")
    assert [one.build for one in sealed.builds("things")] == ["bbbbbbbbbbbb"]
    assert sealed.names("things") == ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    with pytest.raises(StoreError, match=r"build.json cannot be read: its hash is another"):
        sealed.open(REF)
    with pytest.raises(StoreError, match=r"is damaged"):
        sealed.set_live(REF)
    assert sealed.remove_unfinished("things") == []
    write(sealed, rows)
    assert sealed.verify(sealed.live("things")).points == 6
    assert sealed.unfinished("things") == []


def test_a_build_of_another_edge_is_refused_with_both_versions(sealed, folder):
    path = folder / build_files.MANIFEST
    content = json.loads(path.read_text())["content"]
    content["seal"]["engine"] = "qdrant-edge-py 0.8.3"
    path.write_bytes(build_files.Manifest.model_validate(content).to_bytes())
    with pytest.raises(StoreError, match=r"was written by qdrant-edge-py 0.8.3; qdrant-edge-py \S+ is installed") as e:
        sealed.open(REF)
    assert "qdrant-edge-py==0.8.3" in e.value.hint


def test_a_build_in_the_folder_of_another_is_refused(sealed, folder):
    shutil.copytree(folder, folder.with_name("bbbbbbbbbbbb"))
    with pytest.raises(StoreError, match=r"bbbbbbbbbbbb holds build things@aaaaaaaaaaaa"):
        sealed.open(OTHER)


def test_a_folder_that_is_not_ours_is_left_alone(edge, tmp_path):
    ours = tmp_path / "data" / "things" / "aaaaaaaaaaaa"
    ours.mkdir(parents=True)
    (ours / "thesis.txt").write_text("years of work")
    (ours.parent / ".git").mkdir()
    with pytest.raises(StoreError, match=r"aaaaaaaaaaaa is not a build of qaserve"):
        edge.create(metadata())
    with pytest.raises(BuildNotFoundError):
        edge.delete(REF)
    assert edge.names("things") == edge.unfinished("things") == edge.remove_unfinished("things") == []
    assert (ours / "thesis.txt").read_text() == "years of work"
    assert (ours.parent / ".git").is_dir()


def test_a_folder_of_version_0_1_is_recognised(edge, tmp_path):
    old = tmp_path / "data" / "qdrant"
    old.mkdir(parents=True)
    (old / "meta.json").write_text('{"collections": {}, "aliases": {}}')
    with pytest.raises(NotFoundError, match="no corpus 'things'") as error:
        edge.live("things")
    assert f"{old} holds builds of qaserve 0.1" in error.value.hint
    assert "`qaserve ingest FILE`" in error.value.hint
    assert edge.corpora() == []


# The disk


def test_nothing_is_written_on_a_disk_that_is_almost_full(edge, rows, monkeypatch):
    monkeypatch.setattr(edge_writer, "FREE_BYTES", 1 << 60)
    with (
        pytest.raises(StoreWriteError, match=r"cannot be written: [\d,]+ MiB are free, [\d,]+ MiB are needed"),
        edge.create(metadata()) as build,
    ):
        list(build.append(to_point(row) for row in rows))
    assert edge.unfinished("things") == []


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("Service runtime error: write: No space left on device (os error 28)", StoreWriteError, "No space left"),
        ("Failed to open mmap payload storage: Permission denied (os error 13)", StoreWriteError, "Permission denied"),
        ("failed: Read-only file system (os error 30)", StoreWriteError, "Read-only file system"),
        ("failed to read: No such file or directory (os error 2)", BuildNotFoundError, "has been deleted"),
        ("cannot load edge shard: directory x does not exist", BuildNotFoundError, "has been deleted"),
        ("Vector dimension error: expected dim: 8, got 3", StoreError, "expected dim: 8, got 3"),
    ],
)
def test_what_the_engine_says_becomes_ours(text, kind, message):
    with pytest.raises(kind, match=message) as error, map_errors("here"):
        raise Exception(text)  # noqa: TRY002 - what the engine raises
    assert error.value.hint
    assert type(error.value) is kind


def test_only_what_the_engine_raises_is_translated():
    for kind in (KeyError, ValueError, KeyboardInterrupt):
        with pytest.raises(kind), map_errors("here"):
            raise kind("a mistake of ours")


FORBIDDEN = """
import os, sys
from pathlib import Path
from store_builds import *
from qaserve.common.errors import StoreWriteError
from qaserve.store import EdgeStore
rows = pairs_of(np.random.default_rng(0))
if os.geteuid() == 0:
    os.setuid(65534)
store = EdgeStore(Path(sys.argv[1]) / "data")
for call in (lambda: store.open(REF), lambda: write(store, rows, metadata(BuildRef("things", "b")))):
    try:
        call()
    except StoreWriteError as error:
        print(error.message)
"""


def test_a_folder_that_may_not_be_written_to_is_named(rows):
    """As another user, where the tests run as root."""
    with tempfile.TemporaryDirectory() as home:
        write(EdgeStore(Path(home) / "data"), rows)
        for path in [Path(home), *Path(home).rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            done = python(FORBIDDEN, home)
        finally:
            for path in [Path(home), *Path(home).rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith(f"build things@aaaaaaaaaaaa in {home}/data cannot be written or read: Permission denied")
    assert second.startswith(f"{home}/data/things/.b.unfinished cannot be written or read: Permission denied"), done


# Processes


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "written again"])
def test_a_build_that_is_deleted_while_it_is_opened_is_not_answered_from(sealed, rows, monkeypatch, again):
    """The engine makes the files that it misses: it would hold points without vectors."""

    real = qdrant_edge.EdgeShard

    class Deleted:
        @staticmethod
        def load(path):
            monkeypatch.setattr(qdrant_edge, "EdgeShard", real)
            shard = real.load(path)
            sealed.delete(REF)
            if again:
                write(sealed, rows[:4])
            return shard

    monkeypatch.setattr(qdrant_edge, "EdgeShard", Deleted)
    if again:
        assert sealed.open(REF).count() == 4
    else:
        with pytest.raises(BuildNotFoundError):
            sealed.open(REF)


def test_a_deleted_build_is_read_to_the_end(sealed, folder, rows):
    build = sealed.open(REF)
    pages = build.scroll()
    first = next(pages)
    sealed.delete(REF)
    assert not folder.exists()
    assert list(folder.parent.iterdir()) == []
    assert [to_pair(point) for point in [first, *pages]] == [row.stored for row in rows]
    assert build.nearest("answer", rows[1].answer, 1)[0].id == rows[1].stored.id


CRASHING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from store_builds import *
from qaserve.common.failpoints import armed
from qaserve.store import EdgeStore
step, store, other = sys.argv[2], EdgeStore(Path(sys.argv[1])), BuildRef("things", "bbbbbbbbbbbb")
def die(reached):
    if reached == step:
        os.kill(os.getpid(), signal.SIGKILL)
with armed(die):
    write(store, pairs_of(np.random.default_rng(1)), metadata(other, created="2026-01-02T00:00:00+00:00"))
    store.set_live(other)
    store.delete(REF)
"""
AFTER = {  # the live build, sealed builds and leftovers after a kill at each step
    "build created": ("a", "a", "b"),
    "page written": ("a", "a", "b"),
    "build written": ("a", "a", "b"),
    "swap due": ("a", "ab", ""),
    "swapped": ("b", "ab", ""),
    "build removed": ("b", "b", ""),
}


@pytest.mark.parametrize("step", AFTER)
def test_killed_at_any_step_the_live_build_answers_and_only_leftovers_are_removed(sealed, tmp_path, step):
    assert step in STEPS
    sealed.set_live(REF)
    done = python(CRASHING, tmp_path / "data", step)
    assert done.returncode == -signal.SIGKILL, done.stderr
    live, builds, leftovers = AFTER[step]
    assert sealed.live("things").build == 12 * live
    assert sealed.verify(sealed.live("things")).points == 6
    assert sealed.names("things") == [12 * name for name in builds]
    assert sealed.remove_unfinished("things") == [12 * name for name in leftovers]
    assert sealed.names("things") == [12 * name for name in builds]
    assert sorted(path.name for path in (tmp_path / "data" / "things").iterdir()) == sorted(
        [*(12 * name for name in builds), "live"]
    )


READING = """
import sys
import tempfile
from pathlib import Path
from qaserve.common.errors import BuildNotFoundError
from qaserve.store import EdgeStore
store, builds = EdgeStore(Path(sys.argv[1])), []
print("ready", flush=True)
while (ref := store.live("things")).build != "b20":
    try:
        build = store.open(ref)
    except BuildNotFoundError:  # pruned between the two
        continue
    clusters = {hit.payload["pair_id"] for hit in build.words("records", 10, fields=["pair_id"])}
    clusters |= {point.payload["pair_id"] for point in build.scroll()}
    assert clusters == {ref.build}, (ref, clusters)
    builds.append(ref.build)
print(len(builds), flush=True)
"""


def test_processes_read_while_another_swaps_and_prunes(edge, tmp_path, rows):
    """Every answer is of the build that was live when it was opened, wholly."""

    def swap(number: int) -> None:
        ref = BuildRef("things", f"b{number}")
        renamed = [
            row._replace(
                stored=row.stored.model_copy(update={"pair": row.stored.pair.model_copy(update={"pair_id": ref.build})})
            )
            for row in rows
        ]
        write(edge, renamed, metadata(ref))
        edge.set_live(ref)
        if number:
            edge.delete(BuildRef("things", f"b{number - 1}"))

    swap(0)
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READING, str(tmp_path / "data")],
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for reader in readers:
        assert reader.stdout.readline() == "ready\n"
    for number in range(1, 21):
        swap(number)
    for reader in readers:
        out, _ = reader.communicate(timeout=120)
        assert reader.returncode == 0
        assert int(out) > 0
