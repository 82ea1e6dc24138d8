"""A report as tables on the terminal."""

from collections.abc import Mapping

from rich.console import Group
from rich.table import Table

Report = Mapping[str, object]


def report_tables(report: Report) -> Group:
    """A table per class of the federated model, and one of it beside the baselines."""
    return Group(_class_table(report), _method_table(report))


def _class_table(report: Report) -> Table:
    table = Table(title="Federated model, test cases of all sites", title_justify="left")
    for column in ("class", "recall", "precision", "F1", "AUROC", "cases"):
        table.add_column(column, justify="left" if column == "class" else "right")
    final = report["final"]
    for name, row in (final["per_class"] if isinstance(final, dict) else {}).items():
        table.add_row(name, *(_show(row[key]) for key in ("recall", "precision", "f1", "auroc")), str(row["support"]))
    return table


def _method_table(report: Report) -> Table:
    table = Table(title="Beside the baselines, same number of optimiser steps, same test cases", title_justify="left")
    for column in ("method", "macro AUROC", "95 %", "balanced accuracy", "macro F1", "malignancy AUROC"):
        table.add_column(column, justify="left" if column == "method" else "right")
    baselines = report["baselines"]
    methods = {"federated": report["final"], **(baselines if isinstance(baselines, dict) else {})}
    for name, final in methods.items():
        if isinstance(final, dict):
            interval = final["macro_auroc_ci95"]
            shown = f"{_show(interval[0])}-{_show(interval[1])}" if interval else "-"
            rates = (_show(final[key]) for key in ("balanced_accuracy", "macro_f1", "malignancy_auroc"))
            table.add_row(name, _show(final["macro_auroc"]), shown, *rates, style="bold" if name == "federated" else "")
    return table


def _show(value: object) -> str:
    return "-" if value is None else f"{float(str(value)):.3f}"
