"""One picture of a run: how validation metrics and class weights moved, and what the federation gained on test cases."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from math import isnan
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from csasn.platform.storage import write_atomically
from csasn.report.parts import as_dict, as_list
from csasn.report.rates import plain, whose_cases

Report = Mapping[str, object]
FEDERATED = "#1f5fa8"
NAME_HEIGHT = 0.045  # of the axis from 0 to 1
MAX_NAMED = 12  # classes; more names would cover the picture
COLOURS = ("#1b7f79", "#c8553d", "#7d5ba6", "#d9a21b", "#4c6e91", "#8a8d3f", "#b04a7a", "#5a5a5a")


def draw_curves(report: Report, path: Path) -> None:
    """Writes the picture as PNG: validation curves, class weights ω, and test metrics beside the baselines."""
    rounds, classes = as_list(report["rounds"]), [str(name) for name in as_list(report["classes"])]
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(15, 4.8), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
        _draw_validation(left, rounds, classes)
        _draw_weights(middle, rounds, classes)
        _draw_comparison(right, report)
        figure.suptitle(
            f"{len(as_dict(report['sites']))} sites, {len(rounds)} rounds, {report['profile']}, status {report['status']}"
        )
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())


def _draw_validation(axes: Axes, rounds: Sequence[Mapping[str, object]], classes: Sequence[str]) -> None:
    numbers = [float(str(row["round"])) for row in rounds]
    ends: dict[int, float] = {}
    for index, name in enumerate(classes):
        values = [_number(as_dict(row["recall"] or {}).get(name)) for row in rounds]
        axes.plot(numbers, values, color=_colour(index), linewidth=1, alpha=0.55)
        ends[index] = values[-1] if values else float("nan")
    if len(classes) <= MAX_NAMED:
        for index, height in _spread(ends, NAME_HEIGHT).items():
            axes.text(numbers[-1], height, f"  recall {plain(classes[index])}", fontsize=8, color=_colour(index), va="center")
    for key, name, marker in (("macro_auroc", "macro AUROC", "o"), ("balanced_accuracy", "balanced accuracy", "D")):
        axes.plot(numbers, [_number(row[key]) for row in rounds], marker=marker, color=FEDERATED, linewidth=2, label=name)
    axes.set(title="validation cases", ylim=(0, 1.02))
    axes.grid(axis="y", alpha=0.25)
    _finish(axes, numbers, len(classes))


def _draw_weights(axes: Axes, rounds: Sequence[Mapping[str, object]], classes: Sequence[str]) -> None:
    known = [row for row in rounds if row["class_weights"]]
    numbers = [float(str(row["round"])) for row in known]
    for index, name in enumerate(classes):
        label = plain(name) if len(classes) <= MAX_NAMED else None
        axes.plot(numbers, [as_list(row["class_weights"])[index] for row in known], marker="o", color=_colour(index), label=label)
    axes.axhline(1, color="0.7", linewidth=1, zorder=0)
    axes.set(title="global class weights ω")
    _finish(axes, numbers, 0)


def _finish(axes: Axes, numbers: Sequence[float], num_names: int) -> None:
    """Axis of rounds, with room for names at its end, and a legend under it."""
    if numbers:
        width = max(numbers) - min(numbers) or 1
        room = 0.28 if 0 < num_names <= MAX_NAMED else 0.04
        axes.set_xlim(min(numbers) - 0.04 * width, max(numbers) + room * width)
        axes.set_xticks([tick for tick in MaxNLocator(integer=True).tick_values(min(numbers), max(numbers)) if tick in numbers])
    axes.set_xlabel("round")
    _legend(axes)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4)


def _draw_comparison(axes: Axes, report: Report) -> None:
    """Test metrics of the federated model, its interval, and each baseline."""
    rows = {"federated": report["final"], **as_dict(report["baselines"])}
    known = {name: as_dict(final) for name, final in rows.items() if final}
    for index, name in enumerate(reversed(known)):
        final, strong = known[name], name == "federated"
        colour = FEDERATED if strong else "0.55"
        axes.plot(_number(final["macro_auroc"]), index, "o", color=colour, markersize=8, label="macro AUROC" if strong else None)
        axes.plot(
            _number(final["balanced_accuracy"]),
            index,
            "D",
            color=colour,
            markersize=7,
            label="balanced accuracy" if strong else None,
        )
        if final["macro_auroc_ci95"]:
            low, high = (_number(value) for value in as_list(final["macro_auroc_ci95"]))
            axes.hlines(index, low, high, color=colour, linewidth=2, alpha=0.5)
    axes.set_yticks(range(len(known)), [plain(name) for name in reversed(known)])
    axes.set(
        title=f"test cases of {whose_cases(report.get('absent_at_finish'))} (bar: 95 %)",
        xlim=(0, 1),
        ylim=(-0.6, max(len(known), 1) - 0.4),
    )
    axes.grid(axis="x", alpha=0.25)
    _legend(axes)


def _spread(heights: Mapping[int, float], gap: float) -> dict[int, float]:
    """Heights moved up where they would lie closer than `gap`; those that are not a number are left out."""
    placed: dict[int, float] = {}
    lowest = 0.02
    for index, height in sorted(((i, h) for i, h in heights.items() if not isnan(h)), key=lambda item: item[1]):
        placed[index] = max(height, lowest)
        lowest = placed[index] + gap
    return placed


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _number(value: object) -> float:
    return float(str(value)) if value is not None else float("nan")
