"""`qaserve doctor`."""

import json

import typer
from rich.table import Table
from rich.text import Text

from qaserve.cli.base import Json, app, out
from qaserve.settings import get_settings

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@app.command()
def doctor(*, as_json: Json = False) -> None:
    """Tell what is installed, which encoder, Qdrant and build are used, and what is wrong. Exit code 1 on a problem.

    Example: qaserve doctor --json
    """
    from qaserve.service.doctor import examine

    findings = list(examine(get_settings()))
    problems = any(finding.state == "problem" for finding in findings)
    if as_json:
        print(json.dumps({"ok": not problems, "findings": [finding.model_dump() for finding in findings]}, indent=2))
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        for finding in findings:
            text = f"{finding.text}\n{finding.hint}" if finding.hint else finding.text
            table.add_row(finding.area, Text(finding.state, style=STYLES[finding.state]), Text(text))
        out.print(table)
    if problems:
        raise typer.Exit(1)
