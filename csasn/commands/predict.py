"""`csasn predict`: what a finished model says of loose images."""

import csv as csv_format
import sys
from pathlib import Path
from typing import Annotated

from csasn.errors import DataError
from csasn.platform.terminal import argument, console, option, progress_bars, say_json


def predict(
    model: Annotated[Path, argument("MODEL", "run directory, or folder of a model, safetensors or ONNX")],
    paths: Annotated[list[Path], argument("PATH...", "images, or folders: every file in them is shown, or said why not")],
    grid: Annotated[Path | None, option("--grid FILE", "also draw (PNG) the most and the least certain images")] = None,
    json: Annotated[bool, option("--json", "print JSON in place of a table: every file, with all probabilities")] = False,
    csv: Annotated[bool, option("--csv", "print CSV in place of a table: a row a file, a column a class")] = False,
) -> None:
    """Probabilities of each class for images or folders of images."""
    from csasn.finished.prediction import find_images, load_classifier, predict_images, prediction_facts, prediction_rows
    from csasn.finished.weights import NOTICE
    from csasn.report.grid import draw_grid
    from csasn.report.predictions import prediction_table

    classifier, info = load_classifier(model)
    found = find_images(paths)
    with progress_bars() as bars:
        task = bars.add_task("predicting", total=len(found))
        predictions = predict_images(classifier, info, found, lambda: bars.advance(task))
    faults = sum(item.fault is not None for item in predictions)
    if grid:
        draw_grid(predictions, grid, NOTICE)
    if json:
        facts = {
            "notice": NOTICE, "study": info.study.name, "round": info.round, "weights_sha256": info.weights_sha256,
            "classes": info.classes, "files": len(predictions), "without_prediction": faults,
        }  # fmt: skip
        say_json({**facts, "predictions": [prediction_facts(item) for item in predictions]})
    elif csv:
        csv_format.writer(sys.stdout).writerows(prediction_rows(predictions, info.classes))
    else:
        console().print(prediction_table(predictions, info.classes, NOTICE))
    if faults:
        raise DataError(f"{faults} of {len(predictions)} images have no prediction", "the reason stands beside each")
