"""What is asked, and how. The address holds it, so that a search can be shared, and it follows from page to page.

The address is read when it says something else than what the page wrote there last: a link was opened, or the browser
went back. Otherwise what the widgets say is written to it. A change that the browser sent before it heard of the last
writing still brings the address from before, and is no news.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import streamlit as st

from qaserve.common.errors import QaserveError
from qaserve.common.text import control_character, has_surrogate, shorten
from qaserve.schemas.ask import AskRequest, Filters
from ui.markdown import literal

FILTERS = ("topics", "tags", "related_skills", "source_file", "cluster")
OPTIONS = ("routing", "projection", "temperature", "final_temperature", "hits", "lexical_weight", "priors")
"""What can be changed to see what would happen; unset, the build says."""
DEFAULT_TOP_K = 5
MOST_VALUES = 20
"""Of one field, to filter by: more would fill the page."""
STALE_SECONDS = 3.0


_FIELDS = ("q", "top_k", *OPTIONS, *FILTERS)
IGNORED_SHOWN = 4
IGNORED_CHARS = 40


@contextmanager
def in_address(page: str) -> Iterator[None]:
    """Read the address, say what was ignored in it, and write it once the page is drawn, even if asking failed.

    Args:
        page: The one that is drawn; its links carry nothing unless they say so.
    """
    load(page)
    if ignored := _ignored():
        more = f" and {len(ignored) - IGNORED_SHOWN:,} more" if len(ignored) > IGNORED_SHOWN else ""
        st.warning(
            f"Ignored in the address, because it cannot be read: {literal(', '.join(ignored[:IGNORED_SHOWN]))}{more}.",
            icon=":material/link_off:",
        )
        ignored.clear()
    try:
        yield
    except QaserveError:
        save()  # the question that failed, so that a reload asks it and not the one before
        raise
    save()


def load(page: str) -> None:
    """Take over what the address says. `page`: the one that is drawn; its links carry nothing unless they say so."""
    moved = st.session_state.get("page") != page
    st.session_state["page"] = page
    told = {name: st.query_params.get_all(name) for name in _FIELDS}
    if moved:  # the widgets of another page are gone, and what they said with them
        for name in _FIELDS:
            st.session_state.pop(widget(name), None)
    if moved and not any(told.values()):
        _written().clear()
        return
    stale = time.monotonic() - st.session_state.get("written_at", -STALE_SECONDS) < STALE_SECONDS
    for name, texts in told.items():
        if texts != _written().get(name, []) and not (stale and texts == _before().get(name, [])):
            put(name, _parsed(name, texts))
            _written()[name] = texts


def save() -> None:
    """Write what is asked to the address."""
    for name in _FIELDS:
        texts = _texts(get(name))
        if texts != _written().get(name, []):
            _before()[name] = _written().get(name, [])
            st.session_state["written_at"] = time.monotonic()
        _written()[name] = texts  # first: Streamlit may break off below, if something new is asked already
        if st.query_params.get_all(name) != texts:
            if texts:
                st.query_params[name] = texts if name in FILTERS else texts[0]
            else:
                del st.query_params[name]


def get(name: str) -> Any:
    """A value; None or an empty list where nothing is set."""
    return _asked().get(name)


def put(name: str, value: Any) -> None:
    """Set a value; a widget that shows it is told. Call it in a callback, or before the widget is drawn."""
    if value in (None, "", []):
        _asked().pop(name, None)
    else:
        _asked()[name] = value
    st.session_state.pop(widget(name), None)


def keep(name: str, value: Any, default: Any = None) -> None:
    """Remember what a widget says; its default is not worth an address."""
    if value in (None, "", [], default):
        _asked().pop(name, None)
    else:
        _asked()[name] = value


def widget(name: str) -> str:
    """Key of the widget that shows a value."""
    return f"ask_{name}"


def offer(name: str, default: Any = None) -> str:
    """Have the widget of a value show it; returns the widget's key."""
    key = widget(name)
    if key not in st.session_state:
        value = get(name)
        st.session_state[key] = default if value is None else value
    return key


def add_filter(name: str, value: Any) -> None:
    """Only show pairs with this value, too; no more than `MOST_VALUES`."""
    values = list(get(name) or [])
    if value not in values and len(values) < MOST_VALUES:
        put(name, [*values, value])


def drop_filter(name: str, value: Any) -> None:
    """No longer ask for this value."""
    put(name, [one for one in get(name) or [] if one != value])


def clear_filters() -> None:
    """Search everything."""
    for name in FILTERS:
        put(name, None)


def clear_options() -> None:
    """Ask as the build says."""
    for name in OPTIONS:
        put(name, None)


def request(*, options: bool = True, **changes: Any) -> AskRequest:
    """The request that is asked, or one with other options.

    Args:
        options: False asks as the build says.
        changes: Fields that are set otherwise.
    """
    fields = {name: get(name) for name in OPTIONS if options and get(name) is not None}
    filters = Filters(**{name: tuple(get(name)) for name in FILTERS if get(name)})
    return AskRequest.model_validate(
        {"question": get("q") or "", "top_k": get("top_k") or DEFAULT_TOP_K, "filters": filters, **fields, **changes}
    )


def address(**changes: Any) -> dict[str, list[str]]:
    """The query of an address that asks the same, for links between pages."""
    said = {name: _texts(changes.get(name, get(name))) for name in _FIELDS}
    return {name: texts for name, texts in said.items() if texts}


def _asked() -> dict[str, Any]:
    asked: dict[str, Any] = st.session_state.setdefault("asked", {})
    return asked


def _written() -> dict[str, list[str]]:
    written: dict[str, list[str]] = st.session_state.setdefault("written", {})
    return written


def _before() -> dict[str, list[str]]:
    before: dict[str, list[str]] = st.session_state.setdefault("before", {})
    return before


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [str(value).lower()]
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _ignored() -> list[str]:
    ignored: list[str] = st.session_state.setdefault("ignored", [])
    return ignored


def _parsed(name: str, texts: list[str]) -> Any:
    """What an address says of a field. What cannot be read is as if it were not there, and is noted."""
    if name not in FILTERS:
        texts = texts[:1]
    values = list(dict.fromkeys(value for text in texts if (value := _read(name, text)) is not None))
    if len(values) > MOST_VALUES:
        _ignored().append(f"{name} beyond the first {MOST_VALUES} of {len(values):,} values")
    return values[:MOST_VALUES] if name in FILTERS else next(iter(values), None)


def _read(name: str, text: str) -> Any:
    """One value, by the rules of the API; None where it breaks them."""
    if not text:
        return None
    try:
        if has_surrogate(text) or control_character(text):
            raise ValueError("not text")
        if name in FILTERS:
            (value,) = getattr(Filters.model_validate({name: [text]}), name)
        elif name == "q":
            value = text
        else:
            value = getattr(AskRequest.model_validate({"question": "", name: text}), name)
    except ValueError:
        readable = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
        _ignored().append(f"{name}={shorten(readable, IGNORED_CHARS)}")
        return None
    return value
