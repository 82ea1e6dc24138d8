"""The page of `client report`: one file that asks for no other. It shows pictures of the site's cases, and is not to leave it."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from client.report.site_report import Example, Measure, SiteReport, Tested
from client.report.template import STYLE, TEMPLATE
from csasn.data.cases import SPLITS, TEST, TRAIN
from csasn.finished.weights import NOTICE
from csasn.measures.intervals import Interval, newcombe, wilson
from csasn.report.charts import IntervalRow, interval_chart, share_axis
from csasn.report.page_style import STYLE as PAGE_STYLE
from csasn.report.report import CONCLUSIVE_CASES

DASH = "–"
WARM = np.array([255.0, 150.0, 30.0])
COMPARED = {
    "macro_auroc": "macro AUROC",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "malignancy_auroc": "AUROC of malignancy",
    "ece": "calibration error (smaller is better)",
}


@dataclass(frozen=True)
class Cell:
    """A rate as shown, with its interval; `few` where it is of too few cases."""

    value: str
    interval: str
    few: bool = False


@dataclass(frozen=True)
class ClassRow:
    """A line of the table of classes."""

    name: str
    training: int
    support: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Picture:
    """An example as shown: caption, both pictures as data, and the probabilities, largest first, in per cent."""

    row: int
    more: int
    label: str
    decision: str
    plain: str
    seen: str | None
    bars: tuple[tuple[str, str], ...]


def render_site_report(report: SiteReport) -> str:
    """The page as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    models = {"federated": report.federated} | ({"alone": report.alone} if report.alone else {})
    return environment.from_string(TEMPLATE).render(
        style=Markup(PAGE_STYLE + STYLE),  # noqa: S704 - our own
        notice=NOTICE,
        report=report,
        classes=report.info.study.classes,
        study=report.info.study,
        sentences=_sentences(report),
        compared=_compared(report),
        charts=_charts(models),
        class_rows=_class_rows(report),
        has_few=any(number < CONCLUSIVE_CASES for number in report.num_cases[SPLITS[TEST]].values()),
        fewest=CONCLUSIVE_CASES,
        confusions={name: _shaded(tested) for name, tested in models.items()},
        right=_pictures(report.right),
        mistakes=_pictures(report.mistakes),
    )


def gain_in_words(report: SiteReport) -> str:
    """One sentence on what joining brought, no stronger than the interval."""
    gains = report.gains
    if gains is None:
        return "Whether joining helped is not known: no model was trained on this site's own cases alone (--train-alone)."
    gain = gains["macro_auroc"]
    if gain.value is None or gain.interval is None:
        return "Whether joining helped cannot be said: the test cases are all of one class."
    low, high = gain.interval
    told = f"by {gain.value:+.3f} in macro AUROC (95 % interval {low:+.3f} to {high:+.3f})"
    if low > 0:
        return f"On these cases joining helped: the federated model is better than one of this site's cases alone, {told}."
    if high < 0:
        return f"On these cases joining did not help: the federated model is worse than one of this site's cases alone, {told}."
    return f"These cases do not show whether joining helped: the federated model differs from one of this site's alone {told}."


def _sentences(report: SiteReport) -> list[str]:
    auroc, accuracy = (report.federated.measures[name] for name in ("macro_auroc", "balanced_accuracy"))
    sentences = [
        f"Measured on {report.num_test_cases} test cases of {report.site}, of which none was trained on.",
        f"The federated model reaches a macro AUROC of {_told(auroc)} and a balanced accuracy of {_told(accuracy)}.",
        gain_in_words(report),
    ]
    few = [f"{name} ({number})" for name, number in report.num_cases[SPLITS[TEST]].items() if number < CONCLUSIVE_CASES]
    if few:
        sentences.append(f"Nothing can be concluded on classes of fewer than {CONCLUSIVE_CASES} test cases: {', '.join(few)}.")
        sentences.append("Means over the classes rest on these too: their intervals are too narrow.")
    return sentences


def _told(measure: Measure) -> str:
    return measure_text(measure) + (f" ({interval_text(measure.interval)})" if measure.interval else "")


def measure_text(measure: Measure, sign: str = "") -> str:
    """The value with three decimals."""
    return DASH if measure.value is None else f"{measure.value:{sign}.3f}"


