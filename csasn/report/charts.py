"""Charts as inline SVG: pure functions of numbers. Colours are variables of the page's style, so that dark mode and print work.

Lines differ by colour, dash and shape of their marks. Each element that shows a value carries the `data-key` of where it comes
from, and a plot in `data-frame` the values and pixels of its edges, so that a test can read the values back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from markupsafe import Markup

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
RESOLUTION = 1e-4  # of values that an axis tells apart: what differs by less, as by rounding, is shown as equal


@dataclass(frozen=True)
class Axis:
    """What an axis shows, from where to where, and the values at its ticks."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]


@dataclass(frozen=True)
class Line:
    """A line through points (x, y), interrupted where y is None.

    `key` is the path of all its values and `point_keys` those of each; `texts` are shown when a pointer rests on a mark. `sizes`
    are the areas of the marks in relation to each other, all alike where there are none. `style` chooses colour, dash and shape.
    """

    name: str
    key: str
    points: tuple[tuple[float, float | None], ...]
    style: int = 0
    point_keys: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    sizes: tuple[float, ...] = ()
    muted: bool = False


@dataclass(frozen=True)
class IntervalRow:
    """A value and, where it is known, its interval, with the paths of both."""

    name: str
    value: float | None
    key: str
    interval: tuple[float, float] | None
    interval_key: str
    strong: bool


@dataclass(frozen=True)
class BarRow:
    """A count, None where it is not shown, and what stands beside its bar; with the paths of its name and of the count."""

    name: str
    name_key: str
    value: float | None
    key: str
    note: str = ""


def share_axis(label: str) -> Axis:
    """An axis from 0 to 1."""
    return Axis(label, 0, 1, (0, 0.25, 0.5, 0.75, 1))


