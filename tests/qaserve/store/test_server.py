"""What only builds on a server do. The server is qdrant-client's own engine in memory, or a loopback that answers."""

import httpx
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from store_builds import REF, metadata, write

from qaserve.common.errors import BuildNotFoundError, StoreError, StoreRefusedError, StoreUnreachableError
from qaserve.settings import StoreSettings
from qaserve.store import BuildRef, open_store
from qaserve.store.connection import MAY_REPEAT, Retries, connect, map_server_errors
from qaserve.store.points import to_point
from qaserve.store.server import PAGE, ServerStore

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used")
NAME = str(REF)


class Recorder:
    """A client in memory that remembers with what its methods were called."""

    def __init__(self) -> None:
        self.client, self.calls = QdrantClient(location=":memory:"), []

    def __getattr__(self, name):
        method = getattr(self.client, name)

        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            return method(*args, **kwargs)

        return call


def test_collections_are_strict_and_every_filtered_field_is_indexed(rows):
    client = Recorder()
    settings = StoreSettings(qdrant_shards=2, qdrant_replicas=3, qdrant_on_disk=True, qdrant_quantized=True)
    write(ServerStore(client, settings), rows)
    (made,) = [kwargs for name, _, kwargs in client.calls if name == "create_collection"]
    assert made["strict_mode_config"].enabled
    assert made["strict_mode_config"].unindexed_filtering_retrieve is False
    assert made["sparse_vectors_config"]["words"].modifier == models.Modifier.IDF
    assert {name: params.size for name, params in made["vectors_config"].items()} == {
        "question": 8,
        "answer": 8,
        "topic": 8,
    }
    assert (made["shard_number"], made["replication_factor"], made["on_disk_payload"]) == (2, 3, True)
    assert made["quantization_config"].scalar.type == models.ScalarType.INT8
    indexed = {args[1]: kwargs["field_schema"] for name, args, kwargs in client.calls if name == "create_payload_index"}
    assert indexed.pop("cluster") == models.PayloadSchemaType.INTEGER
    assert set(indexed) == {"cluster_id", "pair_id", "topics", "tags", "related_skills", "source_file"}
    assert set(indexed.values()) == {models.PayloadSchemaType.KEYWORD}


def test_a_batch_fits_into_a_request(rows):
    client = Recorder()
    text = "x" * (3 << 20)
    long = [
        row._replace(
            stored=row.stored.model_copy(
                update={"pair": row.stored.pair.model_copy(update={"answer": text, "extra": {}})}
            )
        )
        for row in rows
    ]
    write(ServerStore(client, StoreSettings()), [*long])
    sizes = [len(args[1]) for name, args, _ in client.calls if name == "upsert"]
    assert sizes == [5, 1]
    assert PAGE > 6


