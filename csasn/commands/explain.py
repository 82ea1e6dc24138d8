"""`csasn explain`: pictures of where a model looks, or how much of that lies inside a phantom's nodules."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from csasn.errors import ConfigurationError, DataError
from csasn.platform.terminal import argument, bar, console, option, progress_bars, say_json


def explain(
    model: Annotated[Path, argument("MODEL", "run directory, or folder with model.safetensors and model.json")],
    paths: Annotated[
        list[Path] | None,
        argument("PATH...", "images (PNG, JPEG, BMP, TIFF, WebP, JPEG 2000, DICOM), or folders of them"),
    ] = None,
    out: Annotated[
        Path | None,
        option("--out DIR", "new folder for a picture (PNG) of each image, numbered; about patients: keep it on site"),
    ] = None,
    phantom: Annotated[
        Path | None,
        option("--phantom DIR", "measure instead, on a phantom's test images, how much lies inside the nodule"),
    ] = None,
    json: Annotated[bool, option("--json", "print JSON instead of a table")] = False,
) -> None:
    """Pictures of where a model looks: Grad-CAM and attention rollout."""
    if phantom and (paths or out):
        raise ConfigurationError("--phantom goes with neither PATH nor --out", "measure and draw in two commands")
    if phantom:
        _measure(model, phantom, json)
    elif paths and out:
        _draw(model, paths, out, json)
    else:
        raise ConfigurationError("explain has nothing to do", "give PATH and --out DIR, or --phantom DIR")


def _draw(model: Path, images: list[Path], out: Path, as_json: bool) -> None:
    """A picture an image, numbered as in the table, so that the pictures tell no name."""
    from csasn.finished.prediction import find_images, predict_images, prediction_facts
    from csasn.finished.saliency import explain_square
    from csasn.finished.weights import NOTICE, load_model
    from csasn.platform.storage import new_folder
    from csasn.report.predictions import explanation_table
    from csasn.report.saliency import draw_saliency

    network, info = load_model(model)
    paths = find_images(images)
    names: list[str | None] = []
    predictions = []
    with progress_bars() as bars, new_folder(out) as folder:
        for number, path in enumerate(bars.track(paths, description="drawing"), 1):
            (item,) = predict_images(network, info, [path])
            name = None
            if item.prediction is not None and item.square is not None:
                name = f"{number:0{len(str(len(paths)))}d}.png"
                draw_saliency(item.square, explain_square(network, item.square), item.prediction, folder / name, NOTICE)
            predictions.append(item)
            names.append(name)
    if as_json:
        rows = [{**prediction_facts(item), "picture": name} for item, name in zip(predictions, names, strict=True)]
        say_json({"notice": NOTICE, "folder": str(out), "images": rows})
    else:
        console().print(explanation_table(predictions, names, f"Pictures in {out} ({NOTICE})"))
    if faults := names.count(None):
        raise DataError(f"{faults} of {len(names)} images have no picture", "the reason stands beside each")


def _measure(model: Path, phantom: Path, as_json: bool) -> None:
    from csasn.finished.weights import load_model
    from csasn.phantom.saliency import saliency_in_nodule
    from csasn.report.predictions import saliency_table
    from csasn.site import find_site

    network, info = load_model(model)
    sites = {name: find_site(name, folder=phantom / "sites", option="--phantom") for name in info.study.federation.sites}
    with progress_bars() as bars:
        shares = saliency_in_nodule(network, info, phantom, sites, advance=bar(bars, "measuring"))
    if as_json:
        say_json(asdict(shares))
    else:
        console().print(saliency_table(shares))
