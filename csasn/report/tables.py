"""Reports and predictions as tables on the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.table import Table

from csasn.prediction import ImagePrediction
from csasn.report.rates import show_rate, with_interval
from csasn.report.report import CONCLUSIVE_CASES

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
    rows = final["per_class"] if isinstance(final, dict) else {}
    few = (
        f"; *: fewer than {CONCLUSIVE_CASES} cases, not to be concluded from"
        if any(not r["conclusive"] for r in rows.values())
        else ""
    )
    table = _table("class", "recall", "precision", "F1", "AUROC", "cases", title=title, caption=f"in brackets 95 % intervals{few}")
    for name, row in rows.items():
        rates = with_interval(row, "recall"), with_interval(row, "precision"), show_rate(row["f1"]), with_interval(row, "auroc")
        table.add_row(name, *rates, f"{row['support']}{'' if row['conclusive'] else '*'}")
    return table


def _method_table(methods: Mapping[str, object], title: str) -> Table:
    """A row a method; all are measured on the same cases, whose number stands once."""
    known = {name: final for name, final in methods.items() if isinstance(final, dict)}
    num_cases = " or ".join(sorted({str(sum(map(sum, final["confusion"]))) for final in known.values()})) or "no"
    columns = "method", "macro\nAUROC", "balanced\naccuracy", "macro\nF1", "malig.\nAUROC", "ECE"
    table = _table(*columns, title=title, caption=f"{num_cases} cases; ECE: expected calibration error, 0 at best")
    for name, final in known.items():
        rates = with_interval(final, "macro_auroc"), with_interval(final, "balanced_accuracy")
        others = (show_rate(final[key]) for key in ("macro_f1", "malignancy_auroc", "ece"))
        table.add_row(name, *rates, *others, style="bold" if name == "federated" else "")
    return table


def _table(*columns: str, title: str, caption: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="", caption=caption, caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number > 0, overflow="fold")
    return table
