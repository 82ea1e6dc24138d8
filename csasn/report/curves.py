"""One picture of a run: how validation metrics and class weights moved, and what the federation gained on test cases."""

from collections.abc import Sequence
from math import nan
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from csasn.report.charts import Chart, IntervalRow, LineChart, RowChart
from csasn.report.figures import comparison_charts, round_charts, weight_charts
from csasn.report.picture import COLOURS, plain, plot_style, write_figure
from csasn.report.rates import whose_cases
from csasn.report.types import Report

COLUMNS = 3
STRONG, WEAK = "#1f5fa8", "0.55"
MARKS, DASHES = "osD^", ("-", "--", ":", "-.")
MAX_NAMED = 12  # lines; more names would cover the picture


def draw_curves(report: Report, path: Path) -> None:
    """Writes the picture as PNG: the charts of the page on rounds, class weights ω, and test metrics beside the baselines."""
    charts = [*round_charts(report), *weight_charts(report), *comparison_charts(report)]
    title = f"{len(report.sites)} sites, {len(report.rounds)} rounds, {report.profile}, status {report.status}"
    title += f"; test cases of {whose_cases(report.absent_at_finish)} (bar: 95 %)" if report.final else ""
    draw_charts(charts, title, path)


def draw_charts(charts: Sequence[Chart], title: str, path: Path) -> None:
    """Writes charts as one PNG, three in a row."""
    rows = max(1, -(-len(charts) // COLUMNS))
    with plot_style():
        figure = Figure(figsize=(15, 4.8 * rows), layout="constrained")
        for number, axes in enumerate(figure.subplots(rows, COLUMNS, squeeze=False).flat):
            if number < len(charts):
                _draw(axes, charts[number])
            else:
                axes.set_axis_off()
        figure.suptitle(title)
        write_figure(figure, path, mode=0o666)


def _draw(axes: Axes, chart: Chart) -> None:
    axes.set_title(chart.title)
    if isinstance(chart, LineChart):
        _draw_lines(axes, chart)
    else:
        _draw_rows(axes, chart)


def _draw_lines(axes: Axes, chart: LineChart) -> None:
    for line in reversed(chart.lines):
        places, heights = zip(*((x, nan if y is None else y) for x, y in line.points), strict=True)
        dash, mark = DASHES[line.style // len(COLOURS) % len(DASHES)], MARKS[line.style % len(MARKS)]
        axes.plot(places, heights, mark, ls=dash, color=COLOURS[line.style % len(COLOURS)], label=plain(line.name), markersize=4)
    if chart.reference and chart.reference != "diagonal":
        axes.axhline(float(chart.reference), color="0.7", linewidth=1, zorder=0)
    axes.set(xlabel=chart.x.label, ylabel=chart.y.label, xlim=(chart.x.low, chart.x.high), ylim=(chart.y.low, chart.y.high))
    axes.set(xticks=chart.x.ticks, yticks=chart.y.ticks)
    axes.grid(axis="y", alpha=0.25)
    if 1 < len(chart.lines) <= MAX_NAMED:
        axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4, reverse=True)


def _draw_rows(axes: Axes, chart: RowChart) -> None:
    """The first row is on top."""
    for height, row in enumerate(chart.rows):
        strong = not isinstance(row, IntervalRow) or row.strong
        if isinstance(row, IntervalRow) and row.interval:
            axes.hlines(height, *row.interval, color=STRONG if strong else WEAK, linewidth=2, alpha=0.5)
        if row.value is not None:
            axes.plot(row.value, height, "o" if strong else "D", color=STRONG if strong else WEAK, markersize=8)
    if chart.reference is not None:
        axes.axvline(chart.reference, color="0.5", linewidth=1, linestyle=":", zorder=0)
    axes.set_yticks(range(len(chart.rows)), [plain(row.name) for row in chart.rows])
    axes.set(xlabel=chart.axis.label, xlim=(chart.axis.low, chart.axis.high), ylim=(len(chart.rows) - 0.4, -0.6))
    axes.grid(axis="x", alpha=0.25)
