"""What is installed and running, and what is wrong with it."""

import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from typing import Literal

from qaserve import __version__
from qaserve.builds import bundle as bundles
from qaserve.builds.catalog import check_complete, list_builds, unfinished
from qaserve.common.errors import NotFoundError, QaserveError
from qaserve.encoders import sources
from qaserve.encoders.onnx import MANIFEST, read_manifest
from qaserve.encoders.serving import export_folder
from qaserve.schemas.builds import BuildInfo
from qaserve.schemas.record import Record
from qaserve.settings import Settings, unknown_variables
from qaserve.store import BuildRef, Store, open_store
from qaserve.store.errors import damaged
from qaserve.store.graphs import RECALL_AT, RECALL_QUESTIONS, recall

PACKAGES = ("qdrant-client", "torch", "sentence-transformers", "numpy", "scikit-learn", "streamlit", "fastapi", "httpx")
LOW_DISK_BYTES = 1 << 30
LOW_RECALL = 0.95

State = Literal["ok", "warning", "problem"]


class Finding(Record):
    """One line of the examination."""

    area: str
    state: State
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
            hint="A typing mistake? docs/settings.md lists the settings.",
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
    name, cache_dir = settings.encoder.encoder, settings.store.data_dir / "encoders"
    try:
        source = sources.source_for(name)
        sources.check_installed(source, str(cache_dir))
        folder = export_folder(source, cache_dir)
        backend = settings.encoder.encoder_backend
        if backend != "torch" and (folder / MANIFEST).exists():
            text = f"{read_manifest(folder, source).encoder}, exported to {folder}"
            text += ", run by OpenVINO" if backend == "openvino" else ""
            yield Finding(area="encoder", state="ok", text=text)
            return
    except QaserveError as error:
        yield _problem("encoder", error)
        return
    if source.kind == "hub":
        text = f"{name}: {source.place}, downloaded when first needed"
    else:
        text = str(source.identity or f"{name}: folder {source.place}")
    if backend != "torch":
        text += "; the first ingest exports it to ONNX"
    yield Finding(area="encoder", state="ok", text=text)


def _store(settings: Settings) -> Iterator[Finding]:
    try:
        with open_store(settings.store) as store:
            kind = "embedded" if store.embedded else "server"
            yield Finding(area="Qdrant", state="ok", text=f"{kind}, {store.where}")
            yield from _corpora(settings, store)
    except QaserveError as error:
        yield _problem("Qdrant", error)


def _corpora(settings: Settings, store: Store) -> Iterator[Finding]:
    corpora = sorted({*store.corpora(), *store.live_builds()})
    if not corpora:
        yield Finding(area="corpus", state="warning", text="none yet", hint=store.how_to_start())
    for corpus in corpora:
        yield from _corpus(settings, store, corpus)


def _corpus(settings: Settings, store: Store, corpus: str) -> Iterator[Finding]:
    yield from _is_live(store, corpus)
    for name in store.unfinished(corpus):
        hint = "The next ingest into this corpus removes it."
        yield Finding(area="build", state="warning", text=f"{corpus}@{name} was never finished", hint=hint)
    listed = list_builds(store, settings.store.models_dir, corpus)
    for name in sorted(set(store.names(corpus)) - {build.build for build in listed}):
        try:
            store.metadata(BuildRef(corpus, name))
        except QaserveError as error:
            yield _problem("build", error)
    marked = unfinished(settings.store.models_dir, corpus)
    for build in listed:
        if build.live:
            yield _live_build(settings, store, build)
            yield from _graphs(store, build)
        elif not build.complete:
            yield from _incomplete(store, settings, build, interrupted=build.build in marked)


def _is_live(store: Store, corpus: str) -> Iterator[Finding]:
    """What is wrong where a corpus has no live build, or names one that is not there."""
    try:
        live = store.live(corpus)
    except NotFoundError as error:
        yield _problem("corpus", error)
        return
    if live.build not in store.names(corpus):
        yield _problem("build", damaged(live, f"it is live, and it is not in {store.where}"))


def _incomplete(store: Store, settings: Settings, build: BuildInfo, *, interrupted: bool) -> Iterator[Finding]:
    name = f"{build.corpus}@{build.build}"
    if interrupted:
        hint = "The next ingest into this corpus removes it."
        yield Finding(area="build", state="warning", text=f"{name} was never finished", hint=hint)
        return
    try:
        check_complete(store, settings.store.models_dir, store.metadata(BuildRef(build.corpus, build.build)))
    except QaserveError as error:
        hint = "It is kept. Ingesting the same files completes it; `qaserve builds prune` may delete it."
        yield Finding(area="build", state="warning", text=error.message, hint=hint)


def _live_build(settings: Settings, store: Store, build: BuildInfo) -> Finding:
    text = f"{build.corpus}@{build.build}: {build.pairs:,} pairs, {build.clusters} clusters, encoder {build.encoder}"
    try:
        ref = BuildRef(build.corpus, build.build)
        bundles.read(settings.store.models_dir, ref)
        check_complete(store, settings.store.models_dir, store.metadata(ref))
        encoder = sources.source_for(settings.encoder.encoder).name
    except QaserveError as error:
        return _problem("build", error)
    state: State = "ok"
    hint = ""
    if build.encoder != encoder:
        state, hint = "problem", f"QASERVE_ENCODER is {encoder}: set it to that of {build.encoder}."
    return Finding(area="build", state=state, text=text, hint=hint)


def _graphs(store: Store, build: BuildInfo) -> Iterator[Finding]:
    try:
        found = recall(store.open(BuildRef(build.corpus, build.build)))
    except QaserveError:
        return  # what is wrong with the build is said already
    if found is not None:
        low = found < LOW_RECALL
        yield Finding(
            area="build",
            state="warning" if low else "ok",
            text=f"{build.corpus}@{build.build}: a search by HNSW graphs finds {found:.1%} of the {RECALL_AT} nearest "
            f"questions, over {RECALL_QUESTIONS} of its own",
            hint="A larger QASERVE_HNSW_PAIRS lets the next ingest search exactly." if low and store.embedded else "",
        )


def _problem(area: str, error: QaserveError) -> Finding:
    return Finding(area=area, state="problem", text=error.message, hint=error.hint)
