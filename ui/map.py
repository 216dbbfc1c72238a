"""The map: answers as points, those that are alike near each other, and the way that a question takes."""

from collections.abc import Sequence
from typing import NamedTuple

import altair as alt
import pandas as pd
import streamlit as st

from qaserve.common.text import shorten
from qaserve.schemas.explore import CorpusMap, MapMark, PlacedAsk, Spot
from ui import charts

NAMED = 4
NAME_CHARS = 34
HEIGHT = 460
ROOM = 1.25
LEAST = 0.03
LOUD_VOTE = 0.04
LINE = 20
"""Pixels between two names."""
APART = 7
"""Half of that between the words at the two ends of the way, which may be one place."""
VOTER, SHOWN = "known question that voted", "answer shown"


class Window(NamedTuple):
    """The part of the map that is shown."""

    left: float
    right: float
    low: float
    high: float

    def holds(self, spot: Spot | MapMark) -> bool:
        """Whether a place is in it."""
        return self.left <= spot.x <= self.right and self.low <= spot.y <= self.high

    def with_room_above(self, share: float) -> "Window":
        """One whose upper share shows nothing that this one shows."""
        return self._replace(high=self.low + (self.high - self.low) / (1 - share))


WHOLE = Window(-1.05, 1.05, -1.05, 1.05)


def draw(corpus: CorpusMap, placed: PlacedAsk) -> None:
    """The question, the projected question, its voters and its answers, on the map of all answers."""
    whole = st.toggle("Show the whole corpus", key="whole_map")
    trace = placed.result.explained
    colour = charts.colours([vote.cluster for vote in trace.clusters])
    voters = [mark for mark, hit in zip(placed.hits, trace.hits, strict=False) if hit.probability >= LOUD_VOTE]
    spots = [placed.question, placed.turned, *(Spot(x=one.x, y=one.y) for one in (*voters, *placed.answers))]
    window = WHOLE if whole else _around(spots)
    named = [vote.cluster for vote in trace.clusters[:NAMED]]
    window = window.with_room_above(LINE * (len(named) + 1) / HEIGHT)
    marks = _marks_frame(voters, placed.answers, colour)
    path = pd.DataFrame(
        [
            {"what": "your question", "x": placed.question.x, "y": placed.question.y, "text": placed.result.question},
            {"what": "projected question", "x": placed.turned.x, "y": placed.turned.y, "text": placed.result.question},
        ]
    )
    layers = [*_background(corpus, colour, window), *_marks(marks, window), *_way(path, window)]
    layers.append(_legend(corpus, named, colour))
    charts.show(
        layers,
        HEIGHT,
        "chart_map",
        "Map of answers with your question before and after projection; the table has the places.",
    )
    st.caption(
        "Dots are answers, coloured where their cluster got votes. ○ known questions that voted, ◆ answers shown, "
        "★ your question, ● the projected question. Texts that are near are similar. Directions have no meaning."
    )
    called = {one.cluster: one.name for one in corpus.clusters}
    frame = marks.assign(cluster=[called.get(one, "") for one in marks["cluster"]])
    way = path.assign(cluster="")
    charts.table(pd.concat([way, frame])[["what", "text", "cluster", "x", "y"]], x="%.2f", y="%.2f")


def _around(spots: Sequence[Spot]) -> Window:
    """A square around places, with some room."""
    across, up = [spot.x for spot in spots], [spot.y for spot in spots]
    half = max(max(across) - min(across), max(up) - min(up), LEAST) / 2 * ROOM
    x, y = (max(across) + min(across)) / 2, (max(up) + min(up)) / 2
    return Window(x - half, x + half, y - half, y + half)


def _words_beside(path: pd.DataFrame, window: Window) -> list[alt.Chart]:
    """What the two ends of the way are, on the side where there is room, the higher one's words above the other's."""
    left = path["x"].mean() > (window.left + window.right) / 2
    up = 1 if path["y"].iloc[0] >= path["y"].iloc[1] else -1
    drawn = []
    for number, label in enumerate(("your question", "projected question")):
        mark = alt.Chart(path.iloc[number : number + 1].assign(label=label)).mark_text(
            align="right" if left else "left",
            dx=-14 if left else 14,
            dy=APART * (up if number else -up),
            fontSize=12,
            fontWeight="bold",
            color=charts.ink(),
        )
        drawn.append(mark.encode(*_xy(window), alt.Text("label:N")))
    return drawn


