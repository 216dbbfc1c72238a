"""Charts that stay readable from a phone to a wide screen: labels stand on lines of their own, in pixels."""

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

PALETTE = ("#0d9488", "#d97706", "#3b82f6", "#db2777", "#7c3aed", "#65a30d")
REST = "#9ca3af"
ROW = 44
"""Pixels of a row: a label, and a bar under it."""


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


def pixels(height: float) -> alt.Scale:
    """A vertical scale in pixels, from the top."""
    return alt.Scale(domain=[0, height], range=[0, alt.expr("height")], nice=False, zero=False)


def unit() -> alt.Scale:
    """A horizontal scale from 0, left, to 1, right."""
    return alt.Scale(domain=[0, 1], nice=False)


def texts(
    frame: pd.DataFrame,
    column: str,
    height: float,
    *,
    limit: float = 1.0,
    align: str = "left",
    bold: bool = False,
    quiet: bool = False,
    baseline: str = "alphabetic",
) -> alt.Chart:
    """Labels at the columns x (0 to 1) and y (pixels), cut at a share of the width."""
    mark = alt.Chart(frame).mark_text(
        align=align,
        baseline=baseline,
        fontSize=12 if quiet else 13,
        fontWeight="bold" if bold else "normal",
        limit=alt.expr(f"width * {limit}"),
        color=ink(),
        opacity=0.7 if quiet else 1.0,
    )
    return mark.encode(
        x=alt.X("x:Q", scale=unit(), axis=None), y=alt.Y("y:Q", scale=pixels(height), axis=None), text=column
    )


def bars(frame: pd.DataFrame, height: float, thickness: float = 9) -> alt.Chart:
    """Bars from x to x2 (0 to 1) at y (pixels), in the colour of their row."""
    mark = alt.Chart(frame).mark_rule(strokeWidth=thickness, strokeCap="round")
    return mark.encode(
        x=alt.X("x:Q", scale=unit(), axis=None),
        x2="x2:Q",
        y=alt.Y("y:Q", scale=pixels(height), axis=None),
        color=alt.Color("colour:N", scale=None),
        tooltip=alt.Tooltip("hint:N", title=" "),
    )


def show(layers: list[alt.Chart], height: float, key: str, alternative: str) -> None:
    """Draw layers on each other, as wide as there is room.

    Args:
        layers: What is drawn, back to front.
        height: Pixels.
        key: Of the element.
        alternative: The text for those who cannot see it.
    """
    chart = alt.layer(*layers).properties(height=height, padding={"left": 2, "right": 6, "top": 4, "bottom": 4})
    st.altair_chart(chart.configure_view(stroke=None), width="stretch", key=key, alt=alternative)


def table(frame: pd.DataFrame, label: str = "The figures", **formats: Any) -> None:
    """The table of a chart, folded away; `formats` of columns, or percent for shares.

    Args:
        frame: The figures.
        label: What the fold is called.
        formats: printf forms by column, for numbers.
    """
    with st.expander(label, icon=":material/table:"):
        config = {
            name: st.column_config.NumberColumn(format=form, width="small")
            for name, form in formats.items()
            if name in frame
        }
        st.dataframe(frame, hide_index=True, column_config=config, height="content")
