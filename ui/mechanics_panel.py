"""Between steps 1 and 2 of the story: whether one strong match decides the vote, or many."""

import json
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from qaserve.common.text import shorten
from qaserve.schemas.ask import Trace
from ui import charts, theme
from ui.markdown import literal
from ui.mechanics import ClusterState, Mechanics, Sweep, mechanics, stable_range, sweep

TITLE = "One strong match or many?"
CLUSTERS_SHOWN = 5
LOWEST, HIGHEST, STEPS = 0.01, 0.5, 60
WIDTH = 0.8
"""Share of the chart's width that is 100%."""
ROW = 58
SWEEP_HEIGHT, LEGEND_LINE = 280, 20
"""Pixels of the sweep, and of each name below it, which Streamlit takes from the height of the chart."""
NAME_CHARS = 60
OTHERS = "other clusters"
FORMULAS = """
The vote is a canonical ensemble. Similarity is negative energy, and the temperature τ decides how much it counts.

- Energy of a hit, from the most similar hit: $E_i = s_{max} - s_i$
- Boltzmann weight of a hit: $b_i = prior_i · e^{-E_i/τ}$, and its share of the vote: $p_i = b_i / \\sum_j b_j$
- Degeneracy of a cluster: $g_k$, the number of its hits
- Partition function of a cluster: $Z_k = \\sum_{i \\in k} b_i$, and its free energy: $F_k = -τ \\log Z_k$
- Weight of a cluster: $w_k = Z_k / \\sum_j Z_j$
- Effective number of voters: $e^{H(p)}$, and of clusters: $e^{H(w)}$, with the entropy $H(p) = -\\sum_i p_i \\log p_i$
"""


def draw(trace: Trace, default: float) -> None:
    """Draw the panel.

    Args:
        trace: Of the question.
        default: τ of the build.
    """
    st.markdown(f"## {TITLE}")
    if not trace.hits:
        st.markdown(
            "No known question votes with this routing, so there is no energy to compare."
            if trace.clusters
            else "A student answers without a vote, so there is no energy to compare."
        )
        return
    called = _names(trace)
    found = mechanics(trace.hits, trace.params.temperature, priors=trace.params.priors)
    st.markdown(summary(found, called))
    if trace.params.routing == "question2":
        st.caption("The figures are those of the vote, before the second softmax.")
    _numbers(found, len(trace.hits))
    _weights(found, called)
    _sweep(trace, found, called, default)
    _tables(trace, found, called)


def _names(trace: Trace) -> dict[int, str]:
    """Names of all clusters that have a hit; one whose weight is too small for a float is named by its number."""
    named = {vote.cluster: vote.name for vote in trace.clusters}
    return named | {hit.cluster: f"cluster {hit.cluster}" for hit in trace.hits if hit.cluster not in named}


def summary(found: Mechanics, called: dict[int, str]) -> str:
    """What decides: one strong match, or many.

    Args:
        found: The vote.
        called: Names of clusters.
    """
    first = found.clusters[0]
    strongest = max(found.clusters, key=lambda state: state.best_weight)
    name = literal(called[first.cluster])
    said = (
        f"**{name}** gets **{theme.percent(first.weight)}** of the vote from {theme.counted(first.degeneracy, 'hit')}. "
        f"If only the best hit of each cluster voted, it would get **{theme.percent(first.best_weight)}**"
    )
    if strongest.cluster != first.cluster:
        return (
            f"{said}, and **{literal(called[strongest.cluster])}** would lead with "
            f"{theme.percent(strongest.best_weight)}. Many matches decide, not the strongest one."
        )
    if len(found.clusters) == 1:
        return f"{said}. All hits are in this cluster."
    if first.weight > first.best_weight:
        return f"{said}. It leads by its best hit, and its other hits add to the lead."
    return f"{said}. One strong match decides. The other clusters gain by their number of hits."


def _numbers(found: Mechanics, hits: int) -> None:
    with st.grid(2, min_column_width=150):
        st.metric(
            "Effective voters",
            f"{found.voters:.1f} of {hits}",
            help=f"Exponential of the entropy of the votes ({found.entropy:.2f} nats). 1: one question decides.",
            border=True,
        )
        st.metric(
            "Effective clusters",
            f"{found.effective_clusters:.1f} of {len(found.clusters)}",
            help=f"Exponential of the entropy of the cluster weights ({found.cluster_entropy:.2f} nats). 1: one "
            "cluster decides.",
            border=True,
        )


def weight_rows(found: Mechanics, called: dict[int, str], colour: dict[int, str]) -> pd.DataFrame:
    """Two bars for each of the first clusters: all its hits, and its best hit alone. Both run from 0 to 100%."""
    rows = []
    for number, state in enumerate(found.clusters[:CLUSTERS_SHOWN]):
        label, tone = shorten(called[state.cluster], 140), colour.get(state.cluster, charts.REST)
        for line, (share, shade, what) in enumerate(
            ((state.weight, tone, "all hits"), (state.best_weight, charts.REST, "best hit alone"))
        ):
            rows.append(
                {
                    "x": 0.0,
                    "x2": WIDTH * share,
                    "y": ROW * number + 24 + 15 * line,
                    "colour": shade,
                    "hint": f"{share:.1%} {what}",
                    "label": label,
                    "head": ROW * number + 12,
                }
            )
    return pd.DataFrame(rows)


