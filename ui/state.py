"""What is asked, and how. The address holds it, so that a search can be shared, and it follows from page to page.

The address is read when it differs from what the page wrote there last: a link was opened, or the browser went back.
Otherwise the values of the widgets are written to it. A widget that is changed before the browser has received the last
writing sends the earlier address along. That address is ignored: the browser has not confirmed the last writing, and a
widget has changed. Going back in the browser changes no widget.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import streamlit as st

from qaserve.common.text import control_character
from qaserve.schemas.ask import AskRequest, Filters
from qaserve.schemas.params import SearchParams

FILTERS = ("topics", "tags", "related_skills", "source_file", "cluster")
OPTIONS = tuple(name for name in SearchParams.model_fields if name != "centroids")
"""What the Why page can change; unset, the build decides."""
DEFAULT_TOP_K = 5
MOST_VALUES = 20
"""Of one field, to filter by: more would fill the page."""
MOST_CLUSTERS = 1_000_000
OWN = frozenset({"asked", "written", "ignored", "page", "pages", "confirmed", "widgets", "recent", "drawn"})
"""Keys of the session that are no widgets."""


class _Field(NamedTuple):
    read: Callable[[str], Any]
    several: bool = False


def _yes_or_no(text: str) -> bool:
    return {"true": True, "false": False}[text]


def _text(text: str) -> str:
    if control_character(text):
        raise ValueError(text)
    return text


def _cluster(text: str) -> int:
    if not 0 <= (number := int(text)) < MOST_CLUSTERS:
        raise ValueError(text)
    return number


_READERS: dict[type, Callable[[str], Any]] = {str: str, int: int, float: float, bool: _yes_or_no}
_FIELDS = {
    "q": _Field(_text),
    "top_k": _Field(int),
    **{name: _Field(_READERS[type(SearchParams.model_fields[name].default)]) for name in OPTIONS},
    **{name: _Field(_text, several=True) for name in FILTERS if name != "cluster"},
    "cluster": _Field(_cluster, several=True),
}


def load(page: str) -> None:
    """Take over what the address says. `page`: the one that is drawn; its links carry nothing unless they say so."""
    moved = st.session_state.get("page") != page
    st.session_state["page"] = page
    told = {name: st.query_params.get_all(name) for name in _FIELDS}
    if moved:  # the widgets of another page are gone, and what they said with them
        ignored().clear()
        for name in _FIELDS:
            st.session_state.pop(widget(name), None)
        if not any(told.values()):
            _written().clear()
            return
    if all(texts == _written().get(name, []) for name, texts in told.items()):
        st.session_state["confirmed"] = True
    elif moved or st.session_state.get("confirmed", True) or not _touched():
        _take_over(told)
    if (typed := st.session_state.get(widget("q"))) is not None:  # before anything is drawn that depends on it
        keep("q", typed.strip())


def _take_over(told: dict[str, list[str]]) -> None:
    for name, texts in told.items():
        if texts != _written().get(name, []):
            put(name, _parsed(name, texts))
            _written()[name] = texts


def save() -> None:
    """Write what is asked to the address. Call it before asking: a question that fails is in the address too."""
    remember_widgets()  # whoever goes back while the page is still being drawn changes no widget
    for name, field in _FIELDS.items():
        texts = _texts(get(name))
        if texts != _written().get(name, []):
            st.session_state["confirmed"] = False
        _written()[name] = texts  # first: Streamlit may break off below, if something new is asked already
        if st.query_params.get_all(name) != texts:
            if texts:
                st.query_params[name] = texts if field.several else texts[0]
            else:
                del st.query_params[name]


def remember_widgets() -> None:
    """Note the values of all widgets, so that the next run can tell if one was changed. Call it after drawing, too."""
    st.session_state["widgets"] = {str(key): value for key, value in st.session_state.items() if key not in OWN}


def _touched() -> bool:
    before = st.session_state.get("widgets", {})
    return any(key in before and before[key] != value for key, value in st.session_state.items())


def ignored() -> dict[str, list[str]]:
    """What the address held that could not be used, by name."""
    found: dict[str, list[str]] = st.session_state.setdefault("ignored", {})
    return found


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
    if name == "q" and (value or None) != get("q"):
        ignored().clear()
    if value in (None, "", [], default):
        _asked().pop(name, None)
    else:
        _asked()[name] = value


def take(name: str, default: Any = None) -> None:
    """`keep` what the widget of a value says. A callback: what is drawn before the widget shows the change, too."""
    keep(name, st.session_state[widget(name)], default)


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
    """Ask with the defaults of the build."""
    for name in OPTIONS:
        put(name, None)


def request(*, options: bool = True, **changes: Any) -> AskRequest:
    """The request that is asked, or one with other options.

    Args:
        options: False asks with the defaults of the build.
        changes: Fields with other values.
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


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [str(value).lower()]
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _parsed(name: str, texts: list[str]) -> Any:
    """The value of an address. What cannot be read is ignored, and noted in `ignored`."""
    ignored().pop(name, None)
    field = _FIELDS[name]
    texts = list(dict.fromkeys(texts))
    values = [value for text in texts if (value := _one(name, text)) is not None]
    kept = values[: MOST_VALUES if field.several else 1]
    if len(kept) < len(texts):
        ignored()[name] = texts
    return kept if field.several else next(iter(kept), None)


def _one(name: str, text: str) -> Any:
    """One value as the API would take it; None where it would not."""
    field = _FIELDS[name]
    try:
        value = field.read(text)
        if field.several:
            Filters.model_validate({name: (value,)})
        elif name != "q":
            AskRequest.model_validate({"question": "?", name: value})
    except (ValueError, KeyError):  # pydantic's ValidationError is a ValueError
        return None
    return value
