import os
from contextlib import suppress

import pytest

from ingest.watch import changes


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "faq"
    path.mkdir()
    (path / "a.md").write_text("# Why?")
    return path


def watched(folder, *steps):
    """Turns of a watch between whose looks these steps are made, one at each; ends when they are all made."""
    left, log = list(steps), []

    def sleep(_):
        if not left:
            raise KeyboardInterrupt
        log.append("look")
        left.pop(0)()

    with suppress(KeyboardInterrupt):
        log.extend("turn" for _ in changes([folder], sleep))
    return log


def nothing():
    pass


def write(path, text):
    def step():
        path.write_text(text)
        os.utime(path, ns=(0, len(text)))  # clocks of disks may be too coarse for a test

    return step


def test_a_turn_at_first_and_after_each_change_that_is_over(folder):
    log = watched(folder, nothing, nothing, nothing, write(folder / "b.md", "# How?"), nothing, nothing, nothing)
    assert log == ["look", "turn", "look", "look", "look", "look", "turn", "look", "look"]


def test_no_turn_while_files_are_being_written(folder):
    path = folder / "b.md"
    log = watched(folder, nothing, nothing, *(write(path, "x" * n) for n in range(1, 5)), nothing, nothing)
    assert log == ["look", "turn", *["look"] * 6, "turn", "look"]


def test_what_changes_during_a_turn_gives_another(folder):
    turns, looks = 0, []

    def sleep(_):
        looks.append(1)
        if len(looks) == 6:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        for _ in changes([folder], sleep):
            turns += 1
            if turns == 1:
                write(folder / "a.md", "# Why not?")()
    assert turns == 2


def test_an_empty_or_missing_folder_is_waited_for_and_a_deleted_file_is_a_change(folder):
    late = folder / "late"
    log = watched(late, nothing, nothing, late.mkdir, write(late / "a.md", "x"), nothing, nothing)
    assert log == ["look", "look", "look", "look", "look", "turn", "look"]
    (folder / "b.md").write_text("x")
    log = watched(folder, nothing, nothing, (folder / "b.md").unlink, nothing, nothing)
    assert log.count("turn") == 2
