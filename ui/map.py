"""The map: answers as points, those that are alike near each other, and the way that a question takes."""

from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from qaserve.common.text import short_digest, shorten
from qaserve.schemas.explore import CorpusMap, PlacedAsk, Spot
from ui import api_cache, cards, charts
from ui.map_layers import (
    ANSWERS,
    HEIGHT,
    NAME_CHARS,
    WHOLE,
    answers_frame,
    around,
    arrow_layers,
    arrows_frame,
    density_layer,
    dots,
    fitting,
    mark_layers,
    marks_frame,
    names_layer,
    shades,
    way_layers,
)
from ui.markdown import literal

NAMED = 4
LOUD_VOTE = 0.04
ROWS_SHOWN = 6
"""Of a selection, that need no scrolling."""
COLOUR_BY = ("cluster", "topic", "skill", "confidence")
CONFIDENCE = "Confidence: the share of the vote of all other questions that goes to the answer's own cluster. "
PAN = "[pointerdown[!event.shiftKey], window:pointerup] > window:pointermove!"
HANDS = "Drag to move, Ctrl-scroll or pinch to zoom, Shift-drag or click to select, double-click to reset."
DENSITY = "Shading: the stronger, the more answers. "


def draw(corpus: CorpusMap, placed: PlacedAsk) -> None:
    """The question, the projected question, its voters and its answers, on the map of all answers."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        by = _colour_by("why_map_by")
        dense = st.toggle("Show density", key="why_map_density")
        whole = st.toggle("Show the whole corpus", key="whole_map")
    trace = placed.result.explained
    votes = charts.colours([vote.cluster for vote in trace.clusters])
    voters = [mark for mark, hit in zip(placed.hits, trace.hits, strict=False) if hit.probability >= LOUD_VOTE]
    marked = (*voters, *placed.answers, *placed.turned_by)
    spots = [placed.question, placed.turned, *(Spot(x=one.x, y=one.y) for one in marked)]
    window = WHOLE if whole else around(spots)
    called = {one.cluster: one.name for one in corpus.clusters}
    frame = _frame(corpus.build)
    if by == "cluster":
        answers = dots(corpus.build, window, "number", votes)
        named = {called[vote.cluster]: votes[vote.cluster] for vote in trace.clusters[:NAMED]}
    else:
        inside = frame[frame["x"].between(*window[:2]) & frame["y"].between(*window[2:])]
        named = shades(inside[by])
        answers = dots(corpus.build, window, by, named)
    arrows = arrows_frame(placed, votes)
    marks = marks_frame(voters, placed.answers, votes)
    path = pd.DataFrame(
        [
            {"what": "your question", "x": placed.question.x, "y": placed.question.y, "text": placed.result.question},
            {"what": "projected question", "x": placed.turned.x, "y": placed.turned.y, "text": placed.result.question},
        ]
    )
    layers = [answers, *mark_layers(marks, window), *arrow_layers(arrows, window), *way_layers(path, window)]
    _legend(named)
    found = _show(
        layers,
        [density_layer(frame, window)] if dense else [],
        f"why_map {by} {whole} {dense}",
        "Map of answers with your question before and after projection; the table has the places.",
    )
    about = _about(by, dense=dense)
    if not arrows.empty:
        about += "▲ where the W of one cluster alone would take it; wide lines: more weight. "
    st.caption(
        "Dots are answers. ○ known questions that voted, ◆ answers shown, ★ your question, ● the projected question. "
        f"{about}Texts that are near are similar. Directions have no meaning. {HANDS}"
    )
    _chosen(frame, found, corpus.build, "why_map")
    marks = marks.assign(cluster=[called.get(one, "") for one in marks["cluster"]])
    way = path.assign(cluster="")
    charts.table(pd.concat([way, marks])[["what", "text", "cluster", "x", "y"]], x="%.2f", y="%.2f")


def explore(corpus: CorpusMap) -> set[int] | None:
    """All answers, with names of clusters; gives the clusters of those that are selected, None if there are none."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        by = _colour_by("map_by")
        dense = st.toggle("Show density", key="map_density")
    frame = _frame(corpus.build)
    named = shades(frame[by])
    window = fitting(frame)
    layers = [dots(corpus.build, window, by, named), names_layer(corpus, window)]
    _legend(named)
    found = _show(
        layers,
        [density_layer(frame, window)] if dense else [],
        f"clusters_map {by} {dense}",
        "Map of all answers with the names of the largest clusters.",
    )
    about = _about(by, dense=dense)
    st.caption(f"Dots are answers. {about}Texts that are near are similar. Directions have no meaning. {HANDS}")
    rows = _chosen(frame, found, corpus.build, "clusters_map")
    return None if rows.empty else set(rows["number"])


