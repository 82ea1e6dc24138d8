"""A picture of the images that a model is most and least certain of, for people who would rather look than read."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure, SubFigure

from csasn.finished.prediction import ImagePrediction
from csasn.report.picture import plain, write_figure

COLUMNS = 6


def draw_grid(predictions: Sequence[ImagePrediction], path: Path, notice: str) -> None:
    """Writes a PNG: a row of the most certain images and one of the least certain, each with its decision and probability.

    File names are left out, so that the picture can be shown.
    """
    known = [item for item in predictions if item.prediction is not None and item.square is not None]
    ranked = sorted(known, key=_certainty, reverse=True)
    rows = {"most certain": ranked[:COLUMNS], "least certain": ranked[::-1][:COLUMNS]}
    figure = Figure(figsize=(2.1 * COLUMNS, 5.4), layout="constrained")
    parts: Sequence[SubFigure] = figure.subfigures(2, 1)  # type: ignore[assignment]  # an array, where there are several
    for row, (title, items) in zip(parts, rows.items(), strict=True):
        row.suptitle(title, x=0.01, ha="left")
        for axes, item in zip(row.subplots(1, COLUMNS), [*items, *[None] * (COLUMNS - len(items))], strict=True):
            axes.set_axis_off()
            if item is not None and item.prediction is not None and item.square is not None:
                axes.imshow(item.square, cmap="gray", vmin=0, vmax=255)
                axes.set_title(f"{plain(item.prediction.decision)}, highest p {_certainty(item):.2f}", fontsize=9)
    figure.text(0.99, 0.995, notice, ha="right", va="top", fontsize=8, color="0.4")
    write_figure(figure, path)


def _certainty(item: ImagePrediction) -> float:
    return max(item.prediction.probabilities.values()) if item.prediction else 0.0
