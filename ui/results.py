"""The results: what was measured, in sentences, plots and tables."""

from base64 import b64decode

import pandas as pd
import streamlit as st

from qaserve.views import ReportTable, ReportView
from ui import data, look
from ui.markdown import literal, safe

FINDINGS_SHOWN = 3
PICTURE = 900
JUDGEMENTS = 1_000
ABOUT = {
    "routing": "Does all this find more than a plain search, and which part of it? Questions were held out and asked; "
    "MRR is 1 where the right answer always comes first, 0.5 where it comes second, and so on.",
    "finetuning": "Would training the language model itself on the same pairs do better, and what would it cost?",
    "distill": "Can one small network learn what the vote and the turn do together?",
    "importance": "Does it help to let some pairs count more than others?",
    "calibration": "When the page says 80%, is it right in 8 of 10 cases? Does it notice when nothing answers?",
    "projection": "What do the turns cost in time and memory, stored in full and stored small?",
}


def draw() -> None:
    """Draw the page of results."""
    look.title("Results", "What was measured, with questions that were kept apart, and what people say of answers.")
    measured, said = st.tabs(["Experiments", "Feedback"], key="results_tab", on_change="rerun")
    if measured.open:
        with measured:
            _experiments()
    if said.open:
        with said:
            _feedback()


def _experiments() -> None:
    found = data.reports()
    for reason in found.unreadable:
        st.warning(literal(reason), icon=":material/broken_image:")
    if not found.reports:
        _nothing()
        return
    titles = {one.name: one.title for one in found.reports}
    name = st.segmented_control(
        "Experiment", titles, format_func=titles.__getitem__, key="report", required=True, default=next(iter(titles))
    )
    _report(data.report(name or next(iter(titles))))


def _feedback() -> None:
    found = data.client().feedback(JUDGEMENTS).feedback
    if not found:
        st.info(
            "Nobody has said yet whether an answer helped: the thumbs are on each card.", icon=":material/thumb_up:"
        )
        return
    helpful = sum(one.helpful for one in found)
    with st.grid(3, min_column_width=140):
        st.metric("Judgements", f"{len(found):,}", border=True)
        st.metric("Helpful", f"{helpful:,}", border=True)
        st.metric("Not helpful", f"{len(found) - helpful:,}", border=True)
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


def _nothing() -> None:
    with st.container(border=True):
        st.markdown("## No reports here")
        st.info("This server has no folder of reports.", icon=":material/folder_off:")
        st.markdown(
            "The project's own measurements come with its source code. `qaserve bench NAME --reports reports` measures "
            "on your corpus, and QASERVE_REPORTS_DIR says where reports are."
        )


def _report(view: ReportView) -> None:
    st.markdown(f"## {literal(view.title)}")
    if view.name in ABOUT:
        st.markdown(ABOUT[view.name])
    for finding in view.findings[:FINDINGS_SHOWN]:
        st.markdown(f"- {safe(finding)}")
    rest = view.findings[FINDINGS_SHOWN:]
    if rest:
        with st.expander(f"{len(rest)} more findings", icon=":material/format_list_bulleted:"):
            st.markdown("\n".join(f"- {safe(finding)}" for finding in rest))
    for picture in view.pictures:
        with st.container(width=PICTURE):
            st.image(b64decode(picture.png), caption=picture.title, width="stretch")
    if view.tables:
        st.markdown("## Tables")
    for number, table in enumerate(view.tables):
        with st.expander(literal(table.title), expanded=number == 0):
            st.dataframe(_frame(table), hide_index=True, height="content")
    st.caption(f"Measured on {view.date} on {literal(view.measured_on)} by `{view.command.replace('`', '')}`")


def _frame(table: ReportTable) -> pd.DataFrame:
    return pd.DataFrame(list(table.rows), columns=list(table.columns))
