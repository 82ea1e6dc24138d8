"""What every picture by matplotlib shares: how it is written, its colours, and text that is no formula."""

import warnings
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from csasn.platform.storage import write_atomically

COLOURS = ("#1b7f79", "#c8553d", "#7d5ba6", "#d9a21b", "#4c6e91", "#8a8d3f", "#b04a7a", "#5a5a5a")
DPI = 110


def plot_style() -> AbstractContextManager[None]:
    """Within it, plots have small text and axes on two sides alone."""
    return mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})


def write_figure(figure: Figure, path: Path, mode: int = 0o600, dpi: int = DPI) -> None:
    """Writes a PNG, by default for its owner alone.

    Raises:
        StorageError: it cannot be written.
    """
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of names in other scripts than the font's
        figure.savefig(buffer, format="png", dpi=dpi)
    write_atomically(path, buffer.getvalue(), mode)


def plain(text: str) -> str:
    """Text of which matplotlib reads nothing as mathematics."""
    return text.replace("$", r"\$")
