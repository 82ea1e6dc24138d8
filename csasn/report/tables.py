"""Reports and predictions as tables on the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.table import Table

from csasn.prediction import ImagePrediction
from csasn.saliency import SaliencyShares

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


def explanation_table(predictions: Sequence[ImagePrediction], names: Sequence[str | None], title: str) -> Table:
    """A row an image: its picture, what is decided and how probable that is, or why there is none."""
    table = _table("image", "picture", "decision", "probability", title=title)
    for item, name in zip(predictions, names, strict=True):
        if item.prediction:
            probability = item.prediction.probabilities[item.prediction.decision]
            table.add_row(str(item.path), name, item.prediction.decision, f"{probability:.3f}")
        elif item.fault:
            table.add_row(f"{item.path}: {item.fault.message}", "none", "-", "-")
    return table


def saliency_table(shares: SaliencyShares) -> Table:
    """A row a map: the share of it inside the nodule, and how often that is what a flat map would get."""
    title = f"Share of saliency inside the nodule, mean over {shares.num_images} test images of a phantom"
    table = _table("map", "inside the nodule", "times a flat map", title=title)
    for name, share in (("Grad-CAM", shares.gradcam), ("attention rollout", shares.rollout), ("flat map", shares.area)):
        table.add_row(name, _show(share), "-" if share is None else f"{share / shares.area:.2f}")
    if shares.num_blank:
        table.caption = f"Grad-CAM is blank on {shares.num_blank} images, which are left out of its mean"
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
