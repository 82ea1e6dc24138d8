"""A finished model as ONNX: `model.onnx` with its weights in `model.onnx.data`, which other programs run without our code.

    image (batch, 1, S, S), grey 0..1 -> probabilities (batch, K) = softmax(f + adjustment), and logits_<task> (batch, values)

K classes, S side of the image in pixels; the decision is the largest of logits_subtype, f. A case of several images is decided by
the mean of their logits. The packages of the extra `export` are imported where they are used: nothing else needs them.
"""

import importlib.util
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from csasn.errors import ConfigurationError, ModelError
from csasn.finished.description import (
    DESCRIPTION,
    FILES,
    GRAPH,
    ModelInfo,
    model_folder,
    read_description,
    verify_files,
    write_description,
)
from csasn.measures.counts import Floats
from csasn.model.network import Csasn
from csasn.platform.storage import file_sha256
from csasn.study import SUBTYPE

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUT, PROBABILITIES, LOGITS = "image", "probabilities", "logits_"
MOST_PROBABILITY, MOST_LOGIT = 1e-5, 1e-4


@dataclass(frozen=True)
class Parity:
    """The largest difference between torch and onnxruntime: of probabilities, and of logits over the largest logit or 1."""

    probability: float
    logit: float


@dataclass(frozen=True)
class OnnxModel:
    """A model that onnxruntime runs on the CPU."""

    session: "InferenceSession"

    def subtype_logits(self, images_NSS: NDArray[np.uint8]) -> Floats:
        """Letterboxed images (N, S, S) -> subtype logits f (N, K)."""
        return self.run(images_NSS)[LOGITS + SUBTYPE]

    def run(self, images_NSS: NDArray[np.uint8]) -> dict[str, Floats]:
        """Letterboxed images (N, S, S) -> each output by its name."""
        names = [output.name for output in self.session.get_outputs()]
        values = self.session.run(names, {INPUT: (images_NSS[:, None] / np.float32(255)).astype(np.float32)})
        return {name: np.asarray(value, np.float64) for name, value in zip(names, values, strict=True)}


class _Graph(nn.Module):
    """The network and the way from its logits to probabilities."""

    def __init__(self, network: Csasn, adjustment: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("adjustment_K", torch.tensor(adjustment))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        logits: dict[str, Tensor] = self.network(image)
        return torch.softmax(logits[SUBTYPE] + self.get_buffer("adjustment_K"), dim=1), *logits.values()


def export_onnx(folder: Path, network: Csasn, info: ModelInfo, batches: Iterable[NDArray[np.uint8]]) -> Parity:
    """Writes the model and its model.json to `folder`, and compares what both forms answer to `batches` of letterboxed images.

    Raises:
        ConfigurationError: the packages of the extra `export` are not installed.
        ModelError: the model cannot be written as ONNX, or answers otherwise there.
    """
    _require_packages("onnx", "onnxscript", "onnxruntime")
    _write_graph(folder / GRAPH, network, info)
    files = {name: file_sha256(folder / name) for name in FILES["onnx"]}
    write_description(folder, info.model_copy(update={"format": "onnx", "files": files}))
    parity = measure_parity(network, load_onnx(folder)[0], info, batches)
    if not (parity.probability < MOST_PROBABILITY and parity.logit < MOST_LOGIT):
        found = f"probabilities differ by {parity.probability:.1e} and logits by {parity.logit:.1e}"
        problem = f"onnxruntime does not answer as torch does: {found}, expected below {MOST_PROBABILITY} and {MOST_LOGIT}"
        raise ModelError(problem, "nothing was written; export --format safetensors")
    return parity


def load_onnx(path: Path) -> tuple[OnnxModel, ModelInfo]:
    """The model and its description; `path` is their folder, or one of the files.

    Raises:
        ConfigurationError: onnxruntime is not installed.
        ModelError: a file is missing, changed, no ONNX, or not that of its description.
    """
    folder = model_folder(path)
    info = read_description(folder)
    if info.format != "onnx":
        raise ModelError(f"this is no ONNX model (format {info.format})", "csasn export writes one")
    verify_files(folder, info.files)
    _require_packages("onnxruntime")
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as faults

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it would log paths
    try:
        session = onnxruntime.InferenceSession(str(folder / GRAPH), options, providers=["CPUExecutionProvider"])
    except (faults.Fail, faults.InvalidGraph, faults.InvalidProtobuf, faults.InvalidArgument, faults.RuntimeException) as error:
        raise ModelError(f"{GRAPH} is not a graph that onnxruntime can run", "export the model again") from error
    shapes = {INPUT: [1, info.image_size, info.image_size]} | {name: [count] for name, count in _outputs(info).items()}
    found = {value.name: value.shape[1:] for value in [*session.get_inputs(), *session.get_outputs()]}
    if found != shapes or session.get_modelmeta().custom_metadata_map != _identity(info):
        raise ModelError(f"{GRAPH} is not the model of {DESCRIPTION}", "export the model again")
    return OnnxModel(session), info


def measure_parity(network: Csasn, model: OnnxModel, info: ModelInfo, batches: Iterable[NDArray[np.uint8]]) -> Parity:
    """How far both forms are apart on batches of letterboxed images (N, S, S): of several sizes, and ultrasound at best, since
    rounding may grow on what is none."""
    probability = logit = 0.0
    for images_NSS in batches:
        found = model.run(images_NSS)
        with torch.no_grad():
            answers = network(torch.from_numpy(images_NSS)[:, None].float() / 255)
        expected = {task: logits.double().numpy() for task, logits in answers.items()}
        probabilities_NK = softmax(expected[SUBTYPE] + np.array(info.adjustment), axis=1)
        probability = max(probability, float(np.abs(found[PROBABILITIES] - probabilities_NK).max()))
        for task, logits in expected.items():
            difference = float(np.abs(found[LOGITS + task] - logits).max())
            logit = max(logit, difference / max(1.0, float(np.abs(logits).max())))
    return Parity(probability, logit)


def _write_graph(path: Path, network: Csasn, info: ModelInfo) -> None:
    """Writes the graph, for any batch size. File names of this machine, which the exporter leaves at each node, go out."""
    image = torch.zeros((2, 1, info.image_size, info.image_size))
    try:
        with warnings.catch_warnings():  # nothing that the exporter says about itself is for who exports a model
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Graph(network, info.adjustment).eval(),
                (image,),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=list(_outputs(info)),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    except torch.onnx.OnnxExporterError as error:
        raise ModelError("torch cannot write this model as ONNX", "nothing was written; export --format safetensors") from error
    assert program is not None
    graph = program.model.graph
    graph.metadata_props.clear()
    for node in graph:
        node.metadata_props.clear()
    program.model.metadata_props.update(_identity(info))
    program.save(str(path), external_data=True)


def _outputs(info: ModelInfo) -> dict[str, int]:
    """Names of the graph's outputs, and how many values each has."""
    return {PROBABILITIES: len(info.classes)} | {LOGITS + task: len(values) for task, values in info.tasks.items()}


def _identity(info: ModelInfo) -> dict[str, str]:
    """What the graph says about itself, so that it is not taken for another model of the same shapes."""
    return {"notice": info.notice, "study_hash": info.study_hash, "weights_sha256": info.weights_sha256}


def _require_packages(*names: str) -> None:
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise ConfigurationError(f"not installed: {', '.join(missing)}", "pip install 'csasn-federated[export]'")
