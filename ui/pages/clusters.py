"""The clusters of answers: a list, their quality, and their pairs."""

from typing import Any

import pandas as pd
import streamlit as st

from qaserve.common.text import fold
from qaserve.schemas.builds import BuildInfo
from qaserve.schemas.explore import BorderPair, ClusterQuality, ClusterView, QualityList
from ui import api_cache, cards, charts, theme
from ui import map as map_panel
from ui.markdown import literal, plain_name

PAGE = 8
DIGITS = 9
"""Of a cluster's number in an address; Python refuses to read thousands."""
TORN_SHOWN = 6
SORTS = {
    "Largest first": lambda one: -one.size,
    "Least often routed correctly first": lambda one: (one.found, -one.size),
    "Largest spread first": lambda one: -one.spread,
    "Largest rotation first": lambda one: -one.turn,
    "By name": lambda one: one.name,
}
COLUMNS: dict[str, Any] = {
    "cluster": st.column_config.TextColumn("Cluster", width="medium"),
    "found": st.column_config.ProgressColumn(
        "Routed correctly",
        width=110,
        format="%.0f%%",
        min_value=0,
        max_value=100,
        help="Share of its questions that the votes of all other questions lead to this cluster.",
    ),
    "pairs": st.column_config.NumberColumn("Pairs", width="small"),
    "spread": st.column_config.NumberColumn(
        "Spread", format="%.2f", width="small", help="0: all its answers are the same. Higher: they differ more."
    ),
    "turn": st.column_config.NumberColumn(
        "Rotation", format="%.0f°", width="small", help="Mean angle between a question before and after projection."
    ),
}


def draw(build: BuildInfo) -> None:
    """Draw one cluster where the address names one, and all of them otherwise."""
    number = _opened(build)
    if number is None:
        _all(api_cache.quality(build.build), build)
    else:
        _one(api_cache.cluster_view(number, build.build), build)


def open_cluster(number: int | None) -> None:
    """Have the address name a cluster."""
    if number is None:
        st.query_params.pop("open", None)
    else:
        st.query_params["open"] = str(number)


def _opened(build: BuildInfo) -> int | None:
    said = st.query_params.get("open", "")
    if said.isdecimal() and len(said) <= DIGITS and int(said) < build.clusters:
        return int(said)
    if said:
        theme.ignored({"open": [said]})
    return None


# All


def _all(found: QualityList, build: BuildInfo) -> None:
    theme.title(
        "Clusters",
        "A cluster is a group of similar answers. Known questions vote for clusters. Each cluster has learned a "
        "projection from its questions to its answers.",
    )
    with st.grid(2, min_column_width=140):
        st.metric(
            "Clusters", f"{len(found.clusters):,}", border=True, help=f"They hold {theme.counted(found.pairs, 'pair')}."
        )
        st.metric(
            "Routed correctly",
            f"{found.found:.0%}",
            border=True,
            help="Share of all known questions that the votes of the others lead to their own cluster.",
        )
    if found.looked_at < found.pairs:
        st.caption(f"Quality is measured on {found.looked_at:,} of the pairs.")
    _list(found, build)


@st.fragment
@theme.guarded
def _list(found: QualityList, build: BuildInfo) -> None:
    """The map and the table, which shows what is selected on the map: a selection runs this alone."""
    selected = map_panel.explore(api_cache.corpus_map(build.build))
    search, sort = st.columns([2, 1])
    words = search.text_input(
        "Search clusters", key="cluster_search", placeholder="A word, a skill …", icon=":material/search:"
    )
    order = sort.selectbox("Order", SORTS, key="cluster_sort")
    here = [one for one in found.clusters if selected is None or one.cluster in selected]
    shown = sorted((one for one in here if _matches(one, words or "")), key=SORTS[order])
    if not shown:
        st.info(f"No cluster matches “{literal(words or '')}”.", icon=":material/search_off:")
        return
    st.caption(f"{theme.counted(len(shown), 'cluster')}. Click one, or choose a name below, to open it.")
    _table(shown)
    chosen = st.selectbox(
        "Open a cluster",
        [one.cluster for one in shown],
        format_func={one.cluster: f"{one.name} ({one.size})" for one in shown}.__getitem__,
        index=None,
        placeholder="Choose a cluster",
        key="cluster_open",
    )
    if chosen is not None:
        open_cluster(chosen)
        st.rerun()


def _matches(one: ClusterQuality, words: str) -> bool:
    text = fold(" ".join((one.name, *one.terms, *map(plain_name, one.skills))))
    return all(word in text for word in fold(words).split())


