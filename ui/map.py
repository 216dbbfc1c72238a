"""The map: answers as points, those that are alike near each other, and the way that a question takes."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from qaserve.common.text import short_digest, shorten
from qaserve.schemas.explore import CorpusMap, MapCluster, MapMark, PlacedAsk, Spot
from ui import api_cache, cards, charts
from ui.markdown import literal

ANSWERS = "map_answers"
"""Path of the page's server that gives them, and name of their layer."""
NAMED = 4
NAME_CHARS = 34
HEIGHT = 460
ROOM = 1.25
LEAST = 0.03
MARGIN = 0.06
"""Share of the answers' range that is added on each side."""
LOUD_VOTE = 0.04
APART = 7
"""Half of that between the words at the two ends of the way, which may be one place."""
NAMES = 14
"""Clusters whose names stand on a wide map of all answers; on a narrow one fewer."""
NAME_WIDE, NAME_HIGH = 220, 16
"""Pixels that a name takes."""
PLACE = "scale('x', datum.x)"
WHOLE_NAME = f"{PLACE} < {NAME_WIDE / 2} ? 'left' : {PLACE} > width - {NAME_WIDE / 2} ? 'right' : 'center'"
"""On which side of its cluster a name begins, so that the map's edge does not cut it."""
WIDTHS = (240, 400, 600, 800, 1_000)
"""Pixels of the map: at each of them on, further names find room."""
ROWS_SHOWN = 6
"""Of a selection, that need no scrolling."""
COLOUR_BY = ("cluster", "topic", "skill", "confidence")
BANDS = ((0.75, "75% or more of the vote"), (0.4, "40 to 75%"), (0.0, "less than 40%"))
"""By the share of the vote that all other known questions give to the answer's own cluster, for its question."""
CONFIDENCE = "Confidence: the share of the vote of all other questions that goes to the answer's own cluster. "
PAN = "[pointerdown[!event.shiftKey], window:pointerup] > window:pointermove!"
HANDS = "Drag to move, Ctrl-scroll or pinch to zoom, Shift-drag or click to select, double-click to reset."
CELLS = 56
"""Of the density, along each axis."""
BLUR = 1.4
"""Standard deviation of the density's kernel, in cells."""
FAINTEST, DARKEST = 0.03, 0.6
"""Cells below this share of the densest are left out; opacity of the densest."""
DENSITY = "Shading: the stronger, the more answers. "
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


