"""Drawing the plots of reports: one look for all, small files, and the same bytes for the same report."""

import importlib.util
from io import BytesIO
from pathlib import Path
from textwrap import fill

from qaserve.common.errors import UsageError
from train.experiments.harness import INSTALL, Plot

WIDTH, HEIGHT, DOTS_PER_INCH = 9.0, 5.0, 100
"""Inches, so that a picture is 900 × 500 pixels."""
TITLE_CHARACTERS = 95
COLOURS = 64
"""Of a picture: enough for a few hues and smooth edges, and a third of the bytes."""
NOTE = "Report"
"""Name of the note in a picture that says which report it was drawn from."""


def check_drawing() -> None:
    """Raise UsageError where plots cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("drawing plots needs matplotlib, which is not installed", hint=INSTALL)


def draw(plot: Plot, path: Path, note: str) -> None:
    """Draw a plot as PNG, 900 pixels wide, under its title, unless it brings one; no date or version is noted.

    The picture is made apart from pyplot, so that no window, backend or style of the process is touched.

    Args:
        plot: What to draw.
        path: Where to.
        note: Which report it is drawn from; `note_of` gives it back.

    Raises:
        OSError: The file cannot be written.
    """
    from matplotlib import style  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    look = {
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#e6e6e6",
        "legend.frameon": False,
    }
    buffer = BytesIO()
    with style.context(["default", look]):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DOTS_PER_INCH, facecolor="white", layout="constrained")
        axes = figure.add_subplot()
        plot.draw(axes)
        if not any(axes.get_title(where) for where in ("left", "center", "right")):
            figure.suptitle(fill(plot.title, TITLE_CHARACTERS), x=0.01, horizontalalignment="left", size=12)
        figure.savefig(buffer, format="png")
    _save(buffer, path, note)


def _save(picture: BytesIO, path: Path, note: str) -> None:
    """Write a picture with a palette of few colours."""
    from PIL import Image  # noqa: PLC0415
    from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415

    notes = PngInfo()
    notes.add_text(NOTE, note)
    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(path, format="PNG", optimize=True, pnginfo=notes)


def note_of(path: Path) -> str | None:
    """Which report a picture was drawn from; None where it is not there or not one of ours."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    try:
        with Image.open(path) as image:
            return image.info.get(NOTE)
    except (FileNotFoundError, UnidentifiedImageError):
        return None
