"""A picture of one prediction: the image, where the model looked, and how probable it holds each class."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from csasn.finished.saliency import Floats, Saliency
from csasn.finished.weights import Prediction
from csasn.report.picture import plain, write_figure

DECIDED, OTHER = "#1f5fa8", "0.72"
HEAT, MOST_OPAQUE = "inferno", 0.75
EFFICIENTNET, VIT = ("EfficientNet", 32), ("ViT", 16)  # branches, and the pixels that a cell of their map stands for
MAX_CLASSES, MAX_NAME = 12, 22  # bars, and characters of a name; more would not be read


def draw_saliency(square: NDArray[np.uint8], saliency: Saliency, prediction: Prediction, path: Path, notice: str) -> None:
    """Writes a PNG. Nothing in it tells the file or the case, so that it can be shown."""
    figure = Figure(figsize=(13.2, 4.1), layout="constrained")
    image, gradcam, rollout, bars = figure.subplots(1, 4, width_ratios=(1, 1, 1, 0.9))
    _draw_image(image, square, "image as the model sees it")
    _draw_map(gradcam, square, saliency.gradcam, "Grad-CAM for the decision", EFFICIENTNET)
    _draw_map(rollout, square, saliency.rollout, "attention rollout", VIT)
    _draw_probabilities(bars, prediction)
    figure.suptitle(f"decided for {_name(prediction.decision)}", x=0.01, ha="left", fontsize=13)
    figure.text(0.99, 0.985, notice, ha="right", va="top", fontsize=9, color="0.35")
    write_figure(figure, path)


def _draw_image(axes: Axes, square: NDArray[np.uint8], title: str) -> None:
    axes.imshow(square, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)


def _draw_map(axes: Axes, square: NDArray[np.uint8], saliency: Floats | None, title: str, kind: tuple[str, int]) -> None:
    """The map over the image, clear where it is weakest. How weak that is stands below, since a flat map looks lively too."""
    _draw_image(axes, square, title)
    branch, cell_px = kind
    if saliency is None:
        note = f"this model has no {branch} branch"
    elif not saliency.any():
        note = "blank: nothing speaks for this class"
    else:
        lowest = float(saliency.min())
        height = (saliency - lowest) / max(1 - lowest, 1e-9)
        heat = colormaps[HEAT](height)
        heat[..., 3] = MOST_OPAQUE * height
        axes.imshow(heat)
        cells = -(-len(square) // cell_px)
        note = f"{cells} x {cells} cells; weakest {lowest:.0%} of the strongest"
    axes.text(0.5, -0.03, note, transform=axes.transAxes, ha="center", va="top", fontsize=9, color="0.35")


def _draw_probabilities(axes: Axes, prediction: Prediction) -> None:
    ranked = sorted(prediction.probabilities, key=lambda name: (prediction.probabilities[name], name), reverse=True)
    first = ranked[:MAX_CLASSES]
    names = first if prediction.decision in first else [*first[:-1], prediction.decision]
    values = [prediction.probabilities[name] for name in names]
    axes.barh(range(len(names)), values, color=[DECIDED if name == prediction.decision else OTHER for name in names])
    for row, value in enumerate(values):
        inside = value > 0.8
        axes.text(
            value + (-0.02 if inside else 0.02),
            row,
            f"{value:.3f}",
            ha="right" if inside else "left",
            va="center",
            fontsize=10,
            color="white" if inside else "black",
        )
    axes.set_yticks(range(len(names)), [_name(name) for name in names])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), title="probability")
    axes.title.set_fontsize(10)
    axes.spines[["top", "right"]].set_visible(False)


def _name(name: str) -> str:
    """A class's name, short enough."""
    short = name if len(name) <= MAX_NAME else name[: MAX_NAME - 3] + "..."
    return plain(short)
