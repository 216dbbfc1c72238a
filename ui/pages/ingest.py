"""Importing pairs: what is uploaded, what it would change, and the builds."""

import json

import streamlit as st

from qaserve.common.errors import QaserveError
from qaserve.schemas.jobs import IngestOptions
from ui import api_cache, builds, file_preview, jobs, review, theme
from ui.markdown import literal

IMPROVE = "To improve"
FILE, ONE, DOCUMENTS = "Upload a file", "Add one pair", "Upload documents"
MOST_MEGABYTES = 64
"""What the API takes unless it is told otherwise."""
PAIR_FILE = "one-pair.jsonl"


def draw() -> None:
    """Draw the page of ingest."""
    theme.title(
        "Ingest",
        "Import questions, answers and documents. See what would change first. You can go back to an earlier build.",
    )
    give, better, made, past = st.tabs(
        ["Import", IMPROVE, "Builds", "Earlier jobs"], key="ingest_tab", on_change="rerun", bind="query-params"
    )
    if give.open:
        with give:
            _give()
    if better.open:
        with better:
            review.draw()
    if made.open:
        with made:
            builds.draw()
    if past.open:
        with past:
            jobs.listed()


def _give() -> None:
    number = st.query_params.get("job")
    if number:
        jobs.draw(number, _again)
        return
    if not api_cache.may_change():
        theme.asks_only("An import changes the results for everyone.")
        return
    asked = st.query_params.get("question")
    if asked is not None:  # a question without an answer: the pair may be added
        st.session_state.setdefault("pair_question", asked)
    way = st.segmented_control(
        "How?",
        (FILE, ONE, DOCUMENTS),
        default=FILE if asked is None else ONE,
        key="ingest_way",
        label_visibility="collapsed",
    )
    if way == ONE:
        _one_pair()
    elif way == DOCUMENTS:
        _documents()
    else:
        _file()


def _file() -> None:
    upload = st.file_uploader(
        "A file of questions and answers",
        type=["jsonl", "ndjson", "json", "csv", "tsv", "md", "markdown", "parquet", "xlsx"],
        key="ingest_file",
        max_upload_size=MOST_MEGABYTES,
        help="JSON Lines, a JSON array, CSV or TSV with a header, a Markdown FAQ, or Parquet.",
    )
    st.caption(f"In JSON Lines one pair in each line, such as `{jobs.SHAPE}`. In a table a column for each field.")
    read = None if upload is None else file_preview.draw(upload.name, upload.getvalue(), upload.file_id)
    replace = st.toggle(
        "Replace the whole corpus with this file",
        key="ingest_replace",
        help="Pairs that are not in the file are removed. Otherwise they stay.",
    )
    if _preview_button(disabled=read is None) and upload:
        _dry_run(upload.getvalue(), upload.name, (read or IngestOptions()).model_copy(update={"replace": replace}))


def _preview_button(*, disabled: bool) -> bool:
    return st.button("See what would change", type="primary", icon=":material/preview:", disabled=disabled)


def _documents() -> None:
    upload = st.file_uploader(
        "A zip of Markdown files",
        type=["zip"],
        key="ingest_documents",
        max_upload_size=MOST_MEGABYTES,
        help="The document of a skill is called after it, such as skill_deploy.md.",
    )
    st.caption("These take the place of all documents of the corpus. The pairs stay as they are.")
    if _preview_button(disabled=upload is None) and upload:
        _dry_run(upload.getvalue(), upload.name, IngestOptions())


def _one_pair() -> None:
    with st.form("ingest_pair"):
        question = st.text_input("Question", key="pair_question")
        answer = st.text_area("Answer, in Markdown", key="pair_answer", height=180)
        left, right = st.columns(2)
        topics = left.text_input("Topics, separated by commas", key="pair_topics")
        skills = right.text_input("Related skills, separated by commas", key="pair_skills")
        name = left.text_input("Id", key="pair_id", help="To change an existing pair, enter its id and its question.")
        intent = right.text_input(
            "Intent",
            key="pair_intent",
            help="Pairs with the same intent have the same answer. A search shows the best of them.",
        )
        sent = st.form_submit_button("See what would change", type="primary", icon=":material/preview:")
    if not sent:
        return
    if not question.strip() or not answer.strip():
        st.error("A pair needs a question and an answer.", icon=":material/error:")
        return
    fields = {
        "question": question,
        "answer": answer,
        "pair_id": name.strip(),
        "cluster_id": intent.strip(),
        "topics": _listed(topics),
        "related_skills": _listed(skills),
    }
    line = json.dumps({name: value for name, value in fields.items() if value}) + "\n"
    _dry_run(line.encode(), PAIR_FILE, IngestOptions())


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _dry_run(lines: bytes, name: str, options: IngestOptions) -> None:
    _submit(lines, name, options, dry_run=True)
    st.rerun()


def _again(force: bool) -> None:
    """Offer the import after a preview or a failed quality check. A reload of the page forgets the file."""
    job, *given = st.session_state.get("ingest_given", ("",))
    if job != st.query_params.get("job"):
        st.info("To import these pairs, upload the file again. This page does not keep it.", icon=":material/info:")
        return
    lines, name, said = given
    label = f"Import {literal(name)}{' anyway' if force else ''}"
    options = said.model_copy(update={"force": force})
    if st.button(label, type="primary", icon=":material/publish:", on_click=_run, args=(lines, name, options)):
        st.rerun()


def _run(lines: bytes, name: str, options: IngestOptions) -> None:
    try:
        _submit(lines, name, options, dry_run=False)
    except QaserveError as error:
        st.session_state["ingest_failed"] = error


def _submit(lines: bytes, name: str, options: IngestOptions, *, dry_run: bool) -> None:
    job = api_cache.client().upload(name, lines, options.model_copy(update={"dry_run": dry_run}))
    st.query_params["job"] = job.id
    st.session_state["ingest_given"] = (job.id, lines, name, options)
