"""What is installed and running, and what is wrong with it."""

import importlib.util
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

from qaserve import __version__, weights
from qaserve import bundle as bundles
from qaserve.builds import list_builds
from qaserve.errors import QaserveError, StoreLockedError
from qaserve.records import BuildInfo, Record
from qaserve.settings import Settings, unknown_variables
from qaserve.store import Store, open_store

PACKAGES = ("qdrant-client", "torch", "sentence-transformers", "numpy", "scikit-learn", "streamlit", "fastapi", "httpx")
LOW_DISK_BYTES = 1 << 30
EMBEDDED_LIMIT = 20_000
"""Above this many pairs the embedded Qdrant, which compares with every point, warns and slows down."""


class Finding(Record):
    """One line of the examination."""

    area: str
    state: Literal["ok", "warning", "problem"]
    text: str
    hint: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything worth knowing, one finding at a time; nothing is changed and no model is loaded."""
    yield Finding(
        area="qaserve", state="ok", text=f"{__version__}, Python {platform.python_version()}, {platform.system()}"
    )
    yield from _packages()
    yield from _settings()
    yield from _disk(settings)
    yield from _encoder(settings)
    yield from _store(settings)


def _packages() -> Iterator[Finding]:
    versions = {name: _version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        yield Finding(
            area="packages", state="problem", text=f"missing: {', '.join(missing)}", hint="`make run` installs them."
        )
    there = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    yield Finding(area="packages", state="ok", text=there)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _settings() -> Iterator[Finding]:
    unknown = unknown_variables()
    if unknown:
        yield Finding(
            area="settings",
            state="warning",
            text=f"nothing reads {', '.join(unknown)}",
            hint="A typing mistake? The README lists the settings.",
        )


def _disk(settings: Settings) -> Iterator[Finding]:
    for name, folder in (("data", settings.store.data_dir), ("models", settings.store.models_dir)):
        there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
        free = shutil.disk_usage(there).free
        low = free < LOW_DISK_BYTES
        yield Finding(
            area="disk",
            state="warning" if low else "ok",
            text=f"{name} in {folder}, {free / (1 << 30):.1f} GiB free",
            hint="Free some space." if low else "",
        )


def _encoder(settings: Settings) -> Iterator[Finding]:
    name = settings.encoder.encoder
    try:
        source = weights.source_for(name)
        if source.kind == "hub":
            text = f"{name}: {source.place}, downloaded when first needed"
        elif source.kind == "package" and importlib.util.find_spec(source.place) is None:
            weights.locate(source, "")  # says what to install
            return
        else:
            known = source.identity
            text = str(known) if known else f"{name}: folder {source.place}"
        yield Finding(area="encoder", state="ok", text=text)
    except QaserveError as error:
        yield _problem("encoder", error)


def _store(settings: Settings) -> Iterator[Finding]:
    try:
        with open_store(settings.store, "qaserve doctor") as store:
            kind = "embedded" if store.embedded else "server"
            yield Finding(area="Qdrant", state="ok", text=f"{kind}, {store.where}")
            yield from _corpora(settings, store)
    except StoreLockedError as error:  # the usual state while an API serves the folder
        yield Finding(area="Qdrant", state="warning", text=error.message, hint=error.hint)
    except QaserveError as error:
        yield _problem("Qdrant", error)


def _corpora(settings: Settings, store: Store) -> Iterator[Finding]:
    live = store.live_builds()
    if not live:
        yield Finding(
            area="corpus", state="warning", text="none yet", hint="`make run` or `qaserve ingest FILE` makes one."
        )
    for corpus in sorted(live):
        for build in list_builds(store, settings.store.models_dir, corpus):
            if build.live:
                yield _live_build(settings.store.models_dir, build, embedded=store.embedded)
            elif not build.complete:
                yield Finding(
                    area="build",
                    state="warning",
                    text=f"{corpus}@{build.build} was never finished",
                    hint="The next ingest removes it.",
                )


def _live_build(models_dir: Path, build: BuildInfo, *, embedded: bool) -> Finding:
    text = f"{build.corpus}@{build.build}: {build.pairs:,} pairs, {build.clusters} clusters, encoder {build.encoder}"
    try:
        bundles.read(models_dir, build.corpus, build.build)
    except QaserveError as error:
        return _problem("build", error)
    if not build.complete:
        hint = "Ingest the files again: what is missing is put back."
        return Finding(area="build", state="problem", text=f"{text}; pairs are missing", hint=hint)
    if embedded and build.pairs > EMBEDDED_LIMIT:
        hint = "Set QASERVE_QDRANT_URL to a Qdrant server."
        return Finding(area="build", state="warning", text=f"{text}; too many for the embedded Qdrant", hint=hint)
    return Finding(area="build", state="ok", text=text)


def _problem(area: str, error: QaserveError) -> Finding:
    return Finding(area=area, state="problem", text=error.message, hint=error.hint)
