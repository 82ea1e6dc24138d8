"""The page of `client report`: one file that asks for no other. It shows pictures of the site's cases, and is not to leave it."""

import base64
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.report.site_report import Measure, SiteReport, Tested
from csasn import NOTICE
from csasn.data.split import SPLITS, TEST, TRAIN
from csasn.measures.intervals import Interval, newcombe, wilson
from csasn.report.charts import IntervalRow, RowChart, share_axis
from csasn.report.marked import DASH
from csasn.report.rendering import render
from csasn.report.report import CONCLUSIVE_CASES
from csasn.report.svg import draw

WARM = np.array([255.0, 150.0, 30.0])
COMPARED = {
    "macro_auroc": "macro AUROC",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "malignancy_auroc": "AUROC of malignancy",
    "ece": "calibration error (smaller is better)",
}


def render_site_report(report: SiteReport) -> str:
    """The page as text."""
    num_tested = report.num_cases[SPLITS[TEST]]
    return render(
        "site_report.html",
        report=report,
        notice=NOTICE,
        gain=gain_in_words(report),
        compared=COMPARED,
        charts=draw(_charts(report)),
        num_trained=report.num_cases[SPLITS[TRAIN]],
        num_tested=num_tested,
        few=[f"{name} ({number})" for name, number in num_tested.items() if number < CONCLUSIVE_CASES],
        fewest=CONCLUSIVE_CASES,
        rates=_rates,
        measure_text=_measure_text,
        interval_text=_interval_text,
        png=_png,
        warmed=_warmed,
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


def _measure_text(measure: Measure, sign: str = "") -> str:
    return DASH if measure.value is None else f"{measure.value:{sign}.3f}"


def _interval_text(interval: Interval, sign: str = "") -> str:
    return f"{interval[0]:{sign}.3f} to {interval[1]:{sign}.3f}"


def _charts(report: SiteReport) -> list[RowChart]:
    return [
        _chart(report, "macro_auroc", "Macro AUROC", "1 is perfect, 0.5 is guessing"),
        _chart(report, "balanced_accuracy", "Balanced accuracy", "mean recall of all classes; 1 is perfect"),
    ]


def _chart(report: SiteReport, key: str, title: str, meaning: str) -> RowChart:
    models = {"federated": report.federated, "alone": report.alone}
    measures = {name: tested.measures[key] for name, tested in models.items() if tested}
    rows = [
        IntervalRow(name, measure.value, f"{name}.{key}", measure.interval, f"{name}.{key}", strong=name == "federated")
        for name, measure in measures.items()
    ]
    described = f"{title} of each model on this site's test cases, with its interval; the values are in the table"
    return RowChart(title, described, share_axis(meaning), rows)


def _rates(tested: Tested, index: int, name: str) -> list[Measure]:
    """Recall, precision and AUROC of a class, with intervals that hold for few cases too, where resampling gives too narrow ones:
    Wilson's, of AUROC at least Newcombe's."""
    hits = int(tested.confusion_KK[index, index])
    support, decided = int(tested.confusion_KK[index].sum()), int(tested.confusion_KK[:, index].sum())
    return [
        Measure(tested.measures[f"recall.{name}"].value, wilson(hits, support)),
        Measure(tested.measures[f"precision.{name}"].value, wilson(hits, decided)),
        _widened(tested.measures[f"auroc.{name}"], support, int(tested.confusion_KK.sum()) - support),
    ]


def _widened(auroc: Measure, positives: int, negatives: int) -> Measure:
    if auroc.value is None or auroc.interval is None:
        return auroc
    low, high = newcombe(auroc.value, positives, negatives)
    return Measure(auroc.value, (min(low, auroc.interval[0]), max(high, auroc.interval[1])))


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
