"""Questions that found no answer."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from qaserve.api.auth import ApiKeyAuth
from qaserve.schemas.gaps import GapList, GapsDeleted
from qaserve.service.gaps import Gaps


def routes(gaps: Gaps, access: ApiKeyAuth) -> APIRouter:
    """/v1/gaps. Reading needs the write key too: it shows what others asked."""
    router = APIRouter(prefix="/v1/gaps", tags=["feedback"], dependencies=[Depends(access.write)])

    @router.get("")
    def themes() -> GapList:
        """The kept questions in themes, the largest first."""
        return gaps.themes()

    @router.delete("")
    def delete_all() -> GapsDeleted:
        """Delete all kept questions."""
        return GapsDeleted(deleted=gaps.log.delete())

    @router.delete("/{number}")
    def delete(number: Annotated[int, Path(ge=1, le=2**62)]) -> GapsDeleted:
        """Delete one."""
        return GapsDeleted(deleted=gaps.log.delete(number))

    return router
