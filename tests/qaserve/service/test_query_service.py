"""Questions that wait: encoded together, bounded in number and time, and gone when their caller is."""

import threading
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
from fastapi.testclient import TestClient

from qaserve.api import create_app
from qaserve.builds.catalog import prune
from qaserve.common.errors import BusyError, EncoderError, TooLargeError, UsageError
from qaserve.schemas.ask import AskRequest
from qaserve.service.batching import MicroBatcher
from qaserve.service.metrics import Metrics
from qaserve.service.query_service import WARM_UP, QueryService
from qaserve.settings import LimitSettings, ServerSettings

PATIENCE = 30
"""Seconds after which a wait has failed; nothing is asserted about how long anything takes."""


class Gate:
    """An encoder whose calls wait until they are let through."""

    def __init__(self, encoder):
        self.identity, self._encoder = encoder.identity, encoder
        self.batches, self.entered, self.open = [], threading.Semaphore(0), threading.Event()
        self.error = None

    def encode_questions(self, texts, on_batch=None):
        self.batches.append(list(texts))
        self.entered.release()
        if texts != [WARM_UP]:
            assert self.open.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return self._encoder.encode_questions(texts)

    async def wait_entered(self, times=1):
        for _ in range(times):
            assert await anyio.to_thread.run_sync(self.entered.acquire, True, PATIENCE)


@pytest.fixture
def gate(engine):
    engine.encoder = Gate(engine.encoder)
    yield engine.encoder
    engine.encoder.open.set()


@asynccontextmanager
async def running(shared):
    async with anyio.create_task_group() as group:
        group.start_soon(shared.run)
        with anyio.fail_after(PATIENCE):
            yield
        group.cancel_scope.cancel()


async def until(holds):
    with anyio.fail_after(PATIENCE):
        while not holds():
            await anyio.sleep(0.005)


def test_questions_that_come_while_others_are_encoded_are_encoded_together(gate):
    async def main():
        shared = MicroBatcher(gate, 4, Metrics())
        vectors = {}

        async def ask(text):
            vectors[text] = await shared.encode(text, 0.0)

        async with running(shared), anyio.create_task_group() as group:
            group.start_soon(ask, "first")
            await gate.wait_entered()
            for number in range(6):
                group.start_soon(ask, f"later {number}")
            await until(lambda: len(shared._waiting) == 6)
            gate.open.set()
        assert gate.batches == [["first"], [f"later {n}" for n in range(4)], ["later 4", "later 5"]]
        for text, vector in vectors.items():
            assert (vector == gate.encode_questions([text])[0]).all()

    anyio.run(main)


def test_a_question_that_was_asked_lately_is_not_encoded_again(gate, monkeypatch):
    monkeypatch.setattr("qaserve.service.batching.KEPT", 2)

    async def main():
        shared = MicroBatcher(gate, 4, Metrics())
        gate.open.set()
        async with running(shared):
            first = await shared.encode("first", 0.0)
            assert await shared.encode("first", 0.0) is first
            for text in ("second", "first", "third", "first"):
                await shared.encode(text, 0.0)
            assert (await shared.encode("first", 0.0) == first).all()
        assert gate.batches == [["first"], ["second"], ["third"], ["first"]], "only the two latest are kept"

    anyio.run(main)


def test_within_the_window_a_batch_fills_up_and_then_goes_at_once(gate):
    async def main():
        shared = MicroBatcher(gate, 3, Metrics())
        gate.open.set()
        async with running(shared), anyio.create_task_group() as group:
            for number in range(2):
                group.start_soon(shared.encode, str(number), 10 * PATIENCE)
            await until(lambda: len(shared._waiting) == 2)
            await anyio.wait_all_tasks_blocked()
            assert gate.batches == []
            group.start_soon(shared.encode, "2", 10 * PATIENCE)
        assert gate.batches == [["0", "1", "2"]]

    anyio.run(main)


def test_who_is_gone_before_the_batch_is_not_encoded(gate):
    async def main():
        shared = MicroBatcher(gate, 8, Metrics())
        async with running(shared), anyio.create_task_group() as group:
            group.start_soon(shared.encode, "first", 0.0)
            await gate.wait_entered()
            with anyio.CancelScope() as scope:
                group.start_soon(shared.encode, "stays", 0.0)
                await until(lambda: len(shared._waiting) == 1)
                async with anyio.create_task_group() as leaving:
                    leaving.start_soon(shared.encode, "leaves", 0.0)
                    await until(lambda: len(shared._waiting) == 2)
                    scope.cancel()
            assert [one.text for one in shared._waiting] == ["stays"]
            gate.open.set()
        assert gate.batches == [["first"], ["stays"]]

    anyio.run(main)


def test_an_error_of_the_encoder_reaches_all_of_its_batch_and_no_other(gate):
    async def main():
        shared = MicroBatcher(gate, 8, Metrics())
        told = []

        async def ask(text):
            try:
                await shared.encode(text, 0.0)
            except EncoderError as error:
                told.append((text, error.message))

        async with running(shared):
            gate.error = EncoderError("no vector for this")
            gate.open.set()
            async with anyio.create_task_group() as group:
                group.start_soon(ask, "a")
                group.start_soon(ask, "b")
            assert {text for text, _ in told} == {"a", "b"}
            gate.error = None
            await ask("c")
        assert len(told) == 2

    anyio.run(main)


@asynccontextmanager
async def desk_of(engine, **limits):
    desk = QueryService(engine, LimitSettings(**limits), Metrics())
    async with anyio.create_task_group() as group:
        group.start_soon(desk.run)
        await engine.encoder.wait_entered()
        await until(lambda: desk._warm)
        yield desk
        group.cancel_scope.cancel()


