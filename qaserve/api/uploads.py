"""Files that callers send: written to disk as they stream, never held whole, never beyond a bound."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from qaserve.common.errors import BusyError, TooLargeError, UsageError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

SUFFIX = ".jsonl"
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
MAX_FIELDS = 8
FIELD_BYTES = 1_024
NOT_IN_A_NAME = re.compile(r"[^\w.-]+")
NAME_CHARS = 100
GZIP_MAGIC = b"\x1f\x8b"


def media_type(headers: Headers) -> str:
    """The media type of a body, without its parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


async def bounded(request: Request, most: int) -> AsyncIterator[bytes]:
    """The body as it streams in. Raises TooLargeError as soon as it is longer than `most` bytes."""
    seen = 0
    try:
        async for chunk in request.stream():
            seen += len(chunk)
            if seen > most:
                raise TooLargeError(
                    f"the upload has more than {most:,} bytes",
                    hint="Send it in parts, or have QASERVE_MAX_UPLOAD_BYTES raised.",
                )
            yield chunk
    except ClientDisconnect as error:
        raise BusyError("the caller hung up", hint="Send it again.") from error


async def receive_lines(request: Request, folder: Path, name: str, most: int) -> Path:
    """Write a body that is the file itself. Raises TooLargeError, UsageError."""
    path = folder / safe_name(name)
    with await run_in_threadpool(path.open, "wb") as file:
        async for chunk in bounded(request, most):
            await run_in_threadpool(file.write, chunk)
    return await run_in_threadpool(_checked, path)


async def receive_form(request: Request, folder: Path, most: int) -> tuple[Path, dict[str, str]]:
    """Write the one file of a form; gives it with the form's other fields.

    Raises:
        TooLargeError: The body is longer than `most` bytes.
        UsageError: It is no form with one file.
    """
    _, options = parse_options_header(request.headers.get("content-type"))
    form = _Form(folder)
    try:
        if not options.get(b"boundary"):
            raise FormParserError("its type names no boundary")
        parser = MultipartParser(options[b"boundary"], form.callbacks)
        async for chunk in bounded(request, most):
            await run_in_threadpool(parser.write, chunk)
    except FormParserError as error:
        raise UsageError(f"the form cannot be read: {error}", hint=AS_FORM) from error
    finally:
        form.close()
    if form.path is None or not form.ended:
        raise UsageError(f"the form {'ends too early' if form.path else 'holds no file'}", hint=AS_FORM)
    return await run_in_threadpool(_checked, form.path), form.fields


class _Form:
    """What the parser of a form calls: a file goes to the disk as it comes, fields stay small."""

    def __init__(self, folder: Path) -> None:
        self.path: Path | None = None
        self.fields: dict[str, str] = {}
        self.ended = False
        self._folder = folder
        self._file: BinaryIO | None = None
        self._headers: dict[bytes, bytes] = {}
        self._header, self._value, self._text = bytearray(), bytearray(), bytearray()
        self._name: str | None = None
        """Of the field that is being read; None inside a file."""

    @property
    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _header_end(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        if b"filename" not in options:
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
        elif self.path is not None:
            raise UsageError("the form holds a second file", hint=AS_FORM)
        else:
            self._name = None
            self.path = self._folder / safe_name(options[b"filename"].decode("utf-8", "replace"))
            self._file = self.path.open("wb")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        elif len(self._text) + end - start > FIELD_BYTES or len(self.fields) == MAX_FIELDS:
            raise UsageError(
                f"the form holds more than {MAX_FIELDS} fields, or one of more than {FIELD_BYTES:,} bytes", hint=AS_FORM
            )
        else:
            self._text += data[start:end]

    def _part_end(self) -> None:
        if self._name is not None:
            self.fields[self._name] = self._text.decode("utf-8", "replace")
        self._text.clear()
        self.close()

    def _end(self) -> None:
        self.ended = True


def safe_name(name: str) -> str:
    """A file name of harmless characters that ends as a corpus file does."""
    stem = NOT_IN_A_NAME.sub("-", name.replace("\\", "/").rpartition("/")[2]).lstrip(".-")
    return (stem.removesuffix(SUFFIX)[:NAME_CHARS] or UNNAMED) + SUFFIX


def _checked(path: Path) -> Path:
    with path.open("rb") as file:
        start = file.read(len(GZIP_MAGIC))
    if not start:
        raise UsageError("the upload is empty", hint="Send JSON Lines: one pair in each line.")
    if start == GZIP_MAGIC:  # a few bytes may unpack to any number of them
        raise UsageError("the upload is packed with gzip", hint="Send it unpacked.")
    return path