def _marks_frame(voters: Sequence[MapMark], answers: Sequence[MapMark], colour: dict[int, str]) -> pd.DataFrame:
    rows = [(VOTER, mark) for mark in voters] + [(SHOWN, mark) for mark in answers]
    return pd.DataFrame(
        [
            {
                "what": what,
                "text": mark.label,
                "x": mark.x,
                "y": mark.y,
                "cluster": mark.cluster,
                "colour": colour.get(mark.cluster, charts.REST),
            }
            for what, mark in rows
        ],
        columns=["what", "text", "x", "y", "cluster", "colour"],
    )


def _xy(window: Window) -> list[alt.X | alt.Y]:
    across = alt.Scale(domain=[window.left, window.right], nice=False, zero=False)
    up = alt.Scale(domain=[window.low, window.high], nice=False, zero=False)
    return [alt.X("x:Q", axis=None, scale=across), alt.Y("y:Q", axis=None, scale=up)]


def _background(corpus: CorpusMap, colour: dict[int, str], window: Window) -> list[alt.Chart]:
    dots = pd.DataFrame(
        [
            {"x": one.x, "y": one.y, "colour": colour.get(one.cluster, charts.REST)}
            for one in corpus.answers
            if window.holds(Spot(x=one.x, y=one.y))
        ],
        columns=["x", "y", "colour"],
    )
    quiet, loud = dots[dots["colour"] == charts.REST], dots[dots["colour"] != charts.REST]
    plain = alt.Chart(quiet).mark_circle(size=14, color=charts.faint(), opacity=0.7).encode(*_xy(window))
    bright = alt.Chart(loud).mark_circle(size=24, opacity=0.5)
    return [plain, bright.encode(*_xy(window), color=alt.Color("colour:N", scale=None))]


def _marks(marks: pd.DataFrame, window: Window) -> list[alt.Chart]:
    voters, answers = marks[marks["what"] == VOTER], marks[marks["what"] == SHOWN]
    how = [*_xy(window), alt.Color("colour:N", scale=None), alt.Tooltip("text:N", title=" ")]
    ring = alt.Chart(voters).mark_point(shape="circle", size=90, strokeWidth=2, opacity=0.9)
    diamond = alt.Chart(answers).mark_point(shape="diamond", size=150, filled=True, opacity=1, stroke=charts.ink())
    return [ring.encode(*how), diamond.encode(*how)]


def _way(path: pd.DataFrame, window: Window) -> list[alt.Chart]:
    line = alt.Chart(path).mark_line(color=charts.ink(), strokeWidth=2.5, strokeDash=[5, 4])
    star = alt.Chart(path.iloc[:1]).mark_text(text="★", fontSize=26, color=charts.ink())
    tip = alt.Chart(path.iloc[1:]).mark_point(shape="circle", size=160, filled=True, color=charts.ink(), opacity=1)
    return [*(one.encode(*_xy(window)) for one in (line, star, tip)), *_words_beside(path, window)]


def _legend(corpus: CorpusMap, named: Sequence[int], colour: dict[int, str]) -> alt.Chart:
    """Names of clusters in their colours, one below the other, in the room above all places."""
    called = {one.cluster: one.name for one in corpus.clusters}
    rows = [
        {"row": 14 + LINE * number, "name": f"● {shorten(called[cluster], NAME_CHARS)}", "colour": colour[cluster]}
        for number, cluster in enumerate(named)
    ]
    mark = alt.Chart(pd.DataFrame(rows, columns=["row", "name", "colour"])).mark_text(
        align="left", fontSize=13, fontWeight="bold"
    )
    drawn: alt.Chart = mark.encode(
        x=alt.value(4),
        y=alt.Y("row:Q", scale=None, axis=None),
        text="name:N",
        color=alt.Color("colour:N", scale=None),
    )
    return drawn
