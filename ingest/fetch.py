"""The public corpus: downloaded from a pinned commit, and verified before anything reads it."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx

from qaserve.common.errors import FetchError
from qaserve.common.text import shorten

COMMIT = "d46aff8c3c1e2a148246075b61a1d644cb8dda2f"
URL = (
    f"https://raw.githubusercontent.com/s243a/UnifyWeaver_training-data/{COMMIT}"
    "/by-topic/skills-qa/tailored/skills_qa.jsonl"
)
SHA256 = "279efe353c3dc5e5f390cd5dd38d9d2339b5aff07a65c27c1edaaa0fd0404419"
FILE_NAME = "skills_qa.jsonl"
MAX_BYTES = 64 << 20
TIMEOUT = httpx.Timeout(15.0, connect=4.0)


def fetch(
    folder: Path,
    on_bytes: Callable[[int], None] | None = None,
    *,
    url: str = URL,
    sha256: str = SHA256,
    timeout: httpx.Timeout = TIMEOUT,
) -> Path:
    """The corpus file in `folder`, downloaded unless it is there already with the right hash.

    The file appears under its name only after its SHA-256 was checked; what fails the check is deleted.

    Raises:
        FetchError: No network, an HTTP error, a wrong hash, too many bytes, or a folder that cannot be written.
    """
    target = folder / FILE_NAME
    try:
        if target.is_file() and _sha256(target) == sha256:
            return target
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".fetch-", delete=False) as scratch:
            path = Path(scratch.name)
        try:
            _download(url, path, on_bytes, timeout)
            found = _sha256(path)
            if found != sha256:
                raise FetchError(
                    f"{url} has SHA-256 {found}, not {sha256}",
                    hint="The file was changed on the way or at its source; nothing of it was read.",
                )
            path.chmod(0o644)
            path.replace(target)
        finally:
            path.unlink(missing_ok=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchError(
            f"{url} cannot be downloaded: {shorten(str(error) or type(error).__name__, 160)}",
            hint="Check the network, or ingest a file of your own: make run CORPUS=path.jsonl",
        ) from error
    except OSError as error:
        raise FetchError(
            f"{folder} cannot be written: {error.strerror or error}", hint="Set QASERVE_DATA_DIR to a writable folder."
        ) from error
    return target


def _download(url: str, path: Path, on_bytes: Callable[[int], None] | None, timeout: httpx.Timeout) -> None:
    size = 0
    with httpx.stream("GET", url, timeout=timeout, follow_redirects=True) as response, path.open("wb") as file:
        response.raise_for_status()
        for chunk in response.iter_bytes():
            size += len(chunk)
            if size > MAX_BYTES:
                raise FetchError(f"{url} sends more than {MAX_BYTES:,} bytes", hint="This is not the corpus.")
            file.write(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
