"""`csasn predict`: what a finished model says of loose images."""

import argparse
import csv
import json
import sys
from pathlib import Path


def add_predict(parser: argparse.ArgumentParser) -> None:
    """The arguments of `csasn predict`."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="run directory, or folder of a model, safetensors or ONNX")
    parser.add_argument(
        "paths", type=Path, nargs="+", metavar="PATH", help="images, or folders: every file in them is shown, or said why not"
    )
    parser.add_argument("--grid", type=Path, metavar="FILE", help="also draw (PNG) the most and the least certain images")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON in place of a table: every file, with all probabilities")
    form.add_argument("--csv", action="store_true", help="print CSV in place of a table: a row a file, a column a class")
    parser.set_defaults(command=_predict)


def _predict(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from csasn.errors import DataError
    from csasn.finished.prediction import find_images, load_classifier, predict_images, prediction_facts, prediction_rows
    from csasn.finished.weights import NOTICE
    from csasn.platform.command import progress_bars
    from csasn.report.grid import draw_grid
    from csasn.report.predictions import prediction_table

    model, info = load_classifier(arguments.model)
    paths = find_images(arguments.paths)
    with progress_bars() as bars:
        task = bars.add_task("predicting", total=len(paths))
        predictions = predict_images(model, info, paths, lambda: bars.advance(task))
    faults = sum(item.fault is not None for item in predictions)
    if arguments.grid:
        draw_grid(predictions, arguments.grid, NOTICE)
    if arguments.json:
        facts = {
            "notice": NOTICE, "study": info.study.name, "round": info.round, "weights_sha256": info.weights_sha256,
            "classes": info.classes, "files": len(predictions), "without_prediction": faults,
        }  # fmt: skip
        rows = [prediction_facts(item) for item in predictions]
        sys.stdout.write(json.dumps({**facts, "predictions": rows}, indent=1) + "\n")
    elif arguments.csv:
        csv.writer(sys.stdout).writerows(prediction_rows(predictions, info.classes))
    else:
        Console().print(prediction_table(predictions, info.classes, NOTICE))
    if faults:
        raise DataError(f"{faults} of {len(predictions)} images have no prediction", "the reason stands beside each")
