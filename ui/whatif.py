"""What other options would change: the controls, and their effect."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from qaserve.schemas.ask import AskResult, Hit, Trace
from qaserve.schemas.builds import BuildInfo
from qaserve.schemas.params import SearchParams
from ui import charts, neighbors, state
from ui.markdown import literal
from ui.pages.search import PROJECTIONS, ROUTINGS

TEMPERATURES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
FINAL_TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
HITS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
UNIFORM = "uniform"
IMPORTANCE = {
    "entropy": "a question with an undecided vote counts more",
    "fisher-empirical": "a question that changes the vote more counts more",
    "fisher-expected": "a question that is expected to change the vote more counts more",
    "token": "a question with words that are improbable for the language model counts more",
    "norm": "a question with a shorter vector counts more",
    "dropout": "a question whose vector changes more under dropout counts more",
    "combined": "a question with an undecided vote or improbable words counts more",
}
"""What the importances of `qaserve fit --prior` mean, in plain words."""
SHIFT = 0.0005
"""A share of the vote that moves by less is as it was."""


def controls(usual: AskResult, build: BuildInfo) -> None:
    """The controls, in the bar at the side.

    Args:
        usual: The answer with the defaults of the build.
        build: The live build.
    """
    params = usual.explained.params
    with st.sidebar:
        st.markdown("## What if …?")
        st.caption("Change how your question is answered. The page updates at once.")
        _vote(usual.explained, build)
        _move(params)
        _score(params)
        st.button(
            "Reset to default",
            icon=":material/restart_alt:",
            width="stretch",
            on_click=state.clear_options,
            disabled=not changed(),
        )


def _vote(trace: Trace, build: BuildInfo) -> None:
    """Who votes, how many, and how sharply."""
    params = trace.params
    _choice("routing", "Who votes?", ROUTINGS)
    now = state.get("routing") or params.routing
    _slide(
        "temperature",
        "How much does similarity decide? (temperature τ)",
        TEMPERATURES,
        params.temperature,
        "Low: the most similar known question decides alone. High: all voters count almost equally.",
    )
    if now != "centroid":
        _slide("hits", "How many known questions vote?", HITS, len(trace.hits) or HITS[5], "The most similar ones.")
        _priors(trace, build)
    if now == "question2":
        _slide(
            "final_temperature",
            "How sharp is the second softmax? (τ')",
            FINAL_TEMPERATURES,
            params.final_temperature,
            "Low: the cluster with most votes decides alone. High: all clusters count almost equally.",
        )


def _move(params: SearchParams) -> None:
    """How the question is projected and whitened."""
    _choice("projection", "How is your question projected?", PROJECTIONS)
    if (state.get("projection") or params.projection) != "none":
        _slide(
            "projection_share",
            "How far does the projection move it?",
            SHARES,
            params.projection_share,
            "0: not at all. 1: all the way.",
        )
    _slide(
        "whitening",
        "How much is the question whitened?",
        SHARES,
        params.whitening,
        "Directions in which questions and answers of one intent differ among themselves count less. 0: all count "
        "alike.",
    )


def _score(params: SearchParams) -> None:
    """What counts in a score besides the meaning."""
    _slide(
        "lexical_weight",
        "How much do common words count?",
        WEIGHTS,
        params.lexical_weight,
        "0: only the meaning counts. 1: only the words.",
    )
    _slide(
        "topic_weight",
        "How much does the topic count?",
        WEIGHTS,
        params.topic_weight,
        "How similar your question is to the topics, tags and skills of a pair. 0: only its answer counts.",
    )
    _slide(
        "second_share",
        "How much does a second pair of the same intent count?",
        WEIGHTS,
        params.second_share,
        "0: an intent scores as its best pair.",
    )


def _priors(trace: Trace, build: BuildInfo) -> None:
    """Whether known questions weigh by their importance; a build without priors has nothing to switch."""
    label = "Do important questions count more? (prior)"
    if build.prior == UNIFORM:
        st.toggle(label, value=False, disabled=True, key="no_priors")
        st.caption(
            "This build has no priors: all its known questions count equally. `qaserve fit --prior entropy` makes a "
            "build with priors."
        )
        return
    about = (
        f"This build weighs its known questions: {IMPORTANCE.get(build.prior or '', 'some count more than others')}."
    )
    usual = trace.params.priors
    st.toggle(label, key=state.offer("priors", usual), on_change=state.take, args=("priors", usual), help=about)


def changed() -> bool:
    """Whether an option differs from its default."""
    return any(state.get(name) is not None for name in state.OPTIONS)


def _choice(name: str, label: str, choices: dict[str, str]) -> None:
    st.selectbox(
        label,
        choices,
        format_func=choices.__getitem__,
        key=state.offer(name, ""),
        on_change=state.take,
        args=(name,),
    )


def _slide(name: str, label: str, values: Sequence[float], usual: float, about: str) -> None:
    now = state.get(name)
    steps = sorted({*values, usual, *([] if now is None else [now])})
    st.select_slider(
        label,
        steps,
        key=state.offer(name, usual),
        format_func=lambda one: f"{one:g}",
        on_change=state.take,
        args=(name, usual),
        help=about,
    )


def differences(usual: AskResult, now: AskResult) -> None:
    """What the options changed, compared with the default."""
    if not changed():
        return
    with st.container(border=True):
        st.markdown("## :material/compare_arrows: What your changes do")
        if said := _said(usual.explained, now.explained):
            st.markdown(f"You changed: {said}.")
        neighbors.before_and_after(usual.explained, now.explained)
        _votes(usual.explained.hits, now.explained.hits)
        old = {answer.cluster_id: answer.rank for answer in usual.answers}
        moves = [(old.get(answer.cluster_id), answer) for answer in now.answers]
        gone = len(set(old) - {answer.cluster_id for answer in now.answers})
        shifted = sum(1 for rank, answer in moves if rank is not None and rank != answer.rank)
        fresh = sum(1 for rank, _ in moves if rank is None)
        if shifted or fresh or gone:
            st.markdown(f"Answers: **{shifted}** moved, **{fresh}** new, **{gone}** gone.")
        else:
            st.markdown("Answers: the same, in the same order.")
        frame = pd.DataFrame(
            {
                "rank": [answer.rank for _, answer in moves],
                "default": ["–" if rank is None else str(rank) for rank, _ in moves],
                "answers the question": [answer.question for _, answer in moves],
            }
        )
        charts.table(frame, "Ranks before and after")


def _said(usual: Trace, now: Trace) -> str:
    """The options that differ from the default, in words."""
    changes = []
    if now.params.routing != usual.params.routing:
        changes.append(f"who votes → {ROUTINGS[now.params.routing].lower()}")
    if now.params.projection != usual.params.projection:
        changes.append(f"projection → {PROJECTIONS[now.params.projection].lower()}")
    changes += [
        f"{label} {before:g} → {after:g}"
        for label, before, after in (
            ("temperature τ", usual.params.temperature, now.params.temperature),
            ("temperature τ' of the second softmax", usual.params.final_temperature, now.params.final_temperature),
            ("known questions that vote", len(usual.hits), len(now.hits)),
            ("share of the projection", usual.params.projection_share, now.params.projection_share),
            ("whitening", usual.params.whitening, now.params.whitening),
            ("weight of common words", usual.params.lexical_weight, now.params.lexical_weight),
            ("weight of the topic", usual.params.topic_weight, now.params.topic_weight),
            ("share of the second pair", usual.params.second_share, now.params.second_share),
        )
        if before != after
    ]
    if now.params.priors != usual.params.priors:
        changes.append("priors on" if now.params.priors else "priors off: all known questions count equally")
    return "; ".join(changes)


def _votes(usual: Sequence[Hit], now: Sequence[Hit]) -> None:
    """Whose share of the vote changed most, among the known questions that vote both times."""
    before = {hit.id: hit.probability for hit in usual}
    both = [hit for hit in now if hit.id in before]
    most = max(both, key=lambda hit: abs(hit.probability - before[hit.id]), default=None)
    if most is None or abs(most.probability - before[most.id]) < SHIFT:
        return
    shift = f"{before[most.id]:.1%} → **{most.probability:.1%}**"
    st.markdown(f"Largest change of a share of the vote: “{literal(most.question)}”, {shift}")
    frame = pd.DataFrame(
        {
            "known question": [hit.question for hit in both],
            "default": [before[hit.id] for hit in both],
            "now": [hit.probability for hit in both],
        }
    )
    charts.table(frame, "Shares before and after", default=charts.PERCENT, now=charts.PERCENT)
