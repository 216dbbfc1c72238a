"""What would make the corpus better: intents that nearly coincide, and questions without an answer."""

from typing import Any

import pandas as pd
import streamlit as st

from qaserve.common.text import shorten
from qaserve.schemas.explore import OverlapList
from qaserve.schemas.gaps import GapList
from ui import api_cache, theme
from ui.markdown import literal

SHOWN = 5
"""Pairs of intents as text, which wraps on a phone; the table has all."""
CHARS = 120
"""Of a text of theirs."""
COLUMNS: dict[str, Any] = {
    "keep": st.column_config.TextColumn("Keep"),
    "merge": st.column_config.TextColumn("Merge into it"),
    "reason": st.column_config.TextColumn("What to do", width="large"),
    "question": st.column_config.NumberColumn("Questions", format="%.2f", width="small", help="1: the same question."),
    "answer": st.column_config.NumberColumn("Answers", format="%.2f", width="small", help="1: the same answer."),
    "keep_text": st.column_config.TextColumn("Text to keep", width="medium"),
    "merge_text": st.column_config.TextColumn("Text to merge", width="medium"),
}


def draw() -> None:
    """Both lists, each with what to do."""
    build = api_cache.live_build()
    if build is None:
        theme.nothing_loaded()
        return
    _overlaps(api_cache.overlaps(build.build))
    if not api_cache.kept_days():
        st.caption("Questions without an answer are listed here if QASERVE_KEEP_QUESTIONS is set.")
    elif api_cache.may_change():
        _gaps(api_cache.gaps(build.build))


def _overlaps(found: OverlapList) -> None:
    st.markdown(f"## Similar intents ({found.found:,})")
    if not found.overlaps:
        st.caption(f"No two intents have a question or an answer with a similarity of {found.threshold:g} or more.")
        return
    st.caption(
        f"Intents with a question or an answer in common, from a similarity of {found.threshold:g}. The right one of "
        "two is hard to find: give both the same intent (`cluster_id`), or make their questions differ."
    )
    for one in found.overlaps[:SHOWN]:
        st.markdown(
            f"- **{literal(one.keep)}** and **{literal(one.merge)}**: {literal(one.reason)}  \n"
            f"“{literal(shorten(one.keep_text, CHARS))}” · “{literal(shorten(one.merge_text, CHARS))}”"
        )
    with st.expander(f"As a table ({len(found.overlaps)})", icon=":material/table:"):
        frame = pd.DataFrame([one.model_dump(include=set(COLUMNS)) for one in found.overlaps], columns=list(COLUMNS))
        st.dataframe(frame, hide_index=True, column_config=COLUMNS, height=320, alt="Intents that nearly coincide.")


def _gaps(found: GapList) -> None:
    """Questions without an answer, in themes."""
    st.markdown(f"## Unanswered questions ({found.questions:,})")
    if not found.themes:
        st.caption("No question is kept.")
        return
    st.caption(
        "Questions that were abstained on or judged unhelpful, grouped. Download them, fill in the answers, and import "
        "the file."
    )
    frame = pd.DataFrame(
        {
            "Asked": [one.count for one in found.themes],
            "Question": [one.question for one in found.themes],
            "Nearest cluster": [one.cluster_name for one in found.themes],
            "Similarity": [round(one.similarity, 2) for one in found.themes],
        }
    )
    st.dataframe(frame, hide_index=True, height="content" if len(frame) <= 8 else 320, alt="Unanswered questions.")
    skeleton = "".join(one.skeleton() for one in found.themes)
    with st.container(horizontal=True):
        st.download_button("Download as pairs", skeleton, "gaps.jsonl", "application/x-ndjson", key="gaps_export")
        if st.button("Delete all", key="gaps_delete", icon=":material/delete:"):
            api_cache.client().delete_gaps()
            api_cache.gaps.clear()
            st.rerun()
