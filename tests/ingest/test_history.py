"""Any sequence of changes ends with the live build equal to a plain dictionary that had the same done to it."""

import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from dying import Died, dying_at
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
from store_builds import stored

from ingest.builder import Builder
from ingest.pipeline import Ingest
from ingest.selection import Selection
from qaserve.builds import bundle as bundles
from qaserve.builds.catalog import activate, list_builds, prune
from qaserve.common.errors import EncoderError, UsageError
from qaserve.common.failpoints import STEPS
from qaserve.settings import FitSettings, ReadSettings, StoreSettings
from qaserve.store import BuildRef, open_store
from tests.conftest import FakeEncoder, Silent

KEYS = st.sampled_from([f"k{number}" for number in range(8)])
WORDS = st.sampled_from(["bread", "cheese", "wine", "paper", "glass", "steel"])
ROWS = st.dictionaries(KEYS, WORDS, min_size=1, max_size=6)
DELETING = ("bundle removed", "build removed")
WRITING = tuple(step for step in STEPS if step not in DELETING)
SWAPPING = ("swap due", "swapped")
HISTORIES = int(os.environ.get("TEST_HISTORIES", "6"))


class Failing(FakeEncoder):
    """A fake encoder that can be out of order."""

    broken = False

    def _encode(self, texts, on_batch, turn):
        if self.broken:
            raise EncoderError("out of order")
        return super()._encode(texts, on_batch, turn)


