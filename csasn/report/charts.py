"""What a chart shows, whether it is drawn in a page (svg.py) or in a picture (curves.py): axes, lines and rows of values."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

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


@dataclass(frozen=True)
class LineChart:
    """Lines in one plot, the first of them on top. `description` says what a person who cannot see it should know; `reference` is
    "diagonal" or a height, such as "1", for a thin line to compare with."""

    title: str
    description: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    reference: str = ""


@dataclass(frozen=True)
class RowChart:
    """A row for each value, on one axis: its name, and below it a mark on its interval, or a bar that ends in a mark.
    `reference` is where a thin line goes through all rows, to compare with."""

    title: str
    description: str
    axis: Axis
    rows: Sequence[IntervalRow | BarRow]
    reference: float | None = None


Chart = LineChart | RowChart


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


def _step(least: float, factors: Sequence[float] = (1, 2, 2.5, 5, 10)) -> float:
    """The smallest of the factors times a power of ten that is not below `least`, which is above 0."""
    power = 10.0 ** floor(log10(least))
    return next(factor * power for factor in factors if factor * power >= least * 0.999)
