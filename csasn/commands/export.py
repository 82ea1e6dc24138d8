"""`csasn export`: a finished model as files for other programs."""

import shutil
from pathlib import Path
from typing import Annotated, Literal

from csasn.platform.terminal import argument, option, say


def export(
    model: Annotated[Path, argument("MODEL", "run directory, or folder with model.safetensors and model.json")],
    out: Annotated[Path, option("--out DIR", "new folder for the files")],
    form: Annotated[
        Literal["onnx", "safetensors"],
        option(
            "--format",
            "onnx (default): model.onnx and model.onnx.data, which must answer as torch does, else nothing is written; needs "
            "pip install 'csasn-federated[export]'; safetensors: model.safetensors; model.json lies beside either",
        ),
    ] = "onnx",
) -> None:
    """A model as ONNX for other programs, or its safetensors with their description."""
    from csasn.finished.description import model_folder, write_description
    from csasn.finished.onnx import export_onnx
    from csasn.finished.weights import WEIGHTS, load_model
    from csasn.phantom.probes import probe_batches
    from csasn.platform.storage import new_folder

    network, info = load_model(model)
    with new_folder(out) as folder:
        if form == "onnx":
            parity = export_onnx(folder, network, info, probe_batches(info.image_size))
            within = f"probabilities within {parity.probability:.0e}, logits within {parity.logit:.0e}"
            said = f"onnxruntime answers as torch does: {within}"
        else:
            shutil.copyfile(model_folder(model) / WEIGHTS, folder / WEIGHTS)
            write_description(folder, info)
            load_model(folder)
            said = "read back and compared"
    say(f"model of round {info.round} in {out}; {said}")
