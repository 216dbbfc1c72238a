"""Why a question got its answers: the steps from question to answers, and what other options would change."""

import streamlit as st

from qaserve.schemas.ask import AskResult
from qaserve.schemas.builds import BuildInfo
from ui import atlas, compare, data, look, state, turn, vote, whatif
from ui.markdown import literal
from ui.search import examples, question_box


def draw(build: BuildInfo) -> None:
    """Draw the page of reasons."""
    state.load("why")
    if not state.get("q"):
        look.title("Why did my question get its answers?", "Ask a question to see every step to its answers.")
    question = question_box()
    look.ignored(state.ignored())
    state.save()
    if question:
        _story(build)
    else:
        examples(build)


def _story(build: BuildInfo) -> None:
    usual = data.ask(state.request(options=False), build.build)
    whatif.controls(usual, build)
    state.save()
    result = data.ask(state.request(), build.build)
    st.page_link(
        st.session_state["pages"]["search"],
        label="Back to the answers",
        icon=":material/arrow_back:",
        query_params=state.address(),
    )
    with st.container(key="phone_whatif"):
        st.caption("**What if …?** The » on top opens the options.")
    whatif.differences(usual, result)
    _in_short(result)
    _steps(result)
    st.divider()
    st.markdown("## Your question on the map")
    atlas.draw(data.corpus_map(build.build), data.place(state.request(), build.build))
    st.divider()
    st.markdown("## Your question, answered in other ways")
    compare.draw(build)


def _in_short(result: AskResult) -> None:
    """A summary in three sentences."""
    trace = result.explained
    if not result.answers:
        return
    first, who = result.answers[0], ""
    if trace.clusters:  # a student answers without them
        name, share = literal(trace.clusters[0].name), look.percent(trace.clusters[0].weight)
        voters = look.counted(len(trace.hits), "known question")
        who = f"Your question is most like those about **{name}**, which weighs **{share}**."
        if trace.hits:
            who = (
                f"The **{voters}** most like yours voted, and **{share}** of the vote went to answers about **{name}**."
            )
    moved = {
        "none": "Your question was compared with the answers as it is.",
        "student": "A small network moved your question towards answers like these.",
    }.get(trace.params.projection, "The projection moved your question towards answers like these.")
    with st.container(border=True, key="in_short"):
        st.markdown(f"**In short.** {who} {moved} The nearest is the one to **“{literal(first.question)}”**.")
        if result.confidence.abstained:
            st.markdown("But it is far away: most likely nothing here answers your question.")


def _steps(result: AskResult) -> None:
    trace = result.explained
    if trace.hits:
        vote.likeness(trace)
    elif trace.clusters:
        look.step(1, "Clusters are compared with your question", "No known question votes with this routing.")
    else:
        look.step(1, "A small network reads your question", "No known question votes, so there is no step 2.")
    if trace.clusters:
        vote.flow(trace)
    turn.turn(result)
    turn.nearest(result)
