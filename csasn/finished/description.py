"""model.json: what a model is, how to use it, and the SHA-256 of each file beside it.

It has exactly one form to the byte, so that any change of it is noticed. That says nothing about who wrote it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from csasn import NOTICE, __version__
from csasn.errors import ConfigurationError, ModelError
from csasn.measures.counts import Floats
from csasn.model.profiles import image_size
from csasn.pictures.images import PREPROCESSING_VERSION
from csasn.platform.configuration import Grown, Sha256, validate
from csasn.platform.storage import file_sha256, write_atomically
from csasn.study import MALIGNANCY, SUBTYPE, Ancestor, Name, Study

DESCRIPTION, WEIGHTS, GRAPH, GRAPH_WEIGHTS = "model.json", "model.safetensors", "model.onnx", "model.onnx.data"
FILES = {"safetensors": (WEIGHTS,), "onnx": (GRAPH, GRAPH_WEIGHTS)}
PREPROCESSING = (
    "grey (ITU-R 601), 8 bits; longer side to image_size, aspect kept, bilinear with antialiasing, centred on zeros; "
    "divided by 255; mean and standard deviation of pretraining are applied inside the network"
)
CHANGED = f"{DESCRIPTION} was changed after it was written"
AGAIN = "copy the file again"


class ModelInfo(Grown):
    """model.json. `adjustment` is added to the subtype logits f, which decide, before the softmax that gives probabilities. Both
    were divided by `temperature` already, which is there where it is not 1.

    `files` are those beside it with their SHA-256; `weights_sha256` is of the model.safetensors that all of it was made from.
    `tasks` are the values that each task's logits stand for, in order. `statistics` says where those of normalisation layers come
    from, `lineage` which runs its study went on from. `description_sha256` is over every other value.
    """

    newer: ClassVar[Mapping[str, object]] = {"temperature": 1.0, "lineage": ()}
    format_version: Literal[2] = 2
    notice: str = NOTICE
    format: Literal["safetensors", "onnx"] = "safetensors"
    code_version: str
    study_hash: str
    weights_sha256: Sha256
    files: dict[str, Sha256]
    classes: tuple[str, ...]
    tasks: dict[Name, tuple[str, ...]]
    image_size: int
    preprocessing: str = PREPROCESSING
    preprocessing_version: int = PREPROCESSING_VERSION
    round: int
    adjustment: tuple[float, ...]
    temperature: float = 1.0
    statistics: str
    lineage: tuple[Ancestor, ...] = ()
    study: Study
    description_sha256: str = ""


def describe(
    study: Study,
    weights_sha256: str,
    current_round: int,
    adjustment_K: Floats,
    statistics: str,
    *,
    temperature: float = 1.0,
    lineage: tuple[Ancestor, ...] = (),
) -> ModelInfo:
    """The description of a model of `study` whose model.safetensors has that SHA-256."""
    return ModelInfo(
        code_version=__version__,
        study_hash=study.study_hash,
        weights_sha256=weights_sha256,
        files={WEIGHTS: weights_sha256},
        classes=study.classes,
        tasks=task_values(study),
        image_size=image_size(study.model),
        round=current_round,
        adjustment=tuple(float(value) for value in adjustment_K),
        temperature=temperature,
        statistics=statistics,
        lineage=lineage,
        study=study,
    )


def task_values(study: Study) -> dict[str, tuple[str, ...]]:
    """What the logits of each task stand for, in order."""
    given = {SUBTYPE: study.classes, MALIGNANCY: ("benign", "malignant")}
    return {task: given.get(task, settings.values) for task, settings in study.tasks.items()}


def write_description(folder: Path, info: ModelInfo) -> ModelInfo:
    """Writes model.json, and returns it with its hash.

    Raises:
        StorageError: it cannot be written.
    """
    signed = info.model_copy(update={"description_sha256": _description_hash(info)})
    write_atomically(folder / DESCRIPTION, _bytes(signed))
    return signed


def model_folder(path: Path) -> Path:
    """The folder of a model; `path` is that, or one of its files.

    Raises:
        ModelError: no model.json is there.
    """
    folder = path if path.is_dir() else path.parent
    if not (folder / DESCRIPTION).exists():
        raise ModelError(f"no {DESCRIPTION} beside {path}", "name the run directory, or the folder of an exported model")
    return folder


def read_description(folder: Path) -> ModelInfo:
    """model.json, read as JSON: YAML would take 1e-05 for text.

    Raises:
        ModelError: it cannot be read, was changed, or contradicts its own study.
    """
    try:
        data = (folder / DESCRIPTION).read_bytes()
        info = validate(ModelInfo, json.loads(data.decode()), DESCRIPTION)
    except OSError as error:
        raise ModelError(f"cannot read {DESCRIPTION}: {error.strerror}", "check its permissions") from error
    except ConfigurationError as error:
        raise ModelError(error.message, "copy the file again, or was it made by another version?") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{DESCRIPTION} is not JSON", AGAIN) from error
    if data != _bytes(info) or _description_hash(info) != info.description_sha256:
        raise ModelError(CHANGED, AGAIN)
    _check_study(info)
    return info


def _check_study(info: ModelInfo) -> None:
    """Refuses what contradicts the study, though it is hashed: another program wrote it."""
    study = info.study
    if info.study_hash != study.study_hash:
        raise ModelError(CHANGED, AGAIN)
    if info.classes != study.classes:
        raise ModelError(f"{DESCRIPTION}: classes are {list(info.classes)}, expected {list(study.classes)} of its study", AGAIN)
    expected = {
        "tasks": (info.tasks, task_values(study)),
        "image_size": (info.image_size, image_size(study.model)),
        "files": (sorted(info.files), sorted(FILES[info.format])),
        "number of adjustments": (len(info.adjustment), len(study.classes)),
    }
    for key, (found, right) in expected.items():
        if found != right:
            raise ModelError(f"{DESCRIPTION}: {key} is {found}, expected {right} of its study", AGAIN)


def verify_files(folder: Path, files: Mapping[str, str]) -> None:
    """Compares each file with its SHA-256.

    Raises:
        ModelError: one is missing, or was changed.
    """
    for name, expected in files.items():
        try:
            found = file_sha256(folder / name)
        except OSError as error:
            raise ModelError(f"cannot read {name}: {error.strerror}", f"it belongs beside {DESCRIPTION}") from error
        if found != expected:
            raise ModelError(f"{name} and {DESCRIPTION} do not belong together, or one was changed", "copy all files again")


def _bytes(info: ModelInfo) -> bytes:
    """The one form: keys in the order of the class, one space a level, numbers as Python writes them, a line break at the end."""
    return (json.dumps(info.model_dump(mode="json"), indent=1, allow_nan=False) + "\n").encode()


def _description_hash(info: ModelInfo) -> str:
    text = json.dumps(info.model_dump(mode="json", exclude={"description_sha256"}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
