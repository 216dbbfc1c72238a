"""The same question answered in five ways, side by side."""

from typing import Any

import pandas as pd
import streamlit as st

from qaserve.common.text import shorten
from qaserve.schemas.ask import AskResult
from qaserve.schemas.builds import BuildInfo
from qaserve.schemas.params import PLAIN_SEARCH
from ui import api_cache, charts, state
from ui.markdown import literal

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "Plain search": ("the question as it is", PLAIN_SEARCH.given),
    "Clusters' centres": ("the nearest clusters project it", {"routing": "centroid", "projection": "cluster"}),
    "Known questions": ("known questions vote", {"routing": "question", "projection": "cluster"}),
    "Single pairs": ("each voter has its own projection", {"routing": "question", "projection": "pair"}),
    "Student": ("a trained network", {"projection": "student"}),
}
SHOWN = 5


def draw(build: BuildInfo) -> None:
    """Five columns, or four where the build has no student."""
    found = {}
    for way, (_, options) in WAYS.items():
        if way != "Student" or build.student:
            found[way] = api_cache.ask(state.request(options=False, top_k=SHOWN, **options), build.build)
    plain = {answer.cluster_id: answer.rank for answer in found["Plain search"].answers}
    with st.grid(len(found), min_column_width=160, border=True):
        for way, result in found.items():
            with st.container():
                st.markdown(f"**{way}**")
                st.caption(WAYS[way][0])
                st.markdown("\n".join(_line(result, number, plain) for number in range(len(result.answers))))
    st.caption("▲ ▼ compared with plain search. ● not among the first five of plain search.")
    if "Student" not in found:
        st.caption(
            "There is no column for a student, a small network trained to do the vote and the projection: this build "
            "has no student. `qaserve distill` trains one."
        )
    _table(found)


def _line(result: AskResult, number: int, plain: dict[str, int]) -> str:
    answer = result.answers[number]
    before = plain.get(answer.cluster_id)
    change = ":green[●]" if before is None else ""
    if before is not None and before > answer.rank:
        change = f":green[▲{before - answer.rank}]"
    elif before is not None and before < answer.rank:
        change = f":orange[▼{answer.rank - before}]"
    return f"{answer.rank}. {literal(shorten(answer.question, 90))} {change}"


def _table(found: dict[str, AskResult]) -> None:
    questions: dict[str, str] = {}
    for result in found.values():
        for answer in result.answers:
            questions.setdefault(answer.cluster_id, answer.question)
    ranks = {
        way: [{one.cluster_id: str(one.rank) for one in result.answers}.get(intent, "–") for intent in questions]
        for way, result in found.items()
    }
    charts.table(pd.DataFrame({"answers the question": list(questions.values()), **ranks}), "Ranks as a table")
