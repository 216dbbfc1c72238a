"""The public corpus and its documents: downloaded from pinned commits, and verified before anything reads them."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

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
TITLE = "UnifyWeaver skills"
DOCUMENTS_COMMIT = "dd2ca0605a6c6ad9060e614d6a075186a46a93ad"
DOCUMENTS_URL = f"https://raw.githubusercontent.com/s243a/UnifyWeaver/{DOCUMENTS_COMMIT}/skills"
DOCUMENTS_NAME = "skills"
MANIFEST = Path(__file__).with_name("public_documents.sha256")
"""SHA-256 and path of every public document, as `sha256sum` writes them."""
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
    _fetch({target: (url, sha256)}, on_bytes, timeout)
    return target


def fetch_documents(
    folder: Path,
    on_bytes: Callable[[int], None] | None = None,
    *,
    url: str = DOCUMENTS_URL,
    manifest: Path = MANIFEST,
    timeout: httpx.Timeout = TIMEOUT,
) -> Path:
    """The folder of the public documents in `folder`: those that are not there with the right hash are downloaded.

    Each file appears as `fetch` says, so the same call goes on where an interrupted one stopped.

    Raises:
        FetchError: As of `fetch`.
    """
    target = folder / DOCUMENTS_NAME
    listed = (line.split(maxsplit=1) for line in manifest.read_text(encoding="utf-8").splitlines())
    _fetch({target / path: (f"{url}/{quote(path)}", sha256) for sha256, path in listed}, on_bytes, timeout)
    return target


def _fetch(
    wanted: Mapping[Path, tuple[str, str]], on_bytes: Callable[[int], None] | None, timeout: httpx.Timeout
) -> None:
    """Download files from their addresses, each with its SHA-256; those that are there already are left alone."""
    with httpx.Client(timeout=timeout, follow_redirects=True) as client:
        for target, (url, sha256) in wanted.items():
            try:
                if not (target.is_file() and _sha256(target) == sha256):
                    _fetch_file(client, target, url, sha256, on_bytes)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise FetchError(
                    f"{url} cannot be downloaded: {shorten(str(error) or type(error).__name__, 160)}",
                    hint="Check the network, or ingest a file of your own: make run CORPUS=path.jsonl",
                ) from error
            except OSError as error:
                raise FetchError(
                    f"{target.parent} cannot be written: {error.strerror or error}",
                    hint="Set QASERVE_DATA_DIR to a writable folder.",
                ) from error


def _fetch_file(
    client: httpx.Client, target: Path, url: str, sha256: str, on_bytes: Callable[[int], None] | None
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".fetch-", delete=False) as scratch:
        path = Path(scratch.name)
    try:
        _download(client, url, path, on_bytes)
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


def _download(client: httpx.Client, url: str, path: Path, on_bytes: Callable[[int], None] | None) -> None:
    size = 0
    with client.stream("GET", url) as response, path.open("wb") as file:
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
