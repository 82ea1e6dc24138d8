"""Reports and predictions as tables on the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from csasn.finished.prediction import ImagePrediction
from csasn.finished.saliency import SaliencyShares
from csasn.finished.weights import Prediction
from csasn.platform.plain_text import plain
from csasn.report.rates import show_rate, whose_cases, with_interval
from csasn.report.report import CONCLUSIVE_CASES

Report = Mapping[str, object]
MIN_NAME_WIDTH = 16  # of a column; with four classes a table fits into 60 columns


def report_tables(report: Report) -> Group:
    """A table per class of the federated model, and one of it beside the baselines."""
    final, baselines = report["final"], report["baselines"]
    methods = {"federated": final, **(baselines if isinstance(baselines, dict) else {})}
    absent = report.get("absent_at_finish")
    whose = whose_cases(absent)
    same = f"Federated on test cases of {whose}, others on those of all" if absent else "On the same test cases"
    title = same + (", after the same number of optimiser steps" if baselines else "")
    return Group(_class_table(final, f"Federated model, test cases of {whose}"), _method_table(methods, title))


def metrics_tables(final: object, title: str) -> Group:
    """The tables of one evaluation."""
    return Group(_class_table(final, title), _method_table({"model": final}, "Over all classes"))


def prediction_table(predictions: Sequence[ImagePrediction], classes: Sequence[str], notice: str) -> Table:
    """A row a file: what is decided, the probability of each class, or why there is none; names break over lines, none vanishes."""
    table = Table(title=f"Predictions ({notice})", caption_justify="left", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("image", overflow="fold", min_width=MIN_NAME_WIDTH, ratio=1)
    table.add_column("decision", overflow="fold", min_width=max(map(len, classes)) + 1)
    for name in classes:
        table.add_column(name, justify="right", no_wrap=True, min_width=len("0.000"))
    others = sorted({item.prediction.decision for item in predictions if item.prediction and _is_another(item.prediction)})
    for item in predictions:
        place = Text(plain(": ".join((str(item.path), *item.notes))))
        if item.prediction:
            mark = "*" if _is_another(item.prediction) else ""
            shown = (f"{item.prediction.probabilities[name]:.3f}" for name in classes)
            table.add_row(place, f"{item.prediction.decision}{mark}", *shown)
        elif item.fault:
            table.add_row(Text.assemble(place, f": {item.fault.message}"), "none", *("-" for _ in classes))
    if others:
        table.caption = (
            f"*: decided {' or '.join(others)}, though another class is more probable: rare classes count more in a decision, "
            "see the model card"
        )
    return table


def _is_another(prediction: Prediction) -> bool:
    return prediction.decision != prediction.most_probable


def explanation_table(predictions: Sequence[ImagePrediction], names: Sequence[str | None], title: str) -> Table:
    """A row an image: its picture, what is decided and how probable that is, or why there is none."""
    table = _table("image", "picture", "decision", "probability", title=title)
    for item, name in zip(predictions, names, strict=True):
        if item.prediction:
            probability = item.prediction.probabilities[item.prediction.decision]
            table.add_row(Text(plain(str(item.path))), name, item.prediction.decision, f"{probability:.3f}")
        elif item.fault:
            table.add_row(Text(plain(f"{item.path}: {item.fault.message}")), "none", "-", "-")
    return table


def saliency_table(shares: SaliencyShares) -> Table:
    """A row a map: the share of it inside the nodule, and how often that is what a flat map would get."""
    title = f"Share of saliency inside the nodule, mean over {shares.num_images} test images of a phantom"
    table = _table("map", "inside the nodule", "times a flat map", title=title)
    for name, share in (("Grad-CAM", shares.gradcam), ("attention rollout", shares.rollout), ("flat map", shares.area)):
        table.add_row(name, show_rate(share), "-" if share is None else f"{share / shares.area:.2f}")
    if shares.num_blank:
        table.caption = f"Grad-CAM is blank on {shares.num_blank} images, which are left out of its mean"
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
