"""The server of the page: Streamlit's own behind `PageGuard`. `streamlit run` finds `app` by its name and kind."""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

from qaserve.settings import get_settings
from ui.guard import PageGuard

app = st.App(
    Path(__file__).with_name("app") / "script.py",
    middleware=[Middleware(PageGuard, origins=frozenset(get_settings().server.origins))],
)
