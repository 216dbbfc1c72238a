"""Any sequence of changes ends with the live build equal to a plain dictionary that had the same done to it."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ingest.build import Ingest
from ingest.builder import Builder
from ingest.selection import Selection
from qaserve import bundle as bundles
from qaserve.builds import activate, list_builds, prune
from qaserve.errors import EncoderError, UsageError
from qaserve.settings import FitSettings, ReadSettings
from qaserve.store import memory_store
from tests.conftest import FakeEncoder, Silent

KEYS = st.sampled_from([f"k{number}" for number in range(8)])
WORDS = st.sampled_from(["bread", "cheese", "wine", "paper", "glass", "steel"])
ROWS = st.dictionaries(KEYS, WORDS, min_size=1, max_size=6)


class Failing(FakeEncoder):
    """A fake encoder that can be out of order."""

    broken = False

    def _encode(self, texts, on_batch, turn):
        if self.broken:
            raise EncoderError("out of order")
        return super()._encode(texts, on_batch, turn)


class History(RuleBasedStateMachine):
    """What is done to builds, beside a dictionary of what pairs there must be: word by key."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.store = memory_store()
        self.encoder = Failing(dimension=8)
        builder = Builder(
            self.store, self.encoder.identity, self.root / "models", "things", fit=FitSettings(), reporter=Silent()
        )
        self.ingest = Ingest(builder, self.encoder, ReadSettings(), self.root / "data")
        self.wanted, self.builds = {}, {}

    def teardown(self):
        self.store.close()
        self.folder.cleanup()

    def _file(self, rows):
        path = self.root / "rows.jsonl"
        path.write_text(
            "".join(
                json.dumps({"pair_id": key, "question": f"what of {key}", "answer": f"take {word} for {key}"}) + "\n"
                for key, word in rows.items()
            )
        )
        return path

    def _done(self, report, wanted):
        self.wanted = wanted
        self.builds[report.build] = dict(wanted)

    @initialize(rows=ROWS)
    def begin(self, rows):
        self._done(self.ingest.run([self._file(rows)]), dict(rows))

    @rule(rows=ROWS)
    def add_or_edit(self, rows):
        path, before = self._file(rows), dict(self.wanted)
        planned = self.ingest.run([path], dry_run=True)
        report = self.ingest.run([path])
        told = {"dry_run", "seconds", "stages"}
        assert planned.model_dump(exclude=told) == report.model_dump(exclude=told)
        assert report.added == len(rows.keys() - before.keys())
        assert report.updated == sum(key in before and before[key] != word for key, word in rows.items())
        self._done(report, before | rows)

    @rule(rows=ROWS)
    def replace(self, rows):
        report = self.ingest.run([self._file(rows)], replace=True)
        assert report.removed == len(self.wanted.keys() - rows.keys())
        self._done(report, dict(rows))

    @rule(keys=st.sets(KEYS, min_size=1, max_size=3))
    def remove(self, keys):
        gone = keys & self.wanted.keys()
        if not gone:
            return
        selection = Selection(ids=tuple(sorted(gone)))
        left = {key: word for key, word in self.wanted.items() if key not in gone}
        if not left:
            with pytest.raises(UsageError, match="would remove all"):
                self.ingest.remove(selection)
            return
        self._done(self.ingest.remove(selection), left)

    @rule(rows=ROWS)
    def fail(self, rows):
        new = {f"{key}!": f"{word} {key}" for key, word in rows.items()}
        self.encoder.broken = True
        with pytest.raises(EncoderError, match="out of order"):
            self.ingest.run([self._file(new)])
        self.encoder.broken = False

    @rule()
    def encode_again(self):
        self._done(self.ingest.run(re_encode=True), dict(self.wanted))

    @rule(number=st.integers(0, 100))
    def go_back(self, number):
        build = sorted(self.builds)[number % len(self.builds)]
        activate(self.store, self.root / "models", "things", build)
        self.wanted = dict(self.builds[build])

    @precondition(lambda self: len(self.builds) > 2)
    @rule(keep=st.integers(0, 2))
    def prune(self, keep):
        others = [found.build for found in list_builds(self.store, self.root / "models", "things") if not found.live]
        gone = prune(self.store, self.root / "models", "things", keep)
        assert gone == others[keep:]
        for build in gone:
            del self.builds[build]

    @invariant()
    def the_live_build_is_the_dictionary(self):
        if not self.wanted:
            return
        build = self.store.live("things")
        rows = list(self.store.scroll("things", build))
        assert {row.stored.pair.pair_id: row.stored.pair.answer for row in rows} == {
            key: f"take {word} for {key}" for key, word in self.wanted.items()
        }
        assert len(rows) == len(self.wanted)
        manifest = bundles.read(self.root / "models", "things", build).manifest
        sizes = np.bincount([row.stored.cluster for row in rows], minlength=len(manifest.clusters))
        assert [cluster.size for cluster in manifest.clusters] == sizes.tolist()
        assert sizes.min() > 0, "no cluster is empty"
        assert len({cluster.name for cluster in manifest.clusters}) == len(sizes)
        for row in rows:
            expected = self.encoder.encode_answers([row.stored.pair.answer])[0]
            np.testing.assert_allclose(row.answer, expected, atol=1e-5)

    @invariant()
    def every_build_is_whole_and_in_the_order_it_was_made(self):
        listed = list_builds(self.store, self.root / "models", "things")
        assert {found.build for found in listed} == self.builds.keys()
        assert all(found.complete for found in listed)
        assert len({found.created for found in listed}) == len(listed)


def test_any_history_ends_as_a_dictionary_would():
    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=15, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
