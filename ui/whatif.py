"""What would happen with other options: the controls, and what they change."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from qaserve.records import AskResult
from ui import charts, look, state
from ui.markdown import literal
from ui.search import PROJECTIONS, ROUTINGS

TEMPERATURES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
FINAL_TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
HITS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
DEFAULT_FINAL = 0.1


def controls(usual: AskResult) -> None:
    """The controls, in the bar at the side. `usual`: the answer as the build says, whose options are their defaults."""
    trace = usual.trace
    with st.sidebar:
        st.markdown("## What if …?")
        st.caption("Change how your question is answered: the page shows at once what it does.")
        _choice("routing", "Who votes?", ROUTINGS)
        now = state.get("routing") or trace.routing
        _slide(
            "temperature",
            "How much does similarity decide? (temperature τ)",
            TEMPERATURES,
            trace.temperature,
            "Low: the most similar known question decides alone. High: all that vote count nearly alike.",
        )
        if now != "centroid":
            _slide("hits", "How many known questions vote?", HITS, len(trace.hits) or HITS[5], "The most similar ones.")
        if now == "question2":
            _slide(
                "final_temperature",
                "How sharp is the second round? (τ')",
                FINAL_TEMPERATURES,
                trace.final_temperature or DEFAULT_FINAL,
                "Low: the cluster with most votes takes all. High: all clusters count nearly alike.",
            )
        _choice("projection", "What turns your question?", PROJECTIONS)
        _slide(
            "lexical_weight",
            "How much do common words count?",
            WEIGHTS,
            trace.lexical_weight,
            "0: only the meaning counts. 1: only the words.",
        )
        st.button(
            "Back to what the build says",
            icon=":material/restart_alt:",
            width="stretch",
            on_click=state.clear_options,
            disabled=not changed(),
        )


def changed() -> bool:
    """Whether anything is asked otherwise than the build says."""
    return any(state.get(name) is not None for name in state.OPTIONS)


def _choice(name: str, label: str, choices: dict[str, str]) -> None:
    value = st.selectbox(label, choices, format_func=choices.__getitem__, key=state.offer(name, ""))
    state.keep(name, value)


def _slide(name: str, label: str, values: Sequence[float], usual: float, about: str) -> None:
    now = state.get(name)
    steps = sorted({*values, usual, *([] if now is None else [now])})
    value = st.select_slider(label, steps, key=state.offer(name, usual), format_func=lambda one: f"{one:g}", help=about)
    state.keep(name, value, usual)


def differences(usual: AskResult, now: AskResult) -> None:
    """What the options changed, against what the build says."""
    if not changed():
        return
    with st.container(border=True):
        st.markdown("## :material/compare_arrows: What your changes do")
        before, after = usual.trace.clusters[:1], now.trace.clusters[:1]
        if before and after:
            st.markdown(
                f"Strongest cluster: {literal(before[0].name)} {look.percent(before[0].weight)} → "
                f"**{literal(after[0].name)} {look.percent(after[0].weight)}**"
            )
        old = {answer.cluster_id: answer.rank for answer in usual.answers}
        moves = [(old.get(answer.cluster_id), answer) for answer in now.answers]
        gone = len(set(old) - {answer.cluster_id for answer in now.answers})
        shifted = sum(1 for rank, answer in moves if rank is not None and rank != answer.rank)
        fresh = sum(1 for rank, _ in moves if rank is None)
        if shifted or fresh or gone:
            st.markdown(f"Answers: **{shifted}** moved, **{fresh}** came in, **{gone}** left.")
        else:
            st.markdown("Answers: the same, in the same order.")
        frame = pd.DataFrame(
            {
                "rank": [answer.rank for _, answer in moves],
                "as the build says": ["–" if rank is None else str(rank) for rank, _ in moves],
                "answers the question": [answer.question for _, answer in moves],
            }
        )
        charts.table(frame, "Ranks before and after")
