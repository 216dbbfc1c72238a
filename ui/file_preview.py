"""How an uploaded file would be read: its first rows, and a form for where question and answer are."""

import pandas as pd
import streamlit as st

from qaserve.common.errors import QaserveError
from qaserve.schemas.ingest import Preview
from qaserve.schemas.jobs import IngestOptions
from ui import api_cache, theme
from ui.markdown import literal, safe

NONE = "(none)"
MAPPED = ("question", "answer", "topics")


def draw(name: str, data: bytes, upload: str) -> IngestOptions | None:
    """Draw the first rows as they would be read, and ask where the fields are, where the file does not say it.

    Args:
        name: Of the file.
        data: Its bytes.
        upload: Id of the upload.

    Returns:
        How to read it; None where it cannot be read.
    """
    try:
        seen, options = _preview(name, data, upload, ()), IngestOptions()
        roots = {field.split(".")[0] for field in seen.fields}
        if seen.guessed or not ("answer" in roots and roots & {"question", "questions"}):
            options = _ask(seen, upload)
            seen = _preview(name, data, upload, options.fields)
    except QaserveError as error:
        theme.failure(error)
        return None
    _show(seen)
    return options


@st.cache_data(ttl=600, max_entries=16, show_spinner="Reading …")
def _preview(name: str, _data: bytes, upload: str, fields: tuple[str, ...]) -> Preview:  # noqa: ARG001 - a key
    return api_cache.client().preview(name, _data, IngestOptions(fields=fields))


def _ask(preview: Preview, upload: str) -> IngestOptions:
    """A form for the fields, filled with what was guessed."""
    guessed = dict(one.split("=", 1) for one in preview.guessed)
    st.info("This file has no fields `question` and `answer`. Say which they are.", icon=":material/table_chart:")
    choices = (NONE, *preview.fields)
    chosen = {}
    for column, target in zip(st.columns(len(MAPPED)), MAPPED, strict=True):
        index = choices.index(guessed[target]) if guessed.get(target) in choices else 0
        chosen[target] = column.selectbox(
            target.capitalize(), choices, index=index, key=f"ingest_map_{target}_{upload}"
        )
    return IngestOptions(fields=tuple(f"{target}={path}" for target, path in chosen.items() if path != NONE))


def _show(preview: Preview) -> None:
    if preview.problem is not None and not preview.pairs:
        st.warning(safe(preview.problem), icon=":material/warning:")
        return
    st.caption(f"{literal(preview.file)}: {literal(preview.format)}. The first rows as they would be read:")
    rows = [
        {"line": one.line, "question": one.question, "answer": one.answer, "topics": ", ".join(one.topics)}
        for one in preview.pairs
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, height="content")
    for bad in preview.rejected:
        st.warning(safe(f"Line {bad.said}"))
