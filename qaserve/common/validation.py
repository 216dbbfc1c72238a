"""What pydantic finds wrong with a value, in words for whoever sent it."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

from qaserve.common.text import did_you_mean, shorten

VALUE_CHARS = 80
_IN_JSON = {
    "dict_type": "Input should be an object",
    "extra_forbidden": "There is no such field",
    "model_attributes_type": "Input should be an object",
    "model_type": "Input should be an object",
    "tuple_type": "Input should be a list",
}
"""Pydantic's words for these speak of Python."""


def fault(error: Mapping[str, Any], unsaid: Container[object] = (), names: Iterable[str] = ()) -> str:
    """Which value is wrong, what is taken there, and what was given.

    Args:
        error: One of pydantic's `errors()`.
        unsaid: Parts of the place of the value that its sender did not write.
        names: Of the fields that there are: where the error is an unknown field, those spelled nearly so are named.
    """
    place = ".".join(str(part) for part in error["loc"] if part not in unsaid)
    where = shorten(place, VALUE_CHARS) or "body"
    said = _IN_JSON.get(error["type"], error["msg"]).removeprefix("Value error, ")
    said = said.replace("Tuple", "List").replace(" after validation", "")
    # What lacks a field is not what was given for the field.
    value = "" if error["type"] == "missing" else f" (got {shorten(repr(error['input']), VALUE_CHARS)})"
    meant = did_you_mean(str(error["loc"][-1]), names) if error["type"] == "extra_forbidden" else ""
    return f"{where}: {said}{value}{meant and f'. {meant}'}"
