"""Files that callers send: written to disk as they arrive, never held in memory, never beyond a bound."""

import re
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from ingest.jobs import ZIP
from ingest.readers import EXCEL, SUFFIXES
from qaserve.common.errors import BusyError, TooLargeError, UsageError

SUFFIX = ".jsonl"
"""Of a file without one."""
UNNAMED = "upload"
FORM = "multipart/form-data"
LINES = (
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
)
AS_FORM = "Send it as curl -F file=@pairs.jsonl does."
SMALLER = "Send it in parts, or have QASERVE_MAX_UPLOAD_BYTES raised."
MAX_FIELDS = 8
FIELD_BYTES = 1_024
NOT_IN_A_NAME = re.compile(r"[^\w.-]+")
NAME_BYTES = 100
SUFFIX_CHARS = 10
GZIP_MAGIC = b"\x1f\x8b"


def media_type(headers: Headers) -> str:
    """The media type of a body, without its parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


async def bounded(request: Request, most: int, hint: str = SMALLER) -> AsyncGenerator[bytes, None]:
    """The body as it arrives. Raises TooLargeError, with this hint, as soon as it is longer than `most` bytes."""
    seen = 0
    try:
        async for chunk in request.stream():
            seen += len(chunk)
            if seen > most:
                raise TooLargeError(f"the upload has more than {most:,} bytes", hint=hint)
            yield chunk
    except ClientDisconnect as error:
        raise BusyError("the caller hung up", hint="Send it again.") from error


async def receive_lines(request: Request, folder: Path, name: str, most: int) -> Path:
    """Write a body that is the file itself. Raises TooLargeError, UsageError."""
    path = folder / safe_name(name)
    with await run_in_threadpool(path.open, "wb") as file:
        async for chunk in bounded(request, most):
            await run_in_threadpool(file.write, chunk)
    await run_in_threadpool(_check, path)
    return path


class _Parser(MultiPartParser):
    """Starlette's parser, and whether the last boundary was there: it does not mind where a form ends too early."""

    ended = False

    def on_end(self) -> None:
        """The last boundary was there."""
        self.ended = True


async def receive_form(request: Request, folder: Path, most: int) -> tuple[Path, dict[str, str]]:
    """Write the one file of a form; gives it with the form's other fields.

    Raises:
        TooLargeError: The body is longer than `most` bytes.
        UsageError: It is no form with one file.
    """

    async def body() -> AsyncGenerator[bytes, None]:
        async for chunk in bounded(request, most):
            yield chunk
        if not parser.ended:
            raise UsageError("the form ends too early", hint=AS_FORM)

    parser = _Parser(request.headers, body(), max_files=1, max_fields=MAX_FIELDS, max_part_size=FIELD_BYTES)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise UsageError(f"the form cannot be read: {error.message}", hint=AS_FORM) from error
    try:
        files = [item for _, item in form.multi_items() if isinstance(item, UploadFile)]
        if not files:
            raise UsageError("the form holds no file", hint=AS_FORM)
        path = folder / safe_name(files[0].filename or "")
        await run_in_threadpool(_copy, files[0], path)
    finally:
        await form.close()
    return path, {name: item for name, item in form.multi_items() if isinstance(item, str)}


def _copy(upload: UploadFile, path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file)
    _check(path)


def safe_name(name: str) -> str:
    """A file name of harmless characters. It keeps its suffix, also one that is not read: errors name the file so."""
    stem = NOT_IN_A_NAME.sub("-", name.replace("\\", "/").rpartition("/")[2]).lstrip(".-")
    known = next((one for one in (*SUFFIXES, *EXCEL, ZIP) if stem.lower().endswith(one)), None)
    suffix = known or Path(stem).suffix
    short = stem[: len(stem) - len(suffix)].encode()[:NAME_BYTES].decode(errors="ignore")
    return (short or UNNAMED) + (known or suffix[:SUFFIX_CHARS] or SUFFIX)


def _check(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(len(GZIP_MAGIC))
    if not start:
        raise UsageError("the upload is empty", hint="Send JSON Lines, one pair in each line, or CSV.")
    if start == GZIP_MAGIC:  # a few bytes may unpack to any number of them
        raise UsageError("the upload is packed with gzip", hint="Send it unpacked.")
