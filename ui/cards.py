"""Answers as cards, those of one skill together."""

import math
import re
from collections.abc import Mapping, Sequence
from html import escape

import streamlit as st

from qaserve.common.errors import QaserveError
from qaserve.common.text import fold, one_line, shorten
from qaserve.schemas.ask import Answer, AskResult
from qaserve.schemas.documents import DocumentDetail
from qaserve.schemas.feedback import AnswerContext, FeedbackRequest
from qaserve.schemas.pairs import skill_name
from ui import api_cache, charts, state, theme
from ui.markdown import blocks, literal, marked, plain_name, safe

CHIPS = {"related_skills": "construction", "topics": "label", "tags": "sell"}
"""What a card's chips filter by, with their icons."""
CHIPS_SHOWN = 6
DOCS_SHOWN = 4
ASKS_ONLY = ":material/lock: This page is read-only: no feedback"
LINE_CHARS = 100
"""Of a question that must fit one line."""
USE_CHARS = 220
"""Of when to use a skill."""
SURE = "Calibrated probability that this is a right skill for your question. Several can be right."
HEADING = re.compile(r"\A#{1,6} .*\n*")
"""The first line of a section."""
FOLD_LINES = 8
"""A longer answer is folded."""
CHARS_PER_LINE = 95


def by_skill(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Answers by the first skill that their pair names, "" where it names none; the skill of the best answer first."""
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(next(map(skill_name, answer.related_skills), ""), []).append(answer)
    return groups


def skill(name: str, answers: Sequence[Answer], result: AskResult, filters: dict[str, list[str]]) -> None:
    """The answers of one skill: the best one open, the others as lines.

    Args:
        name: Of the skill; empty where the pairs name none.
        answers: Of the skill, best first.
        result: What they are part of.
        filters: What is filtered by already.
    """
    if name:
        skill_head(name, result)
    card(answers[0], result, filters)
    for answer in answers[1:]:
        label = f"{answer.rank}. {literal(shorten(answer.question, LINE_CHARS))}"
        with st.expander(label, key=f"other{answer.rank}"):
            _body(answer, result, filters)


def skill_head(name: str, result: AskResult, part: str = "") -> None:
    """Name, how sure it is, when to use it, and a way to its document. `part`: of the page, where two show a skill."""
    summary = api_cache.skills(result.build).get(name)
    hit = next((hit for hit in result.skills if hit.name == name), None)
    sure = None if hit is None else hit.confidence
    with st.container(gap="xsmall", key=f"skill_head {part}{name}"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"### :material/construction: {literal(plain_name(name))}", width="content")
            if hit is not None and hit.named:
                st.markdown(":green-badge[:material/check: Named in your question]", width="content")
            elif sure is not None:
                st.markdown(f":{theme.sureness(sure)}-badge[{sure:.0%}]", width="content", help=SURE)
            if (
                summary is not None
                and summary.path is not None
                and st.button(
                    "Read the document", key=f"document {part}{name}", type="tertiary", icon=":material/menu_book:"
                )
            ):
                document(name, result.build)
        if summary is not None and summary.when_to_use:
            st.caption(safe(one_line(summary.when_to_use, USE_CHARS)))


def document(name: str, build: str) -> None:
    """Open the document of a skill: its title over a fold for each section.

    Args:
        name: Of the skill.
        build: That it belongs to.
    """
    found = api_cache.skill(name, build).document
    if found is not None:
        st.dialog(literal(found.title), width="large")(_sections)(found, name)


def _sections(found: DocumentDetail, name: str) -> None:
    for section in found.sections:
        heading = " › ".join(section.headings[1:]) or "Introduction"
        with st.expander(literal(heading), expanded=section.order <= 1, key=f"section {name} {section.order}"):
            _blocks(HEADING.sub("", section.text))  # the label says it


def _blocks(markdown: str, words: Sequence[str] = ()) -> None:
    for block in blocks(markdown):
        if block.language is None:
            st.markdown(marked(block.text, words))
        else:
            st.code(block.text, language=block.language or None, wrap_lines=True)


def card(answer: Answer, result: AskResult, filters: dict[str, list[str]]) -> None:
    """An answer with the known question that it answers.

    Args:
        answer: What is shown.
        result: What it is part of.
        filters: What is filtered by already; its chips are pressed.
    """
    with st.container(border=True, key=f"card{answer.rank}"):
        st.markdown(f"#### {answer.rank}. {marked(literal(answer.question), answer.words)}")
        _body(answer, result, filters)


def near_miss(answer: Answer, result: AskResult, filters: dict[str, list[str]]) -> None:
    """An answer to another question, as one line that opens. The arguments are those of `card`."""
    label = f"{literal(shorten(answer.question, LINE_CHARS))} · similarity {answer.similarity:.2f}"
    with st.expander(label, key=f"near_miss{answer.rank}"):
        _body(answer, result, filters)


def _body(answer: Answer, result: AskResult, filters: dict[str, list[str]]) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        asked = "asks your question · " if answer.known else ""
        st.caption(f"Match {answer.score:.2f} · {asked}{moved(answer)}", width="content")
        _cluster(answer, result)
    text(answer.answer, answer.id, answer.words)
    if answer.rank == 1:
        theme.let_draw()
    _chips(answer, filters)
    if answer.related_docs:
        shown = ", ".join(f"`{doc.replace('`', '')}`" for doc in answer.related_docs[:DOCS_SHOWN])
        st.caption(f":material/description: {shown}")
    _feedback(answer, result)


def _cluster(answer: Answer, result: AskResult) -> None:
    """The cluster's name, in its colour in the charts, as a link to its page."""
    votes = result.explained.clusters
    number = next((place for place, vote in enumerate(votes) if vote.cluster == answer.cluster), len(votes))
    name = api_cache.clusters(result.build)[answer.cluster].name
    with st.container(key=f"dot{min(number, len(charts.PALETTE))}_{answer.rank}", width="content"):
        st.page_link(
            st.session_state["pages"]["clusters"],
            label=literal(name),
            icon=":material/circle:",
            query_params={"open": str(answer.cluster)},
        )


def text(answer: str, key: str, words: Sequence[str] = ()) -> None:
    """The text of an answer, folded if it is long.

    Args:
        answer: Markdown of a stranger.
        key: Unique on the page.
        words: Marked in it.
    """
    opened = f"unfolded {key}"
    folded = lines_of(answer) > FOLD_LINES and not st.session_state.get(opened)
    with st.container(border=False, key=f"folded {key}" if folded else None):
        _blocks(answer, words)
    if folded:
        st.button(
            "Show all",
            key=f"unfold {key}",
            type="tertiary",
            icon=":material/unfold_more:",
            on_click=st.session_state.__setitem__,
            args=(opened, True),
        )


def lines_of(text: str) -> int:
    """About how many lines a text takes in a card."""
    return sum(max(1, math.ceil(len(line) / CHARS_PER_LINE)) for line in text.splitlines() if line.strip())


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
    shown, rest = chips_of(answer, filters)
    if not shown:
        return
    _pills(shown, f"{answer.id} shown", filters)
    if rest:
        with st.popover(f"{len(rest)} more", type="tertiary"):
            _pills(rest, f"{answer.id} rest", filters)


def chips_of(
    answer: Answer, filters: Mapping[str, Sequence[str]]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Fields and values to filter by, those filtered by first, no name twice: at most `CHIPS_SHOWN`, and the rest."""
    named: dict[str, tuple[str, str]] = {}
    for field in CHIPS:
        for value in getattr(answer, field):
            named.setdefault(fold(plain_name(value)), (field, value))
    chips = sorted(named.values(), key=lambda chip: chip[1] not in filters.get(chip[0], []))
    return chips[:CHIPS_SHOWN], chips[CHIPS_SHOWN:]


def _pills(chips: list[tuple[str, str]], key: str, filters: dict[str, list[str]]) -> None:
    chosen = [one for one in chips if one[1] in filters.get(one[0], [])]
    key = f"chips {key} {chosen}"
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


def _feedback(answer: Answer, result: AskResult) -> None:
    key = f"helpful {answer.id} {result.question}"
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="right", gap="small"):
        copies = (("Copy answer", escape(answer.answer)), ("Copy link", "link"))
        st.html("".join(f'<button data-copy="{what}">{label}</button> ' for label, what in copies), width="content")
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
        noted = " The question is noted as unanswered." if said == 0 and api_cache.kept_days() else ""
        if noted:
            api_cache.gaps.clear()
        st.toast(f"Thank you. Your feedback is saved.{noted}", icon=":material/favorite:")


def _filter(key: str, before: list[tuple[str, str]]) -> None:
    after = st.session_state[key]
    for field, value in after:
        if (field, value) not in before:
            state.add_filter(field, value)
    for field, value in before:
        if (field, value) not in after:
            state.drop_filter(field, value)
