"""Questions and their answers."""

from fastapi import APIRouter

from qaserve.engine import Engine
from qaserve.records import AskRequest, AskResult


def routes(engine: Engine) -> APIRouter:
    """/v1/ask."""
    router = APIRouter(tags=["search"])

    @router.post("/ask")
    def ask(request: AskRequest) -> AskResult:
        """Answer a question, and say why."""
        return engine.ask(request)

    return router
