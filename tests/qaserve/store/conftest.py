"""Builds in the stores that the contract is tested on."""

from collections.abc import Callable

import pytest
from store_builds import pairs_of, write

from qaserve.store import Store
from qaserve.store.points import PairVectors


@pytest.fixture
def rows(rng) -> list[PairVectors]:
    return pairs_of(rng)


@pytest.fixture
def built(store: Store, rows) -> Store:
    write(store, rows)
    return store


@pytest.fixture
def crowd(rng) -> Callable[[int], list[PairVectors]]:
    return lambda count: pairs_of(rng, count)
