"""A grid's summary as tables: on the terminal, and as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table as Drawn

from csasn.report.report import CONCLUSIVE_CASES
from server.evidence.estimation import Estimate
from server.evidence.summary import ComparisonSummary, Summary, VariantSummary

OVERALL = ("macro_auroc", "balanced_accuracy", "macro_f1", "rare_recall", "rare_precision", "benign_specificity")
CALIBRATION = ("brier", "ece", "malignancy_auroc")
RATES = ("recall", "precision", "f1", "auroc")
LOWER_IS_BETTER = ("brier", "ece")
FEW = "*"


@dataclass(frozen=True)
class Table:
    """A title, columns, rows of text, and a note below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables_of(summary: Summary) -> tuple[Table, ...]:
    """All tables that have a row."""
    overall = _measures(summary, "Variants", OVERALL)
    calibration = _measures(summary, "Calibration, and benign against malignant", CALIBRATION)
    made = (overall, _rates(summary), calibration, _saliency(summary), _comparisons(summary), _equal_recall(summary))
    return tuple(table for table in made if table.rows)


def draw(tables: Sequence[Table]) -> Group:
    """For the terminal."""
    parts: list[Drawn | str] = []
    for table in tables:
        drawn = Drawn(title=table.title, title_justify="left", title_style="", caption=table.note, caption_justify="left")
        for number, column in enumerate(table.columns):
            drawn.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
        for row in table.rows:
            drawn.add_row(*(cell.replace(" (", "\n(") for cell in row))
        parts.append(drawn)
    return Group(*parts)


def markdown(summary: Summary, tables: Sequence[Table], picture: str = "") -> str:
    """results.md, with the file of a picture at its head where there is one."""
    lines = [f"# {summary.grid}", "", f"{summary.num_done} of {summary.num_cells} cells are done. {_origin(summary)}", ""]
    lines += [f"![Differences with intervals]({picture})", ""] if picture else []
    for table in tables:
        cells = [table.columns, tuple("---" for _ in table.columns), *table.rows]
        lines += [f"## {table.title}", "", *("| " + " | ".join(row) + " |" for row in cells), ""]
        lines += [table.note, ""] if table.note else []
    return "\n".join(lines)


def _origin(summary: Summary) -> str:
    parts = "; ".join(f"code {code}, data {data}, {device}" for code, data, device in summary.origins)
    mixed = " They are of different code, data or devices: compare with care." if len(summary.origins) > 1 else ""
    weighted = ""
    if summary.prevalence:
        total = sum(summary.prevalence.values())
        shares = ", ".join(f"{name} {share / total:.3f}" for name, share in summary.prevalence.items())
        weighted = f" Test cases are weighted to {shares}."
    return f"Origin: {parts or 'none'}.{mixed}{weighted}"


def _measures(summary: Summary, title: str, names: Sequence[str]) -> Table:
    shown = [name for name in names if any(name in item.measures for item in summary.variants)]
    rows = tuple(
        (item.variant, item.statistics, str(len(item.seeds)), *(_with_interval(item.measures[name]) for name in shown))
        for item in summary.variants
    )
    note = "Mean over seeds (95 % over test cases). Statistics of normalisation: each site's own, or those released with the model."
    return Table(title, ("variant", "statistics", "seeds", *map(words, shown)), rows, note)


def _rates(summary: Summary) -> Table:
    rows = tuple(
        (item.variant, item.statistics, name, *(_rate(item, kind, name) for kind in RATES), _support(item.support[name]))
        for item in summary.variants
        for name in summary.classes.names
    )
    note = f"Cases: of the class, in the test of one seed. {FEW} fewer than {CONCLUSIVE_CASES}: nothing to conclude from."
    return Table("Classes", ("variant", "statistics", "class", "recall", "precision", "F1", "AUROC", "cases"), rows, note)


def _rate(item: VariantSummary, kind: str, name: str) -> str:
    return _with_interval(item.measures[f"{kind}.{name}"]) + (FEW if item.support[name] < CONCLUSIVE_CASES else "")


def _saliency(summary: Summary) -> Table:
    names = ("gradcam", "rollout", "area")
    first = {item.variant: item.saliency for item in summary.variants if item.saliency}
    rows = tuple((variant, *(_number(found.get(name)) for name in names)) for variant, found in first.items())
    note = (
        "Mean share of the map inside the nodule; area is the nodule's share of the image, what a map that knows nothing would get."
    )
    return Table("Where the models look", ("variant", "Grad-CAM", "rollout", "area"), rows, note)


def _comparisons(summary: Summary) -> Table:
    rows = tuple(row for item in summary.comparisons for row in _difference_rows(item, item.differences, item.asked.at_least))
    note = (
        "Differences on the same test cases. Better or worse: where both intervals leave out 0. "
        "A bar, set beforehand, is held by the mean, or even by the lower ends of both intervals."
    )
    return Table("Comparisons", _COLUMNS, rows, note)


def _equal_recall(summary: Summary) -> Table:
    compared = [item for item in summary.comparisons if item.at_equal_rare_recall]
    rows = tuple(row for item in compared for row in _difference_rows(item, item.at_equal_rare_recall, {}))
    note = "After a shift of the second variant's rare logits, which gives it the rare recall of the first on these test cases."
    return Table("Comparisons at equal rare recall", _COLUMNS, rows, note)


_COLUMNS = ("comparison", "cases", "measure", "difference", "over cases", "over seeds", "seeds", "verdict", "bar")


def _difference_rows(
    item: ComparisonSummary, differences: Mapping[str, Estimate], at_least: Mapping[str, float]
) -> list[tuple[str, ...]]:
    name = f"{item.asked.of} - {item.asked.against}"
    if not item.seeds:
        return [(name, item.asked.cases, "not done yet", *("-" for _ in _COLUMNS[3:]))]
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


def _support(number: int) -> str:
    return f"{number}{FEW}" if number < CONCLUSIVE_CASES else str(number)


def _with_interval(value: Estimate) -> str:
    if value.mean is None:
        return "-"
    return f"{value.mean:.3f}" + (f" ({value.over_cases[0]:.2f}-{value.over_cases[1]:.2f})" if value.over_cases else "")


def _interval(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def words(measure: str) -> str:
    """The name of a measure, to be read."""
    return measure.replace("_", " ").replace("auroc", "AUROC").replace("f1", "F1").replace("ece", "ECE").replace(".", " ")
