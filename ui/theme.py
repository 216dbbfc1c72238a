"""Style of the page, and its messages when there is nothing to show."""

import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import streamlit as st

from qaserve.common.errors import AccessError, QaserveError, ServiceError, UsageError
from qaserve.common.text import shorten
from ui import charts, state
from ui.markdown import literal, safe

Arguments = ParamSpec("Arguments")
VALUE_CHARS = 40
DRAWING_SECONDS = 0.03
STYLE = """
<style>
  .block-container { padding-top: 4.4rem; padding-bottom: 4rem; max-width: 78rem; }
  div[data-testid="stTextInput"] input[type="search"] { font-size: 1.15rem; padding: .8rem .9rem; }
  div[data-testid="stMarkdownContainer"] h1 { padding: .2rem 0; font-size: 1.8rem; }
  div[data-testid="stMarkdownContainer"] h2 { padding: .4rem 0 .2rem; font-size: 1.35rem; }
  div[data-testid="stMarkdownContainer"] h3, div[data-testid="stMarkdownContainer"] h4,
  div[data-testid="stMarkdownContainer"] h5 {
    padding: .1rem 0 .2rem; font-size: 1.08rem; line-height: 1.4; font-weight: 600; }
  div[data-testid="stMarkdownContainer"] p, div[data-testid="stMarkdownContainer"] li,
  div[data-testid="stMarkdownContainer"] h3, div[data-testid="stMarkdownContainer"] h4,
  div[data-testid="stMarkdownContainer"] h5 { overflow-wrap: anywhere; unicode-bidi: plaintext; }
  div[data-testid="stMarkdownContainer"] table { display: block; overflow-x: auto; }
  div[class*="st-key-skill_head"] div[data-testid="stMarkdownContainer"],
  div[class*="st-key-skill_head"] div[data-testid="stMarkdownContainer"] p { margin-bottom: 0; }
  span[data-testid="stHeaderActionElements"] { display: none; }
  div[data-testid="stMetricValue"] { font-size: 1.6rem; }
  .st-key-examples button, .st-key-examples button * { text-align: left; justify-content: flex-start; }
  img.picture { border-radius: .5rem; width: 100%; }
  img.picture.dark { filter: invert(.9) hue-rotate(180deg); }
  div[class*="st-key-card"] button[data-variant="pills"] { min-height: 1.6rem; padding: 0 .55rem; font-size: .8rem; }
  .st-key-in_short { background: color-mix(in srgb, var(--st-primary-color, #0d9488) 7%, transparent); }
  div[class*="st-key-folded"] { max-height: 13rem; overflow: hidden;
    mask-image: linear-gradient(#000 75%, transparent); }
  div[class*="st-key-card"]:focus, div[class*="st-key-other"]:focus, div[class*="st-key-near_miss"]:focus {
    outline: 2px solid var(--st-primary-color, #0d9488); outline-offset: 2px; border-radius: .5rem; }
  :not(pre) > code { cursor: copy; }
  div[data-testid="stCaptionContainer"] { opacity: .75; }
  div[data-testid="stCaptionContainer"] code { color: inherit; }
  code[data-copied]::after { content: " ✓ copied"; font-family: sans-serif; }
  button[data-copy] { border: 0; background: none; color: inherit; font: inherit; font-size: .85rem; padding: .2rem 0;
    cursor: pointer; text-decoration: underline; text-underline-offset: .2rem; }
  div[class*="st-key-phone_"] { display: none; }
  div.wide { overflow-x: auto; }
  div[data-testid="stTable"] td p { overflow-wrap: normal; white-space: nowrap; }
  div[data-testid="stTable"] td:first-child p { min-width: 13rem; white-space: normal; }
  @media (max-width: 640px) {
    .block-container { padding-left: 1rem; padding-right: 1rem; }
    div[class*="st-key-phone_"] { display: flex; }
    div.wide img { min-width: 34rem; }
  }
</style>
"""
DOTS = (
    "<style>"
    + "".join(
        f'div[class*="st-key-dot{number}_"] [data-testid="stIconMaterial"] {{ color: {colour}; }}'
        for number, colour in enumerate((*charts.PALETTE, charts.REST))
    )
    + "</style>"
)
"""The icon of a cluster's chip in the colour that the charts give to the cluster."""
KEYS = f"<script>{Path(__file__).with_name('browser.js').read_text(encoding='utf-8')}</script>"
"""Keys and copying."""
FOCUS = """
<script>
  let left = 20;
  const timer = setInterval(() => {
    const box = document.querySelector('input[type="search"]');
    if (--left === 0 || box?.value) { clearInterval(timer); return; }
    if (box && document.activeElement === document.body) { box.focus(); }
  }, 150);
  for (const act of ["keydown", "pointerdown"]) {
    document.addEventListener(act, () => clearInterval(timer), { once: true });
  }
</script>
"""
"""Gives the box the focus, for a while, because the page is still being put together when this runs.

What the reader does ends it, also a question typed before: the focus is theirs then.
"""
SELECT = """
<script>
  const box = document.querySelector('input[type="search"]');
  if (box) { box.focus(); box.select(); box.scrollIntoView({ block: "center" }); }
</script>
"""
"""Gives the box the focus and selects the question, so that typing replaces it."""


