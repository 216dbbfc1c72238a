"""What an ingest did, or would do."""

import json

import pandas as pd
import streamlit as st

from qaserve.records import Record
from qaserve.replies import Job
from ui.markdown import literal

COUNTS = (
    ("added", "Added"),
    ("updated", "Changed"),
    ("unchanged", "Unchanged"),
    ("removed", "Removed"),
)
REPEATS_SHOWN = 50


def draw(job: Job) -> None:
    """Draw the report of a job that has one."""
    report = job.report
    if report is None:
        return
    if not (report.added or report.updated or report.removed):
        st.info("Nothing changes: every pair is there already, just so.", icon=":material/done_all:")
    with st.grid(6, min_column_width=120):
        for name, label in COUNTS:
            st.metric(label, f"{getattr(report, name):,}", border=True)
        st.metric("Rejected", f"{len(report.rejected):,}", border=True, help="Lines that are no pairs.")
        st.metric(
            "Conflicts",
            f"{report.conflicts:,}",
            border=True,
            help=f"Questions that lead to different answers; {report.repeats:,} rows repeat a question. All are kept.",
        )
    clusters = "" if report.clusters is None else f" in {report.clusters:,} clusters"
    verb = "would hold" if report.dry_run else "holds"
    st.caption(f"The corpus {verb} {report.pairs:,} pairs{clusters}.")
    _rejected(report.rejected)
    _conflicts(job)


def _rejected(rejected: tuple[Record, ...]) -> None:
    if not rejected:
        return
    with st.expander(f"{len(rejected):,} rejected lines", icon=":material/block:", expanded=True):
        rows = [one.model_dump() for one in rejected]
        st.dataframe(pd.DataFrame(rows), hide_index=True, height="content" if len(rows) <= 8 else 320)
        st.download_button(
            "Download them with the reasons",
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
            file_name="rejected.jsonl",
            mime="application/x-ndjson",
            icon=":material/download:",
        )


def _conflicts(job: Job) -> None:
    report = job.report
    if report is None or not report.repeated_questions:
        return
    with st.expander(
        f"{len(report.repeated_questions):,} questions are asked more than once", icon=":material/repeat:"
    ):
        st.caption("They are kept. Where the answers differ, perhaps one of the questions can be put more clearly.")
        for one in report.repeated_questions[:REPEATS_SHOWN]:
            lines = ", ".join(str(row.line) for row in one.rows)
            answers = f"{one.answers} different answers" if one.answers > 1 else "the same answer"
            st.markdown(f"- **{literal(one.question)}**: {answers}, lines {lines}")
