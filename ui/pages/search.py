"""The search page: a question, and its answers."""

from collections.abc import Sequence

import streamlit as st

from qaserve.common.text import one_line
from qaserve.schemas.ask import AskResult, Confidence
from qaserve.schemas.builds import BuildInfo
from qaserve.schemas.documents import SkillHit, SkillSummary
from qaserve.schemas.explore import FacetValue
from qaserve.settings import get_settings
from ui import api_cache, cards, state, theme
from ui.markdown import literal, plain_name
from ui.pages.ingest import IMPROVE

FACETS = {
    "topics": "Topic",
    "related_skills": "Skill",
    "tags": "Tag",
    "cluster": "Cluster",
    "source_file": "Source file",
}
ROUTINGS = {
    "": "Default",
    "question": "Known questions like yours",
    "question2": "Known questions, in two rounds",
    "centroid": "The clusters nearest to your question",
}
PROJECTIONS = {
    "": "Default",
    "cluster": "One projection per cluster",
    "pair": "One projection per known question",
    "student": "A trained network",
    "none": "No projection: a plain search",
}
MEANING = (
    "Both are calibrated on held-out questions: of 100 questions with a value of 60%, about 60 get an answer of the "
    "right skill, or the very answer that was written for them."
)
RECENT = 8
"""Questions of the session that are offered again."""
BROWSED = 9
"""Skills or clusters shown before a question."""
STEPS = (
    (
        "how_to_vote",
        "Known questions vote",
        "Your question is compared with all known ones. The most similar vote for the clusters their answers are in.",
    ),
    (
        "turn_slight_right",
        "Your question is projected",
        "Questions and their answers use different words. Each cluster has learned a projection from one to the other.",
    ),
    (
        "fact_check",
        "The nearest answers are shown",
        "The best answer comes with its confidence. The Why page shows every vote.",
    ),
)
VOTES_SHOWN = 4
NEAR_MISSES = 3
ANSWERS = 20


def draw(build: BuildInfo) -> None:
    """Draw the search page."""
    if not state.get("q"):
        theme.title(
            f"Search {literal(get_settings().server.title or api_cache.builds().title or build.corpus)}",
            f"Search {theme.counted(build.pairs, 'answer')} by meaning, and see why each one was found.",
        )
    question = question_box()
    _tools(build)
    state.save()
    theme.ignored(state.ignored())
    if not question:
        _welcome(build)
    else:
        _found(api_cache.ask(state.request(), build.build))
        _remember(question)


def question_box() -> str:
    """The box for the question; gives what is in it."""
    question = st.text_input(
        "Your question",
        key=state.offer("q", ""),
        type="search",
        placeholder="What do you want to know?",
        icon=":material/search:",
        label_visibility="collapsed",
    )
    state.keep("q", (question or "").strip())
    return state.get("q") or ""


# Filters and options


def _tools(build: BuildInfo) -> None:
    with st.container(horizontal=True, key="tools", vertical_alignment="center", gap="small"):
        count = sum(len(state.get(name) or []) for name in state.FILTERS)
        label = f"Filters ({count})" if count else "Filters"
        filters = st.popover(label, icon=":material/filter_list:", on_change="rerun", key="filters")
        changed = any(state.get(name) is not None for name in ("routing", "projection"))
        label = "Options (changed)" if changed else "Options"
        options = st.popover(label, icon=":material/tune:", on_change="rerun", key="options")
        st.caption(
            f"{theme.counted(build.pairs, 'question/answer pair')} · corpus {literal(build.corpus)}", width="content"
        )
    # Only while they are open: a widget that the browser first meets later than it was set shows its own default.
    if filters.open:
        with filters:
            _filters(build)
    if options.open:
        with options:
            _options()
    if count:
        _active_filters()


def _filters(build: BuildInfo) -> None:
    facets = api_cache.facets(build.build)
    st.caption("A pair must have one of the values in every box that is filled.")
    for name, label in FACETS.items():
        known: tuple[FacetValue, ...] = getattr(facets, name)
        names = {_value(name, one.value): f"{_label(name, one.label)} ({one.count:,})" for one in known}
        names |= {value: str(value) for value in state.get(name) or [] if value not in names}
        if len(names) > 1:
            chosen = st.multiselect(
                label,
                names,
                key=state.offer(name, []),
                format_func=names.__getitem__,
                max_selections=state.MOST_VALUES,
                select_all=False,
            )
            state.keep(name, list(chosen))


def _value(name: str, text: str) -> str | int:
    return int(text) if name == "cluster" else text


