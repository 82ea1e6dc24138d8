"""Reports and predictions as tables on the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.table import Table

from csasn.prediction import ImagePrediction

Report = Mapping[str, object]


def report_tables(report: Report) -> Group:
    """A table per class of the federated model, and one of it beside the baselines."""
    final, baselines = report["final"], report["baselines"]
    methods = {"federated": final, **(baselines if isinstance(baselines, dict) else {})}
    title = "On the same test cases" + (", after the same number of optimiser steps" if baselines else "")
    return Group(_class_table(final, "Federated model, test cases of all sites"), _method_table(methods, title))


def metrics_tables(final: object, title: str) -> Group:
    """The tables of one evaluation."""
    return Group(_class_table(final, title), _method_table({"model": final}, "Over all classes"))


def prediction_table(predictions: Sequence[ImagePrediction], classes: Sequence[str], notice: str) -> Table:
    """A row an image: what is decided, the probability of each class, or why there is none."""
    table = _table("image", "decision", *classes, title=f"Predictions ({notice})")
    for item in predictions:
        if item.prediction:
            table.add_row(
                str(item.path), item.prediction.decision, *(f"{item.prediction.probabilities[name]:.3f}" for name in classes)
            )
        elif item.fault:
            table.add_row(str(item.path), f"none: {item.fault.message}", *("-" for _ in classes))
    return table


def _class_table(final: object, title: str) -> Table:
    table = _table("class", "recall", "precision", "F1", "AUROC", "cases", title=title)
    for name, row in (final["per_class"] if isinstance(final, dict) else {}).items():
        table.add_row(name, *(_show(row[key]) for key in ("recall", "precision", "f1", "auroc")), str(row["support"]))
    return table


def _method_table(methods: Mapping[str, object], title: str) -> Table:
    table = _table("method", "macro AUROC (95 %)", "bal. accuracy", "macro F1", "malignancy", title=title)
    for name, final in methods.items():
        if isinstance(final, dict):
            interval = final["macro_auroc_ci95"]
            spread = f" ({interval[0]:.2f}-{interval[1]:.2f})" if interval else ""
            rates = (_show(final[key]) for key in ("balanced_accuracy", "macro_f1", "malignancy_auroc"))
            table.add_row(name, _show(final["macro_auroc"]) + spread, *rates, style="bold" if name == "federated" else "")
    return table


def _table(*columns: str, title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number > 0, overflow="fold")
    return table


def _show(value: object) -> str:
    return "-" if value is None else f"{float(str(value)):.3f}"
