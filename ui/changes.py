"""What an ingest did, or would do."""

import json
import re
from difflib import SequenceMatcher

import pandas as pd
import streamlit as st

from qaserve.replies import Job
from ui.markdown import literal

COUNTS = (("added", "Added"), ("updated", "Changed"), ("unchanged", "Unchanged"), ("removed", "Removed"))
REPEATS_SHOWN = 50
LISTED = 200
WORSE_SHOWN = 10
PIECES = re.compile(r"\s+|\w+|[^\w\s]")


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
        st.metric("Rejected", f"{report.rejections:,}", border=True, help="Lines that are no pairs.")
        st.metric(
            "Conflicts",
            f"{report.conflicts:,}",
            border=True,
            help=f"Questions that lead to different answers; {report.repeats:,} rows repeat a question. All are kept.",
        )
    clusters = "" if report.clusters is None else f" in {report.clusters:,} clusters"
    st.caption(f"The corpus {'would hold' if report.dry_run else 'holds'} {report.pairs:,} pairs{clusters}.")
    _quality(job)
    _edits(job)
    _listed(job)
    _rejected(job)
    _conflicts(job)


def _quality(job: Job) -> None:
    """What it does to clusters and to how well questions are answered."""
    report = job.report
    if report is None or report.cluster_changes is None:
        if report is not None and report.dry_run:
            st.caption("What it does to clusters and to quality is measured when the pairs are brought in.")
        return
    if report.cluster_changes.reclustered:
        st.markdown("The answers were grouped anew, for the new pairs are unlike those that were there.")
    else:
        st.markdown("The clusters stayed, and the new pairs joined the nearest.")
    held_out = report.gate.held_out if report.gate else None
    if held_out is None:
        return
    change = held_out.new.mrr - held_out.live.mrr
    st.metric(
        "How well questions find their answers (1: always first)",
        f"{held_out.new.mrr:.3f}",
        delta=f"{change:+.3f} against the build before",
        border=True,
        help=f"{held_out.questions:,} known questions were kept apart and asked of both builds.",
    )
    if held_out.worse:
        with st.expander("Questions that are answered worse", icon=":material/trending_down:"):
            rows = [(one.question, one.before, one.after) for one in held_out.worse[:WORSE_SHOWN]]
            frame = pd.DataFrame(rows, columns=["question", "rank before", "rank now"])
            st.dataframe(frame, hide_index=True, height="content")


def _edits(job: Job) -> None:
    report = job.report
    if report is None or not report.edits:
        return
    with st.expander(f"{report.updated:,} changed pairs", icon=":material/difference:", expanded=True):
        for one in report.edits:
            fields = ", ".join(name.replace("_", " ") for name in one.fields)
            st.markdown(f"**{literal(one.question)}** · {fields}")
            if one.before is not None and one.after is not None:
                st.markdown(_difference(one.before, one.after))
        if report.updated > len(report.edits):
            st.caption(f"The first {len(report.edits)} are shown.")


def _difference(before: str, after: str) -> str:
    """Two texts as one: what goes is red and struck out, what comes is green."""
    old, new = PIECES.findall(before), PIECES.findall(after)
    pieces = []
    for what, start, end, begin, stop in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        gone, come = "".join(old[start:end]), "".join(new[begin:stop])
        if what == "equal":
            pieces.append(literal(gone) if gone.strip() else "")
        else:
            pieces += [f":red-background[~~{literal(gone)}~~]"] if gone.strip() else []
            pieces += [f":green-background[{literal(come)}]"] if come.strip() else []
    return " ".join(piece for piece in pieces if piece)


def _listed(job: Job) -> None:
    report = job.report
    if report is None:
        return
    for pairs, word, icon in (
        (report.changes.added, "new", "add_circle"),
        (report.changes.removed, "removed", "remove_circle"),
    ):
        if pairs:
            with st.expander(f"{len(pairs):,} {word} pairs", icon=f":material/{icon}:"):
                rows = [(one.question, one.pair_id, one.file, one.line) for one in pairs[:LISTED]]
                frame = pd.DataFrame(rows, columns=["question", "pair id", "file", "line"])
                st.dataframe(frame, hide_index=True, height="content" if len(rows) <= 8 else 320)


def _rejected(job: Job) -> None:
    report = job.report
    if report is None or not report.rejected:
        return
    with st.expander(f"{report.rejections:,} rejected lines", icon=":material/block:", expanded=True):
        rows = [one.model_dump() for one in report.rejected]
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
    count = len(report.repeated_questions)
    with st.expander(f"{count:,} questions are asked more than once", icon=":material/repeat:"):
        st.caption("They are kept. Where the answers differ, perhaps one of the questions can be put more clearly.")
        for one in report.repeated_questions[:REPEATS_SHOWN]:
            lines = ", ".join(str(row.line) for row in one.rows)
            answers = f"{one.answers} different answers" if one.answers > 1 else "the same answer"
            st.markdown(f"- **{literal(one.question)}**: {answers}, lines {lines}")
