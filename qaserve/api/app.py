"""The application: which routes there are, and what lies around all of them."""

from fastapi import Depends, FastAPI

from qaserve import __version__
from qaserve.api import ask, builds, explore, health, reports
from qaserve.api.access import Access
from qaserve.api.errors import REPLIES, handle_errors
from qaserve.engine import Engine
from qaserve.settings import ServerSettings


def create_app(engine: Engine, settings: ServerSettings, hidden: tuple[str, ...] = ()) -> FastAPI:
    """The API over a loaded engine.

    Endpoints are plain functions: FastAPI runs them in its thread pool, so nothing blocks the event loop.

    Args:
        engine: Answers the questions.
        settings: The keys, if any are needed.
        hidden: Texts, such as folders of this machine, that no message may show.
    """
    app = FastAPI(
        title="qaserve", version=__version__, description="Search over question/answer pairs that explains itself."
    )
    access = Access(settings)
    app.include_router(health.routes(engine))
    routers = (
        ask.routes(engine),
        explore.routes(engine),
        builds.routes(engine),
        reports.routes(settings.reports_dir),
    )
    for router in routers:
        app.include_router(router, prefix="/v1", dependencies=[Depends(access.read)], responses=REPLIES)
    handle_errors(app, hidden)
    return app
