"""Answers as cards."""

import streamlit as st

from qaserve.common.errors import QaserveError
from qaserve.common.text import shorten
from qaserve.schemas.ask import Answer, AskResult
from qaserve.schemas.feedback import AnswerContext, FeedbackRequest
from ui import api_cache, state
from ui.markdown import blocks, literal

CHIPS = {"related_skills": "construction", "topics": "label", "tags": "sell"}
"""What a card's chips filter by, with their icons."""
CHIPS_SHOWN = 4
ASKS_ONLY = ":material/lock: This page is read-only: no feedback"
LINE_CHARS = 100
"""Of a question that must fit one line."""
TALL_CHARS = 2_500
TALL = 460


def card(answer: Answer, result: AskResult, filters: dict[str, list[str]]) -> None:
    """An answer with the known question that it answers.

    Args:
        answer: What is shown.
        result: What it is part of.
        filters: What is filtered by already; its chips are pressed.
    """
    with st.container(border=True, key=f"card{answer.rank}"):
        st.markdown(f"### {answer.rank}. {literal(answer.question)}")
        _body(answer, result, filters)


def near_miss(answer: Answer, result: AskResult, filters: dict[str, list[str]]) -> None:
    """An answer to another question, as one line that opens. The arguments are those of `card`."""
    label = f"{literal(shorten(answer.question, LINE_CHARS))} · similarity {answer.similarity:.2f}"
    with st.expander(label, key=f"near_miss{answer.rank}"):
        _body(answer, result, filters)


def _body(answer: Answer, result: AskResult, filters: dict[str, list[str]]) -> None:
    st.caption(f"Match {answer.score:.2f} · {moved(answer)}")
    text(answer.answer)
    _chips(answer, filters)
    if answer.related_docs:
        shown = ", ".join(f"`{doc.replace('`', '')}`" for doc in answer.related_docs[:CHIPS_SHOWN])
        st.caption(f":material/description: {shown}")
    _feedback(answer, result)


def text(answer: str) -> None:
    """The text of an answer; a long one scrolls in its card."""
    with st.container(height=TALL if len(answer) > TALL_CHARS else "content", border=False):
        for block in blocks(answer):
            if block.language is None:
                st.markdown(block.text)
            else:
                st.code(block.text, language=block.language or None, wrap_lines=True)


def moved(answer: Answer) -> str:
    """Where a plain search has the answer."""
    if answer.raw_rank is None:
        return ":green[:material/arrow_upward: not found by a plain search]"
    if answer.raw_rank > answer.rank:
        return f":green[:material/arrow_upward: rank {answer.raw_rank} in a plain search]"
    if answer.raw_rank < answer.rank:
        return f":orange[:material/arrow_downward: rank {answer.raw_rank} in a plain search]"
    return "same rank in a plain search"


def _chips(answer: Answer, filters: dict[str, list[str]]) -> None:
    chips = [(field, value) for field in CHIPS for value in getattr(answer, field)[:CHIPS_SHOWN]]
    if not chips:
        return
    chosen = [one for one in chips if one[1] in filters.get(one[0], [])]
    key = f"chips {answer.id} {chosen}"
    st.pills(
        "Show only answers with",
        chips,
        selection_mode="multi",
        default=chosen,
        format_func=_chip,
        key=key,
        label_visibility="collapsed",
        on_change=_filter,
        args=(key, chosen),
    )


def _chip(chip: tuple[str, str]) -> str:
    return f":material/{CHIPS[chip[0]]}: {literal(plain_name(chip[1]))}"


def plain_name(value: str) -> str:
    """A skill without what only its file needs: skill_csv_source.md is csv source."""
    return value.removesuffix(".md").removeprefix("skill_").replace("_", " ") if value.endswith(".md") else value


def _feedback(answer: Answer, result: AskResult) -> None:
    key = f"helpful {answer.id} {result.question}"
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="right", gap="xsmall"):
        if api_cache.may_change():
            st.caption("Did it help?", width="content")
            st.feedback("thumbs", key=key, on_change=_judge, args=(key, answer, result))
        else:
            st.caption(ASKS_ONLY, width="content")
            st.feedback("thumbs", key=key, disabled=True)


def _judge(key: str, answer: Answer, result: AskResult) -> None:
    said, trace = st.session_state[key], result.explained
    if said is None:
        return
    asked = AnswerContext(**dict(trace.params), rank=answer.rank, score=answer.score)
    try:
        api_cache.client().say(
            FeedbackRequest(
                question=result.question, pair=answer.id, helpful=said == 1, build=result.build, trace=asked
            )
        )
    except QaserveError as error:
        st.toast(literal(error.message), icon=":material/error:")
    else:
        st.toast("Thank you. Your feedback is saved.", icon=":material/favorite:")


def _filter(key: str, before: list[tuple[str, str]]) -> None:
    after = st.session_state[key]
    for field, value in after:
        if (field, value) not in before:
            state.add_filter(field, value)
    for field, value in before:
        if (field, value) not in after:
            state.drop_filter(field, value)
