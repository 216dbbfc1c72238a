"""Questions and their answers."""

import json
import logging
from typing import Annotated

import anyio
from fastapi import APIRouter, Body, Request, Response
from pydantic import Discriminator, Tag, TypeAdapter

from qaserve.schemas.ask import AskRequest, AskResult
from qaserve.service.query_service import QueryService

LOG = logging.getLogger("qaserve.api")
GONE = 499
"""Logged for a caller that hung up before its answer."""
ONE, MANY = "one", "many"
RESULTS = TypeAdapter(list[AskResult])

AskBody = Annotated[
    Annotated[AskRequest, Tag(ONE)] | Annotated[tuple[AskRequest, ...], Tag(MANY)],
    Discriminator(lambda body: MANY if isinstance(body, list | tuple) else ONE),
    Body(
        openapi_examples={
            "one": {"summary": "One question", "value": {"question": "How do I add a new pair?", "top_k": 3}},
            "filtered": {
                "summary": "Among some pairs only",
                "value": {"question": "How do I parse XML?", "filters": {"topics": ["xml", "csv"]}},
            },
            "many": {
                "summary": "Several questions at once",
                "value": [{"question": "How do I add a new pair?"}, {"question": "How do I go back to a build?"}],
            },
        }
    ),
]


def routes(desk: QueryService, *, log_questions: bool) -> APIRouter:
    """/v1/ask."""
    router = APIRouter(prefix="/v1", tags=["search"])

    @router.post("/ask", response_model=AskResult | list[AskResult])
    async def ask(body: AskBody, request: Request) -> Response:
        """Answer a question, or a list of them, and say why."""
        many = isinstance(body, tuple)
        requests = body if isinstance(body, tuple) else (body,)
        if log_questions:
            LOG.info("questions: %s", json.dumps([one.question for one in requests]))
        results = await _unless_gone(desk, requests, request)
        if results is None:
            return Response(status_code=GONE)
        # Records are what they say: they are written once here, and not checked again.
        content = RESULTS.dump_json(results) if many else results[0].model_dump_json().encode()
        return Response(content, media_type="application/json")

    return router


async def _unless_gone(
    desk: QueryService, requests: tuple[AskRequest, ...], request: Request
) -> list[AskResult] | None:
    """The answers, or None when the caller has hung up; then what has not begun is not begun."""
    found: list[list[AskResult]] = []
    failed: list[Exception] = []

    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            found.append(await desk.ask(requests))
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the group, as itself
            failed.append(error)
        group.cancel_scope.cancel()
    if failed:
        raise failed[0]
    return found[0] if found else None
