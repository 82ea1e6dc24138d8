"""Charts as inline SVG, by templates/chart.html. Colours are variables of the page's style, so that dark mode and print work.

Lines differ by colour, dash and shape of their marks. Each element that shows a value carries the `data-key` of where it comes
from, and a plot in `data-frame` the values and pixels of its edges, so that a test can read the values back.
"""

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from markupsafe import Markup

from csasn.report.charts import Axis, Chart, Line, LineChart
from csasn.report.rendering import render

WIDTH, HEIGHT = 360, 232
LEFT, RIGHT, TOP, BOTTOM = 50, 348, 10, 192
ROW_HEIGHT = 34
DIGIT = 6.6  # the width of one in pixels, at most
NUM_COLOURS = 6  # --c0 to --c5
DASHES = ("", "6 3", "2 2", "8 3 2 3")
SHAPES = (
    "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z",  # disc
    "M-2.7 -2.7h5.4v5.4h-5.4z",  # square
    "M0 -3.8L3.8 0L0 3.8L-3.8 0z",  # diamond
    "M0 -3.6L3.5 2.7L-3.5 2.7z",  # triangle
)
MAX_MARKS = 60  # of a line, at most; more would hide it
MAX_NAME = 48  # characters that fit into a row


class Mark(NamedTuple):
    """Where a point is drawn, how large, the path of its value, and what is shown when a pointer rests on it."""

    place: str
    scale: str
    key: str
    text: str


def draw(charts: Sequence[Chart]) -> list[Markup]:
    """Each chart as a figure of HTML."""
    return [Markup(_figure(chart)) for chart in charts]  # noqa: S704 - the template escapes what it shows


def _figure(chart: Chart) -> str:
    bottom = BOTTOM if isinstance(chart, LineChart) else TOP + ROW_HEIGHT * len(chart.rows)
    return render(
        "chart.html",
        chart=chart,
        width=WIDTH,
        height=HEIGHT if isinstance(chart, LineChart) else bottom + 38,
        left=LEFT,
        right=RIGHT,
        top=TOP,
        bottom=bottom,
        row_height=ROW_HEIGHT,
        place=_place,
        anchor=_anchor,
        path=_path,
        marks=_marks,
        colour=_colour,
        stroke=_stroke,
        shape=lambda style: SHAPES[style % len(SHAPES)],
        shortened=lambda name: name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…",
    )


def _place(value: float, axis: Axis, start: float, end: float) -> str:
    """The pixel of a value on an axis between two pixels."""
    return f"{start + (value - axis.low) / (axis.high - axis.low) * (end - start):.1f}"


def _anchor(place: str, tick: float) -> str:
    """A number at the edge ends there, so that none is cut off."""
    return "end" if float(place) + DIGIT / 2 * len(f"{tick:g}") > WIDTH else "middle"


def _path(line: Line, x: Axis, y: Axis) -> str:
    """The line through the points, interrupted where there is none."""
    path, drawing = [], False
    for value, height in line.points:
        if height is not None:
            path.append(f"{'L' if drawing else 'M'}{_place(value, x, LEFT, RIGHT)} {_place(height, y, BOTTOM, TOP)}")
        drawing = height is not None
    return "".join(path)


def _marks(line: Line, x: Axis, y: Axis) -> list[Mark]:
    largest = max(line.sizes, default=1)
    marks = []
    for number in range(0, len(line.point_keys), ceil(len(line.points) / MAX_MARKS)):
        value, height = line.points[number]
        if height is not None:
            scale = f" scale({0.7 + 1.5 * (line.sizes[number] / largest) ** 0.5:.2f})" if line.sizes else ""
            place = f"{_place(value, x, LEFT, RIGHT)} {_place(height, y, BOTTOM, TOP)}"
            marks.append(Mark(place, scale, line.point_keys[number], line.texts[number]))
    return marks


def _stroke(style: int) -> Markup:
    """As attributes, which a page without inline styles may have."""
    dash = DASHES[style // NUM_COLOURS % len(DASHES)]
    return Markup('stroke="{}"').format(_colour(style)) + (Markup(' stroke-dasharray="{}"').format(dash) if dash else "")


def _colour(style: int) -> str:
    return f"var(--c{style % NUM_COLOURS})"
