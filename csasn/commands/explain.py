"""`csasn explain`: pictures of where a model looks, or how much of that lies inside a phantom's nodules."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from csasn.platform.command import progress_bars


def add_explain(parser: argparse.ArgumentParser) -> None:
    """The arguments of `csasn explain`."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="run directory, or folder with model.safetensors and model.json")
    parser.add_argument(
        "paths",
        type=Path,
        nargs="*",
        metavar="PATH",
        help="images (PNG, JPEG, BMP, TIFF, WebP, JPEG 2000, DICOM), or folders of them",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="new folder for a picture (PNG) of each image, numbered; about patients: keep it on site",
    )
    parser.add_argument(
        "--phantom", type=Path, metavar="DIR", help="measure instead, on a phantom's test images, how much lies inside the nodule"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(command=_explain)


def _explain(arguments: argparse.Namespace) -> None:
    from csasn.errors import ConfigurationError

    if arguments.phantom and (arguments.paths or arguments.out):
        raise ConfigurationError("--phantom goes with neither PATH nor --out", "measure and draw in two commands")
    if not arguments.phantom and not (arguments.paths and arguments.out):
        raise ConfigurationError("explain has nothing to do", "give PATH and --out DIR, or --phantom DIR")
    if arguments.phantom:
        _measure(arguments)
    else:
        _draw(arguments)


def _draw(arguments: argparse.Namespace) -> None:
    """A picture an image, numbered as in the table, so that the pictures tell no name."""
    from rich.console import Console

    from csasn.errors import DataError
    from csasn.finished.prediction import find_images, predict_images, prediction_facts
    from csasn.finished.saliency import explain_square
    from csasn.finished.weights import NOTICE, load_model
    from csasn.platform.storage import new_folder
    from csasn.report.predictions import explanation_table
    from csasn.report.saliency import draw_saliency

    network, info = load_model(arguments.model)
    paths = find_images(arguments.paths)
    names: list[str | None] = []
    predictions = []
    with progress_bars() as bars, new_folder(arguments.out) as folder:
        task = bars.add_task("drawing", total=len(paths))
        for number, path in enumerate(paths, 1):
            (item,) = predict_images(network, info, [path])
            name = None
            if item.prediction is not None and item.square is not None:
                name = f"{number:0{len(str(len(paths)))}d}.png"
                draw_saliency(item.square, explain_square(network, item.square), item.prediction, folder / name, NOTICE)
            predictions.append(item)
            names.append(name)
            bars.advance(task)
    if arguments.json:
        rows = [{**prediction_facts(item), "picture": name} for item, name in zip(predictions, names, strict=True)]
        sys.stdout.write(json.dumps({"notice": NOTICE, "folder": str(arguments.out), "images": rows}, indent=1) + "\n")
    else:
        Console().print(explanation_table(predictions, names, f"Pictures in {arguments.out} ({NOTICE})"))
    if faults := names.count(None):
        raise DataError(f"{faults} of {len(names)} images have no picture", "the reason stands beside each")


def _measure(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from csasn.finished.weights import load_model
    from csasn.phantom.saliency import saliency_in_nodule
    from csasn.report.predictions import saliency_table
    from csasn.site import find_site

    network, info = load_model(arguments.model)
    sites = {name: find_site(name, folder=arguments.phantom / "sites", option="--phantom") for name in info.study.federation.sites}
    with progress_bars() as bars:
        task = bars.add_task("measuring", total=None)
        shares = saliency_in_nodule(
            network, info, arguments.phantom, sites, advance=lambda done, total: bars.update(task, completed=done, total=total)
        )
    if arguments.json:
        sys.stdout.write(json.dumps(asdict(shares), indent=1) + "\n")
    else:
        Console().print(saliency_table(shares))
