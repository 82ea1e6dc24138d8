"""Predictions as tables on the terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from csasn.finished.prediction import ImagePrediction
from csasn.finished.saliency import SaliencyShares
from csasn.finished.weights import Prediction
from csasn.platform.plain_text import plain
from csasn.report.rates import show_rate
from csasn.report.tables import table_of

MIN_NAME_WIDTH = 16  # of a column; with four classes a table fits into 60 columns


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
    table = table_of("image", "picture", "decision", "probability", title=title)
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
    table = table_of("map", "inside the nodule", "times a flat map", title=title)
    for name, share in (("Grad-CAM", shares.gradcam), ("attention rollout", shares.rollout), ("flat map", shares.area)):
        table.add_row(name, show_rate(share), "-" if share is None else f"{share / shares.area:.2f}")
    if shares.num_blank:
        table.caption = f"Grad-CAM is blank on {shares.num_blank} images, which are left out of its mean"
    return table
