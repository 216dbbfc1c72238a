"""What the map shows: its window, the rows of its answers and marks, and the layers that draw them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from qaserve.common.text import shorten
from qaserve.schemas.explore import CorpusMap, MapCluster, MapMark, PlacedAsk, Spot
from ui import charts
from ui.markdown import plain_name

ANSWERS = "map_answers"
"""Path of the page's server that gives them, and name of their layer."""
NAME_CHARS = 34
HEIGHT = 460
ROOM = 1.25
LEAST = 0.03
MARGIN = 0.06
"""Share of the answers' range that is added on each side."""
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
BANDS = ((0.75, "75% or more of the vote"), (0.4, "40 to 75%"), (0.0, "less than 40%"))
"""By the share of the vote that all other known questions give to the answer's own cluster, for its question."""
CELLS = 56
"""Of the density, along each axis."""
BLUR = 1.4
"""Standard deviation of the density's kernel, in cells."""
FAINTEST, DARKEST = 0.03, 0.6
"""Cells below this share of the densest are left out; opacity of the densest."""
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
            plain_name(one.skill),
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


def names_layer(corpus: CorpusMap, window: Window) -> charts.Layer:
    """The names of clusters, as many as find room on a map as wide as it is drawn."""
    names = pd.DataFrame(
        [
            {"x": one.x, "y": one.y, "label": shorten(one.name, NAME_CHARS), "least": width}
            for one, width in labelled(corpus, window)
        ]
    )
    fits = {"condition": {"test": "datum.least <= width", "value": 1}, "value": 0}
    return charts.layer(
        names,
        "text",
        _xy(window) | {"text": charts.word("label"), "opacity": fits},
        dy=-11,
        fontSize=11,
        fontWeight="bold",
        color=charts.ink(),
        clip=True,
        align={"expr": WHOLE_NAME},
    )


def dots(build: str, window: Window, by: str, colours: Mapping[Any, str]) -> charts.Layer:
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
    window = fitting(frame)
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


def density_layer(frame: pd.DataFrame, window: Window) -> charts.Layer:
    """`density`, as shading."""
    shade = {"domain": [0, 1], "range": [0, DARKEST]}
    encoding = _xy(window) | {
        "x2": {"field": "x2"},
        "y2": {"field": "y2"},
        "opacity": charts.number("share", scale=shade, legend=None),
    }
    return charts.layer(density(frame), "rect", encoding, clip=True, color=charts.PALETTE[0], strokeWidth=0, aria=False)


def fitting(frame: pd.DataFrame) -> Window:
    """The smallest window that holds all answers, with some room."""
    across, up = ((frame[axis].max() - frame[axis].min()) * MARGIN + LEAST for axis in ("x", "y"))
    x, y = frame["x"], frame["y"]
    return Window(x.min() - across, x.max() + across, y.min() - up, y.max() + up)


def around(spots: Sequence[Spot]) -> Window:
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


def marks_frame(voters: Sequence[MapMark], answers: Sequence[MapMark], colour: dict[int, str]) -> pd.DataFrame:
    """A row for each known question that voted and each answer shown, in its cluster's colour."""
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


def mark_layers(marks: pd.DataFrame, window: Window) -> list[charts.Layer]:
    """Circles for voters, diamonds for answers; rows as of `marks_frame`."""
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


def arrow_layers(arrows: pd.DataFrame, window: Window) -> list[charts.Layer]:
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


def way_layers(path: pd.DataFrame, window: Window) -> list[charts.Layer]:
    """From the question to where it is projected; a row for each of the two, in this order."""
    place, ink = _xy(window), charts.ink()
    return [
        charts.layer(path, "line", place, color=ink, clip=True, strokeWidth=2.5, strokeDash=[5, 4]),
        charts.layer(path.iloc[:1], "text", place, text="★", clip=True, fontSize=26, color=ink),
        charts.layer(
            path.iloc[1:], "point", place, shape="circle", size=160, clip=True, filled=True, color=ink, opacity=1
        ),
        *_words_beside(path, window),
    ]
