"""Charts that stay readable from a phone to a wide screen: labels stand on lines of their own, in pixels.

They are written in Vega-Lite itself. Altair writes it too, and takes 23 ms instead of 1 for a chart of four layers.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
import streamlit as st

Channel = dict[str, Any]
"""What decides one property of a mark: https://vega.github.io/vega-lite/docs/encoding.html"""
Layer = dict[str, Any]
"""A layer, with its rows: https://vega.github.io/vega-lite/docs/layer.html"""
PALETTE = ("#0d9488", "#d97706", "#3b82f6", "#db2777", "#7c3aed", "#65a30d")
REST = "#9ca3af"
PERCENT = "%.1f%%"
ROW = 44
"""Pixels of a row: a label, and a bar under it."""
CHOOSE: tuple[Literal["single-row"], Literal["single-cell"]] = ("single-row", "single-cell")
"""How a row of a table is selected."""
WIDE = 0.8
"""Share of the width that is 100% where a row has one bar."""


def ink() -> str:
    """The colour of text in the theme that is shown."""
    return "#e7e5e4" if dark() else "#292524"


def faint() -> str:
    """The colour of what stands behind."""
    return "#57534e" if dark() else "#d6d3d1"


def dark() -> bool:
    """Whether the dark theme is shown."""
    return st.context.theme.type == "dark"


def colours(clusters: list[int]) -> dict[int, str]:
    """A colour for each of the first clusters; the others share one."""
    return {cluster: PALETTE[number] if number < len(PALETTE) else REST for number, cluster in enumerate(clusters)}


def number(field: str, **how: Any) -> Channel:
    """A channel of a column of numbers."""
    return {"field": field, "type": "quantitative", **how}


def word(field: str, **how: Any) -> Channel:
    """A channel of a column of texts."""
    return {"field": field, "type": "nominal", **how}


PAINTED = word("colour", scale=None)
"""The colour that a row names."""
HINT = word("hint", title=" ")


def layer(data: pd.DataFrame | Mapping[str, Any], kind: str, encoding: Mapping[str, Any], **mark: Any) -> Layer:
    """A layer of a chart.

    Args:
        data: Its rows, or where Vega-Lite gets them.
        kind: What is drawn for each: text, rule, point, line, area, rect or circle.
        encoding: Which column decides what.
        mark: What is the same for all.
    """
    return {"data": data, "mark": {"type": kind, **mark}, "encoding": dict(encoding)}


def place(height: float) -> dict[str, Channel]:
    """The columns x, from 0, left, to 1, right, and y, in pixels from the top."""
    down = {"domain": [0, height], "range": [0, {"expr": "height"}], "nice": False, "zero": False}
    return {
        "x": number("x", scale={"domain": [0, 1], "nice": False}, axis=None),
        "y": number("y", scale=down, axis=None),
    }


def texts(
    frame: pd.DataFrame,
    column: str,
    height: float,
    *,
    limit: float = 1.0,
    quiet: bool = False,
    centred: bool = False,
) -> Layer:
    """Labels at the columns x (0 to 1) and y (pixels), cut at a share of the width."""
    return layer(
        frame,
        "text",
        place(height) | {"text": word(column)},
        align="left",
        baseline="middle" if centred else "alphabetic",
        fontSize=12 if quiet else 13,
        limit={"expr": f"width * {limit}"},
        color=ink(),
        opacity=0.7 if quiet else 1.0,
    )


def bars(frame: pd.DataFrame, height: float, thickness: float = 9, *, cap: Literal["round", "butt"] = "round") -> Layer:
    """Bars from x to x2 (0 to 1) at y (pixels), in the colour of their row. `cap`: "butt" for bars that touch."""
    encoding = _between(height) | {"color": PAINTED, "tooltip": HINT}
    return layer(frame, "rule", encoding, strokeWidth=thickness, strokeCap=cap)


def tracks(frame: pd.DataFrame, height: float, thickness: float = 9) -> Layer:
    """Faint bars from x to x2, to stand behind bars: they show where 100% is."""
    return layer(frame, "rule", _between(height), strokeWidth=thickness, strokeCap="round", color=faint(), opacity=0.4)


def _between(height: float) -> dict[str, Channel]:
    return place(height) | {"x2": {"field": "x2"}}


