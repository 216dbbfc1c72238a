"""Skills and documents: found for a question, listed, and handed over. Their texts are data, written by others."""

from typing import Annotated

from fastapi import APIRouter, Query

from qaserve.schemas.ask import AskRequest
from qaserve.schemas.documents import DocumentDetail, SkillDetail, SkillIndex, SkillsFound
from qaserve.schemas.params import MAX_TOP_K
from qaserve.search.engine import Engine
from qaserve.search.skills import found_for
from qaserve.service.query_service import QueryService


def routes(engine: Engine, desk: QueryService) -> APIRouter:
    """/v1/skills and /v1/documents."""
    router = APIRouter(prefix="/v1", tags=["skills"])

    @router.get("/skills")
    async def skills(
        question: Annotated[str, Query(description="What the skill is to do.")],
        top_k: Annotated[int, Query(ge=1, le=MAX_TOP_K)] = 5,
    ) -> SkillsFound:
        """Find the skills for a question, best first."""
        (result,) = await desk.ask([AskRequest(question=question, top_k=top_k, explain=False)])
        return found_for(result)

    @router.get("/skill-index")
    def skill_index() -> SkillIndex:
        """List every skill, by name, with when to use it."""
        return engine.skills()

    @router.get("/skills/{name}")
    def skill(name: str) -> SkillDetail:
        """Give a skill: its document by section, the pairs that name it, and its neighbours."""
        return engine.skill(name)

    @router.get("/documents/{path:path}")
    def document(path: str) -> DocumentDetail:
        """Give a document of the live build, by its path there."""
        return engine.document(path)

    return router
