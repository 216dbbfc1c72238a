"""Connecting to Qdrant, and its errors turned into ours."""

import errno
import json
import os
import pickle
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from filelock import FileLock, Timeout
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from qaserve.errors import (
    StoreError,
    StoreLockedError,
    StoreRefusedError,
    StoreUnreachableError,
    StoreWriteError,
)
from qaserve.settings import StoreSettings
from qaserve.text import shorten

LOCK = "lock"
HOLDER = "holder.json"
REFUSED = frozenset({401, 403})


class Holder:
    """The right to an embedded folder: a kernel lock, freed even by kill -9, and a note on who has it."""

    def __init__(self, folder: Path, purpose: str) -> None:
        """Take the folder, or raise StoreLockedError that says who has it."""
        self._note = folder / HOLDER
        self._lock = FileLock(folder / LOCK, timeout=0)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise StoreLockedError(
                f"{folder} is in use by {self._who()}",
                hint="Stop it; or, if it serves an API, ask that: set QASERVE_API_URL to its address.",
            ) from error
        self._note.write_text(json.dumps({"pid": os.getpid(), "purpose": purpose}), encoding="utf-8")

    def _who(self) -> str:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            return f"process {int(note['pid'])} ({shorten(str(note['purpose']), 120)})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def release(self) -> None:
        """Give the folder back."""
        with suppress(OSError):
            self._note.unlink()
        self._lock.release()


def connect_embedded(folder: Path, purpose: str) -> tuple[QdrantClient, Holder]:
    """Open a folder as an embedded Qdrant, once its lock is ours."""
    with translated(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        holder = Holder(folder, purpose)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Local mode is not recommended")  # `qaserve doctor` says it
                return QdrantClient(path=str(folder), force_disable_check_same_thread=True), holder
        except (ValueError, KeyError, TypeError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            holder.release()
            raise StoreError(
                f"{folder} cannot be opened as a Qdrant folder: {shorten(str(error), 160)}",
                hint="It is damaged or of another version. Move it away and ingest again, or set QASERVE_DATA_DIR.",
            ) from error
        except BaseException:
            holder.release()
            raise


def connect_server(settings: StoreSettings) -> QdrantClient:
    """Connect to the server of the settings and make sure that it answers."""
    url, key = settings.qdrant_url or "", settings.qdrant_api_key
    with warnings.catch_warnings(), translated(url):
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        client = QdrantClient(
            url=url,
            api_key=key.get_secret_value() if key else None,
            timeout=settings.qdrant_timeout,
            check_compatibility=False,  # it would ask from a thread of its own, and only warn
        )
        try:
            client.get_collections()
        except BaseException:
            client.close()
            raise
    return client


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what Qdrant and the disk raise into our errors, in the one place that knows them."""
    try:
        yield
    except UnexpectedResponse as error:
        if error.status_code in REFUSED:
            raise StoreRefusedError(
                f"Qdrant at {where} refuses the key (HTTP {error.status_code})",
                hint="Set QASERVE_QDRANT_API_KEY to the key that the server was started with.",
            ) from error
        raise StoreError(
            f"Qdrant at {where} answered HTTP {error.status_code}: {shorten(str(error.content, errors='replace'), 99)}",
            hint="The server's log says more.",
        ) from error
    except (ResponseHandlingException, httpx.HTTPError) as error:
        raise StoreUnreachableError(
            f"Qdrant at {where} does not answer: {shorten(str(error), 160)}",
            hint="Start it, or correct QASERVE_QDRANT_URL; unset it to use the embedded Qdrant.",
        ) from error
    except ApiException as error:
        raise StoreError(
            f"Qdrant at {where}: {shorten(str(error), 200)}", hint="The server's log says more."
        ) from error
    except (sqlite3.Error, OSError) as error:
        raise _disk_error(where, error) from error


def _disk_error(where: str, error: sqlite3.Error | OSError) -> StoreError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return StoreError(
            f"{where} is damaged: {reason}", hint="Move it away and ingest again; the corpus files are all it needs."
        )
    full = getattr(error, "errno", None) == errno.ENOSPC or "full" in reason
    hint = "Free some space." if full else "Make the folder writable, or set QASERVE_DATA_DIR to one that is."
    return StoreWriteError(f"{where} cannot be written or read: {reason}", hint=f"{hint} The live build is untouched.")
