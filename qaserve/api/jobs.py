"""Ingests through the API: a file or a list of pairs comes in, a job brings it into the corpus."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from ingest.jobs import Jobs
from ingest.jobs_server import RemoteJobs
from qaserve.api.auth import ApiKeyAuth
from qaserve.api.errors import without
from qaserve.api.uploads import FORM, LINES, UNNAMED, bounded, media_type, receive_form, receive_lines
from qaserve.common.errors import NotFoundError, UsageError
from qaserve.common.files import writing
from qaserve.common.validation import fault
from qaserve.schemas.ingest import Preview
from qaserve.schemas.jobs import IngestOptions, IngestRequest, Job, JobId, JobList
from qaserve.settings import LimitSettings

T = TypeVar("T", bound=IngestOptions)
JSON_NAME = "api"
"""What pairs are said to come from that were sent without a file."""
AS_LINES = f"A JSON body is held in memory. Send more pairs as JSON Lines: {LINES[0]}, or a form with a file."
NO_SPACE = "Free some space on the disks of QASERVE_DATA_DIR and TMPDIR, or make them writable."
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": IngestRequest.model_json_schema()},
            FORM: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "Not packed; its name says the format. A zip holds documents.",
                        },
                        **IngestOptions.model_json_schema()["properties"],
                    },
                    "required": ["file"],
                }
            },
            LINES[0]: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


class UploadOptions(IngestOptions):
    """What the address may say, for a body that is the file itself."""

    name: str | None = None


def routes(jobs: Jobs | RemoteJobs, access: ApiKeyAuth, limits: LimitSettings, hidden: tuple[str, ...]) -> APIRouter:
    """/v1/ingest and /v1/jobs.

    Args:
        jobs: Does the work.
        access: Who may change something.
        limits: Bytes of an upload, and of a JSON body.
        hidden: Texts that no message may show.
    """
    router = APIRouter(prefix="/v1", tags=["ingest"])

    @router.post("/ingest", status_code=202, dependencies=[Depends(access.write)], openapi_extra=BODY)
    async def ingest(request: Request, said: Annotated[UploadOptions, Query()]) -> Job:
        """Import pairs: a form with a file, JSON Lines as they are, or a document with `pairs`. Gives a job.

        A file whose name ends in .zip holds Markdown documents, which take the place of all documents of the corpus.
        """
        with writing("the upload cannot be written", NO_SPACE):
            async with contextmanager_in_threadpool(jobs.receiving()) as folder:
                file, options = await _receive(request, folder, said, limits)
                return await run_in_threadpool(jobs.submit, file, options)

    @router.post("/ingest/preview", dependencies=[Depends(access.write)], openapi_extra=BODY)
    async def preview(request: Request, said: Annotated[UploadOptions, Query()]) -> Preview:
        """How the first rows of a file would be read, and where its fields are guessed to be. Nothing is kept."""
        with writing("the upload cannot be written", NO_SPACE):
            async with contextmanager_in_threadpool(jobs.receiving()) as folder:
                file, options = await _receive(request, folder, said, limits)
                return await run_in_threadpool(jobs.preview, file, options)

    @router.get("/jobs", dependencies=[Depends(access.read)])
    def listed() -> JobList:
        """Every job, newest first, without its report."""
        found = jobs.listed()
        return found.model_copy(update={"jobs": tuple(_shown(job, hidden) for job in found.jobs)})

    @router.get("/jobs/{job}", dependencies=[Depends(access.read)])
    def job(job: JobId) -> Job:
        """How far a job is, and what it did."""
        return _shown(jobs.get(job), hidden)

    @router.delete("/jobs/{job}", status_code=202, dependencies=[Depends(access.write)])
    def cancel(job: JobId) -> Job:
        """Cancel a job: at once where it waits, between two batches where it runs. The live build stays as it is."""
        return _shown(jobs.cancel(job), hidden)

    @router.post("/jobs/{job}/retry", status_code=202, dependencies=[Depends(access.write)])
    def retry(job: JobId) -> Job:
        """Run a failed or interrupted job again, with the upload and the options that it had."""
        return _shown(jobs.retry(job), hidden)

    @router.get("/jobs/{job}/rejected", dependencies=[Depends(access.read)], response_class=StreamingResponse)
    def rejected(job: JobId) -> StreamingResponse:
        """The first 1,000 rows that made no pair, each with its line and the reason, as JSON Lines."""
        return StreamingResponse(_rejected(jobs.get(job)), media_type=LINES[0])

    return router


async def _receive(
    request: Request, folder: Path, said: UploadOptions, limits: LimitSettings
) -> tuple[Path, IngestOptions]:
    """Write what was sent into the folder. Raises TooLargeError, UsageError."""
    kind = media_type(request.headers)
    options = said.model_dump(exclude={"name"})
    if kind == FORM:
        file, fields = await receive_form(request, folder, limits.max_upload_bytes)
        return file, _validated(IngestOptions, options | fields)
    if kind in LINES:
        file = await receive_lines(request, folder, said.name or UNNAMED, limits.max_upload_bytes)
        return file, IngestOptions(**options)
    body = b"".join([chunk async for chunk in bounded(request, limits.max_body_bytes, AS_LINES)])
    file = folder / f"{JSON_NAME}.jsonl"
    return file, await run_in_threadpool(_written, body, file, options)


def _written(body: bytes, file: Path, options: dict[str, Any]) -> IngestOptions:
    """Write the pairs of a document as JSON Lines; gives its options."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {error}", hint="/docs describes the request.") from error
    if not isinstance(document, dict):
        raise UsageError("the body is not an object with `pairs`", hint="/docs describes the request.")
    asked = _validated(IngestRequest, options | document)
    with file.open("w", encoding="utf-8", errors="surrogatepass") as lines:
        lines.writelines(json.dumps(pair) + "\n" for pair in asked.pairs)
    return IngestOptions(**asked.model_dump(exclude={"pairs"}))


def _validated(kind: type[T], fields: dict[str, Any]) -> T:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(fault(first, names=kind.model_fields), hint="/docs describes the request.") from error


def _shown(job: Job, hidden: tuple[str, ...]) -> Job:
    if job.error is None:
        return job
    texts = {field: without(text, hidden) for field, text in job.error.model_dump().items()}
    return job.model_copy(update={"error": job.error.model_copy(update=texts)})


def _rejected(job: Job) -> Iterator[str]:
    if job.report is None:
        raise NotFoundError(f"job {job.id} is {job.state} and has no report", hint="It has one when it is done.")
    return (row.model_dump_json() + "\n" for row in job.report.rejected)
