"""A grid's comparisons as a picture, results.svg: each difference on its two intervals, with the bar that it was to reach."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from csasn.report.charts import value_axis
from server.evidence.estimation import Estimate
from server.evidence.summary import ALL, Summary
from server.evidence.tables import words

TEMPLATE = Path(__file__).with_name("comparisons.svg")
LEFT, RIGHT, TOP = 300, 880, 58  # of the plot, in pixels
TITLE_ROW, ROW = 30, 20
WIDEST = 0.3  # differences beyond it are cut off, so that a few wide intervals do not squeeze the others


@dataclass(frozen=True)
class _Row:
    """A difference, or the title of a comparison, which has no value; `top` in pixels."""

    top: int
    name: str
    value: Estimate | None = None
    bar: float | None = None

    def ends(self) -> list[float]:
        """All that is to be seen of it, as far as it is shown."""
        if self.value is None:
            return []
        found = (self.value.mean, *(self.value.over_cases or ()), *(self.value.over_seeds or ()), self.bar)
        return [max(-WIDEST, min(WIDEST, end)) for end in found if end is not None]


def draw_comparisons(summary: Summary) -> str:
    """An SVG with a row for each difference of which something is known; empty where there is none."""
    rows = list(_rows(summary))
    if not rows:
        return ""
    ends = [0.0, *(end for row in rows for end in row.ends())]
    axis = value_axis("difference", (min(ends), max(ends)))

    def x(value: float) -> str:
        """The pixel of a value, at an edge where it lies beyond."""
        share = (value - axis.low) / (axis.high - axis.low)
        return f"{LEFT + min(1.0, max(0.0, share)) * (RIGHT - LEFT):.1f}"

    drawing = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    template = drawing.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(grid=summary.grid, rows=rows, axis=axis, x=x, bottom=rows[-1].top + ROW)


def _rows(summary: Summary) -> Iterator[_Row]:
    top = TOP
    for item in summary.comparisons:
        known = {words(name): (value, item.asked.at_least.get(name)) for name, value in item.differences.items()}
        known |= {f"{words(name)} at equal rare recall": (value, None) for name, value in item.at_equal_rare_recall.items()}
        known = {name: (value, bar) for name, (value, bar) in known.items() if value.mean is not None}
        if known:
            cases = "" if item.asked.cases == ALL else f", cases of {item.asked.cases}"
            number = f"{len(item.seeds)} seed" + "s" * (len(item.seeds) > 1)
            yield _Row(top, f"{item.asked.of} less {item.asked.against}{cases} ({number})")
            top += TITLE_ROW
        for name, (value, bar) in known.items():
            yield _Row(top, name, value, bar)
            top += ROW
