"""What was measured: the reports of experiments; where there are none, those that ship with qaserve."""

from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter

from qaserve.common.errors import NotFoundError, QaserveError
from qaserve.schemas.explore import ReportInfo, ReportList, ReportPicture, ReportTable, ReportView

if TYPE_CHECKING:
    from train.experiments.reports import Measured


PUBLIC = Path(__file__).parents[2] / "train" / "published"
"""Measured on the public corpus."""


def routes(own: Path) -> APIRouter:
    """/v1/reports. `own`: the folder of reports of this server."""
    router = APIRouter(prefix="/v1", tags=["reports"])

    @router.get("/reports")
    def reports() -> ReportList:
        """The experiments that were measured on this server; where there are none, those of the public corpus."""
        folder = _folder(own)
        found, unreadable = _read_all(folder)
        headlines = (one.experiment.headline(one.document.report) for one in found.values())
        return ReportList(
            reports=tuple(_info(folder, measured) for measured in found.values()),
            unreadable=tuple(unreadable),
            headline=next(filter(None, headlines), None),
            public=folder == PUBLIC,
        )

    @router.get("/reports/{name}")
    def report(name: str) -> ReportView:
        """What one experiment found: sentences, tables and plots."""
        folder = _folder(own)
        found, _ = _read_all(folder)
        if name not in found:
            there = ", ".join(found) or "none"
            raise NotFoundError(f"no report {name!r}", hint=f"There are: {there}.")
        return _view(folder, found[name])

    return router


def _folder(own: Path) -> Path:
    """The server's own folder if it holds a report, even a broken one."""
    return own if any(own.glob("*.json")) else PUBLIC


def _read_all(folder: Path) -> tuple[dict[str, "Measured"], list[str]]:
    """Reports by name, and for each file that is none a sentence without its folder."""
    from train.experiments import reports  # noqa: PLC0415 - serving needs no training package until somebody looks
    from train.experiments.registry import EXPERIMENTS  # noqa: PLC0415

    found, unreadable = {}, []
    for name, listed in EXPERIMENTS.items():
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        try:
            found[name] = reports.read(path, listed.load().EXPERIMENT)
        except QaserveError as error:
            unreadable.append(error.message.replace(f"{folder}/", ""))
    return found, unreadable


def _info(folder: Path, measured: "Measured") -> ReportInfo:
    experiment, document = measured
    return ReportInfo(
        name=experiment.name,
        title=experiment.title,
        date=document.provenance.date,
        findings=len(_findings(folder, measured)),
    )


def _findings(folder: Path, measured: "Measured") -> list[str]:
    from train.experiments import results  # noqa: PLC0415

    return results.findings(measured) if folder == PUBLIC else measured.experiment.findings(measured.document.report)


def _view(folder: Path, measured: "Measured") -> ReportView:
    from train.experiments import reports  # noqa: PLC0415

    experiment, document = measured
    origin = document.provenance
    return ReportView(
        name=experiment.name,
        title=experiment.title,
        summary=tuple(experiment.summary(document.report)),
        findings=tuple(_findings(folder, measured)),
        tables=tuple(
            ReportTable(title=table.title, columns=table.columns, rows=table.rows)
            for table in experiment.tables(document.report)
        ),
        pictures=tuple(
            ReportPicture(title=plot.title, png=b64encode((folder / name).read_bytes()).decode())
            for name, plot in reports.pictures(measured)
            if (folder / name).is_file()
        ),
        command=origin.command,
        date=origin.date,
        measured_on=f"{origin.machine.cpu}, {origin.machine.cores} cores",
    )
