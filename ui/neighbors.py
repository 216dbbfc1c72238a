"""Steps 1 and 2 of the story: which known questions are similar, and which clusters they vote for."""

import math
from typing import NamedTuple

import pandas as pd
import streamlit as st

from qaserve.common.text import shorten
from qaserve.schemas.ask import Hit, Trace
from ui import charts, theme
from ui.markdown import literal

HITS_SHOWN = 8
CLUSTERS_SHOWN = 5
DROP = 0.05
VOTE_PIXELS = 240
HIT_SLOT, CLUSTER_SLOT, GAP = 36, 40, 6
LEFT, RIGHT = 0.43, 0.66
CURVE = 8
"""Parts of a band; Vega draws smooth lines through their ends."""
GHOSTS = "The pale wide bars are the default."
SHARES, BAR = 0.54, 0.36
"""Where the bars of shares begin, and the width that stands for 1."""


def names(trace: Trace) -> dict[int, str]:
    """Names of the clusters that were voted for."""
    return {vote.cluster: vote.name for vote in trace.clusters}


def likeness(trace: Trace, before: Trace | None = None) -> None:
    """Step 1. `before`: the trace with the defaults, whose shares are shown as ghost bars."""
    first = trace.hits[0]
    theme.step(1, "These known questions are like yours", _likeness_words(trace))
    theme.let_draw()
    shown = trace.hits[:HITS_SHOWN]
    colour = charts.colours([vote.cluster for vote in trace.clusters])
    height = charts.ROW * len(shown) + 22
    rows = [(26 + charts.ROW * number, hit) for number, hit in enumerate(shown)]
    heads = pd.DataFrame(
        [
            {"x": 0, "y": 10, "label": "similarity (0 to 1)"},
            {"x": SHARES, "y": 10, "label": "share of the vote (0 to 100%)"},
        ]
    )
    labels = pd.DataFrame([{"x": 0, "y": y + 10, "label": shorten(hit.question, 140)} for y, hit in rows])
    alike = [charts.share_bar(0, BAR, hit.similarity, y, charts.REST, f"{hit.similarity:.2f}") for y, hit in rows]
    shares = [
        charts.share_bar(
            SHARES, BAR, hit.probability, y, colour.get(hit.cluster, charts.REST), f"{hit.probability:.1%}"
        )
        for y, hit in rows
    ]
    was = {} if before is None else {hit.id: hit.probability for hit in before.hits}
    ghosts = [charts.share_bar(SHARES, BAR, was[hit.id], y, "", "") for y, hit in rows if hit.id in was]
    layers = [
        charts.texts(heads, "label", height, quiet=True, limit=0.44),
        charts.texts(labels, "label", height),
        charts.full_tracks(alike, BAR, height),
        charts.full_tracks(shares, BAR, height),
        *([charts.ghosts(pd.DataFrame(ghosts), height)] if ghosts else []),
        charts.bars(pd.DataFrame(alike), height),
        charts.bars(pd.DataFrame(shares), height),
        charts.texts(charts.ends(alike, BAR), "hint", height, quiet=True, centred=True),
        charts.texts(charts.ends(shares, BAR), "hint", height, quiet=True, centred=True),
    ]
    charts.show(
        layers,
        height,
        "chart_likeness",
        f"Similarity and share of the vote of the known questions; the first has similarity {first.similarity:.2f}.",
    )
    if ghosts:
        st.caption(GHOSTS)
    rest = trace.hits[HITS_SHOWN:]
    if rest:
        share = theme.percent(sum(hit.probability for hit in rest))
        st.caption(f"The remaining {share} of the vote goes to {theme.counted(len(rest), 'more question')}.")
    _hits_table(trace)


def _likeness_words(trace: Trace) -> str:
    first, factor = trace.hits[0], math.exp(DROP / trace.params.temperature)
    text = (
        f"Your question is compared with all known questions. The most similar ones vote: {len(trace.hits)}. The first "
        f"has similarity **{first.similarity:.2f}** (1 is identical) and gets **{theme.percent(first.probability)}** "
        f"of the vote. Each {DROP} drop in similarity divides a question's weight by {factor:.1f} (temperature "
        f"τ = {trace.params.temperature:g})."
    )
    if _weighed(trace):
        text += (
            " Each weight is multiplied by the question's importance, its *prior*: 2 counts double."
            if trace.params.priors
            else " Their importance, the *prior*, is switched off."
        )
    return text


def _weighed(trace: Trace) -> bool:
    """Whether the known questions have priors that differ from none."""
    return any(hit.prior != 1 for hit in trace.hits)


def _hits_table(trace: Trace) -> None:
    called = names(trace)
    frame = pd.DataFrame(
        {
            "known question": [hit.question for hit in trace.hits],
            "similarity": [hit.similarity for hit in trace.hits],
            **({"prior": [hit.prior for hit in trace.hits]} if _weighed(trace) else {}),
            "share": [hit.probability for hit in trace.hits],
            "votes for": [called.get(hit.cluster, "") for hit in trace.hits],
        }
    )
    charts.table(frame, f"All votes ({len(trace.hits)})", similarity="%.3f", prior="%.2f", share=charts.PERCENT)