def _label(name: str, text: str) -> str:
    return plain_name(text) if name == "related_skills" else text


def _active_filters() -> None:
    active = [(name, value) for name in state.FILTERS for value in state.get(name) or []]
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
        for number, (name, value) in enumerate(active):
            st.button(
                f"{FACETS[name]}: {literal(_label(name, str(value)))}",
                icon=":material/close:",
                key=f"drop{number}",
                help="Remove this filter",
                on_click=state.drop_filter,
                args=(name, value),
            )
        st.button("Clear all", type="tertiary", on_click=state.clear_filters)


def _options() -> None:
    routing = st.selectbox(
        "Who votes",
        ROUTINGS,
        format_func=ROUTINGS.__getitem__,
        key=state.offer("routing", ""),
        help="Step 1 of **Why**.",
    )
    state.keep("routing", routing)
    projection = st.selectbox(
        "Projection",
        PROJECTIONS,
        format_func=PROJECTIONS.__getitem__,
        key=state.offer("projection", ""),
        help="Step 3 of **Why**.",
    )
    state.keep("projection", projection)
    most = max(ANSWERS, state.get("top_k") or 0)  # an address may ask for more
    top_k = st.slider("Answers", 1, most, key=state.offer("top_k", state.DEFAULT_TOP_K))
    state.keep("top_k", top_k, state.DEFAULT_TOP_K)
    st.caption("The **Why** page has more options and shows what each one changes.")


# Before a question


def _welcome(build: BuildInfo) -> None:
    examples(build)
    _recent()
    st.markdown("## Or browse")
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key="browse"):
        skills = [one for one in api_cache.skills(build.build).values() if one.path is not None]
        if skills:
            _browse_skills(skills, build)
        else:
            _browse_clusters(build)
        st.page_link(
            st.session_state["pages"]["clusters"], label="All clusters", icon=":material/hub:", width="content"
        )
    st.space("small")
    st.markdown("## How an answer is found")
    for column, (icon, title, text) in zip(st.columns(3), STEPS, strict=True):
        with column.container(border=True, height="stretch"):
            st.markdown(f":material/{icon}: **{title}**")
            st.caption(text)


def _browse_skills(skills: list[SkillSummary], build: BuildInfo) -> None:
    """Those that most pairs name; each opens its document."""
    for one in sorted(skills, key=lambda one: -one.pairs)[:BROWSED]:
        if st.button(
            f"{literal(plain_name(one.name))} ({one.pairs:,})",
            key=f"browse {one.name}",
            icon=":material/construction:",
            type="tertiary",
            help=literal(one_line(one.when_to_use, cards.USE_CHARS)) or None,
        ):
            cards.document(one.name, build.build)


def _browse_clusters(build: BuildInfo) -> None:
    for one in sorted(api_cache.clusters(build.build), key=lambda one: -one.size)[:BROWSED]:
        st.page_link(
            st.session_state["pages"]["clusters"],
            label=f"{literal(one.name)} ({one.size:,})",
            icon=":material/hub:",
            query_params={"open": str(one.cluster)},
            width="content",
        )


def examples(build: BuildInfo) -> None:
    """Questions to begin with, and the focus in the box."""
    st.markdown("## Ask in your own words, or try one of these")
    with st.container(gap=None, key="examples"):
        for number, example in enumerate(api_cache.example_questions(build.build)):
            st.button(
                literal(example),
                key=f"example{number}",
                icon=":material/search:",
                type="tertiary",
                on_click=state.put,
                args=("q", example),
            )
    st.html(theme.FOCUS, unsafe_allow_javascript=True)


def _recent() -> None:
    """Questions of this session, latest first."""
    recent: list[str] = st.session_state.get("recent", [])
    if not recent:
        return
    st.markdown("## Asked before")
    with st.container(gap=None, key="recent_questions"):
        for number, question in enumerate(recent):
            st.button(
                literal(question),
                key=f"recent{number}",
                icon=":material/history:",
                type="tertiary",
                on_click=state.put,
                args=("q", question),
            )


def _remember(question: str) -> None:
    recent: list[str] = st.session_state.setdefault("recent", [])
    st.session_state["recent"] = [question, *(one for one in recent if one != question)][:RECENT]


# After a question