def _about(by: str, *, dense: bool) -> str:
    """What is drawn only at times."""
    return (DENSITY if dense else "") + (CONFIDENCE if by == "confidence" else "")


@st.cache_resource(ttl=api_cache.KEPT_SECONDS, max_entries=4, show_spinner=False)
def _frame(build: str) -> pd.DataFrame:
    """The answers of a build. Not to be changed."""
    return answers_frame(api_cache.corpus_map(build))


def selected(frame: pd.DataFrame, found: Mapping[str, Any]) -> pd.DataFrame:
    """The answers in a rectangle, and the one that was clicked. `found`: the selection by parameter."""
    clicked = {point.get("id") for point in found.get("picked") or []}
    chosen = frame["id"].isin(clicked)
    area = found.get("area") or {}
    if area.get("x") and area.get("y"):
        chosen |= frame["x"].between(*sorted(area["x"])) & frame["y"].between(*sorted(area["y"]))
    return frame[chosen]


def _colour_by(key: str) -> str:
    return str(
        st.segmented_control("Colour by", COLOUR_BY, format_func=str.capitalize, default="cluster", key=key)
        or "cluster"
    )


def _show(layers: list[charts.Layer], behind: list[charts.Layer], key: str, alternative: str) -> Mapping[str, Any]:
    """Draw the map; gives what is selected on it.

    Args:
        layers: The first holds the answers.
        behind: Further ones, drawn before these.
        key: Of the element.
        alternative: The text for those who cannot see it.
    """
    views = [ANSWERS]
    selections = {
        "view": {"type": "interval", "on": PAN, "translate": PAN, "zoom": "wheel![event.ctrlKey]"},
        "area": {"type": "interval", "on": PAN.replace("!event", "event"), "translate": False, "zoom": False},
        "picked": {"type": "point", "fields": ["id"]},
    }
    params: list[dict[str, Any]] = [{"name": name, "select": one, "views": views} for name, one in selections.items()]
    params[0]["bind"] = "scales"
    answers = layers[0] | {"name": ANSWERS}
    state = st.vega_lite_chart(
        charts.layered([*behind, answers, *layers[1:]], HEIGHT) | {"params": params},
        width="stretch",
        key=key,
        alt=alternative,
        on_select="rerun",
        selection_mode=["picked", "area"],
    )
    found: Mapping[str, Any] = state["selection"]
    return found


def _chosen(frame: pd.DataFrame, found: Mapping[str, Any], build: str, key: str) -> pd.DataFrame:
    """The selected answers as a table, and the text of the one that is opened."""
    rows = selected(frame, found)
    if rows.empty:
        return rows
    st.markdown(f"### {len(rows):,} selected on the map")
    picked = st.dataframe(
        rows[["question", "cluster", "topic", "skill"]],
        hide_index=True,
        height="content" if len(rows) <= ROWS_SHOWN else 250,
        on_select="rerun",
        selection_mode=charts.CHOOSE,
        key=f"{key} rows {short_digest(''.join(rows['id'])).hex()}",
        alt="Answers that are selected on the map.",
    )
    row = 0 if len(rows) == 1 else charts.chosen_row(picked)
    if row is None:
        st.caption("Click an answer to read it.")
        return rows
    opened = rows.iloc[row]
    pairs = api_cache.cluster_pairs(int(opened["number"]), build).pairs
    with st.container(border=True):
        st.markdown(f"#### {literal(opened['question'])}")
        for stored in pairs:
            if stored.id == opened["id"]:
                cards.text(stored.pair.answer, f"{key} {stored.id}")
    return rows


def _legend(named: Mapping[str, str]) -> None:
    """Names, each after a dot of its colour."""
    names = (
        f'<span style="white-space: nowrap"><span aria-hidden="true" style="color: {colour}">●</span> '
        f"{escape(shorten(name, NAME_CHARS))}</span>"
        for name, colour in named.items()
    )
    st.html(f'<div style="display: flex; flex-wrap: wrap; gap: 0 1.2rem; font-size: .85rem">{"".join(names)}</div>')