def flow(trace: Trace) -> None:
    """Step 2."""
    head = "They vote for these clusters of answers" if trace.hits else "The nearest clusters are used"
    theme.step(2, head, _flow_words(trace))
    if trace.hits:
        _flow_chart(trace)
    else:
        _weights_chart(trace)
    frame = pd.DataFrame(
        {
            "cluster": [vote.name for vote in trace.clusters],
            "weight": [vote.weight for vote in trace.clusters],
            "voters": [vote.hits for vote in trace.clusters],
            "vote": [vote.vote if vote.vote is not None else vote.weight for vote in trace.clusters],
        }
    )
    if not trace.hits:
        frame = frame.drop(columns=["voters", "vote"]).assign(
            similarity=[vote.similarity or 0.0 for vote in trace.clusters]
        )
    elif trace.params.routing != "question2":
        frame = frame.drop(columns="vote")
    charts.table(frame, f"All clusters ({len(frame)})", weight=charts.PERCENT, vote=charts.PERCENT, similarity="%.3f")


def _flow_words(trace: Trace) -> str:
    first = trace.clusters[0]
    if trace.params.routing == "centroid":
        return (
            "No question votes with this routing. It uses the clusters whose mean question is most similar to yours. "
            f"**{literal(first.name)}** has the largest weight: {theme.percent(first.weight)}."
        )
    text = (
        "A cluster is a group of similar answers. Each known question votes for the cluster of its own answer. "
        f"**{literal(first.name)}** gets most: {theme.percent(first.vote or first.weight)}, from "
        f"{first.hits} of {theme.counted(len(trace.hits), 'question')}."
    )
    if trace.params.routing == "question2":
        text += (
            f" A second softmax over all clusters (τ' = {trace.params.final_temperature:g}) changes its weight to "
            f"{theme.percent(first.weight)}."
        )
    return text


def _flow_chart(trace: Trace) -> None:
    shown = [vote.cluster for vote in trace.clusters if vote.hits][:CLUSTERS_SHOWN]
    colour = charts.colours([vote.cluster for vote in trace.clusters])
    called = names(trace)
    left = [(shorten(hit.question, 120), _alike(hit), [hit]) for hit in trace.hits[:HITS_SHOWN]]
    rest = list(trace.hits[HITS_SHOWN:])
    if rest:
        left.append(
            (theme.counted(len(rest), "more known question"), theme.percent(sum(h.probability for h in rest)), rest)
        )
    ends: list[tuple[str, str, list[int]]] = [(called[one], _counted(trace, [one]), [one]) for one in shown]
    others = sorted({hit.cluster for hit in trace.hits} - set(shown))
    if others:
        ends.append((theme.counted(len(others), "more cluster"), _counted(trace, others), others))
    sources = _slots([sum(hit.probability for hit in hits) for _, _, hits in left], HIT_SLOT)
    target = {one: number for number, (_, _, clusters) in enumerate(ends) for one in clusters}
    got = [sum(hit.probability for hit in trace.hits if target[hit.cluster] == number) for number in range(len(ends))]
    targets = _slots(got, CLUSTER_SLOT)
    height = max(_bottom(sources), _bottom(targets)) + GAP
    ribbons = _ribbons(
        [(hits, top) for (_, _, hits), (_, top, _) in zip(left, sources, strict=True)], target, targets, colour
    )
    area = charts.layer(
        pd.DataFrame(ribbons),
        "area",
        charts.place(height)
        | {"y2": {"field": "y2"}, "detail": charts.word("ribbon"), "color": charts.PAINTED, "tooltip": charts.HINT},
        opacity=0.5,
        interpolate="monotone",
    )
    layers = [area, *_labels([one[:2] for one in left], sources, 0, LEFT - 0.03, height)]
    layers += _labels([one[:2] for one in ends], targets, RIGHT + 0.02, 0.98 - RIGHT, height)
    charts.show(
        layers, height, "chart_flow", "Bands from known questions to the clusters they vote for; see the table."
    )


def _alike(hit: Hit) -> str:
    return f"similarity {hit.similarity:.2f} → {theme.percent(hit.probability)}"


def _counted(trace: Trace, clusters: list[int]) -> str:
    hits = [hit for hit in trace.hits if hit.cluster in clusters]
    share = theme.percent(sum(hit.probability for hit in hits))
    return f"{share} · {theme.counted(len(hits), 'question')}"


def _slots(shares: list[float], least: float) -> list[tuple[float, float, float]]:
    """For each share (top of its slot, top of its band, bottom of its slot), in pixels."""
    slots, top = [], 0.0
    for share in shares:
        size = max(share * VOTE_PIXELS, least)
        slots.append((top, top + (size - share * VOTE_PIXELS) / 2, top + size))
        top += size + GAP
    return slots