def share_bar(x: float, width: float, share: float, y: float, colour: str, hint: str) -> dict[str, float | str]:
    """A bar from x for a share of 0 to 1, on a fixed axis: 1 is `width`, whatever the other bars are."""
    return {"x": x, "x2": x + max(width * share, 0.004), "y": y + 22, "colour": colour, "hint": hint}


def ends(rows: list[dict[str, float | str]], width: float) -> pd.DataFrame:
    """Where the hints of bars of shares stand: after 100%."""
    frame = pd.DataFrame(rows)
    return frame.assign(x=frame["x"] + width + 0.015)


def full_tracks(rows: list[dict[str, float | str]], width: float, height: float) -> Layer:
    """The tracks of bars of shares, each up to 100%."""
    frame = pd.DataFrame(rows)
    return tracks(frame.assign(x2=frame["x"] + width), height)


def ghosts(frame: pd.DataFrame, height: float) -> Layer:
    """Wide pale bars from x to x2, to stand behind bars: they show what was before."""
    return layer(frame, "rule", _between(height), strokeWidth=17, strokeCap="butt", color=ink(), opacity=0.28)


def layered(layers: Sequence[Layer], height: float) -> dict[str, Any]:
    """The Vega-Lite of layers on each other, back to front, without a frame.

    Rows stand beside it under names that stay: where only they change, the browser does not build the chart anew.

    Args:
        layers: What is drawn.
        height: Pixels.
    """
    frames, drawn = dict[str, pd.DataFrame](), list[Layer]()
    for row, one in enumerate(layers):
        name = f"rows{row}"
        if isinstance(one["data"], pd.DataFrame):
            frames[name] = one["data"]
        drawn.append(one | {"data": {"name": name}} if name in frames else one)
    return {
        "layer": drawn,
        "datasets": frames,
        "height": height,
        "padding": {"left": 2, "right": 6, "top": 4, "bottom": 4},
        "config": {"view": {"stroke": None}},
    }


def show(layers: Sequence[Layer], height: float, key: str, alternative: str) -> None:
    """Draw layers on each other, as wide as there is room.

    Args:
        layers: What is drawn, back to front.
        height: Pixels.
        key: Of the element.
        alternative: The text for those who cannot see it.
    """
    st.vega_lite_chart(layered(layers, height), width="stretch", key=key, alt=alternative)


def shares(rows: Sequence[tuple[str, float, str, str]], key: str, alternative: str) -> None:
    """Draw a bar below each label, from 0 to 100%.

    Args:
        rows: Label, share of 0 to 1, colour, and the share as it is written.
        key: As of `show`.
        alternative: As of `show`.
    """
    height = ROW * len(rows)
    tops = [ROW * number for number in range(len(rows))]
    labels = [{"x": 0, "y": top + 14, "label": label} for top, (label, *_) in zip(tops, rows, strict=True)]
    drawn = [share_bar(0, WIDE, share, top + 4, *look) for top, (_, share, *look) in zip(tops, rows, strict=True)]
    layers = [
        texts(pd.DataFrame(labels), "label", height),
        full_tracks(drawn, WIDE, height),
        bars(pd.DataFrame(drawn), height),
        texts(ends(drawn, WIDE), "hint", height, quiet=True, centred=True),
    ]
    show(layers, height, key, alternative)


def chosen_row(state: Mapping[str, Any]) -> int | None:
    """The row of a table that is selected: by its box, or by a click on one of its cells. `CHOOSE` allows both."""
    found = state["selection"]
    return next(iter([*found["rows"], *(row for row, _ in found.get("cells", []))]), None)


def table(frame: pd.DataFrame, label: str = "The figures", **formats: Any) -> None:
    """The table of a chart, folded away.

    Args:
        frame: The figures.
        label: What the fold is called.
        formats: printf forms by column, for numbers; `PERCENT` for shares.
    """
    with st.expander(label, icon=":material/table:"):
        shares = [name for name, form in formats.items() if form == PERCENT and name in frame]
        frame = frame.assign(**{name: 100 * frame[name] for name in shares})
        config = {
            name: st.column_config.NumberColumn(format=form, width="small")
            for name, form in formats.items()
            if name in frame
        }
        st.dataframe(frame, hide_index=True, column_config=config, height="content")
