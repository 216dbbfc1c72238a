"""Ingests that die: run by tests/ingest/test_crashes.py as a process of its own.

    PYTHONPATH=.:tests python tests/crash_driver.py FOLDER SEED KILLS

KILLS is the number of kills at random moments; 1,000 take about an hour on two cores.

It imports everything once and then forks a process for every ingest, so that a crash costs a fraction of a second. It
never computes anything itself: a fork of a process that has started threads would hang. Its last line is JSON.
"""

import errno
import gc
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from conftest import FakeEncoder, Silent, copy_sparse, rows_about

from ingest.builder import Builder
from ingest.pipeline import Ingest
from qaserve.builds.catalog import list_builds, prune, verify
from qaserve.common.errors import StoreWriteError
from qaserve.common.failpoints import STEPS, armed
from qaserve.schemas.ask import AskRequest
from qaserve.search.engine import Engine
from qaserve.settings import FitSettings, ReadSettings, StoreSettings
from qaserve.store import BuildRef, Store, open_store

FIRST, SECOND = ["bread", "cheese", "wine"], ["bread", "wine", "steel", "glass", "paper"]
QUESTIONS = ["How do I make bread?", "cheese recipe please", "steps for good steel", "what of glass"]
RANDOM_DISKS = 10
MOST_WRITES = 200
NEW = os.O_CREAT | (os.O_TMPFILE ^ os.O_DIRECTORY)
FULL = 3
"""Exit code of a run that met the full disk and said so."""
Run = Callable[[Path], Any]


def ingest(place: Path, things: Sequence[str] = SECOND) -> list[str]:
    """One ingest in a folder of its own; what it says that it cleaned."""
    path = place / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_about(things)), encoding="utf-8")
    with open_store(StoreSettings(data_dir=place / "data")) as store:
        return list(builder(place, store).run([path], documents=documents(place, things), replace=True).cleaned)


def documents(place: Path, things: Sequence[str]) -> Path:
    """A folder with a document about each thing."""
    folder = place / "documents"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for thing in things:
        text = f"# {thing}\n\nAll about {thing}.\n\n## When to Use\n\nTo make {thing}.\n"
        (folder / f"skill_{thing}.md").write_text(text, encoding="utf-8")
    return folder


def look(place: Path) -> dict[str, Any]:
    """What there is."""
    with open_store(StoreSettings(data_dir=place / "data")) as store:
        return state(place, store)


def builder(place: Path, store: Store) -> Ingest:
    encoder = FakeEncoder()
    made = Builder(
        store, encoder.identity, place / "models", "things", fit=FitSettings(tune_pairs=0), reporter=Silent()
    )
    return Ingest(made, encoder, ReadSettings())


def state(place: Path, store: Store) -> dict[str, Any]:
    """Everything that a user of the live build can see, and every file that there is."""
    live = store.live_builds().get("things")
    if live is not None:
        verify(store, place / "models", store.live("things"))
    builds = [(found.build, found.complete) for found in list_builds(store, place / "models", "things")]
    folders = sorted(path.name for path in (place / "models" / "things").glob("*") if path.name != ".lock")
    points = sorted(str(path.relative_to(place)) for path in (place / "data").glob("things*/*"))
    sections = BuildRef("things", "").documents.corpus
    unfinished = {*store.unfinished("things"), *store.unfinished(sections)}
    unfinished |= set(store.names(sections)) - set(store.names("things"))
    answers = []
    if live is not None:
        engine = Engine(store, FakeEncoder(), place / "models", "things")
        for question in QUESTIONS:
            document = engine.ask(AskRequest(question=question)).model_dump(mode="json")
            del document["timings_ms"]
            answers.append(document)
    return {
        "live": live,
        "builds": builds,
        "unfinished": sorted(unfinished),
        "bundles": folders,
        "points": points,
        "answers": answers,
    }


