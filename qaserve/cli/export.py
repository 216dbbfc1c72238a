"""`qaserve export`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from qaserve.cli.base import app, corpus_to_ask, say_data_folder
from qaserve.settings import get_settings

EXPORT_HELP = """Write the live pairs as JSON Lines, CSV or Parquet, each with its cluster, skill and build.

`qaserve ingest` reads the file again and makes the same pairs of it: the columns `qaserve_…` are understood. In CSV a
cell that a spreadsheet would take for a formula begins with `'`, which is taken away again when the file is read.

`--vectors` writes `question`, `answer` and `topic`, (n, D) float32, in the order of the pairs, and `id`, (n, 16) bytes.

**Examples**

    qaserve export > pairs.jsonl

    qaserve export --out faq.csv

    qaserve export --out faq.parquet --vectors vectors.safetensors --json
"""


@app.command(help=EXPORT_HELP)
def export(
    *,
    to: Annotated[
        Path | None,
        typer.Option("--out", help="File to write: .jsonl, .csv or .parquet. Without it: JSON Lines, on stdout."),
    ] = None,
    vectors: Annotated[Path | None, typer.Option(help="File for the vectors: .safetensors or .npz.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --out: say what was written as JSON.")] = False,
) -> None:
    """See EXPORT_HELP."""
    from ingest.export import check_suffixes, export_pairs, export_vectors, json_lines
    from ingest.spool import scratch_folder
    from qaserve.common.errors import UsageError
    from qaserve.store import open_store

    if as_json and to is None:
        raise UsageError("--json needs --out: without it stdout is the export", hint="Add --out FILE.")
    check_suffixes(to, vectors)
    settings = get_settings()
    say_data_folder(settings)
    with open_store(settings.store, read_only=True) as store:
        build = store.open(store.live(corpus_to_ask(settings, store)))
        if vectors is not None:
            export_vectors(build, vectors, scratch_folder(settings.store.models_dir))
        if to is None:
            sys.stdout.writelines(json_lines(build))
            return
        export_pairs(build, to)
    said = {
        "corpus": build.metadata.corpus,
        "build": build.metadata.build,
        "file": str(to),
        "pairs": build.metadata.pairs,
    }
    if as_json:
        print(json.dumps(said | {"vectors": None if vectors is None else str(vectors)}))
    else:
        print(f"{to}: {build.metadata.pairs:,} pairs of corpus {said['corpus']}, build {said['build']}.")
