"""Why a question got its answers: the steps from question to answers, and what other options would change."""

import streamlit as st

from qaserve.schemas.ask import AskResult, Trace
from qaserve.schemas.builds import BuildInfo
from ui import api_cache, compare, mechanics_panel, neighbors, projection, state, theme, whatif
from ui import map as map_panel
from ui.markdown import literal
from ui.pages.search import examples, question_box


def draw(build: BuildInfo) -> None:
    """Draw the page of reasons."""
    if not state.get("q"):
        theme.title("Why did my question get its answers?", "Ask a question to see every step to its answers.")
    question = question_box()
    theme.ignored(state.ignored())
    state.save()
    if question:
        _story(build)
    else:
        examples(build)


def _story(build: BuildInfo) -> None:
    _answered(build)
    st.divider()
    st.markdown("## Your question, answered in other ways")
    compare.draw(build)


@st.fragment
@theme.guarded
def _answered(build: BuildInfo) -> None:
    """What follows from the options: a change of one runs this alone. The controls come last: nobody waits for them."""
    usual = api_cache.ask(state.request(options=False), build.build)
    state.save()
    try:
        _told(api_cache.ask(state.request(), build.build), usual)
        st.divider()
        st.markdown("## Your question on the map")
        _map(build)
    finally:  # options that contradict each other can be changed
        whatif.controls(usual, build)


def _told(result: AskResult, usual: AskResult) -> None:
    """The answer, step by step. `usual`: that with the defaults of the build."""
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
    _steps(result, usual.explained)


@st.fragment
@theme.guarded
def _map(build: BuildInfo) -> None:
    map_panel.draw(api_cache.corpus_map(build.build), api_cache.place(state.request(), build.build))


def _in_short(result: AskResult) -> None:
    """A summary in a few sentences."""
    if not result.answers:
        return
    with st.container(border=True, key="in_short"):
        st.markdown(f"**In short.** {in_short(result)}")
        if result.confidence.abstained:
            st.markdown("It is far away. Most likely nothing here answers your question.")


def in_short(result: AskResult) -> str:
    """Who voted, how the question moved, and whether the first answer is where the vote went."""
    trace, first = result.explained, result.answers[0]
    said = []
    if trace.clusters:  # a student answers without them
        leader = trace.clusters[0]
        name, share = literal(leader.name), theme.percent(leader.weight if leader.vote is None else leader.vote)
        voters = theme.counted(len(trace.hits), "known question")
        said.append(
            f"The **{voters}** most like yours voted, and **{share}** of the vote went to answers about **{name}**."
            if trace.hits
            else f"The cluster nearest to your question is **{name}**, with **{share}** of the weight."
        )
    said.append(_moved(result))
    if trace.names:
        names = literal(", ".join(trace.names))
        said.append(f"Few pairs hold **{names}**, so words decide: first comes the answer to")
        said.append(f"**“{literal(first.question)}”**.")
    elif better := result.ahead_of_known:
        said.append(f"**“{literal(first.question)}”** is what you ask, so its answer comes first;")
        said.append(f"by its score it would be number {better + 1}.")
    else:
        said.append(f"The nearest answer is the one to **“{literal(first.question)}”**.")
    if trace.clusters:
        said.append(_where(result))
    return " ".join(said)


def _moved(result: AskResult) -> str:
    trace = result.explained
    if trace.params.projection == "none":
        said = "Your question was compared with the answers as it is."
        return f"{said} Without a projection, the vote does not change the search." if trace.hits else said
    if trace.params.projection == "student":
        return "A small network moved your question."
    return "The projection moved your question."


def _where(result: AskResult) -> str:
    """Whether the first answer is in the cluster with the most weight."""
    trace, first = result.explained, result.answers[0]
    leader, votes = trace.clusters[0], {vote.cluster: vote for vote in trace.clusters}
    if first.cluster == leader.cluster:
        return "It is in that cluster."
    own = votes.get(first.cluster)
    if own is None or (trace.hits and not own.hits):
        return (
            "It is **not** in that cluster but in one without votes."
            if trace.hits
            else ("It is **not** in that cluster but in one that was not used.")
        )
    share = theme.percent(own.weight if own.vote is None else own.vote)
    of = "of the vote" if trace.hits else "of the weight"
    return f"It is **not** in that cluster but in **{literal(own.name)}**, which got {share} {of}."


def _steps(result: AskResult, usual: Trace) -> None:
    """All steps. `usual`: the trace with the defaults of the build."""
    trace = result.explained
    if trace.hits:
        neighbors.likeness(trace, usual if whatif.changed() else None)
    elif trace.clusters:
        theme.step(1, "Clusters are compared with your question", "No known question votes with this routing.")
    else:
        theme.step(1, "A small network reads your question", "No known question votes, so there is no step 2.")
    mechanics_panel.draw(trace, usual.params.temperature)
    if trace.clusters:
        neighbors.flow(trace)
    projection.turn(result)
    projection.nearest(result)
