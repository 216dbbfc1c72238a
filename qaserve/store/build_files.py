"""The files of an embedded build: sealed by size and hash, put on the disk, held open, deleted."""

import errno
import hashlib
import json
import os
import shutil
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from qaserve.common.files import sync_file, sync_folder
from qaserve.schemas.record import Record

from .base import BuildMetadata, Seal

MANIFEST, SHARD = "build.json", "shard"
"""What lies in the folder of a build."""
REMOVALS, REMOVAL_SECONDS = 50, 0.02
BLOCK = 1 << 18
REWRITTEN = frozenset({"edge_config.json", "segment.json"})
"""Edge rewrites these files whenever it opens a shard, with their keys in another order."""
DESCRIPTORS = Path("/proc/self/fd")
"""Where Linux names what is open."""


class FileSeal(Record):
    """A file of a sealed build."""

    size: int
    sha256: str


class Manifest(Record):
    """What `build.json` holds."""

    metadata: BuildMetadata
    seal: Seal
    files: dict[str, FileSeal]
    graphs: bool = False
    """Whether it has HNSW graphs."""

    def to_bytes(self) -> bytes:
        """With a hash over itself."""
        content = self.model_dump(mode="json")
        return json.dumps({"content": content, "sha256": _digest(content)}, indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Raises ValueError where it is not as it was written."""
        document = json.loads(data)
        if not isinstance(document, dict) or document.get("sha256") != _digest(document.get("content")):
            raise ValueError("its hash is another")
        return cls.model_validate(document["content"])


class OpenFolder:
    """A folder by a path that stays with it when it is renamed.

    The engine makes what it misses: a build that is deleted while it is opened would come back in part under its name.
    """

    def __init__(self, folder: Path) -> None:
        """Hold a folder open until this is let go of."""
        self.path = self._place = folder
        self._identity = folder.stat()
        self._let_go: weakref.finalize[..., OpenFolder] | None = None
        if DESCRIPTORS.is_dir():
            handle = os.open(folder, os.O_RDONLY)
            self._let_go = weakref.finalize(self, os.close, handle)
            self._let_go.atexit = False
            self.path = DESCRIPTORS / str(handle)

    def is_in_place(self) -> bool:
        """Whether the folder still has its name: a build loses that before any of its files is deleted."""
        with suppress(FileNotFoundError):
            return os.path.samestat(self._identity, self._place.stat())
        return False

    def close(self) -> None:
        """Let go of the folder; else that happens when nothing refers to this."""
        if self._let_go is not None:
            self._let_go()


def seal_files(folder: Path, below: Path) -> dict[str, FileSeal]:
    """The seal of every file below a folder, by its path within another."""
    paths = sorted(path for path in below.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): seal_file(path) for path in paths}


def seal_file(path: Path) -> FileSeal:
    """The seal of a file. Edge's files are mostly holes: blocks of zeros are passed over, which makes hashing fast."""
    if path.name in REWRITTEN:
        data = path.read_bytes()
        with suppress(ValueError):
            data = json.dumps(json.loads(data), sort_keys=True).encode()
        return FileSeal(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb", buffering=0) as file:
        number = 0
        while number * BLOCK < size:
            number = _next_data(file.fileno(), number, size)
            file.seek(number * BLOCK)
            block = file.read(BLOCK)
            if block != bytes(len(block)):
                digest.update(b"%d " % number + block)
            number += 1
    return FileSeal(size=size, sha256=digest.hexdigest())


def _next_data(handle: int, number: int, size: int) -> int:
    """The first block, from this one on, that may hold something; where the system does not tell, the block itself."""
    if not hasattr(os, "SEEK_DATA"):
        return number
    try:
        return os.lseek(handle, number * BLOCK, os.SEEK_DATA) // BLOCK
    except OSError:  # a hole up to the end
        return -(-size // BLOCK)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sync_tree(folder: Path) -> None:
    """Put every file and folder below, and the folder itself, on the disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
    sync_folder(folder)


def remove_tree(folder: Path) -> None:
    """Delete a folder, also while a reader that opened it before it was renamed makes and removes files in it."""
    for _ in range(REMOVALS):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.ENOENT}:
                raise
            time.sleep(REMOVAL_SECONDS)
        if not folder.exists():
            return
    shutil.rmtree(folder)
