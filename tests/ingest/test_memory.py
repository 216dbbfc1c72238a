"""Memory: an ingest holds few pairs at a time, however many there are, and little of each of them beside the words.

The store is in a process of its own, or holds no `Pair`: what is measured is what the ingest itself holds.
"""

import gc
import subprocess
import sys
import tracemalloc
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Silent

from ingest.builder import Builder
from ingest.pipeline import Ingest
from ingest.readers import Located
from ingest.spool import Texts
from qaserve.schemas.pairs import Pair
from qaserve.settings import FitSettings, ReadSettings, StoreSettings
from qaserve.store import open_store
from train.experiments.scale import SyntheticEncoder, write_corpus

D = 16
SAMPLE, CHUNK, LISTED, PAIRS = 50, 32, 10, 600
GATE = "Measuring (sets of questions)"
BYTES_A_PAIR = 1_700
"""Measured: 1,140."""


class Counting(Silent):
    """A reporter that counts the pairs that are alive whenever it is told something."""

    def __init__(self) -> None:
        self.most: dict[str, int] = {}
        self._told = 0

    @contextmanager
    def stage(self, name, total):
        def advance(_):
            self._told += 1
            if self._told % 50 == 0 or name == GATE:
                self._count(name)

        self._count(name)
        yield advance
        self._count(name)

    def _count(self, name):
        self.most[name] = max(self.most.get(name, 0), self._alive())

    def _alive(self):
        return sum(type(one) in {Pair, Located} for one in gc.get_objects())


@pytest.fixture
def frozen():
    """What other tests hold is not looked at: to count among a million objects takes a minute in all."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen")
def test_few_pairs_are_held_at_a_time(edge, tmp_path, monkeypatch):
    monkeypatch.setattr("ingest.evaluation.MAX_PAIRS", SAMPLE)
    monkeypatch.setattr("ingest.embed.PAIRS", CHUNK)
    encoder, counting = SyntheticEncoder(D), Counting()
    builder = Builder(
        edge, encoder.identity, tmp_path / "models", "c", fit=FitSettings(tune_pairs=0), reporter=counting
    )
    ingest = Ingest(builder, encoder, ReadSettings())
    for pairs in (PAIRS, PAIRS + 40):
        write_corpus(tmp_path / "pairs.jsonl", pairs, 0)
        assert ingest.run([tmp_path / "pairs.jsonl"]).pairs == pairs
    assert len(counting.most) > 6
    gate = counting.most.pop(GATE)
    assert SAMPLE / 2 < gate < 6 * SAMPLE
    assert max(counting.most.values()) < 10, counting.most


@pytest.fixture
def read(monkeypatch):
    """How often each text was read."""
    counted, look = Counter(), Texts.__getitem__
    monkeypatch.setattr(Texts, "__getitem__", lambda self, row: counted.update([(id(self), row)]) or look(self, row))
    return counted


def test_the_text_of_each_pair_is_read_to_be_encoded_and_to_be_written(edge, encoder, tmp_path, monkeypatch, read):
    """Beside that, a sample of them is measured on both sides of the gate, and the first changes are listed."""
    monkeypatch.setattr("ingest.evaluation.MAX_PAIRS", SAMPLE)
    monkeypatch.setattr("ingest.report.LISTED", LISTED)
    builder = Builder(
        edge, encoder.identity, tmp_path / "models", "c", fit=FitSettings(tune_pairs=0), reporter=Silent()
    )
    ingest, path = Ingest(builder, encoder, ReadSettings()), tmp_path / "pairs.jsonl"
    for pairs, new, written in ((PAIRS, PAIRS, PAIRS), (PAIRS, 0, 0), (PAIRS + 40, 40, PAIRS + 40)):
        write_corpus(path, pairs, 0)
        read.clear()
        report = ingest.run([path])
        assert (report.added, report.pairs) == (new, pairs)
        assert read.total() <= 2 * written + 2 * SAMPLE + 3 * LISTED
        assert sum(times > 2 for times in read.values()) <= 2 * SAMPLE + LISTED


def test_a_corpus_that_is_tuned_is_read_once(edge, encoder, tmp_path, read):
    builder = Builder(edge, encoder.identity, tmp_path / "models", "c", fit=FitSettings(), reporter=Silent())
    ingest, path = Ingest(builder, encoder, ReadSettings()), tmp_path / "pairs.jsonl"
    for pairs in (100, 110):
        write_corpus(path, pairs, 0)
        read.clear()
        assert ingest.run([path]).pairs == pairs
        assert set(read.values()) == {1}


SERVE = """
import sys, time
sys.path.insert(0, sys.argv[1])
from qdrant_rest import QdrantRest
print(QdrantRest().url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def elsewhere():
    """A store in a process of its own."""
    command = [sys.executable, "-c", SERVE, str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        with open_store(StoreSettings(qdrant_url=process.stdout.readline().strip())) as store:
            yield store
        process.stdin.close()


def peak_of(store, pairs, folder):
    """Most memory in use during an ingest of so many pairs, beyond what was in use before."""
    folder.mkdir()
    write_corpus(folder / "pairs.jsonl", pairs, 0)
    encoder = SyntheticEncoder(D)
    builder = Builder(
        store, encoder.identity, folder / "models", f"c{pairs}", fit=FitSettings(tune_pairs=0), reporter=Silent()
    )
    gc.collect()
    tracemalloc.start()
    try:
        Ingest(builder, encoder, ReadSettings()).run([folder / "pairs.jsonl"])
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_little_with_every_pair(elsewhere, tmp_path, monkeypatch):
    monkeypatch.setattr("ingest.evaluation.MAX_PAIRS", SAMPLE)
    monkeypatch.setattr("ingest.report.LISTED", SAMPLE)
    monkeypatch.setattr("train.experiments.scale.VOCABULARY", 200)  # so that few pairs know all words, as many do
    peak_of(elsewhere, 100, tmp_path / "first")  # what is imported and cached once
    few, many = (peak_of(elsewhere, pairs, tmp_path / str(pairs)) for pairs in (600, 2_400))
    assert (many - few) / 1_800 < BYTES_A_PAIR, (few, many)
