"""What is asked, and how. The address holds it, so that a search can be shared, and it follows from page to page.

The address is read when it says something else than what the page wrote there last: a link was opened, or the browser
went back. Otherwise what the widgets say is written to it. A change that the browser sent before it heard of the last
writing still brings the address from before, and is no news.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import streamlit as st

from qaserve.schemas.ask import AskRequest, Filters

FILTERS = ("topics", "tags", "related_skills", "source_file", "cluster")
OPTIONS = ("routing", "projection", "temperature", "final_temperature", "hits", "lexical_weight", "priors")
"""What can be changed to see what would happen; unset, the build says."""
DEFAULT_TOP_K = 5
MOST_VALUES = 20
"""Of one field, to filter by: more would fill the page."""
STALE_SECONDS = 3.0


class _Field(NamedTuple):
    read: Callable[[str], Any]
    several: bool = False


def _yes_or_no(text: str) -> bool:
    return {"true": True, "false": False}[text]


_FIELDS = {
    "q": _Field(str),
    "top_k": _Field(int),
    "routing": _Field(str),
    "projection": _Field(str),
    "temperature": _Field(float),
    "final_temperature": _Field(float),
    "hits": _Field(int),
    "lexical_weight": _Field(float),
    "priors": _Field(_yes_or_no),
    **{name: _Field(str, several=True) for name in FILTERS if name != "cluster"},
    "cluster": _Field(int, several=True),
}


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
            put(name, _parsed(_FIELDS[name], texts))
            _written()[name] = texts


def save() -> None:
    """Write what is asked to the address."""
    for name, field in _FIELDS.items():
        texts = _texts(get(name))
        if texts != _written().get(name, []):
            _before()[name] = _written().get(name, [])
            st.session_state["written_at"] = time.monotonic()
        _written()[name] = texts  # first: Streamlit may break off below, if something new is asked already
        if st.query_params.get_all(name) != texts:
            if texts:
                st.query_params[name] = texts if field.several else texts[0]
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


def _parsed(field: _Field, texts: list[str]) -> Any:
    """The value of an address; what cannot be read, for somebody typed it, is as if it were not there."""
    try:
        values = [field.read(text) for text in texts]
    except (ValueError, KeyError):
        return None
    return values[:MOST_VALUES] if field.several else next(iter(values), None)
