"""The charts of a report: which values, from which places in report.json, on which axes."""

from collections.abc import Callable, Sequence
from typing import Protocol

from csasn.report.charts import Axis, Chart, IntervalRow, Line, LineChart, RowChart, rounds_axis, share_axis, value_axis
from csasn.report.marked import MIB, key_of
from csasn.report.types import ClassResult, Ends, Report, Result, RoundResult

OWN_NORMALISATION = "the same, normalised by each site's own cases"
Value = Callable[[RoundResult], float | None]


class Rounds(Protocol):
    """What a chart over the rounds is drawn of: a report, or a run that goes on."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the study's classes."""
        ...

    @property
    def rounds(self) -> tuple[RoundResult, ...]:
        """The rounds so far, in order."""
        ...


def results_of(report: Report) -> dict[str, tuple[Result, tuple[str, ...]]]:
    """Each model that was tested, by the name that people read: federated, pooled, and each site alone; and its place."""
    final: dict[str, tuple[Result, tuple[str, ...]]] = {"federated": (report.final, ("final",))} if report.final else {}
    if report.own_statistics:
        final[OWN_NORMALISATION] = report.own_statistics.result, ("own_statistics", "result")
    return final | {_title(name): (result, ("baselines", name)) for name, result in report.baselines.items()}


def _title(name: str) -> str:
    return f"{name.removeprefix('single/')} alone" if name.startswith("single/") else name


def comparison_charts(report: Report) -> list[Chart]:
    """Macro AUROC and balanced accuracy of every method, with their intervals."""
    aurocs, accuracies = [], []
    for name, (result, place) in results_of(report).items():
        auroc, accuracy = key_of(*place, "macro_auroc"), key_of(*place, "balanced_accuracy")
        strong = name == "federated"
        aurocs.append(IntervalRow(name, result.macro_auroc, auroc, result.macro_auroc_ci95, f"{auroc}_ci95", strong))
        interval = result.balanced_accuracy_ci95
        accuracies.append(IntervalRow(name, result.balanced_accuracy, accuracy, interval, f"{accuracy}_ci95", strong))
    return _known(
        _comparison("Macro AUROC", aurocs, 0.5), _comparison("Balanced accuracy", accuracies, 1 / max(1, len(report.classes)))
    )


def _comparison(title: str, rows: Sequence[IntervalRow], guessing: float) -> Chart | None:
    """The axis goes as far as the intervals and guessing do, so that what differs is seen to."""
    values = [end for row in rows for end in (row.value, *(row.interval or ())) if end is not None]
    described = f"{title} of each model on test cases, and of guessing; the values are in the table below"
    axis = value_axis("dotted: guessing; bars: intervals", [*values, guessing])
    return RowChart(title, described, axis, rows, guessing) if values else None


def round_charts(report: Rounds) -> list[Chart]:
    """Validation metrics, recall of each class, and the loss, over the rounds."""
    auroc = _line(report, "macro AUROC", 0, ("macro_auroc",), lambda row: row.macro_auroc)
    accuracy = _line(report, "balanced accuracy", 1, ("balanced_accuracy",), lambda row: row.balanced_accuracy)
    recalls = [_line(report, name, c, ("recall", name), _recall(name)) for c, name in enumerate(report.classes)]
    return _known(
        _rounds_chart("Macro AUROC and balanced accuracy", share_axis("on validation cases"), [auroc, accuracy]),
        _rounds_chart("Recall of each class", share_axis("recall"), recalls),
        _free_chart("Loss on validation cases", "loss", [_line(report, "loss", 0, ("loss",), lambda row: row.loss)]),
    )


def _recall(name: str) -> Value:
    return lambda row: row.recall.get(name) if row.recall else None


def weight_charts(report: Rounds) -> list[Chart]:
    """ω of each class over the rounds."""
    lines = [_line(report, name, c, ("class_weights", c), _weight(c)) for c, name in enumerate(report.classes)]
    return _known(_free_chart("Class weights ω", "weight ω", lines, reference="1"))


def _weight(c: int) -> Value:
    return lambda row: row.class_weights[c] if row.class_weights else None


def traffic_charts(report: Rounds) -> list[Chart]:
    """Bytes and seconds of each round."""
    up = _line(report, "up, from all sites", 0, ("bytes_up",), lambda row: row.bytes_up / MIB)
    down = _line(report, "down, to all sites", 1, ("bytes_down",), lambda row: row.bytes_down / MIB)
    seconds = _line(report, "seconds", 0, ("seconds",), lambda row: row.seconds)
    return _known(
        _free_chart("Sent and received", "MiB", [up, down], low=0),
        _free_chart("Time", "seconds", [seconds], low=0),
    )


