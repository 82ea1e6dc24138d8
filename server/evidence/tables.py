"""A grid's summary as tables in Markdown: results.md, which the terminal shows too."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from csasn.report.report import CONCLUSIVE_CASES
from server.evidence.estimation import Estimate
from server.evidence.summary import ComparisonSummary, Summary, VariantSummary

TEMPLATE = Path(__file__).with_name("results.md.jinja")
OVERALL = ("macro_auroc", "balanced_accuracy", "macro_f1", "rare_recall", "rare_precision", "benign_specificity")
CALIBRATION = ("brier", "ece", "malignancy_auroc")
RATES = ("recall", "precision", "f1", "auroc")
LOWER_IS_BETTER = ("brier", "ece")
FEW = "*"


def markdown(summary: Summary, picture: str = "") -> str:
    """All tables that have a row, with the file of a picture at their head where there is one."""
    writing = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - Markdown, not HTML
    writing.filters["words"] = words
    known = summary.variants[0].measures if summary.variants else {}
    text = writing.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        summary=summary,
        picture=picture,
        total=sum((summary.prevalence or {}).values()),
        conclusive=CONCLUSIVE_CASES,
        overall=[name for name in OVERALL if name in known],
        calibration=[name for name in CALIBRATION if name in known],
        measure_rows=lambda names: [_measure_row(item, names) for item in summary.variants],
        class_rows=[_class_row(item, name) for item in summary.variants for name in summary.classes.names],
        saliency_rows=[_saliency_row(item) for item in summary.variants if item.saliency],
        difference_rows=[row for item in summary.comparisons for row in _rows(item, item.differences, item.asked.at_least)],
        equal_rows=[
            row for item in summary.comparisons if item.at_equal_rare_recall for row in _rows(item, item.at_equal_rare_recall, {})
        ],
    )
    return f"{text.rstrip()}\n"


def _measure_row(item: VariantSummary, names: Sequence[str]) -> tuple[str, ...]:
    return item.variant, item.statistics, str(len(item.seeds)), *(_with_interval(item.measures[name]) for name in names)


def _class_row(item: VariantSummary, name: str) -> tuple[str, ...]:
    few = FEW * (item.support[name] < CONCLUSIVE_CASES)
    rates = (_with_interval(item.measures[f"{kind}.{name}"]) + few for kind in RATES)
    return item.variant, item.statistics, name, *rates, f"{item.support[name]}{few}"


def _saliency_row(item: VariantSummary) -> tuple[str, ...]:
    shares = (item.saliency.get(name) for name in ("gradcam", "rollout", "area"))
    return item.variant, *("-" if share is None else f"{share:.3f}" for share in shares)


def _rows(item: ComparisonSummary, differences: Mapping[str, Estimate], at_least: Mapping[str, float]) -> list[tuple[str, ...]]:
    """A row for each measure, or one that says that the comparison is not done yet."""
    name = f"{item.asked.of} - {item.asked.against}"
    if not item.seeds:
        return [(name, item.asked.cases, "not done yet", *["-"] * 6)]
    fewest = min(item.support.values())
    cases = f"{item.asked.cases}, {sum(item.support.values())}"
    rows: list[tuple[str, ...]] = []
    for measure, value in differences.items():
        few = item.support.get(measure.partition(".")[2], fewest) < CONCLUSIVE_CASES
        intervals = (_interval(value.over_cases), _interval(value.over_seeds))
        known = sum(number is not None for number in value.values)
        difference = ("-" if value.mean is None else f"{value.mean:+.3f}") + FEW * few
        verdicts = (_verdict(measure, value, few), _bar(value, at_least.get(measure)))
        rows.append((name, cases, words(measure), difference, *intervals, str(known), *verdicts))
    return rows


def _bar(value: Estimate, least: float | None) -> str:
    """The bar and whether it is held."""
    if least is None or value.mean is None:
        return "-"
    surely = all(interval is not None and interval[0] >= least for interval in (value.over_cases, value.over_seeds))
    held = "missed" if value.mean < least else "held, also by both intervals" if surely else "held by the mean"
    return f"{least:+.3f}: {held}"


def _verdict(measure: str, value: Estimate, few: bool) -> str:
    """In a word, what the difference shows: both intervals are asked, since each leaves out what the other holds."""
    intervals = (value.over_cases, value.over_seeds)
    if few:
        return "too few cases"
    if value.over_cases is None:
        return "too seldom defined"
    if value.over_seeds is None:
        return "too few seeds"
    above = all(interval is not None and interval[0] > 0 for interval in intervals)
    below = all(interval is not None and interval[1] < 0 for interval in intervals)
    if not (above or below):
        return "not shown"
    return "better" if above != (measure in LOWER_IS_BETTER) else "worse"


def _with_interval(value: Estimate) -> str:
    if value.mean is None:
        return "-"
    return f"{value.mean:.3f}" + (f" ({value.over_cases[0]:.2f}-{value.over_cases[1]:.2f})" if value.over_cases else "")


def _interval(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"


def words(measure: str) -> str:
    """The name of a measure, to be read."""
    return measure.replace("_", " ").replace("auroc", "AUROC").replace("f1", "F1").replace("ece", "ECE").replace(".", " ")