def interval_text(interval: Interval | None, sign: str = "") -> str:
    """Both ends, nothing where there is none."""
    return "" if interval is None else f"{interval[0]:{sign}.3f} to {interval[1]:{sign}.3f}"


def _cell(measure: Measure, sign: str = "", few: bool = False) -> Cell:
    return Cell(measure_text(measure, sign), interval_text(measure.interval, sign), few)


def _compared(report: SiteReport) -> list[tuple[str, list[Cell]]]:
    """A line for each measure: federated and, where one was trained, alone and the difference."""
    lines = []
    for key, name in COMPARED.items():
        if key in report.federated.measures:
            cells = [_cell(report.federated.measures[key])]
            if report.alone and report.gains:
                cells += [_cell(report.alone.measures[key]), _cell(report.gains[key], "+")]
            lines.append((name, cells))
    return lines


def _charts(models: dict[str, Tested]) -> list[Markup]:
    charts = []
    for key, title, meaning in (
        ("macro_auroc", "Macro AUROC", "1 is perfect, 0.5 is guessing"),
        ("balanced_accuracy", "Balanced accuracy", "mean recall of all classes; 1 is perfect"),
    ):
        rows = []
        for name, tested in models.items():
            measure, place = tested.measures[key], f"{name}.{key}"
            rows.append(IntervalRow(name, measure.value, place, measure.interval, place, strong=name == "federated"))
        described = f"{title} of each model on this site's test cases, with its interval; the values are in the table"
        charts.append(interval_chart(title, described, share_axis(meaning), rows))
    return charts


def _class_rows(report: SiteReport) -> list[ClassRow]:
    """Recall, precision and AUROC of each class by the federated model, then the same of the model alone."""
    rows = []
    for index, name in enumerate(report.info.study.classes):
        support = report.num_cases[SPLITS[TEST]][name]
        cells = _rate_cells(report.federated, index, name, few=support < CONCLUSIVE_CASES)
        if report.alone:
            cells += _rate_cells(report.alone, index, name, few=support < CONCLUSIVE_CASES)
        rows.append(ClassRow(name, report.num_cases[SPLITS[TRAIN]][name], support, tuple(cells)))
    return rows


def _rate_cells(tested: Tested, index: int, name: str, *, few: bool) -> list[Cell]:
    """Intervals that hold for few cases too, where resampling gives too narrow ones: Wilson's, of AUROC at least Newcombe's."""
    hits = int(tested.confusion_KK[index, index])
    support, decided = int(tested.confusion_KK[index].sum()), int(tested.confusion_KK[:, index].sum())
    return [
        _cell(Measure(tested.measures[f"recall.{name}"].value, wilson(hits, support)), few=few),
        _cell(Measure(tested.measures[f"precision.{name}"].value, wilson(hits, decided)), few=few),
        _cell(_widened(tested.measures[f"auroc.{name}"], support, int(tested.confusion_KK.sum()) - support), few=few),
    ]


def _widened(auroc: Measure, positives: int, negatives: int) -> Measure:
    if auroc.value is None or auroc.interval is None:
        return auroc
    low, high = newcombe(auroc.value, positives, negatives)
    return Measure(auroc.value, (min(low, auroc.interval[0]), max(high, auroc.interval[1])))


def _shaded(tested: Tested) -> list[list[tuple[int, str]]]:
    """Each count with its share of the row, which is how dark it is drawn."""
    return [[(int(count), f"{count / max(int(row.sum()), 1):.3f}") for count in row] for row in tested.confusion_KK]


def _pictures(examples: Sequence[Example]) -> list[Picture]:
    return [
        Picture(
            row=example.row,
            more=example.num_images - 1,
            label=example.label,
            decision=example.decision,
            plain=_png(example.square),
            seen=None if example.cam is None else _png(_warmed(example.square, example.cam)),
            bars=tuple(
                (name, f"{100 * share:.1f}") for name, share in sorted(example.probabilities.items(), key=lambda pair: -pair[1])
            ),
        )
        for example in examples
    ]


def _warmed(square: NDArray[np.uint8], cam: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The picture (S, S, 3), the more orange the more the place spoke for the decision."""
    part_SS1 = 0.6 * cam[..., None]
    mixed_SS3 = (1 - part_SS1) * square[..., None] + part_SS1 * WARM
    return np.asarray(np.rint(mixed_SS3), np.uint8)


def _png(pixels: NDArray[np.uint8]) -> str:
    """A picture as the address of an image that is its own content."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