def class_charts(report: Report) -> dict[str, list[Chart]]:
    """ROC, precision over recall, and reliability of each class, the pooled model's beside them; none in reports without them."""
    rows = report.final.per_class if report.final else {}
    charts = {name: _known(_roc(report, name), _precision_recall(report, name), _reliability(name, rows[name])) for name in rows}
    return {name: drawn for name, drawn in charts.items() if drawn}


def _known(*charts: Chart | None) -> list[Chart]:
    return [chart for chart in charts if chart]


def _rounds_chart(title: str, axis: Axis, lines: Sequence[Line], reference: str = "") -> Chart | None:
    """Nothing where there are no values, as in a run without a round, or whose metrics were withheld."""
    if not any(height is not None for line in lines for _, height in line.points):
        return None
    rounds = [current for current, _ in lines[0].points]
    described = f"{title} over the rounds; the values are in the table below"
    return LineChart(title, described, rounds_axis(rounds), axis, lines, reference)


def _free_chart(title: str, label: str, lines: Sequence[Line], low: float | None = None, reference: str = "") -> Chart | None:
    """A chart whose vertical axis goes as far as the values do."""
    values = [height for line in lines for _, height in line.points if height is not None]
    ends = [*values, *([float(reference)] if reference else [])]
    return _rounds_chart(title, value_axis(label, ends, low), lines, reference) if values else None


def _line(report: Rounds, name: str, style: int, path: tuple[str | int, ...], value: Value) -> Line:
    """The line of a value over the rounds; `path` is its place within a round."""
    points = tuple((float(row.round), value(row)) for row in report.rounds)
    texts = tuple(f"{name}, round {current:g}: {height or 0:.3f}" for current, height in points)
    keys = tuple(key_of("rounds", index, *path) for index in range(len(points)))
    return Line(name, key_of("rounds", "*", *path), points, style, keys, texts)


def _roc(report: Report, name: str) -> Chart | None:
    lines = _curves(report, name, "roc", lambda row: row.roc)
    return _class_chart(f"ROC of {name}", share_axis("false positive rate"), share_axis("recall"), lines, "diagonal")


def _precision_recall(report: Report, name: str) -> Chart | None:
    assert report.final is not None
    lines = _curves(report, name, "precision_recall", lambda row: row.precision_recall)
    guessing = report.final.per_class[name].support / (sum(row.support for row in report.final.per_class.values()) or 1)
    x, y = share_axis("recall"), share_axis("precision")
    return _class_chart(f"Precision and recall of {name}", x, y, lines, f"{guessing:.4f}")


def _reliability(name: str, row: ClassResult) -> Chart | None:
    place, groups = ("final", "per_class", name, "reliability"), row.reliability or ()
    texts = tuple(f"predicted {predicted:.3f}, observed {observed:.3f}, cases {cases}" for predicted, observed, cases in groups)
    points = tuple((predicted, observed) for predicted, observed, _ in groups)
    keys, sizes = tuple(key_of(*place, index) for index in range(len(groups))), tuple(cases for *_, cases in groups)
    lines = [Line("federated", key_of(*place), points, 0, keys, texts, sizes)] if groups else []
    x, y = share_axis("mean predicted probability"), share_axis("observed share")
    return _class_chart(f"Reliability of {name}", x, y, lines, "diagonal")


def _class_chart(title: str, x: Axis, y: Axis, lines: list[Line], reference: str) -> Chart | None:
    described = f"{title} on test cases: {y.label} over {x.label}"
    return LineChart(title, described, x, y, lines, reference) if lines else None


def _curves(report: Report, name: str, kind: str, points: Callable[[ClassResult], tuple[Ends, ...] | None]) -> list[Line]:
    """The federated model's curve, and the pooled model's beneath it; none where the federated model has none."""
    results, lines = results_of(report), []
    for style, method in enumerate(("federated", "pooled")):
        result, place = results.get(method, (None, ()))
        row = result.per_class.get(name) if result else None
        if row and (curve := points(row)):
            lines.append(Line(method, key_of(*place, "per_class", name, kind), curve, style, muted=style > 0))
    return lines if lines and lines[0].name == "federated" else []