def test_a_collection_that_is_not_ours_is_named_and_left_alone(memory_server, rows):
    client = memory_server._client
    client.create_collection(NAME, vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
    client.upsert(NAME, [models.PointStruct(id=1, vector=[1.0, 0.0, 0.0, 0.0])])
    for call in (memory_server.open, memory_server.delete, memory_server.set_live, memory_server.verify):
        with pytest.raises(StoreError, match=f"collection {NAME} in :memory: does not say how it was made"):
            call(REF)
    with pytest.raises(StoreError, match="does not say how it was made"):
        memory_server.create(metadata())
    assert memory_server.names("things") == memory_server.unfinished("things") == []
    assert memory_server.remove_unfinished("things") == []
    assert client.count(NAME).count == 1


def test_a_collection_of_other_dimension_is_named(memory_server, rows):
    write(memory_server, rows)
    kept = memory_server._client.get_collection(NAME).config.metadata
    memory_server._client.delete_collection(NAME)
    vector = models.VectorParams(size=5, distance=models.Distance.DOT)
    vectors = dict.fromkeys(("question", "answer", "topic"), vector)
    memory_server._client.create_collection(NAME, vectors_config=vectors, metadata=kept)
    with pytest.raises(StoreError, match=r"holds vectors answer of D 5, .*; its build has answer, .* of D 8"):
        memory_server.open(REF)


def test_points_lost_or_changed_after_the_seal_are_noticed(memory_server, rows):
    write(memory_server, rows)
    client = memory_server._client
    client.set_payload(NAME, {"prior": 7.0}, points=[rows[2].stored.id])
    assert memory_server.open(REF).count() == 6
    with pytest.raises(
        StoreError, match=r"is damaged: collection things@aaaaaaaaaaaa .* does not hold what was written"
    ):
        memory_server.verify(REF)
    client.delete(NAME, [rows[3].stored.id])
    with pytest.raises(StoreError, match="is damaged: it holds 5 points; it was sealed with 6"):
        memory_server.open(REF)


def test_a_live_build_that_lost_points_is_filled_where_it_is(memory_server, rows):
    about = write(memory_server, rows)
    memory_server.set_live(REF)
    memory_server._client.delete(NAME, [rows[3].stored.id])
    build = memory_server.create(about)
    assert memory_server.live("things") == REF  # it answers meanwhile
    list(build.append(to_point(row) for row in rows))
    build.seal()
    assert memory_server.verify(REF).points == 6


def test_a_build_deleted_while_it_is_read(memory_server, rows):
    write(memory_server, rows)
    build = memory_server.open(REF)
    memory_server.delete(REF)
    for call in (build.count, lambda: build.words("records", 3), lambda: list(build.scroll())):
        with pytest.raises(BuildNotFoundError, match="has been deleted from :memory: while it was read"):
            call()


def unexpected(status: int, text: str) -> UnexpectedResponse:
    return UnexpectedResponse(status, "", text.encode(), httpx.Headers())


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (unexpected(401, "no"), StoreRefusedError, r"refuses the key \(HTTP 401\)"),
        (unexpected(403, "read-only key"), StoreRefusedError, r"refuses the key \(HTTP 403\)"),
        (unexpected(404, "Collection `x` doesn't exist!"), BuildNotFoundError, "deleted"),
        (unexpected(400, "Index required but not found"), StoreError, "answered HTTP 400: Index required"),
        (ResponseHandlingException(httpx.ConnectError("refused")), StoreUnreachableError, "does not answer: refused"),
    ],
)
def test_what_a_server_answers_becomes_ours(raised, kind, message):
    with pytest.raises(kind, match=message) as error, map_server_errors("http://there"):
        raise raised
    assert type(error.value) is kind
    assert error.value.hint
    assert "http://there" in error.value.message


def test_a_server_that_is_not_there_is_named(unused_port):
    settings = StoreSettings(qdrant_url=f"http://127.0.0.1:{unused_port}", qdrant_attempts=1)
    with pytest.raises(StoreUnreachableError, match=f"Qdrant at http://127.0.0.1:{unused_port} does not answer"):
        open_store(settings)


def test_an_old_server_is_named(rest):
    rest.version = "1.15.4"
    with pytest.raises(StoreError, match=r"is version 1.15.4; qaserve needs 1.16 or later"):
        open_store(StoreSettings(qdrant_url=rest.url))


def test_who_only_reads_sends_the_key_that_may_only_read(rest):
    settings = StoreSettings(qdrant_url=rest.url, qdrant_api_key="writer", qdrant_read_api_key="reader")
    for read_only, key in ((True, "reader"), (False, "writer")):
        client = connect(settings, read_only=read_only)
        assert client._client._rest_headers["api-key"] == key
        client.close()
    alone = connect(settings.model_copy(update={"qdrant_read_api_key": None}), read_only=True)
    assert alone._client._rest_headers["api-key"] == "writer"
    alone.close()


@pytest.mark.parametrize(
    ("method", "path", "times"),
    [
        ("GET", "/collections", 3),
        ("POST", "/collections/a/points/query/batch", 3),
        ("POST", "/collections/a/facet", 3),
        ("PUT", "/collections/a/points", 3),
        ("POST", "/collections/aliases", 1),
        ("PUT", "/collections/a", 1),
        ("DELETE", "/collections/a", 1),
    ],
)
def test_only_what_may_come_twice_is_sent_again(method, path, times):
    sent = []

    def busy(request):
        sent.append(request)
        return httpx.Response(503)

    request = httpx.Request(method, f"http://there{path}", extensions={"timeout": {"read": 1.0}})
    assert Retries(attempts=3, budget=60)(request, busy).status_code == 503
    assert len(sent) == times
    assert set(MAY_REPEAT) == {"GET", "POST", "PUT"}


def test_builds_of_other_corpora_are_apart(memory_server, rows):
    write(memory_server, rows)
    write(memory_server, rows, metadata(BuildRef("others", "aaaaaaaaaaaa")))
    memory_server.set_live(REF)
    assert memory_server.corpora() == ["others", "things"]
    assert memory_server.names("things") == ["aaaaaaaaaaaa"]
    assert memory_server.live_builds() == {"things": "aaaaaaaaaaaa"}