def same(one: Any, other: Any) -> bool:
    """Equal but for the last bits of floats in single precision, which depend on where in memory a matrix lies."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-7)
    return bool(one == other)


def forked(place: Path, run: Run, kill_after: float | None = None) -> tuple[int, Any]:
    """Run in a process of its own, perhaps killed after so many seconds; its exit status, and what it gave."""
    result = place / "result.json"
    result.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            given = run(place)
            part = result.with_suffix(".part")
            part.write_text(json.dumps(given), encoding="utf-8")
            part.replace(result)  # whole or not there: the child may be killed at any time
            code = 0
        except StoreWriteError:
            code = FULL
        except BaseException:  # noqa: BLE001 - told, and the process ends here
            traceback.print_exc()
        finally:
            os._exit(code)
    ended, status = _waited(child, math.inf if kill_after is None else kill_after)
    if not ended:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), json.loads(result.read_text()) if result.is_file() else None


def _waited(child: int, seconds: float) -> tuple[bool, int]:
    """Whether a process ends within so many seconds, and its status."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG if seconds < math.inf else 0)
        if found or time.monotonic() >= end:
            return bool(found), status
        time.sleep(0.002)


def dying_at(step: str, run: Run = ingest) -> Run:
    """A run that is killed when it reaches a step."""

    def hook(reached: str) -> None:
        if reached == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def die(place: Path) -> Any:
        with armed(hook):
            return run(place)

    return die


def with_files_of_at_most(size: int) -> Run:
    """An ingest on a disk on which no file grows larger than this."""

    def starve(place: Path) -> Any:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with open_store(StoreSettings(data_dir=place / "data")) as store:
            before = state(place, store)
            path = place / "pairs.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows_about(SECOND)), encoding="utf-8")
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            try:
                builder(place, store).run([path], documents=documents(place, SECOND), replace=True)
            finally:
                after = state(place, store)
                assert same(after["answers"], before["answers"]) or after["live"] != before["live"]
        return None

    return starve


def full_from(number: int) -> Run:
    """An ingest on a disk that has no place for the n-th new file or folder, nor for any after it."""

    def starve(place: Path) -> Any:
        made, places = 0, (str(place / "data"), str(place / "models"))

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal made
            if (event == "os.mkdir" or (event == "open" and arguments[2] & NEW)) and _is_below(arguments[0], places):
                made += 1
                if made >= number:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

        sys.addaudithook(watch)
        return ingest(place)

    return starve


def _is_below(path: Any, places: tuple[str, ...]) -> bool:
    return not isinstance(path, int) and str(path).startswith(places)


def pruned(place: Path) -> None:
    """Delete all builds but the live one."""
    with open_store(StoreSettings(data_dir=place / "data")) as store:
        prune(store, place / "models", "things", keep=0)