COLOURS = ((0.75, "green"), (0.4, "orange"))
"""Of a confidence, by the least that has it; a lower one is gray."""


def sureness(confidence: float) -> str:
    """The colour of a confidence."""
    return next((colour for least, colour in COLOURS if confidence >= least), "gray")


def title(text: str, below: str) -> None:
    """The head of a page."""
    st.markdown(f"# {text}")
    st.caption(below)


def step(number: int, text: str, below: str) -> None:
    """The head of a step of a story."""
    st.markdown(f"## :primary-badge[{number}] {text}")
    st.markdown(below)


def let_draw() -> None:
    """A pause after what is looked at first, once for each question and its options, in which the browser draws it.

    It draws at once all that has arrived: a whole page takes it several times as long as the beginning.
    """
    shown = st.session_state["page"], state.address()
    if st.session_state.get("drawn") != shown:
        st.session_state["drawn"] = shown
        time.sleep(DRAWING_SECONDS)


def ignored(values: dict[str, list[str]]) -> None:
    """Say which values of the address cannot be used. `values`: by name."""
    if values:
        named = ", ".join(f"{name}={shorten(', '.join(texts), VALUE_CHARS)}" for name, texts in values.items())
        st.caption(f":material/link_off: Ignored in the address because it is invalid: {literal(named)}")


def failure(error: QaserveError) -> None:
    """Say what went wrong, and offer a way on."""
    gone = isinstance(error, ServiceError)
    may_pass = not isinstance(error, UsageError | AccessError)  # else the same again fails again
    with st.container(border=True):
        st.markdown("## The search service does not answer" if gone else "## The request failed")
        st.error(
            literal(error.message[:1].upper() + error.message[1:]),
            icon=":material/cloud_off:" if gone else ":material/error:",
        )
        st.markdown(safe(error.hint))
        with st.container(horizontal=True):
            if may_pass and st.button("Try again", icon=":material/refresh:", type="primary"):
                st.cache_data.clear()
                st.rerun()
            if not gone and any(state.get(name) is not None for name in state.OPTIONS):
                st.button("Reset to default", icon=":material/restart_alt:", on_click=state.clear_options)


def guarded(draw: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """A page, or a fragment of one, whose errors are said on it."""

    @wraps(draw)
    def drawn(*given: Arguments.args, **named: Arguments.kwargs) -> None:
        try:
            draw(*given, **named)
        except QaserveError as error:
            failure(error)
        finally:
            state.remember_widgets()

    return drawn


def asks_only(what: str) -> None:
    """Say that the key of this page is for asking only. `what`: why a key for changing is needed here."""
    with st.container(border=True):
        st.markdown("## :material/lock: This page is read-only")
        st.markdown(f"{what} Restart the page with QASERVE_WRITE_KEY to enable edits.")
        st.caption(
            "The API has the same setting. docker-compose.yml calls it PAGE_KEY. The page has no login: everyone who "
            "can open it can then make edits."
        )


def nothing_loaded() -> None:
    """Say that there is no corpus yet, and how to load one."""
    with st.container(border=True):
        st.markdown("## Nothing to search yet")
        st.warning("The API has no live build.", icon=":material/database_off:")
        st.markdown("Upload a file of questions and answers on the **Ingest** page, or run `qaserve ingest FILE`.")


def percent(share: float) -> str:
    """A share in whole percent; a share below 1% is not shown as 0%."""
    return "less than 1%" if 0 < share < 0.01 else f"{share:.0%}"


def counted(count: int, thing: str) -> str:
    """A count with its noun, in the plural unless it is 1."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
