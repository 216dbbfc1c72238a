"""What was rejected, in bounded memory: a count, the first few for the report, and all lines in a file.

`<data_dir>/rejected/<corpus>-<hash>.jsonl` holds the lines as they were read, so that it can be corrected and ingested;
`<corpus>-<hash>.reasons.txt` beside it says of each where it was and what is wrong. The hash is that of the lines: the
same bad lines every night are one file.
"""

import hashlib
import shutil
import tempfile
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from qaserve.common.files import writing, written_beside
from qaserve.schemas.ingest import REPORTED, Rejection

FOLDER = "rejected"


class Rejected:
    """Gathers rejections; `keep` makes the files, and without it nothing is left behind."""

    def __init__(self) -> None:
        """Nothing is rejected yet."""
        self.by_file: Counter[str] = Counter()
        self.first: list[Rejection] = []
        self._hash = hashlib.sha256()
        with _writing():
            self._lines, self._reasons = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - __exit__

    @property
    def count(self) -> int:
        """How many rejections."""
        return self.by_file.total()

    def __enter__(self) -> Self:
        """Use as a context manager to let go of the temporary files."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Let go of them."""
        self._lines.close()
        self._reasons.close()

    def add(self, rejection: Rejection) -> None:
        """Note why something was rejected."""
        self.by_file[rejection.file] += 1
        if len(self.first) < REPORTED:
            self.first.append(rejection)
        with _writing():
            self._reasons.write(f"{rejection.file}:{rejection.said}\n".encode("utf-8", "backslashreplace"))

    def add_line(self, line: bytes) -> None:
        """Note a line of which something was rejected."""
        self._hash.update(line + b"\n")
        with _writing():
            self._lines.write(line + b"\n")

    def keep(self, data_dir: Path, corpus: str) -> Path | None:
        """Write the files; gives that of the lines, or None where no line can be kept.

        Raises:
            StoreWriteError: The disk is full or read-only.
        """
        with _writing():
            if not self._lines.tell():
                return None
            name = f"{corpus}-{self._hash.hexdigest()[:12]}"
            _copy(self._reasons, data_dir / FOLDER / f"{name}.reasons.txt")
            return _copy(self._lines, data_dir / FOLDER / f"{name}.jsonl")


def _copy(source: IO[bytes], target: Path) -> Path:
    source.seek(0)
    with written_beside(target) as fresh, fresh.open("wb") as file:
        shutil.copyfileobj(source, file)
    return target


def _writing() -> AbstractContextManager[None]:
    return writing("rejected lines cannot be kept", "Free some space; nothing was changed.")
