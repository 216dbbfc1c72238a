"""What only the embedded Qdrant needs: a folder that is ours alone, and files that do not wait for every point."""

import json
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Literal

from qdrant_client import QdrantClient
from qdrant_client.local.qdrant_local import QdrantLocal

from qaserve.common.errors import StoreError
from qaserve.common.text import shorten
from qaserve.store.locks import Holder, translated


def connect_embedded(folder: Path, purpose: str, wait: float) -> tuple[QdrantClient, Holder]:
    """Open a folder as an embedded Qdrant, once its lock is ours."""
    with translated(str(folder)):
        hint = "Stop it, or set QASERVE_LOCK_WAIT; or, if it serves an API, ask that: set QASERVE_API_URL to it."
        holder = Holder(folder, purpose, wait, hint)
        try:
            _remove_unknown(folder)
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


def _remove_unknown(folder: Path) -> None:
    """Delete folders of collections that the embedded Qdrant does not list: what is left of an interrupted deletion."""
    try:
        known = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["collections"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return  # a new folder; or a damaged one, which Qdrant refuses
    for collection in (folder / "collection").glob("*@*"):
        if collection.name not in known:
            shutil.rmtree(collection)


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
