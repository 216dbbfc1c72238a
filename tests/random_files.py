"""Files of random lines, and how much of random input the tests were fed."""

import os
import random
from collections import Counter
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st

LINES_OF_A_FILE = 200
FEW = settings(deadline=None, max_examples=int(os.environ.get("TEST_EXAMPLES", "30")))
FED: Counter[str] = Counter()
"""Requests and lines of this process so far."""


def write_counts() -> None:
    """Add the counts to the file that TEST_COUNTS names; `make fuzz` sums them up."""
    if "TEST_COUNTS" in os.environ and FED:
        with Path(os.environ["TEST_COUNTS"]).open("a", encoding="utf-8") as file:
            file.writelines(f"{kind} {number}\n" for kind, number in FED.items())
        FED.clear()


def counted(app):
    """An ASGI application that counts its requests."""

    async def counting(scope, receive, send):
        FED["requests"] += scope["type"] == "http"
        await app(scope, receive, send)

    return counting


@st.composite
def files(draw, likely, separator=b"\n", most=LINES_OF_A_FILE, counts=True):
    """Lines made of a few: as they are, cut, joined, repeated, and with a byte changed.

    Hypothesis draws the few and a seed. Drawing every line would take it longer than reading them.
    """
    few = draw(st.lists(likely | st.binary(max_size=30), min_size=1, max_size=6))
    chance = random.Random(draw(st.integers(0, 1 << 32)))
    lines = [_changed(few, chance) for _ in range(chance.randint(1, most))]
    if counts:
        FED["lines"] += len(lines)
    return [line.replace(separator, b" ") for line in lines]


def _changed(few, chance):
    line = chance.choice(few)
    kind = chance.randrange(6)
    if kind == 1:
        return line[: chance.randint(0, len(line))]
    if kind == 2:
        return line + chance.choice(few)
    if kind == 3:
        return line * chance.randint(2, 4)
    if kind == 4 and line:
        place = chance.randrange(len(line))
        return line[:place] + bytes([chance.randrange(256)]) + line[place + 1 :]
    return line
