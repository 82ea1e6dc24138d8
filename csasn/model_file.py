"""A finished model on disk: `model.safetensors` and, beside it, `model.json`, which says what it is and how to use it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from csasn import __version__
from csasn.configuration import Configuration, validate
from csasn.errors import ConfigurationError, ModelError
from csasn.metrics import Floats
from csasn.model.network import Csasn, build_network, image_size
from csasn.storage import write_atomically, write_json
from csasn.study import Study

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
NOTICE = "for research only: not a medical device, not for diagnosis"


class ModelInfo(Configuration):
    """model.json. `adjustment` is τ log π, added to the subtype logits before the softmax that gives probabilities.

    `description_sha256` is over every other value, so that an edited file is noticed; it says nothing about who wrote it.
    """

    format_version: Literal[1] = 1
    notice: str = NOTICE
    code_version: str
    study_hash: str
    weights_sha256: str
    study: Study
    image_size: int
    round: int
    adjustment: tuple[float, ...]
    statistics: str
    description_sha256: str = ""


@dataclass(frozen=True)
class Prediction:
    """Probability of each class for one case, in the order of the study's classes, and the class decided for."""

    decision: str
    probabilities: dict[str, float]


def save_model(folder: Path, study: Study, network: Csasn, current_round: int, adjustment_K: Floats, statistics: str) -> None:
    """Writes both files; `statistics` says where the normalisation statistics come from.

    Raises:
        StorageError: they cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in network.state_dict().items()}
    data = save(tensors)
    info = ModelInfo(
        code_version=__version__,
        study_hash=study.study_hash,
        weights_sha256=_sha256(data),
        study=study,
        image_size=image_size(study.model),
        round=current_round,
        adjustment=tuple(float(value) for value in adjustment_K),
        statistics=statistics,
    )
    write_atomically(folder / WEIGHTS, data)
    info = info.model_copy(update={"description_sha256": _description_hash(info)})
    write_json(folder / DESCRIPTION, info.model_dump(mode="json"))


def load_model(path: Path) -> tuple[Csasn, ModelInfo]:
    """The network, ready to evaluate, and its description; `path` is the folder of both files, or either file.

    Raises:
        ModelError: a file is missing, changed, or does not fit the other.
    """
    folder = path if path.is_dir() else path.parent
    if not (folder / DESCRIPTION).exists():
        raise ModelError(
            f"no {DESCRIPTION} beside {path}", "name the run directory, or the folder of model.safetensors and model.json"
        )
    info = _read_description(folder / DESCRIPTION)
    try:
        data = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {WEIGHTS}: {error.strerror}", f"it belongs beside {DESCRIPTION}") from error
    if _sha256(data) != info.weights_sha256:
        raise ModelError(f"{WEIGHTS} and {DESCRIPTION} do not belong together, or one was changed", "copy both files again")
    network = build_network(info.study)
    try:
        tensors = {name: torch.from_numpy(array.copy()) for name, array in load(data).items()}
        network.load_state_dict(tensors, strict=True)
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise ModelError(f"{WEIGHTS} does not fit the model of {DESCRIPTION}", "was it made by another version?") from error
    return network.eval(), info


@torch.no_grad()
def predict_case(network: Csasn, info: ModelInfo, images_NHW: NDArray[np.uint8]) -> Prediction:
    """The prediction for one case from its images (N, S, S): the mean of their logits decides."""
    images = torch.from_numpy(images_NHW)[:, None].float() / 255
    logits_K = network(images)["subtype"].double().mean(dim=0)
    probabilities_K = torch.softmax(logits_K + torch.tensor(info.adjustment, dtype=torch.float64), dim=0)
    classes = info.study.classes
    return Prediction(classes[int(logits_K.argmax())], {name: float(p) for name, p in zip(classes, probabilities_K, strict=True)})


def _read_description(path: Path) -> ModelInfo:
    """model.json, read as JSON: YAML would take 1e-05 for text."""
    try:
        info = validate(ModelInfo, json.loads(path.read_text(encoding="utf-8")), DESCRIPTION)
    except OSError as error:
        raise ModelError(f"cannot read {DESCRIPTION}: {error.strerror}", "check its permissions") from error
    except ConfigurationError as error:
        raise ModelError(error.message, "copy the file again, or was it made by another version?") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{DESCRIPTION} is not JSON", "copy the file again") from error
    if _description_hash(info) != info.description_sha256 or info.study.study_hash != info.study_hash:
        raise ModelError(f"{DESCRIPTION} was changed after it was written", "copy the file again")
    return info


def _description_hash(info: ModelInfo) -> str:
    return _sha256(json.dumps(info.model_dump(mode="json", exclude={"description_sha256"}), sort_keys=True).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
