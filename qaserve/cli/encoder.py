"""`qaserve encoder`."""

import typer

from qaserve.cli.base import Json, app, make_encoder, out
from qaserve.settings import get_settings

EXPORT_HELP = """Export the encoder to ONNX, so that commands start in about a second and without torch.

The first ingest does this by itself. The export is compared with sentence-transformers on fixed texts and refused where
it differs. Needs the extra `train`.

**Examples**

    qaserve encoder export

    QASERVE_ENCODER=mpnet qaserve encoder export --json
"""

commands = typer.Typer(help="The model that turns text into vectors.", no_args_is_help=True)
app.add_typer(commands, name="encoder")


@commands.callback()
def root() -> None:
    """Keep `export` a subcommand."""


@commands.command(help=EXPORT_HELP)
def export(*, as_json: Json = False) -> None:
    """See EXPORT_HELP."""
    manifest = make_encoder(get_settings()).export().manifest
    if as_json:
        print(manifest.model_dump_json(indent=2))
    else:
        out.print(
            f"Exported {manifest.encoder}, opset {manifest.opset}; cosine to torch ≥ {manifest.encoder.agreement}."
        )
