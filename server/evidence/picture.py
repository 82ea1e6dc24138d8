"""A grid's comparisons as a picture, results.svg: each difference on its two intervals, with the bar that it was to reach."""

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from csasn.report.charts import Axis, value_axis
from server.evidence.estimation import Estimate
from server.evidence.summary import ALL, Summary
from server.evidence.tables import words

WIDTH, LEFT, RIGHT = 900, 300, 880
TITLE_ROW, ROW, HEAD, FOOT = 30, 20, 58, 30
WIDEST = 0.3  # differences beyond it are cut off, so that a few wide intervals do not squeeze the others
STYLE = Markup("""
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; fill: #1c2126; }
.paper { fill: #ffffff; } .soft { fill: #59636e; } .title { font-weight: 600; }
.grid { stroke: #e4e8ec; } .zero { stroke: #59636e; } path { fill: none; }
.cases { stroke: #0072b2; stroke-width: 6; } .seeds { stroke: #0072b2; stroke-width: 1.5; }
.bar { stroke: #c7500a; stroke-width: 2.5; } circle { fill: #ffffff; stroke: #0072b2; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e8ec; } .paper { fill: #14181c; } .soft { fill: #a3aebb; } .grid { stroke: #2a323a; } .zero { stroke: #a3aebb; }
  .cases, .seeds { stroke: #56b4e9; } .bar { stroke: #f08a4b; } circle { fill: #14181c; stroke: #56b4e9; }
}
""")
LEGEND = Markup(
    "<circle cx='12' cy='-4' r='4'/><text x='26'>mean over seeds</text>"
    "<path class='cases' d='M170 -4h34'/><text x='212'>95 % over test cases</text>"
    "<path class='seeds' d='M370 -4h34'/><text x='412'>95 % over seeds</text>"
    "<path class='bar' d='M545 -11v14'/><text x='555'>bar, set beforehand</text>"
)


@dataclass(frozen=True)
class _Row:
    name: str
    value: Estimate | None = None  # None is the title of a comparison
    bar: float | None = None


def draw_comparisons(summary: Summary) -> Markup:
    """An SVG with a row for each difference of which something is known; empty where there is none."""
    rows = list(_rows(summary))
    if not rows:
        return Markup()
    ends = [0.0]
    for row in rows:
        shown = [row.value.mean, *(row.value.over_cases or ()), *(row.value.over_seeds or ())] if row.value else []
        ends += [max(-WIDEST, min(WIDEST, end)) for end in (*shown, row.bar) if end is not None]
    axis = value_axis("difference", (min(ends), max(ends)))
    body, top = Markup(), HEAD
    for row in rows:
        body += _drawn(row, axis, top)
        top += ROW if row.value else TITLE_ROW
    return Markup(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' width='{0}' height='{1}' role='img'>"
        "<title>{2}: differences with intervals</title><style>{3}</style><rect class='paper' width='{0}' height='{1}'/>"
        "<g transform='translate(12 26)'>{4}</g>{5}{6}</svg>\n"
    ).format(WIDTH, top + FOOT, summary.grid, STYLE, LEGEND, _axis(axis, top), body)


def _rows(summary: Summary) -> Iterator[_Row]:
    for item in summary.comparisons:
        known = {name: value for name, value in item.differences.items() if value.mean is not None}
        if known:
            cases = "" if item.asked.cases == ALL else f", cases of {item.asked.cases}"
            number = f"{len(item.seeds)} seed" + "s" * (len(item.seeds) > 1)
            yield _Row(f"{item.asked.of} less {item.asked.against}{cases} ({number})")
        for name, value in known.items():
            yield _Row(words(name), value, item.asked.at_least.get(name))
        for name, value in item.at_equal_rare_recall.items():
            yield _Row(f"{words(name)} at equal rare recall", value)


def _axis(axis: Axis, bottom: float) -> Markup:
    lines = Markup()
    for tick in axis.ticks:
        x, kind = _place(tick, axis), "grid" if tick else "zero"
        lines += Markup("<path class='{}' d='M{:.1f} {}V{:g}'/>").format(kind, x, HEAD, bottom)
        lines += Markup("<text class='soft' x='{:.1f}' y='{:g}' text-anchor='middle'>{}</text>").format(
            x, bottom + 18, f"{tick:+g}" if tick else "0"
        )
    return lines


def _drawn(row: _Row, axis: Axis, top: float) -> Markup:
    if row.value is None:
        return Markup("<text class='title' x='12' y='{:g}'>{}</text>").format(top + 22, row.name)
    middle = top + ROW / 2
    parts = [Markup("<text class='soft' x='{}' y='{:g}' text-anchor='end'>{}</text>").format(LEFT - 12, middle + 4, row.name)]
    for kind, interval in (("seeds", row.value.over_seeds), ("cases", row.value.over_cases)):
        if interval is not None:
            low, high = (_place(end, axis) for end in interval)
            parts.append(Markup("<path class='{}' d='M{:.1f} {:g}H{:.1f}'/>").format(kind, low, middle, high))
            if interval[0] < axis.low:
                parts.append(Markup("<path class='seeds' d='M{:.1f} {:g}l-6 6l6 6'/>").format(low, middle - 6))
            if interval[1] > axis.high:
                parts.append(Markup("<path class='seeds' d='M{:.1f} {:g}l6 6l-6 6'/>").format(high, middle - 6))
    if row.bar is not None:
        parts.append(Markup("<path class='bar' d='M{:.1f} {:g}v16'/>").format(_place(row.bar, axis), middle - 8))
    if row.value.mean is not None:
        parts.append(Markup("<circle cx='{:.1f}' cy='{:g}' r='4'/>").format(_place(row.value.mean, axis), middle))
    return Markup().join(parts)


def _place(value: float, axis: Axis) -> float:
    """The pixel of a value, at an edge where it lies beyond."""
    share = (value - axis.low) / (axis.high - axis.low)
    return LEFT + min(1.0, max(0.0, share)) * (RIGHT - LEFT)