def _found(result: AskResult) -> None:
    found, reasons = st.columns([2, 1], gap="large")
    with found:
        filters = {name: list(getattr(result.explained.filters, name)) for name in cards.CHIPS}
        if not result.answers:
            st.info("No pair matches these filters. Remove a filter.", icon=":material/filter_list_off:")
        elif result.confidence.abstained:
            _no_answer(result, filters)
        else:
            _verdict(result)
            _short_reasons(result)
            groups = cards.by_skill(result.answers)
            _skills([hit for hit in result.skills if hit.named and hit.name != next(iter(groups))], result)
            for name, answers in groups.items():
                cards.skill(name, answers, result, filters)
            others = [hit for hit in result.skills if hit.fits and not hit.named and hit.name not in groups]
            _skills(others, result, "Other skills that fit")
    with reasons:
        _reasons(result)


def _skills(hits: Sequence[SkillHit], result: AskResult, title: str = "") -> None:
    """Skills without their answers, each with the way to its document."""
    if hits and title:
        st.markdown(f"## {title}")
    for hit in hits:
        cards.skill_head(hit.name, result, part="alone ")


def _no_answer(result: AskResult, filters: dict[str, list[str]]) -> None:
    """Skills that fit all the same, one sentence, the nearest answers as lines, and what to do next."""
    _skills([hit for hit in result.skills if hit.fits], result, "Skills that fit")
    st.markdown("## No answer here")
    st.warning(literal(result.confidence.reason), icon=":material/search_off:")
    for answer in result.answers[:NEAR_MISSES]:
        cards.near_miss(answer, result, filters)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if st.button("Rephrase", type="tertiary", icon=":material/edit:", help="Select the question to change it."):
            st.html(theme.SELECT, unsafe_allow_javascript=True)
        st.page_link(st.session_state["pages"]["clusters"], label="Browse", icon=":material/hub:")
        st.page_link(
            st.session_state["pages"]["ingest"],
            label="Add this pair",
            icon=":material/add:",
            query_params={"question": result.question},
        )
    _noted()
    _short_reasons(result)


def _noted() -> None:
    """Where the question is kept, if it is: whoever may see what others asked has a way there."""
    if not api_cache.kept_days():
        return
    if api_cache.may_change():
        st.page_link(
            st.session_state["pages"]["ingest"],
            label="Noted under Unanswered questions",
            icon=":material/bookmark_added:",
            query_params={"ingest_tab": IMPROVE},
        )
    else:
        st.caption(":material/bookmark_added: Noted as an unanswered question for those who maintain these answers.")


def _verdict(result: AskResult) -> None:
    sure = result.confidence
    st.markdown(f"## Answers {badges(sure)}")
    st.caption(literal(sure.reason), help=None if sure.known or sure.value is None else MEANING)


def badges(sure: Confidence) -> str:
    """What is known of the first answer, in the colour of the confidence in its skill."""
    if sure.known:
        return ":green-badge[:material/check: Matches a known question]"
    said = []
    for label, value in (("The right skill", sure.skill), ("This very answer", sure.value)):
        if value is not None:
            colour = theme.sureness(value) if value is sure.skill or sure.skill is None else "gray"
            said.append(f":{colour}-badge[{label}: {value:.0%}]")
    return " ".join(said)


def _short_reasons(result: AskResult) -> None:
    """One line of reasons, where the box of reasons comes after all the cards: on a phone."""
    if not result.explained.clusters:
        return
    with st.container(key="phone_reasons", gap="xsmall"):
        vote = result.explained.clusters[0]
        share, name = theme.percent(vote.weight if vote.vote is None else vote.vote), literal(vote.name)
        st.markdown(
            f"Why? **{share}** of the vote went to **{name}**."
            if result.explained.hits
            else f"Why? The nearest cluster is **{name}**. Its weight is **{share}**."
        )
        _way_to_why()


def _way_to_why() -> None:
    st.page_link(
        st.session_state["pages"]["why"],
        label="See every step",
        icon=":material/account_tree:",
        query_params=state.address(),
    )


def _reasons(result: AskResult) -> None:
    trace = result.explained
    if not trace.clusters:
        return
    with st.container(border=True, key="reasons"):
        st.markdown("## Why these answers")
        if trace.hits:
            first = trace.hits[0]
            st.markdown(
                f"**{theme.counted(len(trace.hits), 'known question')}** like yours voted. The most similar is "
                f"“{literal(first.question)}” (similarity {first.similarity:.2f})."
            )
        st.markdown("They voted for these clusters of answers:" if trace.hits else "Nearest clusters of answers:")
        for vote in trace.clusters[:VOTES_SHOWN]:
            st.progress(min(1.0, vote.weight), text=f"{literal(vote.name)} · **{theme.percent(vote.weight)}**")
        _way_to_why()
        st.caption(f"Answered in {result.timings_ms.total:.0f} ms")
