"""Why a question got its answers: the vote, the turn, and what would have come first without."""

import altair as alt
import pandas as pd
import streamlit as st

from qaserve.records import AskResult, Trace
from qaserve.text import shorten

HITS_SHOWN = 8
CLUSTERS_SHOWN = 6
ROW_HEIGHT = 26
LABEL_CHARS = 44
WORDS_SHOWN = 8
WEIGHED = {
    "question": "Their votes add up to the weight of each cluster of answers",
    "question2": "Their votes are added up, and a final softmax over the sums weighs every cluster of answers",
    "centroid": "The clusters whose mean question is nearest are blended",
}

TURNED_BY_VOTE = "The vote turns your question towards answers of that kind"
TURNED = {"student": "The student, which was taught what the vote does, turns your question"}


def draw(result: AskResult) -> None:
    """Draw the reasons beside the answers."""
    trace = result.trace
    st.markdown("#### Why these answers")
    if trace.hits:
        _hits(trace)
    _clusters(trace)
    _turn(result)
    _words(result)
    _raw(result)
    times = trace.timings_ms
    st.caption(
        f"{times.total:.0f} ms: encode {times.encode:.0f}, route {times.route:.0f}, project {times.project:.0f}, "
        f"search {times.search:.0f} · build {result.build}"
    )


def _hits(trace: Trace) -> None:
    shown = trace.hits[:HITS_SHOWN]
    rest = sum(hit.probability for hit in trace.hits[HITS_SHOWN:])
    st.markdown(f"**1. These known questions are most like yours, and vote**  \n{_vote_words(trace)}")
    frame = pd.DataFrame(
        {
            "known question": [hit.question for hit in shown],
            "similarity": [hit.similarity for hit in shown],
            "vote": [hit.probability for hit in shown],
            "for cluster": [_cluster_name(trace, hit.cluster) for hit in shown],
        }
    )
    _bars(frame, "known question", "vote", "for cluster", _names(trace), key="hits")
    _table(frame)
    if rest > 0:
        st.caption(f"{len(trace.hits) - len(shown)} more known questions share the remaining {rest:.0%} of the vote.")


def _vote_words(trace: Trace) -> str:
    first = trace.hits[0]
    return (
        f"The nearest one, with similarity {first.similarity:.2f}, has {first.probability:.0%} of the vote; "
        f"temperature {trace.temperature:g} says how sharply similarity decides."
    )


def _clusters(trace: Trace) -> None:
    number = 2 if trace.hits else 1
    st.markdown(f"**{number}. {WEIGHED[trace.routing]}**")
    shown = trace.clusters[:CLUSTERS_SHOWN]
    frame = pd.DataFrame(
        {
            "cluster": [vote.name for vote in shown],
            "weight": [vote.weight for vote in shown],
            "hits" if trace.hits else "similarity": [vote.hits if trace.hits else vote.similarity for vote in shown],
        }
    )
    _bars(frame, "cluster", "weight", "cluster", _names(trace), key="clusters")
    _table(frame)
    rest = trace.clusters[CLUSTERS_SHOWN:]
    if rest:
        share = sum(vote.weight for vote in rest)
        st.caption(f"{len(rest)} more clusters share the remaining {share:.0%}.")


def _turn(result: AskResult) -> None:
    trace = result.trace
    number = 3 if trace.hits else 2
    if trace.projection == "none" or not result.answers:
        st.markdown(f"**{number}. Your question is not moved**")
        return
    first = result.answers[0]
    st.markdown(f"**{number}. {TURNED.get(trace.projection, TURNED_BY_VOTE)}**")
    before, after = st.columns(2)
    before.metric("Similarity to the first answer, before", f"{first.raw_similarity:.2f}", border=True)
    gain = first.similarity - first.raw_similarity
    after.metric("and after", f"{first.similarity:.2f}", delta=f"{gain:+.2f}", border=True)
    st.caption(f"Your question and the turned one have similarity {trace.projected_similarity:.2f} (1: not turned).")


def _words(result: AskResult) -> None:
    if result.answers and result.answers[0].parts.lexical:
        first = result.answers[0]
        shared = ", ".join(f"`{word}`" for word in first.words[:WORDS_SHOWN])
        st.caption(
            f"Words in common with the first answer: {shared}. They make {first.parts.lexical:.2f} of its score "
            f"of {first.score:.2f}."
        )


def _raw(result: AskResult) -> None:
    trace = result.trace
    if not trace.raw_answers or (trace.projection == "none" and not trace.lexical_weight):
        return
    now = {answer.cluster_id: answer.rank for answer in result.answers}
    st.markdown(f"**{4 if trace.hits else 3}. A plain search would have given these first**")
    frame = pd.DataFrame(
        {
            "rank": [answer.rank for answer in trace.raw_answers],
            "answers the question": [answer.question for answer in trace.raw_answers],
            "similarity": [answer.similarity for answer in trace.raw_answers],
            "now": [str(now.get(answer.cluster_id, "–")) for answer in trace.raw_answers],
        }
    )
    _table(frame)


def _names(trace: Trace) -> list[str]:
    return [vote.name for vote in trace.clusters]


def _cluster_name(trace: Trace, cluster: int) -> str:
    return next((vote.name for vote in trace.clusters if vote.cluster == cluster), str(cluster))


def _bars(frame: pd.DataFrame, label: str, value: str, colour: str, clusters: list[str], key: str) -> None:
    """Horizontal bars in the order of the rows, numbered, so that equal labels stay apart.

    A cluster has the same colour in every chart, so the chart of the clusters is the legend of the one of the hits.
    """
    shown = [f"{row}. {shorten(text, LABEL_CHARS)}" for row, text in enumerate(frame[label], start=1)]
    data = frame.assign(shown=shown)
    axis = alt.Axis(title=None, labelLimit=300, labelOverlap=False, ticks=False, domain=False)
    most = float(frame[value].max())
    encoding = {
        "y": alt.Y("shown:N", sort=None, axis=axis),
        "x": alt.X(
            f"{value}:Q",
            axis=alt.Axis(format=".0%", title=None, tickCount=4),
            scale=alt.Scale(domain=[0, min(1.0, most * 1.1)], nice=False),
        ),
        "color": alt.Color(f"{colour}:N", scale=alt.Scale(domain=clusters), legend=None),
        "tooltip": [alt.Tooltip(f"{label}:N"), alt.Tooltip(f"{value}:Q", format=".1%")],
    }
    chart = alt.Chart(data).mark_bar(cornerRadiusEnd=3).encode(**encoding)
    st.altair_chart(
        chart.properties(height=alt.Step(ROW_HEIGHT), padding={"right": 24, "bottom": 4}),
        width="stretch",
        key=f"chart_{key}",
        alt=f"Bars of {value} by {label}; the table below has the figures.",
    )


def _table(frame: pd.DataFrame) -> None:
    """Figures first, so that long texts are what is cut on a narrow screen."""
    numbers = {"similarity": "%.3f", "vote": "percent", "weight": "percent", "rank": "%d", "hits": "%d"}
    config = {
        name: st.column_config.NumberColumn(format=form, width="small")
        for name, form in numbers.items()
        if name in frame
    }
    order = sorted(map(str, frame), key=lambda name: name not in numbers and name != "now")
    st.dataframe(frame, hide_index=True, column_order=order, column_config=config, height="content")
