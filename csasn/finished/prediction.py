"""`csasn predict` and `csasn evaluate`: a finished model on loose images, or on a site's cases."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from csasn.data.cases import SPLITS, load_site_data
from csasn.errors import ConfigurationError, DataError
from csasn.federated.weighting import ClassWeights
from csasn.finished.description import model_folder, read_description
from csasn.finished.onnx import load_onnx
from csasn.finished.weights import Classifier, ModelInfo, Prediction, load_model, predict_case
from csasn.learning.evaluation import case_logits, count_split
from csasn.measures.blocks import Integers
from csasn.model.network import Csasn
from csasn.pictures.images import letterbox, read_image
from csasn.site import Site


@dataclass(frozen=True)
class ImagePrediction:
    """A picture's place, its prediction or why there is none, the square (S, S) uint8 that the model saw, and what was read of the
    file otherwise than it asks for."""

    path: Path
    prediction: Prediction | None
    fault: DataError | None = None
    square: NDArray[np.uint8] | None = None
    notes: tuple[str, ...] = ()

    @property
    def row(self) -> dict[str, str | float | None]:
        """What is known of it, flat: image, decision, most_probable, p_<class> of each class, notes, error."""
        found, error = self.prediction, self.fault.message if self.fault else None
        probabilities = {f"p_{name}": value for name, value in found.probabilities.items()} if found else {}
        return {
            "image": str(self.path),
            "decision": found.decision if found else None,
            "most_probable": found.most_probable if found else None,
            **probabilities,
            "notes": "; ".join(self.notes),
            "error": error,
        }


def load_classifier(path: Path) -> tuple[Classifier, ModelInfo]:
    """A model in either form, safetensors or ONNX, and its description; `path` is their folder, or one of the files.

    Raises:
        ConfigurationError: it is ONNX, and onnxruntime is not installed.
        ModelError: a file is missing, changed, or does not fit the others.
    """
    return load_onnx(path) if read_description(model_folder(path)).format == "onnx" else load_model(path)


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, and every file in the folders that are named, sorted: what is in a file tells whether it is an
    image, since scanners write `IM_0001` and cameras `A.PNG`. Hidden files and the files of hidden folders are left out.

    Raises:
        ConfigurationError: a path does not exist, or nothing is found.
    """
    found: list[Path] = []
    for number, path in enumerate(paths, 1):
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
        elif path.exists():
            found.append(path)
        else:
            raise ConfigurationError(f"path {number} does not exist", "name images, or folders of images")
    if not found:
        raise ConfigurationError("no file found in the folders named", "name images, or folders of images")
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def predict_images(
    model: Classifier, info: ModelInfo, paths: Iterable[Path], advance: Callable[[], None] | None = None
) -> list[ImagePrediction]:
    """A prediction for each picture by itself; one that cannot be read is reported and does not stop the others."""
    predictions = []
    for path in paths:
        try:
            picture = read_image(path)
            square = letterbox(picture.pixels_HW, info.image_size)
            prediction = predict_case(model, info, square[None])
            predictions.append(ImagePrediction(path, prediction, square=square, notes=picture.notes))
        except DataError as fault:
            predictions.append(ImagePrediction(path, None, fault))
        if advance:
            advance()
    return predictions


def prediction_facts(item: ImagePrediction) -> dict[str, object]:
    """A prediction for JSON: the image with decision and probabilities, or with the error."""
    if item.prediction is None:
        return {"image": str(item.path), "error": item.fault.message if item.fault else None}
    prediction = item.prediction
    facts = {"decision": prediction.decision, "most_probable": prediction.most_probable, "probabilities": prediction.probabilities}
    return {"image": str(item.path), **facts, **({"notes": list(item.notes)} if item.notes else {})}


def prediction_rows(items: Sequence[ImagePrediction], classes: Sequence[str]) -> list[list[str]]:
    """Header and a row a file, for CSV."""
    header = ["image", "decision", "most_probable", *(f"p_{name}" for name in classes), "notes", "error"]
    return [header, *([_cell(item.row.get(name)) for name in header] for item in items)]


def _cell(value: str | float | None) -> str:
    return f"{value:.6f}" if isinstance(value, float) else value or ""


def evaluate_sites(network: Csasn, info: ModelInfo, sites: Mapping[str, Site], split: str) -> dict[str, Integers]:
    """Counts of the cases of a split over sites, by the rule of the model's study.

    Raises:
        DataError: a site's data cannot be read.
    """
    weights = ClassWeights.finished(np.array(info.adjustment))
    counted = []
    for site in sites.values():
        data = load_site_data(info.study, site, info.image_size)
        counted.append(count_split(network, data, SPLITS.index(split), info.study, weights))
    return {name: np.asarray(np.sum([blocks[name] for blocks in counted], axis=0)) for name in counted[0]}


def case_table(network: Csasn, info: ModelInfo, sites: Mapping[str, Site], split: str) -> list[list[str]]:
    """Header and a row a labelled case: site, number of the case in the order of case_id, label, decision, probabilities.

    It is about single patients: it stays on the machine that asked for it.
    """
    classes = info.study.classes
    rows = [["site", "case_number", "label", "decision", *(f"p_{name}" for name in classes)]]
    for name, site in sites.items():
        data = load_site_data(info.study, site, info.image_size)
        cases = data.cases(SPLITS.index(split))
        cases = cases[data.class_C[cases] >= 0]
        if not len(cases):
            continue
        logits_CK = case_logits(network, data, cases)
        probabilities_CK = softmax(logits_CK + np.array(info.adjustment), axis=1)
        for case, logits_K, probabilities_K in zip(cases, logits_CK, probabilities_CK, strict=True):
            label, decision = classes[int(data.class_C[case])], classes[int(logits_K.argmax())]
            rows.append([name, str(int(case) + 1), label, decision, *(f"{value:.6f}" for value in probabilities_K)])
    return rows
