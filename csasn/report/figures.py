"""The charts of a report: which values, from which places in report.json, on which axes."""

from collections.abc import Mapping, Sequence

from csasn.report.charts import Axis, Chart, IntervalRow, Line, LineChart, RowChart, rounds_axis, share_axis, value_axis
from csasn.report.marked import MIB, Marked, Part
from csasn.report.types import Report, Result


def methods_of(marked: Marked) -> dict[str, Marked]:
    """What is told of each model that was tested, by the name that people read: federated, pooled, and each site alone."""
    methods = {"federated": marked.at("final")} | {_title(name): marked.at("baselines", name) for name in marked.names("baselines")}
    return {name: method for name, method in methods.items() if method.find()}


def results_of(report: Report) -> dict[str, Result | None]:
    """The same as values."""
    return {"federated": report.final, **{_title(name): result for name, result in report.baselines.items()}}


def _title(name: str) -> str:
    return f"{name.removeprefix('single/')} alone" if name.startswith("single/") else name


def comparison_charts(marked: Marked) -> list[Chart]:
    """Macro AUROC and balanced accuracy of every method, with their intervals."""
    return _known(
        _comparison(marked, "Macro AUROC", "macro_auroc", "macro AUROC; guessing is in the middle"),
        _comparison(marked, "Balanced accuracy", "balanced_accuracy", "balanced accuracy"),
    )


def round_charts(marked: Marked) -> list[Chart]:
    """Validation metrics, recall of each class, and the loss, over the rounds."""
    both = _lines(marked, {"macro AUROC": ("macro_auroc",), "balanced accuracy": ("balanced_accuracy",)})
    recalls = _lines(marked, {name: ("recall", name) for name in marked.names("classes")})
    return _known(
        _rounds_chart("Macro AUROC and balanced accuracy", share_axis("on validation cases"), both),
        _rounds_chart("Recall of each class", share_axis("recall"), recalls),
        _free_chart("Loss on validation cases", "loss", _lines(marked, {"loss": ("loss",)})),
    )


def weight_charts(marked: Marked) -> list[Chart]:
    """ω of each class over the rounds."""
    weights = _lines(marked, {name: ("class_weights", index) for index, name in enumerate(marked.names("classes"))})
    return _known(_free_chart("Class weights ω", "weight ω", weights, reference="1"))


def traffic_charts(marked: Marked) -> list[Chart]:
    """Bytes and seconds of each round."""
    ways = _lines(marked, {"up, from all sites": ("bytes_up",), "down, to all sites": ("bytes_down",)}, MIB)
    return _known(
        _free_chart("Sent and received", "MiB", ways, low=0),
        _free_chart("Time", "seconds", _lines(marked, {"seconds": ("seconds",)}), low=0),
    )


def class_charts(marked: Marked) -> dict[str, list[Chart]]:
    """ROC, precision over recall, and reliability of each class, the pooled model's beside them; none in reports without them."""
    charts = {
        name: _known(_roc(marked, name), _precision_recall(marked, name), _reliability(marked, name))
        for name in marked.names("final", "per_class")
    }
    return {name: drawn for name, drawn in charts.items() if drawn}


def _known(*charts: Chart | None) -> list[Chart]:
    return [chart for chart in charts if chart]


def _comparison(marked: Marked, title: str, metric: str, meaning: str) -> Chart | None:
    rows = []
    for name, method in methods_of(marked).items():
        spread = f"{metric}_ci95"
        low, high = method.number(spread, 0), method.number(spread, 1)
        interval = None if low is None or high is None else (low, high)
        keys = method.key(metric), method.key(spread)
        rows.append(IntervalRow(name, method.number(metric), keys[0], interval, keys[1], strong=name == "federated"))
    described = f"{title} of each model on test cases; the values are in the table below"
    return RowChart(title, described, share_axis(meaning), rows) if rows else None


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


def _lines(marked: Marked, paths: Mapping[str, tuple[Part, ...]], unit: float = 1) -> list[Line]:
    """A line for each name: the values over the rounds at a path within a round, divided by `unit`."""
    rounds = [marked.number("rounds", index, "round") or 0 for index in range(len(marked.items("rounds")))]
    lines = []
    for style, (name, path) in enumerate(paths.items()):
        places = [("rounds", index, *path) for index in range(len(rounds))]
        values = [marked.number(*place) for place in places]
        points = tuple((current, None if value is None else value / unit) for current, value in zip(rounds, values, strict=True))
        texts = tuple(f"{name}, round {current:g}: {height or 0:.3f}" for current, height in points)
        keys = tuple(marked.key(*place) for place in places)
        lines.append(Line(name, marked.key("rounds", "*", *path), points, style, keys, texts))
    return lines


def _roc(marked: Marked, name: str) -> Chart | None:
    lines = _curves(marked, name, "roc")
    x, y = share_axis("false positive rate"), share_axis("recall")
    return _class_chart(f"ROC of {name}", x, y, lines, "diagonal")


def _precision_recall(marked: Marked, name: str) -> Chart | None:
    lines = _curves(marked, name, "precision_recall")
    support = {other: marked.number("final", "per_class", other, "support") or 0 for other in marked.names("final", "per_class")}
    share = support[name] / (sum(support.values()) or 1)  # the precision of guessing
    return _class_chart(f"Precision and recall of {name}", share_axis("recall"), share_axis("precision"), lines, f"{share:.4f}")


def _reliability(marked: Marked, name: str) -> Chart | None:
    groups = marked.at("final", "per_class", name, "reliability")
    points, keys, texts, sizes = [], [], [], []
    for index in range(len(groups.items())):
        predicted, observed, cases = (groups.number(index, part) or 0 for part in range(3))
        points.append((predicted, observed))
        keys.append(groups.key(index))
        texts.append(f"predicted {predicted:.3f}, observed {observed:.3f}, cases {cases:g}")
        sizes.append(cases)
    line = Line("federated", groups.key(), tuple(points), 0, tuple(keys), tuple(texts), tuple(sizes))
    x, y = share_axis("mean predicted probability"), share_axis("observed share")
    return _class_chart(f"Reliability of {name}", x, y, [line] if points else [], "diagonal")


def _class_chart(title: str, x: Axis, y: Axis, lines: list[Line], reference: str) -> Chart | None:
    described = f"{title} on test cases: {y.label} over {x.label}"
    return LineChart(title, described, x, y, lines, reference) if lines else None


def _curves(marked: Marked, name: str, kind: str) -> list[Line]:
    """The federated model's curve, and the pooled model's beneath it; none where the federated model has none."""
    lines = []
    for style, (method, place) in enumerate({"federated": marked.at("final"), "pooled": marked.at("baselines", "pooled")}.items()):
        curve = place.at("per_class", name, kind)
        points = tuple((curve.number(index, 0) or 0, curve.number(index, 1)) for index in range(len(curve.items())))
        if points:
            lines.append(Line(method, curve.key(), points, style, muted=style > 0))
    return lines if lines and lines[0].name == "federated" else []
