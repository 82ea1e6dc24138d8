"""Reports as tables on the terminal."""

from collections.abc import Mapping

from rich.console import Group
from rich.table import Table

from csasn.report.figures import OWN_NORMALISATION
from csasn.report.rates import inconclusive, show_rate, whose_cases
from csasn.report.report import CONCLUSIVE_CASES
from csasn.report.types import Report, Result


def report_tables(report: Report) -> Group:
    """A table per class of the federated model, and one of it beside the baselines."""
    absent, whose = report.absent_at_finish, whose_cases(report.absent_at_finish)
    same = f"Federated on test cases of {whose}, others on those of all" if absent else "On the same test cases"
    title = same + (", after the same number of optimiser steps" if report.baselines else "")
    own = {OWN_NORMALISATION: report.own_statistics.result} if report.own_statistics else {}
    methods = {"federated": report.final, **own, **report.baselines}
    return Group(_class_table(report.final, f"Federated model, test cases of {whose}"), _method_table(methods, title))


def metrics_tables(final: Result, title: str) -> Group:
    """The tables of one evaluation."""
    return Group(_class_table(final, title), _method_table({"model": final}, "Over all classes"))


def table_of(*columns: str, title: str, caption: str | None = None) -> Table:
    """A table whose first column is of names, and whose others are of numbers."""
    table = Table(title=title, title_justify="left", title_style="", caption=caption, caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number > 0, overflow="fold")
    return table


def _class_table(final: Result | None, title: str) -> Table:
    rows = final.per_class if final else {}
    few = f"; *: fewer than {CONCLUSIVE_CASES} cases, not to be concluded from" if any(map(inconclusive, rows.values())) else ""
    caption = f"in brackets 95 % intervals{few}"
    table = table_of("class", "recall", "precision", "F1", "AUROC", "cases", title=title, caption=caption)
    for name, row in rows.items():
        table.add_row(
            name,
            show_rate(row.recall, row.recall_ci95),
            show_rate(row.precision, row.precision_ci95),
            show_rate(row.f1),
            show_rate(row.auroc, row.auroc_ci95),
            f"{row.support}{'*' if inconclusive(row) else ''}",
        )
    return table


def _method_table(methods: Mapping[str, Result | None], title: str) -> Table:
    """A row a method; all are measured on the same cases, whose number stands once."""
    known = {name: final for name, final in methods.items() if final}
    num_cases = " or ".join(sorted({str(final.num_cases) for final in known.values()})) or "no"
    columns = "method", "macro\nAUROC", "balanced\naccuracy", "macro\nF1", "malig.\nAUROC", "ECE"
    table = table_of(*columns, title=title, caption=f"{num_cases} cases; ECE: expected calibration error, 0 at best")
    for name, final in known.items():
        table.add_row(
            name,
            show_rate(final.macro_auroc, final.macro_auroc_ci95),
            show_rate(final.balanced_accuracy, final.balanced_accuracy_ci95),
            *map(show_rate, (final.macro_f1, final.malignancy_auroc, final.ece)),
            style="bold" if name == "federated" else "",
        )
    return table
