"""The search page: a question, its answers, and beside them why."""

import streamlit as st

from qaserve.records import Answer, AskRequest, BuildInfo, Confidence
from ui import data, why
from ui.markdown import blocks, literal

ROUTINGS = {
    None: "as the build says",
    "question": "known questions vote",
    "question2": "known questions vote, final softmax",
    "centroid": "nearest cluster centres",
}
PROJECTIONS = {
    None: "as the build says",
    "cluster": "clusters' projections",
    "pair": "single pairs' projections",
    "student": "the student",
    "none": "no projection",
}
CHIPS_SHOWN = 4
STEPS = (
    (
        "how_to_vote",
        "Known questions vote",
        "Your question is compared with all known ones. The most similar vote for the groups their answers are in.",
    ),
    (
        "turn_slight_right",
        "The vote turns your question",
        "Questions and their answers use different words. Each group has learned the turn from one to the other.",
    ),
    (
        "fact_check",
        "The nearest answers are shown",
        "With every vote beside them, and with what would have come first without all this.",
    ),
)


def draw(build: BuildInfo) -> None:
    """Draw everything."""
    question = st.text_input(
        "Your question",
        key="q",
        type="search",
        placeholder="What do you want to know?",
        icon=":material/search:",
        bind="query-params",
        label_visibility="collapsed",
        max_chars=4000,
    )
    below, options = st.columns([5, 1], vertical_alignment="center")
    below.caption(f"**qaserve** searches {build.pairs:,} question/answer pairs of corpus {literal(build.corpus)}")
    with options.popover("Options", icon=":material/tune:", width="stretch"):
        request = _options(question or "")
    if not (question or "").strip():
        _welcome(build)
        return
    result = data.ask(request.model_dump_json(exclude_none=True), build.build)
    found, reasons = st.columns([11, 9], gap="large")
    with found:
        _confidence(result.confidence)
        for answer in result.answers:
            _card(answer)
        if not result.answers:
            st.info("The corpus holds no answer.")
    with reasons:
        why.draw(result)


def _confidence(confidence: Confidence) -> None:
    st.markdown("#### Nearest pairs" if confidence.abstained else "#### Answers")
    reason = literal(confidence.reason)
    if confidence.abstained:
        st.warning(f"**{reason}**  \nThese pairs are only what comes nearest.", icon=":material/search_off:")
    elif confidence.value is None:
        st.caption(reason)
    else:
        st.caption(f"Confidence **{confidence.value:.0%}** · {reason}")


def _options(question: str) -> AskRequest:
    routing = st.selectbox("Who votes", ROUTINGS, format_func=ROUTINGS.__getitem__, key="routing")
    projection = st.selectbox(
        "What moves the question", PROJECTIONS, format_func=PROJECTIONS.__getitem__, key="projection"
    )
    own = st.toggle("Set temperature and hits myself", key="own")
    temperature = st.slider(
        "Temperature",
        0.01,
        0.5,
        0.05,
        0.01,
        disabled=not own,
        help="Low: the most similar known question decides alone. High: all of them count nearly alike.",
    )
    hits = st.slider("Known questions that vote", 1, 200, 32, disabled=not own)
    top_k = st.slider("Answers", 1, 20, 5)
    return AskRequest(
        question=question,
        top_k=top_k,
        routing=routing,
        projection=projection,
        temperature=temperature if own else None,
        hits=hits if own else None,
    )


def _welcome(build: BuildInfo) -> None:
    st.markdown("##### Ask in your own words, or try one of these")
    columns = st.columns(2)
    for number, example in enumerate(data.example_questions(build.build)):
        columns[number % 2].button(
            literal(example),
            key=f"example{number}",
            icon=":material/search:",
            width="stretch",
            on_click=_take,
            args=(example,),
        )
    st.markdown("##### How an answer is found")
    for column, (icon, title, text) in zip(st.columns(3), STEPS, strict=True):
        with column.container(border=True, height="stretch"):
            st.markdown(f":material/{icon}: **{title}**")
            st.caption(text)


def _take(example: str) -> None:
    st.session_state["q"] = example


def _card(answer: Answer) -> None:
    with st.container(border=True):
        st.markdown(f"**{answer.rank}. {literal(answer.question)}**")
        st.caption(f"Score {answer.score:.2f} · {_moved(answer)}")
        for block in blocks(answer.answer):
            if block.language is None:
                st.markdown(block.text)
            else:
                st.code(block.text, language=block.language or None, wrap_lines=True)
        _chips(answer)


def _moved(answer: Answer) -> str:
    if answer.raw_rank is None:
        return ":green[:material/arrow_upward: not in the first 100 of a plain search]"
    if answer.raw_rank > answer.rank:
        return f":green[:material/arrow_upward: up from rank {answer.raw_rank} of a plain search]"
    if answer.raw_rank < answer.rank:
        return f":orange[:material/arrow_downward: down from rank {answer.raw_rank} of a plain search]"
    return "same rank as in a plain search"


def _chips(answer: Answer) -> None:
    skills, topics = answer.related_skills[:CHIPS_SHOWN], answer.topics[:CHIPS_SHOWN]
    if skills or topics:
        with st.container(horizontal=True, gap="xsmall"):
            for skill in skills:
                st.badge(literal(skill.removesuffix(".md")), color="blue", icon=":material/construction:")
            for topic in topics:
                st.badge(literal(topic), color="gray", icon=":material/label:")
    if answer.related_docs:
        shown = ", ".join(f"`{doc.replace('`', '')}`" for doc in answer.related_docs[:CHIPS_SHOWN])
        st.caption(f":material/description: {shown}")