def _bottom(slots: list[tuple[float, float, float]]) -> float:
    return slots[-1][2]


def _labels(
    rows: list[tuple[str, str]], slots: list[tuple[float, float, float]], x: float, limit: float, height: float
) -> list[charts.Layer]:
    middles = [(top + bottom) / 2 for top, _, bottom in slots]
    upper = pd.DataFrame([{"x": x, "y": y - 2, "label": text} for (text, _), y in zip(rows, middles, strict=True)])
    lower = pd.DataFrame([{"x": x, "y": y + 13, "label": text} for (_, text), y in zip(rows, middles, strict=True)])
    return [
        charts.texts(upper, "label", height, limit=limit),
        charts.texts(lower, "label", height, limit=limit, quiet=True),
    ]


def _ribbons(
    sources: list[tuple[list[Hit], float]],
    target: dict[int, int],
    targets: list[tuple[float, float, float]],
    colour: dict[int, str],
) -> list[dict[str, float | str | int]]:
    """Points of every band: from a hit's share on the left to its cluster's on the right."""
    filled = [band for _, band, _ in targets]
    points: list[dict[str, float | str | int]] = []
    for ribbon, (hit, start) in enumerate(_starts(sources)):
        number, width = target[hit.cluster], hit.probability * VOTE_PIXELS
        end, filled[number] = filled[number], filled[number] + width
        for step in range(CURVE + 1):
            part = step / CURVE
            y = start + (end - start) * part * part * (3 - 2 * part)
            points.append(
                {
                    "ribbon": ribbon,
                    "x": LEFT + (RIGHT - LEFT) * part,
                    "y": y,
                    "y2": y + max(width, 0.8),
                    "colour": colour.get(hit.cluster, charts.REST),
                    "hint": f"{shorten(hit.question, 80)}: {hit.probability:.1%}",
                }
            )
    return points


def _starts(sources: list[tuple[list[Hit], float]]) -> list[tuple[Hit, float]]:
    found = []
    for hits, top in sources:
        at = top
        for hit in hits:
            found.append((hit, at))
            at += hit.probability * VOTE_PIXELS
    return found


class Change(NamedTuple):
    """A cluster's weight with the defaults and now."""

    cluster: int
    name: str
    before: float
    after: float


def changes(before: Trace, after: Trace) -> list[Change]:
    """Of the clusters that have a weight before or after, the largest of both first."""
    old, new = ({vote.cluster: vote.weight for vote in trace.clusters} for trace in (before, after))
    found = [Change(k, name, old.get(k, 0.0), new.get(k, 0.0)) for k, name in (names(before) | names(after)).items()]
    return sorted(found, key=lambda one: -max(one.before, one.after))


def before_and_after(before: Trace, after: Trace) -> None:
    """The weights of the clusters, with those of the default as ghost bars."""
    changed = changes(before, after)
    shown = changed[:CLUSTERS_SHOWN]
    if not shown:
        return
    colour = charts.colours([vote.cluster for vote in after.clusters])
    height = charts.ROW * len(shown)
    tops = [charts.ROW * number for number in range(len(shown))]
    labels = pd.DataFrame([{"x": 0, "y": top + 12, "label": row.name} for top, row in zip(tops, shown, strict=True)])
    now, was = [], []
    for top, row in zip(tops, shown, strict=True):
        hint = f"{theme.percent(row.before)} → {theme.percent(row.after)}"
        now.append(charts.share_bar(0, charts.WIDE, row.after, top + 6, colour.get(row.cluster, charts.REST), hint))
        was.append(charts.share_bar(0, charts.WIDE, row.before, top + 6, "", hint))
    layers = [
        charts.texts(labels, "label", height),
        charts.full_tracks(now, charts.WIDE, height),
        charts.ghosts(pd.DataFrame(was), height),
        charts.bars(pd.DataFrame(now), height),
        charts.texts(charts.ends(now, charts.WIDE), "hint", height, quiet=True, centred=True),
    ]
    first = shown[0]
    charts.show(
        layers,
        height,
        "chart_changes",
        f"Weights of clusters before and after; {first.name} goes from {theme.percent(first.before)} to "
        f"{theme.percent(first.after)}.",
    )
    st.caption(GHOSTS)
    charts.table(
        pd.DataFrame([one[1:] for one in changed], columns=["cluster", "default", "now"]),
        "Clusters before and after",
        default=charts.PERCENT,
        now=charts.PERCENT,
    )


def _weights_chart(trace: Trace) -> None:
    shown = trace.clusters[: CLUSTERS_SHOWN + 3]
    colour = charts.colours([vote.cluster for vote in trace.clusters])
    rows = [(vote.name, vote.weight, colour[vote.cluster], theme.percent(vote.weight)) for vote in shown]
    charts.shares(rows, "chart_flow", "Clusters by weight; the table has the figures.")