def rounds_axis(rounds: Sequence[float]) -> Axis:
    """An axis of whole rounds."""
    low, high = min(rounds), max(rounds)
    step = _step(max(1, (high - low) / 6), (1, 2, 5, 10))
    ticks = tuple(low + step * number for number in range(int((high - low) // step) + 1))
    return Axis("round", low - 0.5, high + 0.5, ticks)


def value_axis(label: str, values: Sequence[float], low: float | None = None) -> Axis:
    """An axis with round values around those given; `low` fixes its lower end."""
    least, most = (min(values) if low is None else low), max(values)
    span, size = most - least, max(abs(least), abs(most))
    step = _step((span if span > RESOLUTION * size else size or 1) / 4)
    first, last = floor(least / step), max(ceil(most / step), floor(least / step) + 1)
    ticks = tuple(float(f"{number * step:.10g}") for number in range(first, last + 1))
    return Axis(label, ticks[0], ticks[-1], ticks)


def line_chart(title: str, description: str, x: Axis, y: Axis, lines: Sequence[Line], reference: str = "") -> Markup:
    """A figure with a plot of lines and, where there are several, their names beneath.

    Args:
        title: above the plot.
        description: what a person who cannot see it should know.
        x: the horizontal axis.
        y: the vertical axis.
        lines: in the order of their names; the first is drawn on top.
        reference: "diagonal" or a height, such as "1", for a thin line to compare with.
    """
    body = Markup().join(_line(line, x, y) for line in reversed(lines))
    plot = Markup('<g class="plot" data-frame="{}">{}{}{}</g>').format(_frame(x, y), _axes(x, y), _reference(reference, y), body)
    return _figure(title, description, HEIGHT, plot, _legend(lines) if len(lines) > 1 else Markup())


def interval_chart(title: str, description: str, axis: Axis, rows: Sequence[IntervalRow]) -> Markup:
    """A figure with a row for each value: its name, and below it the value as a mark on its interval as a bar."""
    bottom = TOP + ROW_HEIGHT * len(rows)
    body = Markup().join(_interval_row(row, axis, TOP + ROW_HEIGHT * number) for number, row in enumerate(rows))
    frame = f"{axis.low:g} {axis.high:g} 0 1 {TOP} {RIGHT} 0 1"
    plot = Markup('<g class="plot" data-frame="{}">{}{}</g>').format(frame, _bottom_axis(axis, TOP, TOP, bottom), body)
    return _figure(title, description, bottom + 38, plot, Markup())


def bar_chart(title: str, description: str, axis: Axis, rows: Sequence[BarRow]) -> Markup:
    """A figure with a bar for each count: its name, and below it the bar, which ends in a mark; a note where there is none."""
    bottom = TOP + ROW_HEIGHT * len(rows)
    body = Markup().join(_bar_row(row, axis, TOP + ROW_HEIGHT * number) for number, row in enumerate(rows))
    frame = f"{axis.low:g} {axis.high:g} 0 1 {TOP} {RIGHT} 0 1"
    plot = Markup('<g class="plot" data-frame="{}">{}{}</g>').format(frame, _bottom_axis(axis, TOP, TOP, bottom), body)
    return _figure(title, description, bottom + 38, plot, Markup())


def _figure(title: str, description: str, height: int, plot: Markup, legend: Markup) -> Markup:
    return Markup(
        '<figure><figcaption>{}</figcaption><svg viewBox="0 0 {} {}" role="img"><title>{}</title><desc>{}</desc>{}</svg>{}</figure>'
    ).format(title, WIDTH, height, title, description, plot, legend)


def _frame(x: Axis, y: Axis) -> str:
    return f"{x.low:g} {x.high:g} {y.low:g} {y.high:g} {LEFT} {RIGHT} {BOTTOM} {TOP}"


def _place(value: float, axis: Axis, start: float, end: float) -> float:
    """The pixel of a value on an axis between two pixels."""
    return start + (value - axis.low) / (axis.high - axis.low) * (end - start)


def _axes(x: Axis, y: Axis) -> Markup:
    lines = [_bottom_axis(x, LEFT, TOP, BOTTOM)]
    for tick in y.ticks:
        height = f"{_place(tick, y, BOTTOM, TOP):.1f}"
        lines.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(LEFT, height, RIGHT))
        lines.append(Markup('<text class="tick" x="{}" y="{}" dy=".35em" text-anchor="end">{:g}</text>').format(
            LEFT - 5, height, tick))  # fmt: skip
    middle = (TOP + BOTTOM) / 2
    lines.append(Markup('<text class="label" transform="translate(11 {:g}) rotate(-90)" text-anchor="middle">{}</text>').format(
        middle, y.label))  # fmt: skip
    return Markup().join(lines)


def _bottom_axis(axis: Axis, left: float, top: float, bottom: float) -> Markup:
    lines = [Markup('<path class="axis" d="M{:g} {:g}H{:g}"/>').format(left, bottom, RIGHT)]
    for tick in axis.ticks:
        place = f"{_place(tick, axis, left, RIGHT):.1f}"
        lines.append(Markup('<path class="grid" d="M{} {:g}V{:g}"/>').format(place, top, bottom))
        anchor = "end" if float(place) + DIGIT / 2 * len(f"{tick:g}") > WIDTH else "middle"
        text = Markup('<text class="tick" x="{}" y="{:g}" text-anchor="{}">{:g}</text>')
        lines.append(text.format(place, bottom + 15, anchor, tick))
    middle = (left + RIGHT) / 2
    lines.append(
        Markup('<text class="label" x="{:g}" y="{:g}" text-anchor="middle">{}</text>').format(middle, bottom + 33, axis.label)
    )
    return Markup().join(lines)


def _reference(reference: str, y: Axis) -> Markup:
    if not reference:
        return Markup()
    ends = (y.low, y.high) if reference == "diagonal" else (float(reference), float(reference))
    heights = [_place(end, y, BOTTOM, TOP) for end in ends]
    return Markup('<path class="reference" d="M{} {:.1f}L{} {:.1f}"/>').format(LEFT, heights[0], RIGHT, heights[1])


def _line(line: Line, x: Axis, y: Axis) -> Markup:
    places = [
        None if height is None else (_place(value, x, LEFT, RIGHT), _place(height, y, BOTTOM, TOP)) for value, height in line.points
    ]
    path, drawing = [], False
    for place in places:
        if place is not None:
            path.append(f"{'L' if drawing else 'M'}{place[0]:.1f} {place[1]:.1f}")
        drawing = place is not None
    drawn = Markup('<path class="line{}" style="{}" data-key="{}" d="{}"/>').format(
        " muted" if line.muted else "", _stroke(line.style), line.key, "".join(path)
    )
    return drawn + _marks(line, places)


def _marks(line: Line, places: Sequence[tuple[float, float] | None]) -> Markup:
    largest = max(line.sizes, default=1)
    marks = []
    for number in range(0, len(line.point_keys), ceil(len(places) / MAX_MARKS)):
        place = places[number]
        if place is not None:
            scale = f" scale({0.7 + 1.5 * (line.sizes[number] / largest) ** 0.5:.2f})" if line.sizes else ""
            opening = Markup('<path class="mark" style="fill:{}" data-key="{}" transform="translate({:.1f} {:.1f}){}" d="{}">')
            shape = opening.format(_colour(line.style), line.point_keys[number], *place, scale, SHAPES[line.style % len(SHAPES)])
            marks.append(shape + Markup("<title>{}</title></path>").format(line.texts[number]))
    return Markup().join(marks)


def _interval_row(row: IntervalRow, axis: Axis, top: float) -> Markup:
    kind = "strong" if row.strong else "weak"
    parts = [
        Markup('<path class="grid" d="M{} {:g}H{}"/>').format(TOP, top + 23, RIGHT),
        Markup('<text class="name {}" x="{}" y="{:g}">{}</text>').format(kind, TOP, top + 13, _shortened(row.name)),
    ]
    if row.interval is not None:
        low, high = (_place(end, axis, TOP, RIGHT) for end in row.interval)
        parts.append(Markup('<path class="bar {}" data-key="{}" d="M{:.1f} {:g}L{:.1f} {:g}"/>').format(
            kind, row.interval_key, low, top + 23, high, top + 23))  # fmt: skip
    if row.value is not None:
        parts.append(
            Markup('<path class="dot {}" data-key="{}" transform="translate({:.1f} {:g}) scale(1.4)" d="{}"/>').format(
                kind, row.key, _place(row.value, axis, TOP, RIGHT), top + 23, SHAPES[0 if row.strong else 2]
            )
        )
    return Markup().join(parts)


def _bar_row(row: BarRow, axis: Axis, top: float) -> Markup:
    names = Markup('<text class="name" x="{}" y="{:g}" data-key="{}">{}</text>').format(
        TOP, top + 13, row.name_key, _shortened(row.name)
    )
    if row.note:
        names += Markup('<text x="{}" y="{:g}" text-anchor="end">{}</text>').format(RIGHT, top + 13, row.note)
    if row.value is None:
        return names
    end = _place(row.value, axis, TOP, RIGHT)
    bar = Markup('<path class="bar strong" d="M{:g} {:g}H{:.1f}"/>').format(TOP, top + 23, end)
    mark = Markup('<path class="dot strong" data-key="{}" transform="translate({:.1f} {:g}) scale(1.4)" d="{}"/>')
    return names + bar + mark.format(row.key, end, top + 23, SHAPES[0])


def _legend(lines: Sequence[Line]) -> Markup:
    names = [
        Markup(
            '<li><svg viewBox="0 0 26 10" aria-hidden="true"><path class="line{}" style="{}" d="M1 5H25"/>{}</svg>{}</li>'
        ).format(" muted" if line.muted else "", _stroke(line.style), _sample(line), line.name)
        for line in lines
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup().join(names))


def _sample(line: Line) -> Markup:
    if not line.point_keys:
        return Markup()
    shape = SHAPES[line.style % len(SHAPES)]
    return Markup('<path class="mark" style="fill:{}" transform="translate(13 5)" d="{}"/>').format(_colour(line.style), shape)


def _shortened(name: str, length: int = 48) -> str:
    """A name that fits into a row of a chart."""
    return name if len(name) <= length else name[: length - 1] + "…"


def _stroke(style: int) -> str:
    dash = DASHES[style // NUM_COLOURS % len(DASHES)]
    return f"stroke:{_colour(style)}" + (f";stroke-dasharray:{dash}" if dash else "")


def _colour(style: int) -> str:
    return f"var(--c{style % NUM_COLOURS})"


def _step(least: float, factors: Sequence[float] = (1, 2, 2.5, 5, 10)) -> float:
    """The smallest of the factors times a power of ten that is not below `least`, which is above 0."""
    power = 10.0 ** floor(log10(least))
    return next(factor * power for factor in factors if factor * power >= least * 0.999)
