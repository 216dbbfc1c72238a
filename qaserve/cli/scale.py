"""`qaserve bench scale`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from qaserve.cli.base import Json, err, out
from qaserve.cli.bench import bench_app
from qaserve.common.progress import Bars
from qaserve.settings import get_settings

SCALE_HELP = """Ingest many synthetic pairs into an empty folder, and show the time of every stage and the memory.

The pairs are clustered like real ones, and an encoder that costs almost nothing stands in for a model. A run measures
one size, since memory is that of the whole process.

**Examples**

    qaserve bench scale --pairs 10000

    qaserve bench scale --pairs 100000 --json
"""
MIB = 1 << 20


@bench_app.command(help=SCALE_HELP)
def scale(
    *,
    pairs: Annotated[int, typer.Option(min=20, max=10_000_000, help="How many.")] = 10_000,
    dimension: Annotated[int, typer.Option(min=8, max=4_096, help="D of the vectors.")] = 384,
    again: Annotated[
        bool, typer.Option(help="Ingest the same file a second time, and a third time with ten new pairs.")
    ] = True,
    as_json: Json = False,
) -> None:
    """See SCALE_HELP."""
    from train.experiments import scale as scale_experiment

    with tempfile.TemporaryDirectory(prefix="qaserve-scale-") as folder:
        report = scale_experiment.run(pairs, Path(folder), get_settings().fit, dimension, Bars(err), again=again)
    if as_json:
        print(report.model_dump_json(indent=2))
        return
    out.print(f"{report.pairs:,} pairs of D {report.dimension} in {report.clusters} clusters: {report.seconds:.1f} s")
    for stage, seconds in report.stages.items():
        out.print(f"  {stage:<10} {seconds:9.2f} s")
    out.print(f"Written per second, by tenth: {', '.join(f'{rate:,.0f}' for rate in report.write_rates)}")
    grown = (report.peak_bytes - report.start_bytes) / report.pairs / 1024
    out.print(f"Peak memory {report.peak_bytes / MIB:,.0f} MiB, {grown:.1f} KiB for each pair")
    if report.unchanged_seconds is not None:
        out.print(
            f"The same file again {report.unchanged_seconds:.1f} s; with ten new pairs {report.added_seconds:.1f} s"
        )
    out.print(f"On disk {report.disk_bytes / MIB:,.0f} MiB, opened in {report.open_seconds:.2f} s")
    if report.recall is not None:
        out.print(f"HNSW graphs find {report.recall:.1%} of the exact nearest questions")
    out.print(f"A question {report.ask_ms} ms, one in a hundred {report.ask_p99_ms} ms; encoding left out")
