"""Every field of `SearchParams` can be given on the command line and at the prompt, without a line of code there."""

import io

import pytest
from rich.console import Console

from qaserve.cli.ask import _named, _request
from qaserve.cli.prompt import Prompt
from qaserve.schemas.params import SHORT_NAMES, SearchParams, parameter_named

OTHER = {"routing": "centroid", "projection": "pair", "priors": False, "hits": 7, "centroids": 7}
"""A value that is not the default; of any other field, a number."""


def other(name):
    return OTHER.get(name, 0.25)


@pytest.mark.parametrize("name", [*SearchParams.model_fields, *SHORT_NAMES])
def test_it_can_be_set(name):
    field = parameter_named(name)
    assert getattr(SearchParams(), field) != other(field)
    assert _request([], question="x", **_named([f"{name}={other(field)}"])).given == {field: other(field)}


@pytest.mark.parametrize("name", [*SearchParams.model_fields, *SHORT_NAMES])
def test_it_can_be_set_at_the_prompt(name):
    field, shown = parameter_named(name), io.StringIO()
    Prompt(None, {}, Console(file=shown, width=200)).run(iter([f":set {name} {other(field)}"]))
    assert shown.getvalue() == f"{field} {other(field)}\n"


def test_a_parameter_may_be_typed_with_capitals_and_hyphens():
    assert parameter_named("Topic-Weight") == "topic_weight"
    assert parameter_named("TAU") == "temperature"
    assert set(SHORT_NAMES.values()) <= set(SearchParams.model_fields)