WHOLE = Window(-1.05, 1.05, -1.05, 1.05)


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
    window = WHOLE if whole else _around(spots)
    called = {one.cluster: one.name for one in corpus.clusters}
    frame = _frame(corpus.build)
    if by == "cluster":
        dots = _dots(corpus.build, window, "number", votes)
        named = {called[vote.cluster]: votes[vote.cluster] for vote in trace.clusters[:NAMED]}
    else:
        inside = frame[frame["x"].between(*window[:2]) & frame["y"].between(*window[2:])]
        named = shades(inside[by])
        dots = _dots(corpus.build, window, by, named)
    arrows = arrows_frame(placed, votes)
    marks = _marks_frame(voters, placed.answers, votes)
    path = pd.DataFrame(
        [
            {"what": "your question", "x": placed.question.x, "y": placed.question.y, "text": placed.result.question},
            {"what": "projected question", "x": placed.turned.x, "y": placed.turned.y, "text": placed.result.question},
        ]
    )
    layers = [dots, *_marks(marks, window), *_arrows(arrows, window), *_way(path, window)]
    _legend(named)
    found = _show(
        layers,
        [_density(frame, window)] if dense else [],
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
    window = _fitting(frame)
    names = pd.DataFrame(
        [
            {"x": one.x, "y": one.y, "label": shorten(one.name, NAME_CHARS), "least": width}
            for one, width in labelled(corpus, window)
        ]
    )
    labels = charts.layer(
        names,
        "text",
        _xy(window)
        | {
            "text": charts.word("label"),
            "opacity": {"condition": {"test": "datum.least <= width", "value": 1}, "value": 0},
        },
        dy=-11,
        fontSize=11,
        fontWeight="bold",
        color=charts.ink(),
        clip=True,
        align={"expr": WHOLE_NAME},
    )
    layers = [_dots(corpus.build, window, by, named), labels]
    _legend(named)
    found = _show(
        layers,
        [_density(frame, window)] if dense else [],
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


def answers_frame(corpus: CorpusMap) -> pd.DataFrame:
    """All answers on the map, with the columns that can give their colours."""
    called = {one.cluster: one.name for one in corpus.clusters}
    rows = [
        (
            one.id,
            one.x,
            one.y,
            one.question,
            one.cluster,
            called[one.cluster],
            one.topic,
            cards.plain_name(one.skill),
            next(band for least, band in BANDS if one.own >= least),
        )
        for one in corpus.answers
    ]
    columns = ["id", "x", "y", "question", "number", "cluster", "topic", "skill", "confidence"]
    return pd.DataFrame(rows, columns=columns)


def shades(groups: pd.Series) -> dict[str, str]:
    """A colour for each of the largest groups."""
    largest = list(groups[groups != ""].value_counts().index[: len(charts.PALETTE)])
    bands = [band for _, band in BANDS]
    largest.sort(key=lambda one: bands.index(one) if one in bands else 0)
    return dict(zip(map(str, largest), charts.PALETTE, strict=False))


def labelled(corpus: CorpusMap, window: Window) -> list[tuple[MapCluster, int]]:
    """Clusters whose names do not cover each other, the largest first, and the width of the map at which each appears.

    A name that a narrow map has stays when the map is wider.
    """
    high = NAME_HIGH / HEIGHT * (window.high - window.low)
    kept: list[tuple[MapCluster, int]] = []
    for width in WIDTHS:
        wide, most = NAME_WIDE / width * (window.right - window.left), NAMES * width // WIDTHS[-1]
        for one in sorted(corpus.clusters, key=lambda cluster: -cluster.size):
            free = all(abs(one.x - other.x) > wide or abs(one.y - other.y) > high for other, _ in kept)
            if free and len(kept) < most:
                kept.append((one, width))
    return kept


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


def _dots(build: str, window: Window, by: str, colours: Mapping[Any, str]) -> charts.Layer:
    """All answers, which the browser fetches once for each build; those without a colour of their own are faint.

    Args:
        build: Whose answers.
        window: What is shown.
        by: The column that gives the colour.
        colours: Of its values.
    """
    rest = json.dumps(charts.REST)
    painted = f"{json.dumps([*colours.values()])}[indexof({json.dumps([*colours])}, datum.{by})] || {rest}"

    def plain_or(faint: float, bright: float) -> charts.Channel:
        return {"condition": {"test": f"datum.colour === {rest}", "value": faint}, "value": bright}

    hints = [charts.word(name) for name in ("question", "cluster", "topic", "skill")]
    encoding = _xy(window) | {
        "color": charts.PAINTED,
        "size": plain_or(22, 40),
        "opacity": plain_or(0.35, 0.65),
        "tooltip": hints,
    }
    data = {"url": f"{ANSWERS}?build={build}", "format": {"type": "json"}}
    transform = [{"calculate": painted, "as": "colour"}]
    return charts.layer(data, "circle", encoding, clip=True) | {"transform": transform}


def density(frame: pd.DataFrame) -> pd.DataFrame:
    """How dense the answers lie: cells of a grid over all of them, each with its share of the densest cell.

    A histogram, smoothed by a Gaussian kernel. Cells with next to nothing are left out.
    """
    window = _fitting(frame)
    counts, across, up = np.histogram2d(
        frame["x"], frame["y"], bins=CELLS, range=[[window.left, window.right], [window.low, window.high]]
    )
    steps = np.arange(CELLS)
    kernel = np.exp(-0.5 * ((steps[:, None] - steps) / BLUR) ** 2)
    smooth = kernel @ counts @ kernel
    smooth /= smooth.max()
    columns, rows = np.nonzero(smooth >= FAINTEST)
    return pd.DataFrame(
        {
            "x": across[columns],
            "x2": across[columns + 1],
            "y": up[rows],
            "y2": up[rows + 1],
            "share": smooth[columns, rows].round(3),
        }
    )


def _density(frame: pd.DataFrame, window: Window) -> charts.Layer:
    shade = {"domain": [0, 1], "range": [0, DARKEST]}
    encoding = _xy(window) | {
        "x2": {"field": "x2"},
        "y2": {"field": "y2"},
        "opacity": charts.number("share", scale=shade, legend=None),
    }
    return charts.layer(density(frame), "rect", encoding, clip=True, color=charts.PALETTE[0], strokeWidth=0, aria=False)


def _fitting(frame: pd.DataFrame) -> Window:
    """The smallest window that holds all answers, with some room."""
    across, up = ((frame[axis].max() - frame[axis].min()) * MARGIN + LEAST for axis in ("x", "y"))
    x, y = frame["x"], frame["y"]
    return Window(x.min() - across, x.max() + across, y.min() - up, y.max() + up)


def _around(spots: Sequence[Spot]) -> Window:
    """A square around places, with some room."""
    across, up = [spot.x for spot in spots], [spot.y for spot in spots]
    half = max(max(across) - min(across), max(up) - min(up), LEAST) / 2 * ROOM
    x, y = (max(across) + min(across)) / 2, (max(up) + min(up)) / 2
    return Window(x - half, x + half, y - half, y + half)


def _words_beside(path: pd.DataFrame, window: Window) -> list[charts.Layer]:
    """What the two ends of the way are, on the side where there is room, the higher one's words above the other's."""
    left = path["x"].mean() > (window.left + window.right) / 2
    up = 1 if path["y"].iloc[0] >= path["y"].iloc[1] else -1
    return [
        charts.layer(
            path.iloc[number : number + 1].assign(label=label),
            "text",
            _xy(window) | {"text": charts.word("label")},
            align="right" if left else "left",
            dx=-14 if left else 14,
            dy=APART * (up if number else -up),
            fontSize=12,
            fontWeight="bold",
            color=charts.ink(),
        )
        for number, label in enumerate(("your question", "projected question"))
    ]


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


def _xy(window: Window, x: str = "x", y: str = "y") -> dict[str, charts.Channel]:
    across, up = ({"domain": list(ends), "nice": False, "zero": False} for ends in (window[:2], window[2:]))
    return {"x": charts.number(x, axis=None, scale=across), "y": charts.number(y, axis=None, scale=up)}


def _marks(marks: pd.DataFrame, window: Window) -> list[charts.Layer]:
    voters, answers = marks[marks["what"] == VOTER], marks[marks["what"] == SHOWN]
    how = _xy(window) | {"color": charts.PAINTED, "tooltip": charts.word("text", title=" ")}
    edge = {"stroke": {"value": charts.ink()}}
    return [
        charts.layer(voters, "point", how, shape="circle", size=90, clip=True, strokeWidth=2, opacity=0.9),
        charts.layer(answers, "point", how | edge, shape="diamond", size=150, clip=True, filled=True, opacity=1),
    ]


def arrows_frame(placed: PlacedAsk, colour: dict[int, str]) -> pd.DataFrame:
    """A row for each cluster's W: from the question to where that W alone would take it."""
    weights = {vote.cluster: vote.weight for vote in placed.result.explained.clusters}
    rows = [
        (
            placed.question.x,
            placed.question.y,
            one.x,
            one.y,
            colour.get(one.cluster, charts.REST),
            weights[one.cluster],
            f"W of {one.label}, weight {weights[one.cluster]:.0%}",
        )
        for one in placed.turned_by
    ]
    return pd.DataFrame(rows, columns=["from_x", "from_y", "x", "y", "colour", "weight", "text"])


def _arrows(arrows: pd.DataFrame, window: Window) -> list[charts.Layer]:
    """A line for each W, the wider the more weight it has, and its tip."""
    if arrows.empty:
        return []
    how = {"color": charts.PAINTED, "tooltip": charts.word("text", title=" ")}
    ends = {"x2": {"field": "x"}, "y2": {"field": "y"}}
    wide = charts.number("weight", scale={"domain": [0, 1], "range": [1, 7]}, legend=None)
    line = _xy(window, "from_x", "from_y") | ends | how | {"size": wide}
    return [
        charts.layer(arrows, "rule", line, clip=True, opacity=0.8),
        charts.layer(
            arrows, "point", _xy(window) | how, shape="triangle-up", size=110, filled=True, opacity=1, clip=True
        ),
    ]


def _way(path: pd.DataFrame, window: Window) -> list[charts.Layer]:
    place, ink = _xy(window), charts.ink()
    return [
        charts.layer(path, "line", place, color=ink, clip=True, strokeWidth=2.5, strokeDash=[5, 4]),
        charts.layer(path.iloc[:1], "text", place, text="★", clip=True, fontSize=26, color=ink),
        charts.layer(
            path.iloc[1:], "point", place, shape="circle", size=160, clip=True, filled=True, color=ink, opacity=1
        ),
        *_words_beside(path, window),
    ]


def _legend(named: Mapping[str, str]) -> None:
    """Names, each after a dot of its colour."""
    names = (
        f'<span style="white-space: nowrap"><span aria-hidden="true" style="color: {colour}">●</span> '
        f"{escape(shorten(name, NAME_CHARS))}</span>"
        for name, colour in named.items()
    )
    st.html(f'<div style="display: flex; flex-wrap: wrap; gap: 0 1.2rem; font-size: .85rem">{"".join(names)}</div>')
