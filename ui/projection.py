"""Steps 3 and 4 of the story: how the question is projected, and which answers are nearest then."""

import math
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from qaserve.common.text import shorten
from qaserve.schemas.ask import Answer, AskResult, ClusterVote, Trace
from ui import charts, theme
from ui.markdown import literal

PARTS = {"projected": charts.PALETTE[0], "topic": charts.PALETTE[2], "lexical": charts.PALETTE[1]}
"""Parts of a score, in the order of its bar, with their colours."""
PART_NAMES = {"projected": "meaning", "topic": "topic", "lexical": "words"}
WIDTH = 0.58
"""Share of the chart's width that is a score of 1."""
PART_ROOM = 0.24
"""Share of the width for each name of the legend."""
W_SHOWN = 6
"""Rows of the table of W that need no scrolling."""
HEAD = 20
"""Pixels of the legend."""
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
        theme.step(3, "Your question is not projected", "It is compared with the answers from where it is.")
        return
    degrees = math.degrees(math.acos(max(-1.0, min(1.0, trace.projected_similarity))))
    who, by = "The projection moves", PROJECTED_BY[trace.params.projection]
    if trace.params.projection == "student":
        who = "A small network moves"
    elif not trace.hits:
        by = PROJECTED_BY_CENTRES
    theme.step(
        3,
        f"{who} your question by {degrees:.0f}°",
        f"Questions and answers use different words, so a question and its answer are apart. {by}",
    )
    first = result.answers[0]
    gain = first.projected_similarity - first.raw_similarity
    with st.grid(2, min_column_width=150):
        st.metric(
            "Similarity",
            f"{first.raw_similarity:.2f} → {first.projected_similarity:.2f}",
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
    _clusters(trace)


def _clusters(trace: Trace) -> None:
    """How far the W of each cluster alone would turn the question, and in how many directions it works."""
    votes, share = trace.clusters, trace.params.projection_share
    if not votes or votes[0].angle is None:
        return
    frame = w_rows(votes)
    st.markdown("### The W of each cluster")
    used = "" if share == 1 else f", and {share:.0%} of the move to their sum is used"
    st.caption(
        f"W alone would turn your question by its angle. The turned questions are added, each times its weight{used}. "
        "The effective rank says in about how many directions W differs from no projection."
    )
    st.dataframe(
        frame,
        hide_index=True,
        height="content" if len(frame) <= W_SHOWN else 250,
        alt="Weight, angle and effective rank of the W of each cluster that got votes.",
        column_config={
            "cluster": st.column_config.TextColumn("Cluster", width="medium"),
            "weight": st.column_config.ProgressColumn("Weight", format="%.0f%%", min_value=0, max_value=100),
            "angle": st.column_config.NumberColumn("Angle of W", format="%.1f°", width="small"),
            "rank": st.column_config.NumberColumn("Effective rank", format="%.1f", width="small"),
        },
    )


def w_rows(votes: Sequence[ClusterVote]) -> pd.DataFrame:
    """One row for each cluster with a weight, in percent."""
    rows = [(vote.name, 100 * vote.weight, vote.angle, vote.rank) for vote in votes]
    return pd.DataFrame(rows, columns=["cluster", "weight", "angle", "rank"])


def _rank(rank: int | None) -> str:
    return "far" if rank is None else str(rank)


def _moves(result: AskResult) -> None:
    answers = result.answers
    values = [value for answer in answers for value in (answer.raw_similarity, answer.projected_similarity)]
    low, high = min(values) - 0.03, max(values) + 0.03
    height = charts.ROW * len(answers)

    def at(value: float) -> float:
        return (value - low) / (high - low) * 0.86

    rows = [
        {
            "x": at(answer.raw_similarity),
            "x2": at(answer.projected_similarity),
            "y": charts.ROW * number + 28,
            "colour": charts.PALETTE[0] if answer.projected_similarity >= answer.raw_similarity else charts.PALETTE[1],
            "hint": f"{answer.raw_similarity:.2f} → {answer.projected_similarity:.2f}",
            "label": f"{answer.rank}. {shorten(answer.question, 140)}",
        }
        for number, answer in enumerate(answers)
    ]
    frame = pd.DataFrame(rows)
    labels = frame.assign(x=0.0, y=frame["y"] - 14)
    ends = frame.assign(x=frame[["x", "x2"]].max(axis=1) + 0.02)
    encoding = charts.place(height) | {"color": charts.PAINTED}
    before = charts.layer(frame, "point", encoding, size=60, strokeWidth=2, opacity=1)
    after = charts.layer(frame.assign(x=frame["x2"]), "point", encoding, size=80, filled=True, opacity=1)
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
                "after": [answer.projected_similarity for answer in answers],
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
    if trace.params.whitening:
        words += (
            f" By {trace.params.whitening:.0%}, directions in which questions and answers of one intent differ count "
            "less in it."
        )
    shares = [(trace.params.topic_weight, "similarity to the topic"), (trace.params.lexical_weight, "words in common")]
    added = " and ".join(f"up to {share:.0%} {name}" for share, name in shares if share)
    if added:
        words += f" It is blended with {added}."
    theme.step(4, "These answers are nearest", words)
    if not result.answers:
        st.info("No pair matches the filters.")
        return
    _scores(result.answers)
    charts.table(
        pd.DataFrame(
            {
                "rank": [answer.rank for answer in result.answers],
                "score": [answer.score for answer in result.answers],
                "meaning": [answer.parts.projected for answer in result.answers],
                "topic": [answer.parts.topic for answer in result.answers],
                "words": [answer.parts.lexical for answer in result.answers],
                "words in common": [", ".join(answer.words) for answer in result.answers],
                "answers the question": [answer.question for answer in result.answers],
            }
        ),
        score="%.3f",
        meaning="%.3f",
        topic="%.3f",
        words="%.3f",
    )
    _excluded(result)


def _scores(answers: Sequence[Answer]) -> None:
    """Each score as a bar of its parts, one after the other, from 0 to 1."""
    height = charts.ROW * len(answers) + HEAD
    rows = part_rows(answers)
    tops = [HEAD + charts.ROW * number for number in range(len(answers))]
    labels = pd.DataFrame(
        [
            {"x": 0.0, "y": top + 14, "label": f"{answer.rank}. {shorten(answer.question, 140)}"}
            for top, answer in zip(tops, answers, strict=True)
        ]
    )
    sums = pd.DataFrame(
        [{"x": WIDTH + 0.015, "y": top + 28, "label": _sum(answer)} for top, answer in zip(tops, answers, strict=True)]
    )
    tracks = pd.DataFrame([{"x": 0.0, "x2": WIDTH, "y": top + 28} for top in tops])
    layers = [
        charts.tracks(tracks, height),
        charts.texts(labels, "label", height),
        charts.bars(rows, height, cap="butt"),
        charts.texts(sums, "label", height, quiet=True, centred=True, limit=0.98 - WIDTH),
        *_part_names(height, {name for answer in answers for name in _present(answer)}),
    ]
    first = answers[0]
    charts.show(
        layers,
        height,
        "chart_scores",
        f"Scores by their parts; the first is {first.score:.2f}: {_sum(first)}. The table has the figures.",
    )
    if any(answer.second is not None for answer in answers):
        st.caption("The score also holds a share σ of the intent's second-best pair, so it may differ from the sum.")


def part_rows(answers: Sequence[Answer]) -> pd.DataFrame:
    """One row for each part of each score that is above 0: where its bar begins and ends."""
    rows = []
    for number, answer in enumerate(answers):
        begin = 0.0
        for name, shade in PARTS.items():
            part = max(0.0, getattr(answer.parts, name))
            if part:
                rows.append(
                    {
                        "x": WIDTH * begin,
                        "x2": WIDTH * (begin + part),
                        "y": HEAD + charts.ROW * number + 28,
                        "colour": shade,
                        "hint": f"{PART_NAMES[name]} {part:.3f}",
                    }
                )
            begin += part
    return pd.DataFrame(rows, columns=["x", "x2", "y", "colour", "hint"])


def _present(answer: Answer) -> list[str]:
    return [name for name in PARTS if getattr(answer.parts, name) > 0]


def _sum(answer: Answer) -> str:
    """The score, and the parts above 0 where there are several."""
    present = _present(answer)
    if len(present) < 2:
        return f"{answer.score:.2f}"
    return f"{answer.score:.2f} = {' + '.join(f'{getattr(answer.parts, name):.2f}' for name in present)}"


def _part_names(height: float, present: set[str]) -> list[charts.Layer]:
    """The legend, in the line on top."""
    drawn = []
    for number, name in enumerate(name for name in PARTS if name in present):
        place = pd.DataFrame(
            [{"x": PART_ROOM * number, "x2": PART_ROOM * number + 0.02, "y": 8, "colour": PARTS[name]}]
        )
        drawn.append(charts.bars(place.assign(hint=PART_NAMES[name]), height, cap="butt"))
        text = place.assign(x=place["x2"] + 0.01, label=PART_NAMES[name])
        drawn.append(charts.texts(text, "label", height, quiet=True, centred=True))
    return drawn


def _excluded(result: AskResult) -> None:
    excluded = result.explained.excluded
    if not excluded:
        return
    with st.expander("Did you expect another answer?", icon=":material/help:"):
        for one in excluded:
            st.markdown(
                f"**{literal(one.question)}** is not shown: {one.reason} "
                f"(similarity {one.raw_similarity:.2f} before projection, {one.projected_similarity:.2f} after)."
            )