class History(RuleBasedStateMachine):
    """What is done to builds, beside a dictionary of what pairs there must be: word by key."""

    deaths: ClassVar[Counter[str]] = Counter()
    """By step, in all histories."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.models = self.root / "models"
        self.encoder = Failing(dimension=8)
        self.wanted, self.builds = {}, {}
        self.unclean = False
        """Whether a crash may have left something that no ingest has removed yet."""
        self._open()

    def _open(self):
        self.store = open_store(StoreSettings(data_dir=self.root / "data"))
        builder = Builder(
            self.store, self.encoder.identity, self.models, "things", fit=FitSettings(), reporter=Silent()
        )
        self.ingest = Ingest(builder, self.encoder, ReadSettings(), self.root / "data")

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

    def _orphans(self):
        listed = list_builds(self.store, self.models, "things")
        return {found.build for found in listed if not found.complete} | set(self.store.unfinished("things"))

    def _others(self):
        """Builds that are not live, newest first: whole ones, and those that lack something."""
        others = [found for found in list_builds(self.store, self.models, "things") if not found.live]
        return tuple([found.build for found in others if found.complete == whole] for whole in (True, False))

    def _changed(self, change, wanted):
        """An ingest: it cleans up after a crash, says so, and leaves these pairs."""
        orphans = self._orphans()
        report = change()
        assert set(report.cleaned) == orphans
        self.unclean = False
        self.wanted = wanted
        self.builds[report.build] = dict(wanted)
        return report

    def _dies(self, step, change):
        """Do this in a process that ends at a step, if it gets there; a dead process tidies nothing up."""
        died = False
        with dying_at(step):
            try:
                change()
            except Died:
                died = True
                self.deaths[step] += 1
        self.store.close()
        self._open()
        self.unclean = self.unclean or died
        return died

    def _settle(self, wanted, *, swapped):
        """After a death: the live build is the old one or, after the swap, the new one; whole builds can be used."""
        live = self.store.live("things").build
        whole = {found.build for found in list_builds(self.store, self.models, "things") if found.complete}
        new = whole - self.builds.keys()
        assert len(new) <= 1, "the build to be, whole but perhaps not live"
        assert live in whole
        self.builds |= {build: dict(wanted) for build in new}
        self.builds = {build: pairs for build, pairs in self.builds.items() if build in whole}
        assert self.builds[live] == (wanted if swapped else self.wanted)
        self.wanted = dict(self.builds[live])

    @initialize(rows=ROWS)
    def begin(self, rows):
        self._changed(lambda: self.ingest.run([self._file(rows)]), dict(rows))

    @rule(rows=ROWS)
    def add_or_edit(self, rows):
        path, before = self._file(rows), dict(self.wanted)
        planned = self.ingest.run([path], dry_run=True)
        report = self._changed(lambda: self.ingest.run([path]), before | rows)
        told = {"dry_run", "seconds", "stages"}
        assert planned.model_dump(exclude=told) == report.model_dump(exclude=told)
        assert report.added == len(rows.keys() - before.keys())
        assert report.updated == sum(key in before and before[key] != word for key, word in rows.items())

    @rule(rows=ROWS)
    def replace(self, rows):
        before, path = self.wanted, self._file(rows)
        report = self._changed(lambda: self.ingest.run([path], replace=True), dict(rows))
        assert report.removed == len(before.keys() - rows.keys())

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
        self._changed(lambda: self.ingest.remove(selection), left)

    @rule(rows=ROWS)
    def fail(self, rows):
        new = {f"{key}!": f"{word} {key}" for key, word in rows.items()}
        self.encoder.broken = True
        with pytest.raises(EncoderError, match="out of order"):
            self.ingest.run([self._file(new)])
        self.encoder.broken = False
        self.unclean = False  # it cleaned up before it failed

    @rule()
    def encode_again(self):
        self._changed(lambda: self.ingest.run(re_encode=True), dict(self.wanted))

    @rule(step=st.sampled_from(WRITING), way=st.sampled_from(["add", "replace", "encode again"]), rows=ROWS)
    def die(self, step, way, rows):
        path = self._file(rows)
        change, after = {
            "add": (lambda: self.ingest.run([path]), self.wanted | rows),
            "replace": (lambda: self.ingest.run([path], replace=True), dict(rows)),
            "encode again": (lambda: self.ingest.run(re_encode=True), dict(self.wanted)),
        }[way]
        died = self._dies(step, change)
        self.unclean = died and self.unclean
        self._settle(after, swapped=not died or step == "swapped")

    @rule(step=st.sampled_from(SWAPPING), number=st.integers(0, 100))
    def die_going_back(self, step, number):
        build = sorted(self.builds)[number % len(self.builds)]
        assert self._dies(step, lambda: activate(self.store, self.models, BuildRef("things", build)))
        self._settle(dict(self.builds[build]), swapped=step == "swapped")

    @precondition(lambda self: len(self.builds) > 2)
    @rule(step=st.sampled_from(DELETING), keep=st.integers(0, 2))
    def die_pruning(self, step, keep):
        live, known = self.store.live("things").build, set(self.builds)
        others, half_done = self._others()
        died = self._dies(step, lambda: prune(self.store, self.models, "things", keep))
        assert died == (len(others) > keep or (step == "build removed" and bool(half_done)))
        self._settle(dict(self.wanted), swapped=False)
        assert self.store.live("things").build == live
        assert known - set(self.builds) <= set(others[keep:])

    @rule(number=st.integers(0, 100))
    def go_back(self, number):
        build = sorted(self.builds)[number % len(self.builds)]
        activate(self.store, self.models, BuildRef("things", build))
        self.wanted = dict(self.builds[build])

    @precondition(lambda self: len(self.builds) > 2)
    @rule(keep=st.integers(0, 2))
    def prune(self, keep):
        others, _ = self._others()
        orphans = self._orphans()
        gone = prune(self.store, self.models, "things", keep)
        assert gone == others[keep:] + sorted(orphans)
        self.unclean = False
        for build in gone:
            self.builds.pop(build, None)

    @invariant()
    def the_live_build_is_the_dictionary(self):
        if not self.wanted:
            return
        live = self.store.live("things")
        rows = stored(self.store, live)
        assert {row.stored.pair.pair_id: row.stored.pair.answer for row in rows} == {
            key: f"take {word} for {key}" for key, word in self.wanted.items()
        }
        assert len(rows) == len(self.wanted)
        manifest = bundles.read(self.models, live).manifest
        sizes = np.bincount([row.stored.cluster for row in rows], minlength=len(manifest.clusters))
        assert [cluster.size for cluster in manifest.clusters] == sizes.tolist()
        assert sizes.min() > 0, "no cluster is empty"
        assert len({cluster.name for cluster in manifest.clusters}) == len(sizes)
        for row in rows:
            expected = self.encoder.encode_answers([row.stored.pair.answer])[0]
            np.testing.assert_allclose(row.answer, expected, atol=1e-5)

    @invariant()
    def every_build_is_whole_and_in_the_order_it_was_made(self):
        listed = list_builds(self.store, self.models, "things")
        assert {found.build for found in listed if found.complete} == self.builds.keys()
        assert self.unclean or (all(found.complete for found in listed) and not self.store.unfinished("things"))
        assert len({found.created for found in listed}) == len(listed)


@pytest.mark.fuzz
def test_any_history_ends_as_a_dictionary_would(capsys):
    History.deaths.clear()
    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=HISTORIES, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    with capsys.disabled():
        print(f"\ndeaths survived in histories: {History.deaths.total()}, {dict(History.deaths)}")  # noqa: T201
    assert History.deaths.total() >= HISTORIES / 2