def _table(shown: list[ClusterQuality]) -> None:
    frame = pd.DataFrame(
        {
            "cluster": [one.name for one in shown],
            "found": [100 * one.found for one in shown],
            "pairs": [one.size for one in shown],
            "spread": [one.spread for one in shown],
            "turn": [one.turn for one in shown],
        }
    )
    picked = st.dataframe(
        frame,
        hide_index=True,
        column_config=COLUMNS,
        on_select="rerun",
        selection_mode=charts.CHOOSE,
        height=460 if len(shown) > 12 else "content",
        key=f"cluster_table {len(shown)} {shown[0].cluster}",
    )
    row = charts.chosen_row(picked)
    if row is not None and row < len(shown):
        open_cluster(shown[row].cluster)
        st.rerun()


# One


def _one(view: ClusterView, build: BuildInfo) -> None:
    one = view.quality
    st.button("All clusters", icon=":material/arrow_back:", type="tertiary", on_click=open_cluster, args=(None,))
    theme.title(
        literal(one.name), f"{theme.counted(one.size, 'pair')} · {', '.join(literal(term) for term in one.terms)}"
    )
    if one.skills:
        st.markdown(" ".join(f":gray-badge[{literal(plain_name(skill))}]" for skill in one.skills))
    _figures(one)
    near, unsure = st.tabs(["Neighbours", "Border questions"])
    with near:
        st.caption("The clusters with the most similar answers. 1 is identical.")
        with st.container(horizontal=True, gap="xsmall"):
            for other in view.neighbours:
                st.button(
                    f"{literal(other.name)} · {other.similarity:.2f}",
                    key=f"near{other.cluster}",
                    on_click=open_cluster,
                    args=(other.cluster,),
                )
        if not view.neighbours:
            st.info("There is no other cluster.")
    with unsure:
        st.caption("The questions with the closest vote between this cluster and another.")
        _torn(view.border, "border")
    _strayed(view)
    _pairs(view.quality.cluster, build)


def _figures(one: ClusterQuality) -> None:
    with st.grid(4, min_column_width=140):
        st.metric(
            "Routed correctly",
            f"{one.found:.0%}",
            border=True,
            help="Share of its questions that the votes of all other questions lead here.",
        )
        st.metric("Spread", f"{one.spread:.2f}", border=True, help="0: all its answers are the same.")
        st.metric(
            "Rotation",
            f"{one.turn:.0f}°",
            border=True,
            help="Mean angle between a question before and after the projection of this cluster.",
        )
        st.metric(
            "Before → after",
            f"{one.before:.2f} → {one.after:.2f}",
            border=True,
            help="Mean similarity of its questions to their answers. The projection was fitted to these pairs.",
        )


def _strayed(view: ClusterView) -> None:
    if not view.elsewhere:
        st.success("All questions of this cluster are routed to it.", icon=":material/check_circle:")
        return
    count = len(view.elsewhere)
    with st.expander(
        f"{theme.counted(count, 'question')} routed to another cluster",
        icon=":material/alt_route:",
        expanded=True,
    ):
        st.caption(
            "The votes of all other questions lead these to another cluster. Rephrase the question, or check whether "
            "its answer belongs to the other cluster."
        )
        _torn(view.elsewhere, "elsewhere")


def _torn(pairs: tuple[BorderPair, ...], key: str) -> None:
    """Questions between two clusters: the first as text, which wraps on a phone, and all as a table."""
    for one in pairs[:TORN_SHOWN]:
        st.markdown(
            f"- **{literal(one.question)}**  \n{one.own:.0%} of the vote here, {one.rival_weight:.0%} for "
            f"{literal(one.rival_name)} · `{one.pair_id.replace('`', '')}`"
        )
    with st.expander(f"As a table ({len(pairs)})", icon=":material/table:", key=f"torn {key}"):
        _torn_table(pairs)


def _torn_table(pairs: tuple[BorderPair, ...]) -> None:
    frame = pd.DataFrame(
        {
            "question": [one.question for one in pairs],
            "here": [100 * one.own for one in pairs],
            "there": [100 * one.rival_weight for one in pairs],
            "other": [one.rival_name for one in pairs],
            "pair": [one.pair_id for one in pairs],
        }
    )
    config: dict[str, Any] = {
        "question": st.column_config.TextColumn("Question", width="medium"),
        "here": st.column_config.NumberColumn("This cluster", format="%.0f%%", width="small"),
        "there": st.column_config.NumberColumn("The other", format="%.0f%%", width="small"),
        "other": st.column_config.TextColumn("Other cluster"),
        "pair": st.column_config.TextColumn("Pair id", width="small"),
    }
    st.dataframe(frame, hide_index=True, column_config=config, height="content")


def _pairs(number: int, build: BuildInfo) -> None:
    pairs = api_cache.cluster_pairs(number, build.build).pairs
    st.markdown(f"## Its {theme.counted(len(pairs), 'pair')}")
    pages = -(-len(pairs) // PAGE)
    page = st.pagination(pages, key=f"pairs of {number}") if pages > 1 else 1
    for stored in pairs[(page - 1) * PAGE : page * PAGE]:
        with st.expander(literal(stored.pair.question)):
            cards.text(stored.pair.answer, stored.id)