def _weights(found: Mechanics, called: dict[int, str]) -> None:
    colour = charts.colours(list(called))
    frame = weight_rows(found, called, colour)
    height = ROW * min(len(found.clusters), CLUSTERS_SHOWN)
    heads = frame.drop_duplicates("head")
    layers = [
        charts.tracks(frame.assign(x2=WIDTH), height, thickness=7),
        charts.texts(heads.assign(y=heads["head"]), "label", height),
        charts.bars(frame, height, thickness=7),
        charts.texts(frame.assign(x=WIDTH + 0.015), "hint", height, quiet=True, centred=True),
    ]
    first = found.clusters[0]
    charts.show(
        layers,
        height,
        "chart_matches",
        f"Weight of each cluster by all its hits and by its best hit alone; the first: {first.weight:.0%} and "
        f"{first.best_weight:.0%}. The table has the figures.",
    )


def temperatures(*marked: float) -> list[float]:
    """The values of τ of the sweep: logarithmic steps, with the marked ones among them."""
    lowest, highest = min(LOWEST, *marked), max(HIGHEST, *marked)
    steps = np.geomspace(lowest, highest, STEPS).tolist()
    return sorted({*steps[1:-1], lowest, highest, *marked})


def sweep_rows(swept: Sweep, found: Mechanics, called: dict[int, str]) -> pd.DataFrame:
    """Weights of the first clusters, and of the others together, at every τ of the sweep."""
    shown = [state.cluster for state in found.clusters[:CLUSTERS_SHOWN]]
    frame = pd.DataFrame(swept.weights, columns=list(swept.clusters), index=swept.temperatures)
    columns = {shorten(called[one], NAME_CHARS): frame[one] for one in shown}
    if len(swept.clusters) > len(shown):
        columns[OTHERS] = frame.drop(columns=shown).sum(axis=1)
    wide = pd.DataFrame(columns).rename_axis("temperature").reset_index()
    return wide.melt("temperature", var_name="cluster", value_name="weight")


def _sweep(trace: Trace, found: Mechanics, called: dict[int, str], default: float) -> None:
    now = trace.params.temperature
    swept = sweep(trace.hits, temperatures(now, default), priors=trace.params.priors)
    low, high = stable_range(swept, now)
    st.markdown(
        f"**How much does the temperature decide?** **{literal(called[found.clusters[0].cluster])}** leads from "
        f"τ = {low:.2g} to τ = {high:.2g}. The line marks the build's τ = {default:g}"
        f"{'' if now == default else f', the dashed line the τ = {now:g} of this answer'}."
    )
    frame = sweep_rows(swept, found, called)
    colour = charts.colours(list(called))
    names = list(frame["cluster"].unique())
    shades = [colour.get(state.cluster, charts.REST) for state in found.clusters[:CLUSTERS_SHOWN]]
    across = charts.number(
        "temperature",
        scale={"type": "log", "nice": False},
        axis={"values": [0.01, 0.02, 0.05, 0.1, 0.2, 0.5], "format": "g", "grid": False},
        title="temperature τ",
    )
    encoding = {
        "x": across,
        "y": charts.number(
            "weight", scale={"domain": [0, 1]}, axis={"format": "%", "tickCount": 5}, title="cluster weight"
        ),
        "color": charts.word(
            "cluster",
            scale={"domain": names, "range": [*shades, charts.REST][: len(names)]},
            legend={"orient": "bottom", "title": None, "columns": 1, "labelLimit": 340},
        ),
        "strokeDash": {
            "condition": {"test": f"datum.cluster === {json.dumps(OTHERS)}", "value": [2, 3]},
            "value": [1, 0],
        },
        "tooltip": [
            charts.word("cluster"),
            charts.number("temperature", format=".3f"),
            charts.number("weight", format=".1%"),
        ],
    }
    lines = charts.layer(frame, "line", encoding, strokeWidth=2.5)
    marks = [_line_at(default, across)]
    if now != default:
        marks.append(_line_at(now, across, strokeDash=[5, 4]))
    charts.show(
        [lines, *marks],
        SWEEP_HEIGHT + LEGEND_LINE * len(names),
        "chart_temperature",
        f"Cluster weights at temperatures from {frame['temperature'].min():g} to {frame['temperature'].max():g}; "
        f"the build's is {default:g}.",
    )


def _line_at(temperature: float, across: charts.Channel, **mark: Any) -> charts.Layer:
    frame = pd.DataFrame({"temperature": [temperature]})
    return charts.layer(frame, "rule", {"x": across}, color=charts.ink(), **mark)


def _tables(trace: Trace, found: Mechanics, called: dict[int, str]) -> None:
    charts.table(
        cluster_table(found.clusters, called),
        "Free energies of the clusters",
        **{
            "best hit": "%.3f",
            "Z": "%.4g",
            "free energy": "%.4f",
            "share of the vote": charts.PERCENT,
            "by best hit alone": charts.PERCENT,
        },
    )
    charts.table(
        pd.DataFrame(
            {
                "known question": [hit.question for hit in trace.hits],
                "energy": found.energies,
                **({"prior": [hit.prior for hit in trace.hits]} if trace.params.priors else {}),
                "Boltzmann weight": found.factors,
                "cluster": [called[hit.cluster] for hit in trace.hits],
            }
        ),
        "Energies of the hits",
        **{"energy": "%.3f", "prior": "%.2f", "Boltzmann weight": "%.4f"},
    )
    with st.expander("The formulas", icon=":material/function:"):
        st.markdown(FORMULAS)


def cluster_table(states: tuple[ClusterState, ...], called: dict[int, str]) -> pd.DataFrame:
    """One row for each cluster."""
    return pd.DataFrame(
        {
            "cluster": [called[state.cluster] for state in states],
            "hits (g)": [state.degeneracy for state in states],
            "best hit": [state.best for state in states],
            "Z": [state.partition for state in states],
            "free energy": [state.free_energy for state in states],
            "share of the vote": [state.weight for state in states],
            "by best hit alone": [state.best_weight for state in states],
        }
    )
