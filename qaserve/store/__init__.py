"""Stores of builds: Qdrant Edge in a data folder, or a Qdrant server."""

from qaserve.settings import StoreSettings

from .base import Build, BuildMetadata, BuildRef, Hit, Layout, Point, Seal, Search, Store, Where, Writer
from .edge import EdgeStore

__all__ = [
    "Build",
    "BuildMetadata",
    "BuildRef",
    "EdgeStore",
    "Hit",
    "Layout",
    "Point",
    "Seal",
    "Search",
    "Store",
    "Where",
    "Writer",
    "open_store",
]


def open_store(settings: StoreSettings, *, read_only: bool = False) -> Store:
    """The store that the settings name.

    Args:
        settings: A server, or a data folder.
        read_only: Prefer the server's key that may only read.

    Raises:
        StoreUnreachableError, StoreRefusedError, StoreError
    """
    if settings.qdrant_url is None:
        return EdgeStore(settings.data_dir, settings.hnsw_pairs)
    from .connection import connect  # noqa: PLC0415 - loads qdrant-client, which is slow, and only a server needs it
    from .server import ServerStore  # noqa: PLC0415 - the same

    return ServerStore(connect(settings, read_only=read_only), settings)
