"""Partial parameters override one another, and the schema says that each may be left out."""

import pytest
from pydantic import ValidationError

from qaserve.schemas.params import SearchParams


def test_only_what_is_given_overrides():
    build = SearchParams(temperature=0.07, hits=16, lexical_weight=0.2)
    resolved = build.override(SearchParams(hits=32, priors=False), SearchParams(temperature=0.5), SearchParams())
    assert resolved == SearchParams(temperature=0.5, hits=32, lexical_weight=0.2, priors=False)


def test_a_default_that_is_given_overrides_too():
    assert SearchParams(hits=16).override(SearchParams(hits=32)).hits == SearchParams().hits == 32


def test_null_is_not_given():
    assert SearchParams.model_validate({"hits": None, "priors": None}).given == {}


def test_unknown_and_impossible_parameters_are_refused():
    with pytest.raises(ValidationError, match="Extra inputs"):
        SearchParams.model_validate({"heat": 1})
    with pytest.raises(ValidationError, match="hits"):
        SearchParams.model_validate({"hits": 0})


def test_the_schema_has_no_default_and_allows_null():
    hits = SearchParams.model_json_schema()["properties"]["hits"]
    assert "default" not in hits
    assert {"type": "null"} in hits["anyOf"]
    assert hits["description"].startswith("N:")
