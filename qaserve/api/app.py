"""The application: which routes there are, and what lies around all of them."""

from fastapi import Depends, FastAPI

from ingest.jobs import Jobs
from qaserve import __version__
from qaserve.api import ask, builds, explore, feedback, health
from qaserve.api import jobs as job_routes
from qaserve.api.access import Access
from qaserve.api.errors import REPLIES, handle_errors
from qaserve.engine import Engine
from qaserve.feedback import FeedbackLog
from qaserve.settings import JobSettings, ServerSettings


def create_app(
    engine: Engine,
    settings: ServerSettings,
    hidden: tuple[str, ...] = (),
    *,
    log: FeedbackLog | None = None,
    jobs: Jobs | None = None,
    uploads: JobSettings | None = None,
) -> FastAPI:
    """The API over a loaded engine.

    Endpoints are plain functions: FastAPI runs them in its thread pool, so nothing blocks the event loop.

    Args:
        engine: Answers the questions.
        settings: The keys, if any are needed.
        hidden: Texts, such as folders of this machine, that no message may show.
        log: Keeps feedback; None: none is taken.
        jobs: Bring pairs in; None: none can be brought in.
        uploads: How much may be sent for that.
    """
    app = FastAPI(
        title="qaserve", version=__version__, description="Search over question/answer pairs that explains itself."
    )
    access = Access(settings)
    app.include_router(health.routes(engine))
    for router in (ask.routes(engine), explore.routes(engine), builds.routes(engine, access)):
        app.include_router(router, prefix="/v1", dependencies=[Depends(access.read)], responses=REPLIES)
    if log is not None:
        app.include_router(feedback.routes(engine, log, access), prefix="/v1", responses=REPLIES)
    if jobs is not None:
        most = (uploads or JobSettings()).max_upload_bytes
        app.include_router(job_routes.routes(jobs, access, most, hidden), prefix="/v1", responses=REPLIES)
    handle_errors(app, hidden)
    return app