def test_places_are_bounded_and_given_back(engine, gate):
    async def main():
        async with desk_of(engine, queue=2) as desk:
            async with anyio.create_task_group() as group:
                group.start_soon(desk.ask, [AskRequest(question="bread")])
                group.start_soon(desk.ask, [AskRequest(question="wine")])
                await until(lambda: desk._inside == 2)
                with pytest.raises(BusyError, match=r"^2 questions are waiting .* takes 2$") as busy:
                    await desk.ask([AskRequest(question="glass")])
                assert busy.value.retry_after >= 1
                gate.open.set()
            assert desk._inside == 0
            assert len(await desk.ask([AskRequest(question="glass")])) == 1
            with pytest.raises(BusyError):
                await desk.ask([AskRequest(question="glass")] * 3)

    anyio.run(main)


def test_a_question_that_takes_too_long_is_given_up_and_its_place_is_free(engine, gate):
    async def main():
        async with desk_of(engine, request_seconds=0.05) as desk:
            with pytest.raises(BusyError, match=r"no answer within 0\.05 seconds"):
                await desk.ask([AskRequest(question="bread")])
            assert desk._inside == 0

    anyio.run(main)


def test_a_list_is_answered_in_its_order_and_encoded_together(engine, gate):
    async def main():
        gate.open.set()
        things = ["bread", "wine", "glass", "paper"]
        async with desk_of(engine) as desk:
            results = await desk.ask([AskRequest(question=f"{thing} recipe please", top_k=1) for thing in things])
            assert [result.answers[0].cluster_id for result in results] == [f"make_{thing}" for thing in things]
            with pytest.raises(UsageError, match="needs known questions that vote"):
                await desk.ask(
                    [AskRequest(question="x"), AskRequest(question="x", routing="centroid", projection="pair")]
                )
            assert desk._inside == 0
        assert max(map(len, gate.batches)) > 1

    anyio.run(main)


@pytest.mark.parametrize("pruned", [False, True])
def test_a_list_is_answered_from_one_build_though_another_goes_live(
    engine, gate, make_ingest, make_encoder, write_rows, rows, pruned
):
    first, search, calls = engine.load().ref.build, engine.search, []

    def swap():
        report = make_ingest(engine.store, make_encoder()).run([write_rows(rows(["amber"]))])
        if pruned:
            prune(engine.store, engine._models_dir, engine.corpus, 0)
        return report.build

    def search_then_swap(*parts):
        outcome = search(*parts)
        calls.append(outcome.result.build)
        if len(calls) == 1:
            calls.append(swap())
        return outcome

    async def main():
        gate.open.set()
        async with desk_of(engine) as desk:
            desk._workers.total_tokens = 1
            return await desk.ask([AskRequest(question=f"{thing} recipe please") for thing in ("bread", "wine")])

    engine.search = search_then_swap
    built = [result.build for result in anyio.run(main)]
    second = calls[1]
    assert second != first
    assert engine.load().ref.build == second
    assert built == [first] * 2  # also where it was pruned: what is open can be read to the end


@pytest.mark.parametrize(
    ("requests", "error", "message"),
    [
        ([], UsageError, "no question in the list"),
        ([AskRequest(question="x")] * 4, TooLargeError, "4 questions in one request; this service takes 3"),
        ([AskRequest(question="x"), AskRequest(question=" ")], UsageError, "the question is empty"),
        ([AskRequest(question="x" * 11)], UsageError, "question: characters: 11; this service takes at most 10"),
        ([AskRequest(question="x", top_k=6)], UsageError, "top_k: 6; this service takes at most 5"),
        ([AskRequest(question="x", hits=8)], UsageError, "hits: 8; this service takes at most 7"),
    ],
)
def test_what_is_over_a_limit_is_refused_before_any_work(engine, gate, requests, error, message):
    async def main():
        async with desk_of(engine, max_questions=3, max_asked_chars=10, max_top_k=5, max_hits=7) as desk:
            with pytest.raises(error, match=message):
                await desk.ask(requests)
        assert gate.batches == [[WARM_UP]]

    anyio.run(main)


def test_a_caller_that_hangs_up_frees_its_place_and_nothing_blocks_meanwhile(engine, gate, serve_app):
    url = serve_app(create_app(engine, ServerSettings()))

    async def depth(http):
        reply = await http.get("/metrics")
        return next(
            float(line.split()[1]) for line in reply.text.splitlines() if line.startswith("qaserve_queue_depth ")
        )

    async def main():
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http:
            await gate.wait_entered()
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: http.post("/v1/ask", json={"question": "bread"}))
                await gate.wait_entered()
                assert (await http.get("/healthz")).status_code == 200
                assert await depth(http) == 1
                group.cancel_scope.cancel()
            with anyio.fail_after(PATIENCE):
                while await depth(http):
                    await anyio.sleep(0.01)
            gate.open.set()
            assert (await http.post("/v1/ask", json={"question": "wine"})).status_code == 200

    anyio.run(main)


def test_it_is_not_ready_before_the_encoder_is(engine):
    reading = threading.Event()
    encode = engine.encoder.encode_questions

    def slowly(texts):
        assert reading.wait(PATIENCE)
        return encode(texts)

    engine.encoder.encode_questions = slowly
    with TestClient(create_app(engine, ServerSettings())) as http:
        reply = http.get("/readyz")
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "busy"
        assert int(reply.headers["Retry-After"]) >= 1
        reading.set()
        assert http.post("/v1/ask", json={"question": "bread"}).status_code == 200
        assert http.get("/readyz").json()["build"] == engine.load().ref.build
