"""HNSW graphs of a large embedded build (Malkov & Yashunin 2018), and how much of an exact search they find.

The engine holds Python's lock while it makes them, minutes for 100,000 pairs. So a process of its own makes them, which
gives way to questions; it ends when the process that started it does.

    python -m qaserve.store.graphs SHARD PARENT
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Collection
from itertools import islice
from pathlib import Path

import numpy as np
import qdrant_edge as edge

from qaserve.common.errors import StoreError
from qaserve.common.progress import Advance

from .base import Build, Search
from .points import QUESTION

CONFIG = edge.HnswIndexConfig(m=16, ef_construct=128, full_scan_threshold=10_000)
"""Under 10,000 KB of vectors, as a filter may leave, the engine compares with all."""
SEARCHED = 512
"""Candidates of a search (`hnsw_ef`): 256 found 0.992 of the exact nearest 32 of 100,000, 512 found 0.997, with an
`ef_construct` of 100."""
NICENESS = 10
POLL_SECONDS = 0.2
END_WITH_PARENT = 1
"""Linux's PR_SET_PDEATHSIG."""
RECALL_AT, RECALL_QUESTIONS = 32, 100
_COMMAND = (sys.executable, "-m", "qaserve.store.graphs")


def make_graphs(shard: Path, names: Collection[str], points: int, advance: Advance) -> None:
    """Make the graphs of a closed shard.

    Args:
        shard: Its folder.
        names: Of its vectors.
        points: How many it holds.
        advance: Told `points` for each name; and often 0, so that a job can be cancelled.

    Raises:
        StoreError: It did not work; the shard is then not to be used.
    """
    command = [*_COMMAND, str(shard), str(os.getpid())]
    left = set(names)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:  # noqa: S603 - our own
        try:
            while True:
                try:
                    said = process.communicate(timeout=POLL_SECONDS)[1].decode(errors="replace")
                    break
                except subprocess.TimeoutExpired:
                    made = {name for name in left if any(shard.glob(f"temp_segments/*/vector_index-{name}/links*"))}
                    left -= made
                    advance(points * len(made))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        reason = said.strip().splitlines()[-1] if said.strip() else f"exit status {process.returncode}"
        raise StoreError(
            f"the HNSW graphs of {shard} could not be made: {reason}",
            hint="Is there memory and disk for twice its vectors? QASERVE_HNSW_PAIRS says from how many pairs on it "
            "has graphs.",
        )
    advance(points * len(left))


def recall(build: Build) -> float | None:
    """Share of the exact nearest `RECALL_AT` questions that a search finds, over `RECALL_QUESTIONS` of the build.

    None where its searches are exact. Ids are hashes, so that the first in their order are drawn at random.
    """
    if not build.approximate:
        return None
    asked = [point.vectors[QUESTION] for point in islice(build.scroll(vectors=(QUESTION,)), RECALL_QUESTIONS)]
    exactly, found = (
        build.search([Search(QUESTION, vector, RECALL_AT, exact=exact) for vector in asked]) for exact in (True, False)
    )
    shares = [
        len({hit.id for hit in some} & {hit.id for hit in all_}) / len(all_)
        for some, all_ in zip(found, exactly, strict=True)
    ]
    return float(np.mean(shares))


def end_with(parent: int) -> None:
    """End when the process that started this one ends, where the system can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that was said
        sys.exit()


def _main(shard_folder: str, parent: str) -> None:
    end_with(int(parent))
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    shard = edge.EdgeShard.load(shard_folder)
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    _main(*sys.argv[1:])
