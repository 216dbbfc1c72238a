"""The script that Streamlit runs: `qaserve ui`, or with the API `qaserve up`.

It has a folder of its own. Streamlit takes a folder `pages` beside its script for its own kind of pages. It also
searches its script's folder first for modules: there, ui/pages/ingest.py would hide the package `ingest`.
"""

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from qaserve.common.errors import QaserveError
from qaserve.schemas.builds import BuildInfo
from qaserve.settings import get_settings
from ui import api_cache, state, theme
from ui.markdown import literal
from ui.pages import clusters, ingest, results, search, why

PACKAGE = Path(__file__).parents[1]
LOGO = PACKAGE / "logo.svg"
ICON = PACKAGE / "icon.svg"  # a named icon would be loaded from a font server


def main() -> None:
    """Draw the page that the address names."""
    st.set_page_config(page_title="qaserve", page_icon=str(ICON), layout="wide")
    st.html(theme.STYLE + theme.DOTS)
    st.html(theme.KEYS, unsafe_allow_javascript=True)
    st.logo(str(LOGO), size="large")
    pages = {
        "search": st.Page(
            _with_build(search.draw, asks="search"), title="Search", icon=":material/search:", default=True
        ),
        "why": st.Page(_with_build(why.draw, "why"), title="Why", icon=":material/account_tree:", url_path="why"),
        "clusters": st.Page(_with_build(clusters.draw), title="Clusters", icon=":material/hub:", url_path="clusters"),
        "ingest": st.Page(theme.guarded(ingest.draw), title="Ingest", icon=":material/upload:", url_path="ingest"),
        "results": st.Page(
            theme.guarded(results.draw), title="Results", icon=":material/monitoring:", url_path="results"
        ),
    }
    st.session_state["pages"] = pages
    here = st.navigation(list(pages.values()), position="top")
    notice = get_settings().server.notice
    if notice:
        st.info(literal(notice), icon=":material/info:")
    here.run()


def _with_build(draw: Callable[[BuildInfo], None], asks: str = "") -> Callable[[], None]:
    """A page that needs a live build.

    Args:
        draw: Draws it.
        asks: Its name, where it takes a question. The question is kept if no server answers.
    """

    def page() -> None:
        if asks:
            state.load(asks)
        try:
            build = api_cache.live_build()
        except QaserveError:
            if asks:
                state.save()
            raise
        if build is None:
            theme.nothing_loaded()
        else:
            draw(build)
            if days := api_cache.kept_days():
                st.caption(f"Questions that find no answer here, or an unhelpful one, are kept for {days} days.")

    return theme.guarded(page)


main()
