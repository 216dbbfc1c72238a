"""The list of builds, and going back to one."""

import pandas as pd
import streamlit as st

from qaserve.common.errors import QaserveError
from qaserve.schemas.builds import BuildInfo
from ui import api_cache, theme
from ui.markdown import literal


def draw() -> None:
    """Every build, newest first, each with a way back to it."""
    st.caption("Every ingest that changes something makes a new build. Earlier builds are kept.")
    failed = st.session_state.pop("activate_failed", None)
    if isinstance(failed, QaserveError):
        theme.failure(failed)
    api_cache.builds.clear()  # a build that came meanwhile is listed too
    found = api_cache.builds().builds
    if not api_cache.may_change():
        st.caption(":material/lock: This page is read-only. Set QASERVE_WRITE_KEY to go back to a build.")
    if not found:
        st.info("No builds yet.", icon=":material/inventory_2:")
    for build in found:
        _build(build)


def _build(build: BuildInfo) -> None:
    with st.container(border=True, horizontal=True, vertical_alignment="center", key=f"build {build.build}"):
        badge = " :green-badge[live]" if build.live else "" if build.complete else " :red-badge[incomplete]"
        made = pd.Timestamp(build.created).strftime("%d %B %Y, %H:%M UTC")
        sources = ", ".join(literal(source) for source in build.sources[:3]) or "–"
        st.markdown(
            f"**{made}**{badge}  \n{theme.counted(build.pairs, 'pair')} in "
            f"{theme.counted(build.clusters, 'cluster')} · from {sources} · "
            f"`{build.build}`"
        )
        if not build.live and build.complete and api_cache.may_change():
            with st.popover("Go back to it", icon=":material/settings_backup_restore:", width="content"):
                st.markdown("This build will answer all questions. The current build is kept. You can return to it.")
                st.button(
                    "Make it live",
                    key=f"activate {build.build}",
                    type="primary",
                    on_click=_activate,
                    args=(build.build,),
                )


def _activate(build: str) -> None:
    try:
        api_cache.client().activate(build)
    except QaserveError as error:
        st.session_state["activate_failed"] = error
    st.cache_data.clear()
