"""What Qdrant Edge and the disk raise, as our errors. Edge raises plain `Exception`; its text says what happened."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from qaserve.common.errors import BuildNotFoundError, DamagedBuildError, StoreError, StoreWriteError
from qaserve.common.text import shorten

from .base import BuildRef

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_GONE = re.compile(r"does not exist|No such file")
PANIC = "PanicException"
"""Raised by the engine where it meets data that it cannot read."""


@contextmanager
def map_errors(where: str) -> Iterator[None]:
    """Turn what the engine and the disk raise into our errors.

    Args:
        where: File, folder or build that is worked on, for the message.

    Raises:
        BuildNotFoundError: It was deleted meanwhile.
        StoreWriteError: The disk is full, read-only or failing, or the files are not for us.
        StoreError: Anything else that the engine says.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(where, error.errno, error.strerror or str(error)) from error
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != PANIC:
            raise
        raise _engine_error(where, str(error)) from error


def not_found(ref: BuildRef, where: str) -> BuildNotFoundError:
    """There is no such build."""
    return BuildNotFoundError(
        f"no build {ref.build!r} of corpus {ref.corpus!r} in {where}", hint="List the builds to see which there are."
    )


def damaged(ref: BuildRef, what: str) -> DamagedBuildError:
    """A sealed build is not as it was sealed."""
    return DamagedBuildError(
        f"build {ref} is damaged: {what}",
        hint="Make another build live with `qaserve builds activate`, or ingest all files of this one again with "
        "`qaserve ingest --replace`.",
    )


def disk_error(where: str, number: int | None, reason: str) -> StoreError | BuildNotFoundError:
    """The error for an `errno`."""
    if number in {errno.ENOENT, errno.ESTALE}:
        return BuildNotFoundError(
            f"{where} has been deleted while it was read", hint="List the builds to see which there are."
        )
    if number == errno.ENOSPC:
        hint = "Free some space. The live build is untouched."
    else:
        hint = (
            "Make the folder writable for this user, or set QASERVE_DATA_DIR to one that is: the embedded Qdrant maps "
            "its files for writing, also to read them."
        )
    return StoreWriteError(f"{where} cannot be written or read: {reason}", hint=hint)


def _engine_error(where: str, text: str) -> StoreError | BuildNotFoundError:
    found = _OS_ERROR.search(text)
    if found:
        return disk_error(where, int(found[1]), os.strerror(int(found[1])))
    if _GONE.search(text):
        return disk_error(where, errno.ENOENT, text)
    return StoreError(
        f"Qdrant Edge on {where}: {shorten(text, 200)}",
        hint="`qaserve verify` says whether the build is damaged; ingesting its files again makes it again.",
    )
