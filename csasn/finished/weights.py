"""A finished model on disk: `model.safetensors` and, beside it, `model.json` (csasn/finished/description.py)."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from csasn import NOTICE
from csasn.errors import ModelError
from csasn.finished.description import (
    DESCRIPTION,
    WEIGHTS,
    ModelInfo,
    describe,
    model_folder,
    read_description,
    verify_files,
    write_description,
)
from csasn.measures.counts import Floats
from csasn.model.network import Csasn, build_network
from csasn.platform.storage import write_atomically
from csasn.study import Ancestor, Study

__all__ = ["DESCRIPTION", "NOTICE", "WEIGHTS", "Classifier", "ModelInfo", "Prediction", "load_model", "predict_case", "save_model"]


class Classifier(Protocol):
    """A model in whatever form."""

    def subtype_logits(self, images_NSS: NDArray[np.uint8]) -> Floats:
        """Letterboxed images (N, S, S) -> subtype logits f (N, K)."""


@dataclass(frozen=True)
class Prediction:
    """Probability of each class for one case, in the order of the study's classes, and the class decided for."""

    decision: str
    probabilities: dict[str, float]

    @property
    def most_probable(self) -> str:
        """The class of the highest probability. The decision may be another: the model weighs classes against their rarity when it
        decides, and not when it says how probable each is."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])


def save_model(
    folder: Path,
    study: Study,
    network: Csasn,
    current_round: int,
    adjustment_K: Floats,
    statistics: str,
    *,
    temperature: float = 1.0,
    lineage: tuple[Ancestor, ...] = (),
) -> None:
    """Writes both files; `statistics` says where the normalisation statistics come from, `lineage` which runs it went on from. The
    network's logits and their adjustment are divided by the temperature already.

    Raises:
        StorageError: they cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in network.state_dict().items()}
    data = save(tensors)
    write_atomically(folder / WEIGHTS, data)
    sha256 = hashlib.sha256(data).hexdigest()
    info = describe(study, sha256, current_round, adjustment_K, statistics, temperature=temperature, lineage=lineage)
    write_description(folder, info)


def load_model(path: Path) -> tuple[Csasn, ModelInfo]:
    """The network, ready to evaluate, and its description; `path` is the folder of both files, or either file.

    Raises:
        ModelError: a file is missing, changed, or does not fit the other.
    """
    folder = model_folder(path)
    info = read_description(folder)
    if info.format != "safetensors":
        raise ModelError(f"this is a model for predicting alone (format {info.format})", f"name the folder of its {WEIGHTS}")
    verify_files(folder, info.files)
    network = build_network(info.study)
    try:
        tensors = {name: torch.from_numpy(array.copy()) for name, array in load((folder / WEIGHTS).read_bytes()).items()}
        network.load_state_dict(tensors, strict=True)
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise ModelError(f"{WEIGHTS} does not fit the model of {DESCRIPTION}", "was it made by another version?") from error
    return network.eval(), info


def predict_case(model: Classifier, info: ModelInfo, images_NSS: NDArray[np.uint8]) -> Prediction:
    """The prediction for one case from its images (N, S, S): the mean of their logits decides."""
    from scipy.special import softmax  # which a coordinator, that saves models and predicts nothing, does without

    logits_K = model.subtype_logits(images_NSS).mean(axis=0)
    probabilities_K = softmax(logits_K + np.array(info.adjustment))
    classes = info.study.classes
    return Prediction(classes[int(logits_K.argmax())], {name: float(p) for name, p in zip(classes, probabilities_K, strict=True)})
