"""`csasn export`: a finished model as files for other programs."""

import argparse
import shutil
import sys
from pathlib import Path


def add_export(parser: argparse.ArgumentParser) -> None:
    """The arguments of `csasn export`."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="run directory, or folder with model.safetensors and model.json")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the files")
    parser.add_argument(
        "--format",
        choices=("onnx", "safetensors"),
        default="onnx",
        help="onnx (default): model.onnx and model.onnx.data, which must answer as torch does, else nothing is written; needs "
        "pip install 'csasn-federated[export]'; safetensors: model.safetensors; model.json lies beside either",
    )
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> None:
    from csasn.finished.description import model_folder, write_description
    from csasn.finished.onnx import export_onnx
    from csasn.finished.weights import WEIGHTS, load_model
    from csasn.phantom.probes import probe_batches
    from csasn.platform.storage import new_folder

    network, info = load_model(arguments.model)
    with new_folder(arguments.out) as folder:
        if arguments.format == "onnx":
            parity = export_onnx(folder, network, info, probe_batches(info.image_size))
            within = f"probabilities within {parity.probability:.0e}, logits within {parity.logit:.0e}"
            said = f"onnxruntime answers as torch does: {within}"
        else:
            shutil.copyfile(model_folder(arguments.model) / WEIGHTS, folder / WEIGHTS)
            write_description(folder, info)
            load_model(folder)
            said = "read back and compared"
    sys.stdout.write(f"model of round {info.round} in {arguments.out}; {said}\n")
