"""How reports say things: rates in three places without the leading zero, intervals in brackets, a dash where there is none."""

from collections.abc import Mapping, Sequence

from csasn.report.report import CONCLUSIVE_CASES
from csasn.report.types import ClassResult, Report

STILL = "rounds before a withdrawal hold what was learned of the patient, later ones begin from these"


def whose_cases(absent_at_finish: Mapping[str, str] | None) -> str:
    """Whose test cases the federated model's metrics count; baselines are always scored on those of all sites."""
    return "the sites that answered at the end" if absent_at_finish else "all sites"


def show_rate(value: float | None, interval: Sequence[float] | None = None) -> str:
    """.714, or .714 (.60-.80): the ends of an interval to two places, so that three such columns fit into a terminal."""
    if value is None:
        return "-"
    rate = f"{value:.3f}".removeprefix("0")
    if interval is None:
        return rate
    low, high = (f"{end:.2f}".removeprefix("0").replace("1.00", "1.0") for end in interval)
    return f"{rate} ({low}-{high})"


def inconclusive(row: ClassResult) -> bool:
    """Whether a class has too few test cases to conclude anything about it."""
    return row.support < CONCLUSIVE_CASES if row.conclusive is None else not row.conclusive


def few_cases(report: Report) -> dict[str, int]:
    """The classes of which nothing is to be concluded, and how many test cases each has."""
    rows = report.final.per_class if report.final else {}
    return {name: row.support for name, row in rows.items() if inconclusive(row)}


def small_classes(report: Report) -> list[str]:
    """Classes whose number of training cases is not shown."""
    return [name for name, number in report.training_cases.items() if number is None]
