"""The results of the experiments, in sentences, plots and tables."""

from html import escape

import pandas as pd
import streamlit as st

from qaserve.schemas.explore import Headline, ReportPicture, ReportTable, ReportView
from qaserve.schemas.feedback import Feedback
from ui import api_cache, charts, theme
from ui.markdown import literal, safe

LONG = 300
"""A finding of more characters lists many figures; it comes after those that say one thing."""
PARTS = "; "
WORDS = """
- **MRR**, mean reciprocal rank: 1 if the right answer is always first, 0.5 if it is always second.
- **+0.043 (+0.024 … +0.063)**: a difference and its 95% confidence interval. *No difference*: the interval contains 0.
- **cosine**, similarity: 1 is the same direction, 0 has nothing in common.
- **minilm**, **mpnet**: two language models. They encode a text as a vector of D = 384 or 768 numbers.
- **raw answers**, **raw questions**: a plain search of the answers, or of the known questions.
- **BM25**: a search by common words alone.
- **W**: the projection of a cluster. *Reference W* is the proposal's method. *Anchored W* is qaserve's method.
- **τ**, temperature: how much similarity decides in the vote. **β**: how much common words count.
- **splits**: how often the experiment was repeated with other held-out questions.
"""
PICTURE = 900
JUDGEMENTS = 1_000
"""Of the newest, that are listed; all are counted."""
ABOUT = {
    "hypotheses": (
        "The proposal's claims",
        "What the proposal claims, tested by every reading of its projection, each method at its best τ.",
    ),
    "routing": (
        "Search quality",
        "Does qaserve find more than a plain search, and which of its parts help? Held-out questions were asked.",
    ),
    "finetuning": (
        "Training the encoder",
        "Does training the language model itself on the same pairs work better, and what does it cost?",
    ),
    "distill": ("One small network", "Can one small network learn the vote and the projection together?"),
    "importance": ("Weights of pairs", "Does it help if some pairs count more than others?"),
    "calibration": (
        "Confidence",
        "When the page says 80%, is it right in 8 of 10 cases? Does it notice questions without an answer?",
    ),
    "skills": ("Finding skills", "Does a question find the skill that it is about?"),
    "projection": ("Cost", "What do the projections cost in time and memory, in full and in low rank?"),
}
"""A name and a question in plain words, for each experiment of the project."""


def draw() -> None:
    """Draw the page of results."""
    theme.title("Results", "Measurements on held-out questions, and feedback on answers.")
    measured, said = st.tabs(["Experiments", "Feedback"], key="results_tab", on_change="rerun")
    if measured.open:
        with measured:
            _experiments()
    if said.open:
        with said:
            _feedback()


def _experiments() -> None:
    found = api_cache.reports()
    for reason in found.unreadable:
        st.warning(literal(reason), icon=":material/broken_image:")
    if found.public:
        st.info(
            "Measured on the public corpus. `qaserve bench NAME --reports reports` measures yours.",
            icon=":material/public:",
        )
    if not found.reports:
        return
    if found.headline is not None:
        _headline(found.headline)
    titles = {
        one.name: ABOUT[one.name][0] if one.name in ABOUT else one.title.partition(":")[0] for one in found.reports
    }
    first = next(iter(titles))

    name = st.pills(
        "Experiment",
        titles,
        format_func=titles.__getitem__,
        key="report",
        required=True,
        default=first,
        bind="query-params",
    )
    _report(api_cache.report(name or first))


def _headline(said: Headline) -> None:
    """The first result: one sentence, and a bar for each way of searching."""
    with st.container(border=True, key="headline"):
        st.markdown(f"## {literal(said.sentence)}")
        shades = [charts.PALETTE[0], *[charts.REST] * len(said.bars)]
        rows = [
            (one.label, one.share, shade, f"{one.share:.0%}") for one, shade in zip(said.bars, shades, strict=False)
        ]
        told = ", ".join(f"{one.label} {one.share:.0%}" for one in said.bars)
        charts.shares(rows, "chart_headline", f"{said.measure}: {told}")
        st.caption(literal(said.measure))


