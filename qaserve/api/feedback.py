"""What people say of answers."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from qaserve.api.auth import ApiKeyAuth
from qaserve.common.clock import now
from qaserve.common.errors import UsageError
from qaserve.schemas.feedback import MAX_FEEDBACK_PAGE, Feedback, FeedbackKept, FeedbackPage, FeedbackRequest
from qaserve.schemas.pairs import StoredPair
from qaserve.search.engine import Engine, checked_question
from qaserve.service.feedback import FeedbackLog
from qaserve.service.gaps import QuestionLog


def routes(engine: Engine, log: FeedbackLog, access: ApiKeyAuth, kept: QuestionLog | None = None) -> APIRouter:
    """/v1/feedback. Reading needs the write key too: it shows what others asked."""
    router = APIRouter(prefix="/v1", tags=["feedback"], dependencies=[Depends(access.write)])

    @router.post("/feedback", status_code=201)
    def say(request: FeedbackRequest) -> FeedbackKept:
        """Say whether a pair helped with a question; it is on the disk when this answers."""
        stored = _judged(engine, request)
        record = Feedback(
            id=uuid.uuid4().hex,
            created=now(),
            corpus=engine.corpus,
            build=request.build,
            question=checked_question(request.question),
            point=stored.id,
            pair_id=stored.pair.pair_id,
            cluster_id=stored.pair.intent,
            helpful=request.helpful,
            comment=request.comment,
            trace=request.trace,
        )
        log.append(record)
        if kept is not None and not record.helpful:
            kept.keep(record.question, "unhelpful", record.build)
        return FeedbackKept(id=record.id)

    @router.get("/feedback")
    def said(
        limit: Annotated[int, Query(ge=1, le=MAX_FEEDBACK_PAGE)] = 100,
        after: Annotated[int, Query(ge=0, le=2**62, description="`next` of the page before.")] = 0,
    ) -> FeedbackPage:
        """What was said, oldest first."""
        return log.page(after, limit)

    return router


def _judged(engine: Engine, request: FeedbackRequest) -> StoredPair:
    """The one pair that is meant. Raises NotFoundError for one that the build lacks, UsageError for several."""
    found = engine.pairs(request.pair, request.build).pairs
    if len({stored.pair.intent for stored in found}) > 1:
        raise UsageError(
            f"pair_id {request.pair!r} names {len(found)} pairs of different intents",
            hint="Give the `id` of the answer: it is unique.",
        )
    return found[0]
