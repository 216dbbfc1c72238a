"""What only the embedded Qdrant needs: a folder that is ours alone, and files that do not wait for every point."""

import json
import pickle
import sqlite3
import warnings
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal

from qdrant_client import QdrantClient, models
from qdrant_client.local.qdrant_local import QdrantLocal

from qaserve.common.errors import StoreError
from qaserve.common.text import shorten
from qaserve.store.locks import UNWRITABLE, Holder, translated

META = "meta.json"


def connect_embedded(folder: Path, purpose: str, wait: float) -> tuple[QdrantClient, Holder | None]:
    """Open a folder as an embedded Qdrant, once its lock is ours; without a lock, to read, where it cannot be written.

    Raises:
        StoreError: The folder is damaged, or holds collections and has lost the list of them.
    """
    hint = "Stop it, or set QASERVE_LOCK_WAIT; or, if it serves an API, ask that: set QASERVE_API_URL to it."
    with translated(str(folder)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Local mode is not recommended")  # `qaserve doctor` says it
        holder: Holder | None = None
        try:
            try:
                holder = Holder(folder, purpose, wait, hint)
                _check_listed(folder)
                return QdrantClient(path=str(folder), force_disable_check_same_thread=True), holder
            except (OSError, sqlite3.OperationalError) as error:
                if not _may_only_be_read(folder, error):
                    raise
                if holder is not None:
                    holder.release()
                return _in_memory(folder), None
        except (ValueError, KeyError, TypeError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            if holder is not None:
                holder.release()
            raise StoreError(
                f"{folder} cannot be opened as a Qdrant folder: {shorten(str(error), 160)}",
                hint="It is damaged or of another version. Move it away and ingest again, or set QASERVE_DATA_DIR.",
            ) from error
        except BaseException:
            if holder is not None:
                holder.release()
            raise


def unlisted(folder: Path) -> list[str]:
    """Names of the collections that have a folder and that the list in `meta.json` does not know."""
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        known = json.loads((folder / META).read_text(encoding="utf-8"))["collections"]
        return sorted(path.name for path in (folder / "collection").glob("*@*") if path.name not in known)
    return sorted(path.name for path in (folder / "collection").glob("*@*"))


def _check_listed(folder: Path) -> None:
    """Refuse a folder of collections without its list: Qdrant would start an empty one over it."""
    meta = folder / META
    there = [] if meta.exists() and meta.stat().st_size else unlisted(folder)
    if there:
        raise StoreError(
            f"{meta} is missing or empty; the pairs of {len(there)} builds are still in {folder / 'collection'}: "
            f"{', '.join(there)}",
            hint=f"Nothing was deleted. Put {META} back from a copy; or move {folder} away and ingest the same files.",
        )


def _may_only_be_read(folder: Path, error: OSError | sqlite3.OperationalError) -> bool:
    """Whether there is something to read in a folder that cannot be written; no temporary folder is no obstacle."""
    unwritable = "readonly" in str(error) or "full" in str(error) or "unable to open" in str(error)
    if isinstance(error, OSError):
        unwritable = error.errno in UNWRITABLE or "temporary directory" in str(error)
    return unwritable and (folder / META).is_file()


def _in_memory(folder: Path) -> QdrantClient:
    """What the folder holds, read into memory: the embedded Qdrant itself opens no folder that it cannot write."""
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    client = QdrantClient(location=":memory:", force_disable_check_same_thread=True)
    for name, written in meta["collections"].items():
        config = models.CreateCollection(**written)
        client.create_collection(name, vectors_config=config.vectors, metadata=config.metadata)
        place = (folder / "collection" / name / "storage.sqlite").resolve()
        if not place.is_file():  # its loss is found by the count
            continue
        with closing(sqlite3.connect(f"{place.as_uri()}?mode=ro", uri=True)) as storage:
            points = [pickle.loads(row) for (row,) in storage.execute("SELECT point FROM points")]  # noqa: S301 - ours
        if points:
            client.upsert(name, points)
    client.update_collection_aliases(
        change_aliases_operations=[
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=alias))
            for alias, name in meta["aliases"].items()
        ]
    )
    return client


def journal(client: QdrantClient, name: str, mode: Literal["WAL", "DELETE"]) -> None:
    """How the SQLite file of an embedded collection is written; one in memory or on a server has none.

    Embedded Qdrant commits every point by itself, and each commit waits for the disk several times. With a write-ahead
    log and `synchronous=NORMAL` it need not, and no crash can damage the file: at worst the last points are lost, of a
    build that is not live yet. Going back to DELETE puts all on the disk, before the swap.
    """
    local = client._client  # noqa: SLF001 - it offers no other way
    files = local.collections[name].storage if isinstance(local, QdrantLocal) else None
    if files is not None:
        files.storage.execute(f"PRAGMA synchronous={'NORMAL' if mode == 'WAL' else 'FULL'}")
        files.storage.execute(f"PRAGMA journal_mode={mode}").fetchone()
