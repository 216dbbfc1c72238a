"""Why a question got its answers: a story in four steps, and what would happen otherwise."""

import streamlit as st

from qaserve.records import AskResult, BuildInfo
from ui import atlas, compare, data, look, state, turn, vote, whatif
from ui.markdown import literal
from ui.search import question_box


def draw(build: BuildInfo) -> None:
    """Draw the page of reasons."""
    state.load("why")
    if not state.get("q"):
        look.title("Why did my question get its answers?", "Ask something, and every step to its answers is shown.")
    if question_box():
        _story(build)
    else:
        _examples(build)
    state.save()


def _examples(build: BuildInfo) -> None:
    for number, example in enumerate(data.example_questions(build.build)):
        st.button(
            literal(example),
            key=f"example{number}",
            icon=":material/search:",
            type="tertiary",
            on_click=state.put,
            args=("q", example),
        )


def _story(build: BuildInfo) -> None:
    usual = data.ask(state.request(options=False), build.build)
    whatif.controls(usual)
    result = data.ask(state.request(), build.build)
    st.page_link(
        st.session_state["pages"]["search"],
        label="Back to the answers",
        icon=":material/arrow_back:",
        query_params=state.address(),
    )
    whatif.differences(usual, result)
    _steps(result)
    st.divider()
    st.markdown("## The same on a map")
    atlas.draw(data.corpus_map(build.build), data.place(state.request(), build.build))
    st.divider()
    st.markdown("## The same question, answered in other ways")
    compare.draw(build)


def _steps(result: AskResult) -> None:
    trace = result.trace
    if trace.hits:
        vote.likeness(trace)
    else:
        look.step(1, "Clusters are compared with your question", "No single known question votes with this routing.")
    if trace.clusters:
        vote.flow(trace)
    turn.turn(result)
    turn.nearest(result)
