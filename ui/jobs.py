"""An ingest job: its progress and its result."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from qaserve.common.errors import TABLE, CorpusError, QaserveError, QualityError
from qaserve.schemas.jobs import Job
from ui import api_cache, ingest_report, theme
from ui.markdown import literal, safe

SECONDS = 1.0
WORSE = TABLE[QualityError].code
NO_PAIR = TABLE[CorpusError].code
SHAPE = '{"question": "How do I …?", "answer": "You …", "topics": ["…"]}'
STATES = {
    "queued": ("Queued", ":material/hourglass:"),
    "running": ("Running", ":material/progress_activity:"),
    "done": ("Done", ":material/check_circle:"),
    "failed": ("Failed", ":material/error:"),
    "cancelled": ("Cancelled", ":material/cancel:"),
    "interrupted": ("Interrupted: the server stopped", ":material/power_off:"),
}


def draw(number: str, offer: Callable[[bool], None]) -> None:
    """Draw a job; while it is at work, again every second.

    Args:
        number: Of the job, as the address has it.
        offer: Draws the next step: after a preview or, given True, after a failed quality check.
    """
    st.button("New import", icon=":material/arrow_back:", type="tertiary", on_click=_leave)
    failed = st.session_state.pop("ingest_failed", None)
    if isinstance(failed, QaserveError):
        theme.failure(failed)
    job = api_cache.client().job(number)
    if job.ended:
        _ended(job, offer)
    else:
        _at_work(number)


@st.fragment(run_every=SECONDS)
@theme.guarded
def _at_work(number: str) -> None:
    job = api_cache.client().job(number)
    if job.ended:
        st.cache_data.clear()
        st.rerun()
    words, icon = STATES[job.state]
    st.markdown(f"## {icon} {words}: {literal(job.source)}")
    st.caption("You can close this page. The job continues, and this address shows its progress.")
    for stage in job.stages:
        done = min(1.0, stage.done / stage.total) if stage.total else 0.0
        of = f"{stage.done:,} of {stage.total:,}" if stage.total else f"{stage.done:,}"
        st.progress(done, text=f"{stage.name} · {of}")
    if api_cache.may_change():
        st.button(
            "Cancel", icon=":material/cancel:", on_click=_cancel, args=(number,), help="The live build does not change."
        )
    if job.planned is not None:
        st.markdown("### What would change" if job.options.dry_run else "### What changes")
        ingest_report.draw_planned(job.planned)


def _ended(job: Job, offer: Callable[[bool], None]) -> None:
    words, icon = STATES[job.state]
    what = "What would change" if job.options.dry_run else "What was done"
    st.markdown(f"## {icon} {words if job.report is None else what}: {literal(job.source)}")
    if job.error is not None:
        hint = f"One pair in each line, such as `{SHAPE}`" if job.error.code == NO_PAIR else safe(job.error.hint)
        st.error(f"{literal(job.error.message)}\n\n{hint}")
    if job.report is not None:
        ingest_report.draw(job.report)
        if job.options.dry_run:
            offer(job.report.gate is not None and job.report.gate.stops)
    if job.error is not None and job.error.code == WORSE:
        offer(True)


def _leave() -> None:
    st.query_params.pop("job", None)
    st.session_state.pop("ingest_given", None)


def _cancel(number: str) -> None:
    try:
        api_cache.client().cancel(number)
    except QaserveError as error:  # it may have ended meanwhile
        st.session_state["ingest_failed"] = error


def listed() -> None:
    """The jobs there were, newest first."""
    found = api_cache.client().jobs().jobs
    if not found:
        st.info("The API has run no ingest yet.", icon=":material/history:")
        return
    frame = pd.DataFrame(
        {
            "when": [pd.Timestamp(job.created) for job in found],
            "file": [job.source for job in found],
            "what": ["preview" if job.options.dry_run else "import" for job in found],
            "state": [STATES[job.state][0] for job in found],
        }
    )
    config = {"when": st.column_config.DatetimeColumn("When", format="calendar")}
    st.dataframe(frame, hide_index=True, column_config=config, height="content")
    chosen = st.selectbox(
        "Open a job",
        [job.id for job in found],
        format_func={job.id: f"{job.created[:19].replace('T', ' ')} · {job.source}" for job in found}.__getitem__,
        index=None,
        placeholder="Choose a job",
        key="past_job",
    )
    if chosen:
        draw(chosen, lambda _: None)
