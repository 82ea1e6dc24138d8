"""One picture of a run: how validation metrics and class weights moved, and what the federation gained on test cases."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from csasn.storage import write_atomically

Report = Mapping[str, object]
FEDERATED = "#1f5fa8"
COLOURS = ("#1b7f79", "#c8553d", "#7d5ba6", "#d9a21b", "#4c6e91", "#8a8d3f", "#b04a7a", "#5a5a5a")


def draw_curves(report: Report, path: Path) -> None:
    """Writes the picture as PNG: validation curves, class weights ω, and test metrics beside the baselines."""
    rounds = _list(report["rounds"])
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(15, 4.8), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
        _draw_validation(left, rounds)
        _draw_weights(middle, rounds, [str(name) for name in _list(report["classes"])])
        _draw_comparison(right, report)
        figure.suptitle(
            f"{len(_dict(report['sites']))} sites, {len(rounds)} rounds, {report['profile']}, status {report['status']}"
        )
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())


def _draw_validation(axes: Axes, rounds: Sequence[Mapping[str, object]]) -> None:
    numbers = [row["round"] for row in rounds]
    for key, name, colour in (("macro_auroc", "macro AUROC", FEDERATED), ("balanced_accuracy", "balanced accuracy", COLOURS[1])):
        axes.plot(numbers, [_number(row[key]) for row in rounds], marker="o", color=colour, label=name)  # type: ignore[arg-type]
    for name in _dict(rounds[0]["recall"] or {}) if rounds else ():
        values = [_number(_dict(row["recall"] or {}).get(name)) for row in rounds]
        axes.plot(numbers, values, color="0.6", linewidth=1)  # type: ignore[arg-type]
        axes.annotate(
            f"recall {name}", (float(str(numbers[-1])), values[-1]), xytext=(4, 0), textcoords="offset points", fontsize=8
        )
    axes.set(title="validation cases of all sites", xlabel="round", ylim=(0, 1))
    axes.margins(x=0.22)
    axes.legend(frameon=False, loc="lower left", fontsize=9)
    axes.grid(axis="y", alpha=0.25)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_weights(axes: Axes, rounds: Sequence[Mapping[str, object]], classes: Sequence[str]) -> None:
    for index, name in enumerate(classes):
        points = [(row["round"], _list(row["class_weights"])[index]) for row in rounds if row["class_weights"]]
        axes.plot(*zip(*points, strict=True), marker="o", color=COLOURS[index % len(COLOURS)], label=name)
    axes.axhline(1, color="0.7", linewidth=1, zorder=0)
    axes.set(title="global class weights ω", xlabel="round")
    if len(classes) <= 12:
        axes.legend(frameon=False, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_comparison(axes: Axes, report: Report) -> None:
    """Test metrics of the federated model, its interval, and each baseline."""
    rows = {"federated": report["final"], **_dict(report["baselines"])}
    known = {name: _dict(final) for name, final in rows.items() if final}
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
            low, high = (_number(value) for value in _list(final["macro_auroc_ci95"]))
            axes.hlines(index, low, high, color=colour, linewidth=2, alpha=0.5)
    axes.set_yticks(range(len(known)), list(reversed(known)))
    axes.set(title="test cases of all sites", xlim=(0, 1), ylim=(-0.6, len(known) - 0.4))
    axes.grid(axis="x", alpha=0.25)
    axes.legend(frameon=False, loc="lower left", fontsize=9)


def _number(value: object) -> float:
    return float(str(value)) if value is not None else float("nan")


def _list(value: object) -> list:  # type: ignore[type-arg]
    assert isinstance(value, list)
    return value


def _dict(value: object) -> dict:  # type: ignore[type-arg]
    assert isinstance(value, dict)
    return value