class Judge:
    """Compares what a crash left, and what the next ingest made of it, with an undisturbed run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = folder / "base"
        self.base.mkdir()
        forked(self.base, lambda place: ingest(place, FIRST))
        _, self.first = forked(self.base, look)
        quiet = self.copy("quiet")
        started = time.monotonic()
        forked(quiet, ingest)
        self.seconds = time.monotonic() - started
        _, self.second = forked(quiet, look)
        self.largest = max(path.stat().st_size for path in quiet.rglob("*") if path.is_file())
        self.ends: dict[str, int] = {}
        self.wrong: list[str] = []

    def copy(self, name: str) -> Path:
        """A copy of the first state."""
        place = self.folder / name
        copy_sparse(self.base, place)
        return place

    def judge(self, name: str, place: Path, *, kept: bool = True) -> None:
        """The live build answers as before; the next ingest cleans up, says so, and ends as an undisturbed run."""
        code, found = forked(place, lambda place: (look(place), ingest(place), look(place)))
        if code != 0:
            self.wrong.append(f"{name}: looking and the next ingest ended with {code}")
            return
        before, cleaned, after = found
        lived = self.first if before["live"] == self.first["live"] else self.second
        checks = {
            "live answers": same(before["answers"], lived["answers"]),
            "cleaned is said": cleaned
            == sorted({*before["unfinished"], *(build for build, complete in before["builds"] if not complete)}),
            "same live build": after["live"] == self.second["live"],
            "same answers": same(after["answers"], self.second["answers"]),
            "only whole builds": all(complete for _, complete in after["builds"]),
            "same builds": not kept or sorted(after["builds"]) == sorted(self.second["builds"]),
            "same bundles": not kept or after["bundles"] == self.second["bundles"],
            "same points": not kept or after["points"] == self.second["points"],
        }
        self.wrong += [f"{name}: not {check}" for check, held in checks.items() if not held]
        end = "swapped" if before["live"] == self.second["live"] else "cleaned" if cleaned else "untouched"
        self.ends[end] = self.ends.get(end, 0) + 1
        shutil.rmtree(place)


def at_steps(judge: Judge) -> int:
    """Killed at every named step; twice in a row where that is another state. How many died."""
    deleting = {"bundle removed", "build removed"}
    plans = [[(step, ingest)] for step in STEPS if step not in deleting]
    plans += [[("swap due", ingest), (step, pruned)] for step in sorted(deleting)]
    plans += [[("bundle begun", ingest), ("build removed", ingest)]]  # there is no bundle yet to remove
    plans += [[("page written", ingest), ("bundle begun", ingest), ("bundle complete", ingest)]]
    for plan in plans:
        name = ", ".join(step for step, _ in plan)
        place = judge.copy(name)
        for step, run in plan:
            code, _ = forked(place, dying_at(step, run))
            if code != -signal.SIGKILL:
                judge.wrong.append(f"{name}: {step} is not reached, the run ended with {code}")
        judge.judge(name, place)
    return sum(len(plan) for plan in plans)


def at_random(judge: Judge, chance: random.Random, kills: int) -> int:
    """Killed at random moments, every other time twice in a row, until enough have died before their end. How many."""
    died = 0
    for number in range(3 * kills):
        if died >= kills:
            break
        place = judge.copy(f"random {number}")
        for _ in range(1 + number % 2):
            code, _ = forked(place, ingest, kill_after=chance.uniform(0, judge.seconds))
            died += code == -signal.SIGKILL
        judge.judge(f"random kill {number}", place)
    return died


def on_full_disks(judge: Judge, chance: random.Random) -> int:
    """On disks that are full at random sizes of a file. How many met that."""
    full = 0
    for number in range(RANDOM_DISKS):
        place, size = judge.copy(f"disk {number}"), int(judge.largest ** chance.uniform(0.5, 1))
        code, _ = forked(place, with_files_of_at_most(size))
        if code not in {0, FULL}:
            judge.wrong.append(f"files of at most {size} bytes: the run ended with {code}")
        full += code == FULL
        judge.judge(f"files of at most {size} bytes", place)
    return full


def at_every_write(judge: Judge) -> int:
    """On a disk on which the n-th new file or folder finds no place, for every n that an ingest reaches. How many."""
    for number in range(1, MOST_WRITES):
        name = f"the disk is full at file {number}"
        place = judge.copy(name)
        code, _ = forked(place, full_from(number))
        if code not in {0, FULL}:
            judge.wrong.append(f"{name}: the run ended with {code}")
        judge.judge(name, place)
        if code == 0:
            return number - 1
    judge.wrong.append(f"an ingest makes more than {MOST_WRITES} files")
    return MOST_WRITES


def main(folder: Path, seed: int, kills: int) -> dict[str, Any]:
    """All crashes."""
    gc.disable()  # a full collection takes a fifth of what a fork does
    chance, judge = random.Random(seed), Judge(folder)
    counts = {
        "at steps": at_steps(judge),
        "at random": at_random(judge, chance, kills),
        "at every write": at_every_write(judge),
        "disk full": on_full_disks(judge, chance),
    }
    return {"wrong": judge.wrong, "counts": counts, "ends": judge.ends, "seconds": round(judge.seconds, 3)}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:]))))  # noqa: T201