def _feedback() -> None:
    if not api_cache.may_change():
        theme.asks_only("Feedback shows the questions that people asked.")
        return
    found: list[Feedback] = []
    page: int | None = 0
    while page is not None:
        said = api_cache.client().feedback(JUDGEMENTS, page)
        found, page = [*found, *said.feedback], said.next
    if not found:
        st.info("No feedback yet. Every answer has buttons for it.", icon=":material/thumb_up:")
        return
    helpful = sum(one.helpful for one in found)
    with st.grid(3, min_column_width=140):
        st.metric("Judgements", f"{len(found):,}", border=True)
        st.metric("Helpful", f"{helpful:,}", border=True)
        st.metric("Not helpful", f"{len(found) - helpful:,}", border=True)
    found = found[-JUDGEMENTS:]
    frame = pd.DataFrame(
        {
            "helped": ["yes" if one.helpful else "no" for one in found],
            "question": [one.question for one in found],
            "rank": [one.trace.rank if one.trace else None for one in found],
            "pair id": [one.pair_id for one in found],
            "when": [pd.Timestamp(one.created) for one in found],
        }
    )
    config = {"when": st.column_config.DatetimeColumn("when", format="calendar")}
    st.dataframe(frame.iloc[::-1], hide_index=True, column_config=config)
    st.caption("`qaserve bench golden` measures the live build with them.")


def _report(view: ReportView) -> None:
    first, *more = view.summary or (view.title,)
    st.markdown(f"## {literal(first)}")
    for sentence in more:
        st.markdown(literal(sentence))
    if view.name in ABOUT:
        st.caption(ABOUT[view.name][1])
    findings = sorted(view.findings, key=lambda finding: len(finding) > LONG)
    label = f"{theme.counted(len(findings), 'finding')} in the terms of the experiment"
    with st.expander(label, icon=":material/science:"):
        st.markdown("\n".join(map(_finding, findings)))
    with st.expander("What the terms mean", icon=":material/menu_book:"):
        st.markdown(WORDS)
    with st.container(key="phone_wide"):
        st.caption(":material/swipe: Pictures and tables are wider than the screen. Scroll them sideways.")
    for number, picture in enumerate(view.pictures):
        with st.container(width=PICTURE, key=f"picture{number}"):
            st.html(_image(picture))
            st.caption(picture.title)
    if view.tables:
        st.markdown("## Tables")
    for table in view.tables:
        with st.expander(literal(table.title)):
            st.table(_frame(table), hide_index=True)
    st.caption(f"Measured on {view.date} on {literal(view.measured_on)} by `{view.command.replace('`', '')}`")


def _image(picture: ReportPicture) -> str:
    """An image with its alternative text, which `st.image` has no place for; inverted in the dark theme.

    On a phone it is scrolled, also by keys.
    """
    shown = "picture dark" if charts.dark() else "picture"
    image = f'<img class="{shown}" alt="{escape(picture.title)}" src="data:image/png;base64,{picture.png}">'
    return f'<div class="wide" tabindex="0" role="group" aria-label="{escape(picture.title)}">{image}</div>'


def _frame(table: ReportTable) -> pd.DataFrame:
    rows = [[literal(str(cell)) for cell in row] for row in table.rows]
    return pd.DataFrame(rows, columns=[literal(column) for column in table.columns])


def _finding(finding: str) -> str:
    """A finding as an item of a list; one that lists many figures has them below it."""
    said, *parts = finding.split(PARTS)
    if len(finding) <= LONG or not parts:
        return f"- {safe(finding)}"
    head, colon, first = said.rpartition(": ")
    items = [first if colon else said, *parts]
    return "\n".join([f"- {safe(head or said)}:", *(f"    - {safe(item)}" for item in items)])
