"""The stores that the contract is tested on."""

from collections.abc import Callable, Iterator

import pytest
from qdrant_client import QdrantClient
from store_builds import SERVER, pairs_of, write

from qaserve.settings import StoreSettings
from qaserve.store import EdgeStore, Store, open_store
from qaserve.store.points import PairVectors
from qaserve.store.server import ServerStore


@pytest.fixture
def memory_server() -> Iterator[ServerStore]:
    """The code for a server, over qdrant-client's own engine in memory."""
    with ServerStore(QdrantClient(location=":memory:"), StoreSettings()) as made:
        yield made


@pytest.fixture
def edge(tmp_path) -> EdgeStore:
    return EdgeStore(tmp_path / "data")


@pytest.fixture(params=["edge", "memory", *(["server"] if SERVER else [])])
def store(request: pytest.FixtureRequest, edge: EdgeStore) -> Iterator[Store]:
    """Every store; the third only where QASERVE_TEST_QDRANT_URL names a server, which must be empty."""
    if request.param == "edge":
        yield edge
    elif request.param == "memory":
        yield request.getfixturevalue("memory_server")
    else:
        with open_store(StoreSettings(qdrant_url=SERVER)) as made:
            if made._client.get_collections().collections:
                pytest.fail(f"{SERVER} holds collections: give the tests a server of their own, which they empty")
            yield made
            for found in made._client.get_collections().collections:
                made._client.delete_collection(found.name)


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
