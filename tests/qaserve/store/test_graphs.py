"""HNSW graphs of large embedded builds."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge
from store_builds import REF, metadata, write

from qaserve.common.errors import StoreError
from qaserve.store import EdgeStore, graphs
from qaserve.store.base import Search
from qaserve.store.points import QUESTION, to_point

PAIRS = 1_500
LEAST = qdrant_edge.HnswIndexConfig(m=4, ef_construct=4, full_scan_threshold=1)
"""Graphs that miss some, and are used also for few vectors."""


def with_graphs(store, rows):
    """Write a build, and its graphs where it is to have them; what was told of them."""
    told = []
    with store.create(metadata(pairs=len(rows))) as build:
        list(build.append(to_point(row) for row in rows))
        build.make_graphs(lambda vectors: told.append(vectors) or nullcontext(told.append))
        build.seal()
    return told


@pytest.fixture
def large(tmp_path, crowd, monkeypatch):
    monkeypatch.setattr("qaserve.store.edge_writer.CONFIG", LEAST)
    monkeypatch.setattr("qaserve.store.edge_build.SEARCHED", 1)
    store, rows = EdgeStore(tmp_path / "graphs", hnsw_pairs=PAIRS), crowd(PAIRS)
    told = with_graphs(store, rows)
    assert told[0] == sum(told[1:]) == 3 * PAIRS
    return store, rows


def test_a_large_build_is_searched_by_graphs_which_find_nearly_all(large):
    store, rows = large
    build = store.open(REF)
    assert build.approximate
    query = rows[7].question
    best = np.argsort([-float(row.question @ query) for row in rows], kind="stable")[:32]
    exactly, found = build.search([Search(QUESTION, query, 32, exact=exact) for exact in (True, False)])
    assert [hit.id for hit in exactly] == [rows[row].stored.id for row in best]
    assert len({hit.id for hit in found} & {hit.id for hit in exactly}) > 16
    share = graphs.recall(build)
    assert 0.5 < share < 1


def test_graphs_change_nothing_of_what_a_build_holds(large, edge):
    store, rows = large
    write(edge, rows)
    assert store.verify(REF).content_hash == edge.verify(REF).content_hash
    assert [point.id for point in store.open(REF).scroll()] == [row.stored.id for row in rows]


def test_filters_hold_with_graphs(large):
    store, rows = large
    wanted = {row.stored.id for row in rows if row.stored.pair.topics[1] == "t1"}
    (hits,) = store.open(REF).search([Search(QUESTION, rows[0].question, 40, where={"topics": ["t1"]})])
    assert len(hits) == 40
    assert {hit.id for hit in hits} <= wanted


def test_a_smaller_build_is_searched_exactly(tmp_path, crowd):
    store = EdgeStore(tmp_path / "exact", hnsw_pairs=PAIRS)
    assert with_graphs(store, crowd(PAIRS - 1)) == []
    build = store.open(REF)
    assert not build.approximate
    assert graphs.recall(build) is None


def test_graphs_that_cannot_be_made_leave_no_build(tmp_path, crowd, monkeypatch):
    monkeypatch.setattr(graphs, "_COMMAND", (sys.executable, "-c", "raise SystemExit('no room')"))
    store = EdgeStore(tmp_path / "data", hnsw_pairs=1)
    with pytest.raises(StoreError, match=r"graphs of .*shard could not be made: no room"):
        with_graphs(store, crowd(10))
    assert store.names("things") == store.unfinished("things") == []


def test_who_is_told_can_stop_it(tmp_path, crowd, monkeypatch):
    monkeypatch.setattr(graphs, "_COMMAND", (sys.executable, "-c", "import time; time.sleep(600)"))
    store = EdgeStore(tmp_path / "data", hnsw_pairs=1)

    def stop(_):
        raise KeyboardInterrupt

    with store.create(metadata(pairs=10)) as build:
        list(build.append(to_point(row) for row in crowd(10)))
        with pytest.raises(KeyboardInterrupt):
            build.make_graphs(lambda _: nullcontext(stop))
    assert store.names("things") == store.unfinished("things") == []


STARTS = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())])
print(child.pid, flush=True)
child.wait()
"""
CHILD = """
import sys, time
from qaserve.store.graphs import end_with
end_with(int(sys.argv[1]))
print("there", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_it_ends_when_the_process_that_started_it_is_killed():
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", STARTS, CHILD], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": root}
    ) as parent:
        said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        (pid,) = said - {"there"}
        parent.kill()
    for _ in range(100):
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return  # ended; whoever took it over has not looked yet
        time.sleep(0.1)
    os.kill(int(pid), signal.SIGKILL)
    pytest.fail("it goes on")
