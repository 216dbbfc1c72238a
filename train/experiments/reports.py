"""Reports of experiments on disk: a JSON document with what was found and how, and a picture for every plot."""

import hashlib
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, SerializeAsAny, ValidationError

from qaserve import __version__
from qaserve.common.errors import NotFoundError, UsageError
from qaserve.common.files import written_beside
from qaserve.schemas.record import Record
from train.experiments import plots
from train.experiments.harness import Experiment, Plot, Report

PACKAGES = ("numpy", "torch", "scikit-learn", "qdrant-client", "sentence-transformers")
AND_THEN = "; "
"""Between the commands of a report whose runs were measured one after the other."""
CPU_INFO = Path("/proc/cpuinfo")


class Machine(Record):
    """What the figures were measured on, and nothing that names it."""

    cpu: str
    cores: int
    memory_gb: int | None


class Provenance(Record):
    """How a report came to be."""

    command: str = Field(description="As it can be typed again; files are named without their folders.")
    seeds: tuple[int, ...]
    quick: bool = Field(description="Whether only a part was measured; such a report is never published.")
    versions: dict[str, str]
    machine: Machine
    date: str = Field(description="UTC day on which the measurement ended, in ISO 8601.")
    wall_seconds: float


class Document(Record):
    """The JSON document of a measurement."""

    provenance: Provenance
    report: SerializeAsAny[Report[Any]]


class Measured(NamedTuple):
    """A measurement with the experiment that knows how to show it."""

    experiment: Experiment[Any]
    document: Document


def provenance(command: str, *, seeds: Iterable[int], quick: bool, wall_seconds: float) -> Provenance:
    """Provenance of what was just measured on this machine."""
    versions = {"qaserve": __version__, "python": platform.python_version()}
    return Provenance(
        command=command,
        seeds=tuple(seeds),
        quick=quick,
        versions=versions | {name: metadata.version(name) for name in PACKAGES},
        machine=Machine(cpu=_cpu(), cores=os.cpu_count() or 1, memory_gb=_memory_gb()),
        date=datetime.now(UTC).date().isoformat(),
        wall_seconds=round(wall_seconds, 1),
    )


def _cpu() -> str:
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gb() -> int | None:
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30))


# Documents


def to_json(document: Document) -> str:
    """The document as it is printed and stored."""
    return document.model_dump_json(indent=2) + "\n"


def check_writable(folder: Path, experiment: Experiment[Any], *, quick: bool) -> None:
    """Raise before hours are spent on a report that could then not be written.

    Raises:
        UsageError: A quick report would replace a full one, or nothing can draw.
    """
    plots.check_drawing()
    path = folder / f"{experiment.name}.json"
    if quick and path.is_file() and not read(path, experiment).document.provenance.quick:
        raise UsageError(
            f"{path} holds a full measurement, which a --quick one would replace", hint="Name another folder."
        )


def check_added(folder: Path, experiment: Experiment[Any], *, seeds: Iterable[int], quick: bool) -> None:
    """Raise before hours are spent on runs that cannot stand beside those of the report there.

    Raises:
        UsageError: It saw other seeds, or a part of the data where these see all.
    """
    path = folder / f"{experiment.name}.json"
    if not path.is_file():
        return
    there = read(path, experiment).document.provenance
    for name, was, wanted in (("seeds", there.seeds, tuple(seeds)), ("quick", there.quick, quick)):
        if was != wanted:
            raise UsageError(f"{path} has {name} {was}, not {wanted}", hint=_measure_again(path, experiment))


def added(folder: Path, measured: Measured) -> Measured:
    """The report of a folder with these runs: in place of those of the same name, or after the others."""
    path = folder / f"{measured.experiment.name}.json"
    if not path.is_file():
        return measured
    before, now = read(path, measured.experiment).document, measured.document
    runs = {run.encoder: run for run in (*before.report.runs, *now.report.runs)}
    commands = before.provenance.command.split(AND_THEN)
    seconds = before.provenance.wall_seconds
    if now.provenance.command not in commands:
        commands.append(now.provenance.command)
        seconds += now.provenance.wall_seconds
    told = {"command": AND_THEN.join(commands), "wall_seconds": round(seconds, 1)}
    report = measured.experiment.report(runs=tuple(runs.values()))
    return measured._replace(document=Document(provenance=now.provenance.model_copy(update=told), report=report))


def write(folder: Path, measured: Measured) -> list[Path]:
    """Write `NAME.json`, and draw `NAME-PLOT.png` for every plot. Each file appears whole or not at all.

    Raises:
        StoreWriteError: The folder cannot be written.
        UsageError: matplotlib is not installed.
    """
    path = folder / f"{measured.experiment.name}.json"
    with written_beside(path) as fresh:
        fresh.write_text(to_json(measured.document), encoding="utf-8")
    return [path, *draw(folder, measured)]


def read(path: Path, experiment: Experiment[Any]) -> Measured:
    """Read a report back.

    Raises:
        NotFoundError: The file is not there.
        UsageError: It is not a report of this experiment, or one of an older shape.
    """
    try:
        raw = _Raw.model_validate_json(path.read_bytes())
        report = experiment.report.model_validate(raw.report)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} is not there", hint=_measure_again(path, experiment)) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise UsageError(
            f"{path} is not a report of experiment {experiment.name!r}: {where}: {first['msg']}",
            hint=_measure_again(path, experiment),
        ) from error
    return Measured(experiment, Document(provenance=raw.provenance, report=report))


class _Raw(Record):
    """A document whose report is not looked at yet."""

    provenance: Provenance
    report: dict[str, Any]


def _measure_again(path: Path, experiment: Experiment[Any]) -> str:
    return f"Measure again: qaserve bench {experiment.name} --reports {path.parent}"


# Pictures


def pictures(measured: Measured) -> list[tuple[str, Plot]]:
    """The plots of a report, each with the name of its file."""
    found = measured.experiment.plots(measured.document.report)
    return [(f"{measured.experiment.name}-{plot.name}.png", plot) for plot in found]


def draw(folder: Path, measured: Measured) -> list[Path]:
    """Draw every plot of a report. The same report gives the same bytes with the same matplotlib.

    Raises:
        StoreWriteError: The folder cannot be written.
        UsageError: matplotlib is not installed.
    """
    plots.check_drawing()
    note = digest(measured.document)
    paths = []
    for name, plot in pictures(measured):
        with written_beside(folder / name) as fresh:
            plots.draw(plot, fresh, note)
        paths.append(folder / name)
    return paths


def stale_pictures(folder: Path, measured: Measured) -> list[Path]:
    """Pictures that are missing or were drawn from another report."""
    note = digest(measured.document)
    return [folder / name for name, _ in pictures(measured) if plots.note_of(folder / name) != note]


def digest(document: Document) -> str:
    """SHA-256 of a report without its provenance: what its pictures depend on."""
    return hashlib.sha256(document.report.model_dump_json().encode()).hexdigest()
