"""Steps 3 and 4 of the story: how the question is projected, and which answers are nearest then."""

import math

import altair as alt
import pandas as pd
import streamlit as st

from qaserve.common.text import shorten
from qaserve.schemas.ask import Answer, AskResult
from ui import charts, look
from ui.markdown import literal

WORDS_SHOWN = 4
KEPT_OUT = {
    "filter": "it does not match the filters",
    "similarity": "a similar known question voted for it, but its answer is farther away than those shown",
    "routing": "the projection moved your question away from it",
    "words": "it is as near, but shares fewer words or topics with your question",
}
PROJECTED_BY = {
    "cluster": "Each cluster has learned a projection from its questions to its answers. The projections of the "
    "clusters voted for are averaged by their weight.",
    "pair": "Each known question that voted has its own projection, from itself to its answer. The projections are "
    "averaged by their share of the vote.",
    "student": "A small network was trained to do the vote and the projection in one step.",
}

PROJECTED_BY_CENTRES = (
    "Each cluster has learned a projection from its questions to its answers. The projections of the nearest clusters "
    "are averaged by their weight."
)


def turn(result: AskResult) -> None:
    """Step 3."""
    trace = result.explained
    if trace.params.projection == "none" or not result.answers:
        look.step(3, "Your question is not projected", "It is compared with the answers as it is: a plain search.")
        return
    degrees = math.degrees(math.acos(max(-1.0, min(1.0, trace.projected_similarity))))
    who, by = "The projection moves", PROJECTED_BY[trace.params.projection]
    if trace.params.projection == "student":
        who = "A small network moves"
    elif not trace.hits:
        by = PROJECTED_BY_CENTRES
    look.step(
        3,
        f"{who} your question by {degrees:.0f}° towards answers like these",
        f"Questions and answers use different words, so a question and its answer are apart. {by}",
    )
    first = result.answers[0]
    gain = first.similarity - first.raw_similarity
    with st.grid(2, min_column_width=150):
        st.metric(
            "Similarity",
            f"{first.raw_similarity:.2f} → {first.similarity:.2f}",
            delta=f"{gain:+.2f} by projection",
            help="Similarity of your question to the first answer, before and after projection.",
            border=True,
            height="stretch",
        )
        st.metric(
            "Rank, plain → here",
            f"{_rank(first.raw_rank)} → {first.rank}",
            help="Rank of the first answer in a plain search, and here. Far: not among the answers it looked at.",
            border=True,
            height="stretch",
        )
    _moves(result)


def _rank(rank: int | None) -> str:
    return "far" if rank is None else str(rank)


def _moves(result: AskResult) -> None:
    answers = result.answers
    values = [value for answer in answers for value in (answer.raw_similarity, answer.similarity)]
    low, high = min(values) - 0.03, max(values) + 0.03
    height = charts.ROW * len(answers)

    def at(value: float) -> float:
        return (value - low) / (high - low) * 0.86

    rows = [
        {
            "x": at(answer.raw_similarity),
            "x2": at(answer.similarity),
            "y": charts.ROW * number + 28,
            "colour": charts.PALETTE[0] if answer.similarity >= answer.raw_similarity else charts.PALETTE[1],
            "hint": f"{answer.raw_similarity:.2f} → {answer.similarity:.2f}",
            "label": f"{answer.rank}. {shorten(answer.question, 140)}",
        }
        for number, answer in enumerate(answers)
    ]
    frame = pd.DataFrame(rows)
    labels = frame.assign(x=0.0, y=frame["y"] - 14)
    ends = frame.assign(x=frame[["x", "x2"]].max(axis=1) + 0.02)
    colour = alt.Color("colour:N", scale=None)
    before = alt.Chart(frame).mark_point(size=60, strokeWidth=2, opacity=1).encode(*charts.place(height), colour)
    after = (
        alt.Chart(frame.assign(x=frame["x2"]))
        .mark_point(size=80, filled=True, opacity=1)
        .encode(*charts.place(height), colour)
    )
    layers = [
        charts.bars(frame, height, thickness=3),
        before,
        after,
        charts.texts(labels, "label", height),
        charts.texts(ends, "hint", height, quiet=True, centred=True),
    ]
    charts.show(layers, height, "chart_turn", "Similarity of each answer before and after projection; see the table.")
    st.caption("○ similarity of your question to the answer before projection, ● after projection")
    charts.table(
        pd.DataFrame(
            {
                "rank": [answer.rank for answer in answers],
                "rank in a plain search": [_rank(answer.raw_rank) for answer in answers],
                "before": [answer.raw_similarity for answer in answers],
                "after": [answer.similarity for answer in answers],
                "answers the question": [answer.question for answer in answers],
            }
        ),
        before="%.3f",
        after="%.3f",
    )


def nearest(result: AskResult) -> None:
    """Step 4."""
    trace = result.explained
    words = "A score is the similarity of the projected question to the answer."
    shares = [(trace.params.topic_weight, "similarity to the topic"), (trace.params.lexical_weight, "words in common")]
    added = " and ".join(f"up to {share:.0%} {name}" for share, name in shares if share)
    if added:
        words += f" It is blended with {added}."
    look.step(4, "These answers are nearest", words)
    for answer in result.answers:
        st.markdown(f"{answer.rank}. **{literal(answer.question)}** · score {answer.score:.2f}  \n{_parts(answer)}")
    if not result.answers:
        st.info("No pair matches the filters.")
    charts.table(
        pd.DataFrame(
            {
                "rank": [answer.rank for answer in result.answers],
                "score": [answer.score for answer in result.answers],
                "meaning": [answer.parts.projected for answer in result.answers],
                "topic": [answer.parts.topic for answer in result.answers],
                "words": [answer.parts.lexical for answer in result.answers],
                "answers the question": [answer.question for answer in result.answers],
            }
        ),
        score="%.3f",
        meaning="%.3f",
        topic="%.3f",
        words="%.3f",
    )
    _excluded(result)


def _parts(answer: Answer) -> str:
    parts = [f"meaning {answer.parts.projected:.2f}"]
    if answer.parts.topic:
        parts.append(f"topic {answer.parts.topic:.2f}")
    if answer.parts.lexical:
        shared = ", ".join(f"`{word.replace('`', '')}`" for word in answer.words[:WORDS_SHOWN])
        parts.append(f"words {answer.parts.lexical:.2f}: {shared}")
    return " + ".join(parts)


def _excluded(result: AskResult) -> None:
    excluded = result.explained.excluded
    if not excluded:
        return
    with st.expander("Did you expect another answer?", icon=":material/help:"):
        for one in excluded:
            st.markdown(
                f"**{literal(one.question)}** is not shown: {KEPT_OUT[one.by]} "
                f"(similarity {one.raw_similarity:.2f} before projection, {one.similarity:.2f} after)."
            )
