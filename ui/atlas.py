"""The map: answers as points, those that are alike near each other, and the way that a question takes."""

import altair as alt
import pandas as pd
import streamlit as st

from qaserve.text import shorten
from qaserve.views import CorpusMap, PlacedAsk
from ui import charts

NAMED = 4
HEIGHT = 460
MARGIN = 1.25
LEAST = 0.03
LOUD_VOTE = 0.01
APART = 0.07
"""Of the height of the map, between two names."""


def draw(corpus: CorpusMap, placed: PlacedAsk) -> None:
    """The question, the turned question, its voters and its answers, on the map of all answers."""
    whole = st.toggle("Show the whole corpus", key="whole_map")
    trace = placed.result.trace
    colour = charts.colours([vote.cluster for vote in trace.clusters])
    loud = [mark for mark, hit in zip(placed.hits, trace.hits, strict=False) if hit.probability >= LOUD_VOTE]
    marks = pd.DataFrame(
        [
            {"what": "known question that voted", "text": mark.label, "x": mark.x, "y": mark.y, "cluster": mark.cluster}
            for mark in loud
        ]
        + [
            {"what": "answer shown", "text": mark.label, "x": mark.x, "y": mark.y, "cluster": mark.cluster}
            for mark in placed.answers
        ],
        columns=["what", "text", "x", "y", "cluster"],
    )
    marks["colour"] = [colour.get(one, charts.REST) for one in marks["cluster"]]
    path = pd.DataFrame(
        [
            {"what": "your question", "x": placed.question.x, "y": placed.question.y},
            {"what": "turned", "x": placed.turned.x, "y": placed.turned.y},
        ]
    )
    domain = None if whole else _around(pd.concat([marks[["x", "y"]], path[["x", "y"]]]))
    layers = [*_background(corpus, colour, domain), *_marks(marks, domain), *_way(path, domain)]
    layers += _names(corpus, [vote.cluster for vote in trace.clusters[:NAMED]], colour, domain)
    charts.show(layers, HEIGHT, "chart_map", "Map of answers with the question and its way; the table has the places.")
    st.caption(
        "Small dots: answers, coloured where their cluster got votes. ○ known questions that voted, ◆ the answers "
        "shown, ★ your question, and the line: where the vote turned it. Near means alike; the directions mean nothing."
    )
    called = {one.cluster: one.name for one in corpus.clusters}
    frame = marks.assign(cluster=[called.get(one, "") for one in marks["cluster"]]).drop(columns="colour")
    way = path.assign(text=placed.result.question, cluster="")
    charts.table(pd.concat([way, frame])[["what", "text", "cluster", "x", "y"]], x="%.2f", y="%.2f")


def _around(points: pd.DataFrame) -> tuple[list[float], list[float]]:
    """A square around points, with some room."""
    low, high = points.min(), points.max()
    half = max(float((high - low).max()) / 2, LEAST) * MARGIN
    middle = (low + high) / 2
    return [middle["x"] - half, middle["x"] + half], [middle["y"] - half, middle["y"] + half]


def _xy(domain: tuple[list[float], list[float]] | None) -> dict[str, alt.X | alt.Y]:
    across, down = domain or ([-1.05, 1.05], [-1.05, 1.05])
    return {
        "x": alt.X("x:Q", axis=None, scale=alt.Scale(domain=across, nice=False, zero=False)),
        "y": alt.Y("y:Q", axis=None, scale=alt.Scale(domain=down, nice=False, zero=False)),
    }


def _background(
    corpus: CorpusMap, colour: dict[int, str], domain: tuple[list[float], list[float]] | None
) -> list[alt.Chart]:
    dots = pd.DataFrame([{"x": one.x, "y": one.y, "cluster": one.cluster} for one in corpus.answers])
    if domain is not None:
        (left, right), (low, high) = domain
        dots = dots[dots["x"].between(left, right) & dots["y"].between(low, high)]
    voted = dots["cluster"].isin([one for one, shade in colour.items() if shade != charts.REST])
    quiet, loud = dots[~voted], dots[voted]
    loud = loud.assign(colour=[colour[one] for one in loud["cluster"]])
    plain = alt.Chart(quiet).mark_circle(size=14, color=charts.faint(), opacity=0.6).encode(**_xy(domain))
    bright = alt.Chart(loud).mark_circle(size=22, opacity=0.55)
    return [plain, bright.encode(**_xy(domain), color=alt.Color("colour:N", scale=None))]


def _marks(marks: pd.DataFrame, domain: tuple[list[float], list[float]] | None) -> list[alt.Chart]:
    hits, answers = marks[marks["what"] != "answer shown"], marks[marks["what"] == "answer shown"]
    place = {**_xy(domain), "color": alt.Color("colour:N", scale=None), "tooltip": ["what:N", "text:N"]}
    ring = alt.Chart(hits).mark_point(shape="circle", size=90, strokeWidth=2, opacity=0.9)
    diamond = alt.Chart(answers).mark_point(shape="diamond", size=150, filled=True, opacity=1, stroke=charts.ink())
    return [ring.encode(**place), diamond.encode(**place)]


def _way(path: pd.DataFrame, domain: tuple[list[float], list[float]] | None) -> list[alt.Chart]:
    line = alt.Chart(path).mark_line(color=charts.ink(), strokeWidth=2.5, strokeDash=[5, 4])
    star = alt.Chart(path.iloc[:1]).mark_text(text="★", fontSize=26, color=charts.ink())
    tip = alt.Chart(path.iloc[1:]).mark_point(shape="circle", size=140, filled=True, color=charts.ink(), opacity=1)
    words = alt.Chart(path).mark_text(dy=-18, fontSize=13, fontWeight="bold", color=charts.ink())
    return [one.encode(**_xy(domain)) for one in (line, star, tip)] + [words.encode(**_xy(domain), text="what:N")]


def _names(
    corpus: CorpusMap, named: list[int], colour: dict[int, str], domain: tuple[list[float], list[float]] | None
) -> list[alt.Chart]:
    rows = [
        {"x": one.x, "y": one.y, "name": shorten(one.name, 34), "colour": colour[one.cluster]}
        for one in corpus.clusters
        if one.cluster in named
    ]
    (left, right), (low, high) = domain or ([-1.05, 1.05], [-1.05, 1.05])
    rows = [row for row in rows if left <= row["x"] <= right and low <= row["y"] <= high]
    frame = _apart(pd.DataFrame(rows, columns=["x", "y", "name", "colour"]), (high - low) * APART)
    text = alt.Chart(frame).mark_text(
        fontSize=13, fontWeight="bold", align=alt.expr("datum.x > %f ? 'right' : 'left'" % ((left + right) / 2))
    )
    return [text.encode(**_xy(domain), text="name:N", color=alt.Color("colour:N", scale=None))]


def _apart(names: pd.DataFrame, least: float) -> pd.DataFrame:
    """Names moved down until none lies on another."""
    names = names.sort_values("y", ascending=False).reset_index(drop=True)
    for row in range(1, len(names)):
        names.loc[row, "y"] = min(names.loc[row, "y"], names.loc[row - 1, "y"] - least)
    return names
