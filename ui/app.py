"""The page. Run it with `qaserve ui`, or together with the API with `qaserve up`."""

from pathlib import Path

import streamlit as st

from qaserve.errors import QaserveError
from qaserve.settings import get_settings
from ui import data, search
from ui.markdown import literal

ICON = Path(__file__).with_name("icon.svg")  # a named icon would be loaded from a font server
STYLE = """
<style>
  .block-container { padding-top: 2.2rem; max-width: 84rem; }
  div[data-testid="stTextInput"] input { font-size: 1.15rem; padding: .7rem .9rem; }
  div[data-testid="stMarkdownContainer"] h5 { padding: .6rem 0 .5rem; }
  div[data-testid="stMarkdownContainer"] p, div[data-testid="stMarkdownContainer"] li { overflow-wrap: anywhere; }
</style>
"""


def main() -> None:
    """Draw the page."""
    st.set_page_config(page_title="qaserve", page_icon=str(ICON), layout="wide")
    st.html(STYLE)
    try:
        build = data.live_build()
        if build is None:
            st.warning("The API has no live build. Load a corpus with `qaserve ingest FILE`.")
            return
        notice = get_settings().server.notice
        if notice:
            st.info(literal(notice), icon=":material/info:")
        search.draw(build)
    except QaserveError as error:
        st.error(f"**{literal(error.message)}**\n\n{literal(error.hint)}", icon=":material/cloud_off:")
        if st.button("Try again", icon=":material/refresh:"):
            st.cache_data.clear()
            st.rerun()


main()
