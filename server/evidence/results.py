"""What a grid has found so far: results.json with a record a cell, and their predictions beside it in predictions.npz.

Each file is whole, and predictions are there before the record that names their hash: a cell whose two do not fit is not done.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydantic import Field

from csasn.errors import ConfigurationError, StorageError
from csasn.measures.cases import Classes, Floats, case_weights, measures, values_of
from csasn.platform.configuration import Configuration, validate
from csasn.platform.locks import lock_folder
from csasn.platform.storage import write_json
from csasn.study import Study
from server.evidence.cells import Cell
from server.evidence.grid import Statistics
from server.evidence.predictions import Predictions, load_predictions, save_predictions

RECORDS, PREDICTIONS = "results.json", "predictions.npz"
DIGITS = 6  # of a value


class Record(Configuration):
    """What came of a cell. `values` are measures of its predictions, `saliency` shares of maps inside nodules.

    `code_version` is of the code that made it, or of a later one whose bits were found to be the same. `predictions` is a hash of
    theirs. `clipped_share` is the largest of a federation's rounds. A cell that failed has an error and none of these.
    """

    variant: str
    seed: int
    method: str
    statistics: Statistics
    study_hash: str
    data_hash: str
    code_version: str
    device: str = ""
    seconds: float = 0.0
    error: str = ""
    predictions: str = ""
    clipped_share: float | None = None
    values: dict[str, float | None] = Field(default_factory=dict)
    saliency: dict[str, float | None] = Field(default_factory=dict)


class _Records(Configuration):
    grid: str
    cells: tuple[Record, ...] = ()


class Results:
    """The results of the grid `name` in `folder`; test cases are weighted to `prevalence_K` where there is one."""

    def __init__(self, folder: Path, name: str, classes: Classes, prevalence_K: Floats | None = None) -> None:
        self.folder, self.name, self.classes, self.prevalence_K = folder, name, classes, prevalence_K
        self._records = {(record.variant, record.seed): record for record in self._read()}
        self._predictions = load_predictions(folder / PREDICTIONS) if (folder / PREDICTIONS).exists() else {}

    def finished(self, cell: Cell) -> Record | None:
        """The cell's record, if it is of the same study and way to train and score, did not fail, and its predictions are there."""
        record, predictions = self._records.get((cell.variant, cell.seed)), self._predictions.get(cell.name)
        if record is None or predictions is None or record.predictions != predictions.sha256():
            return None
        same = (record.method, record.statistics, record.study_hash) == (cell.method, cell.statistics, cell.study.study_hash)
        return record if same else None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept, of this grid as it is or as it was."""
        return not self._records

    def predictions_of(self, cell: Cell) -> Predictions:
        """Those of a finished cell."""
        return self._predictions[cell.name]

    def keep(self, cell: Cell, record: Record, predictions: Predictions | None) -> Record:
        """Takes in a record and predictions, none of a cell that failed; the record as it is kept."""
        self._predictions.pop(cell.name, None)
        if predictions is not None:
            self._predictions[cell.name] = predictions.rounded()
            record = self._measured(record.model_copy(update={"predictions": predictions.sha256()}), cell)
        self._records[cell.variant, cell.seed] = record
        save_predictions(self.folder / PREDICTIONS, self._predictions)
        self._write()
        return record

    def take_over(self, former: Record, code_version: str, cells: Sequence[Cell]) -> int:
        """Says of finished cells from the data and code of `former` that this code gives the same; how many they are."""
        origin = former.data_hash, former.code_version
        found = [record for cell in cells if (record := self.finished(cell)) and (record.data_hash, record.code_version) == origin]
        for record in found:
            self._records[record.variant, record.seed] = record.model_copy(update={"code_version": code_version})
        self._write()
        return len(found)

    def measure_again(self, cells: Sequence[Cell]) -> None:
        """Values of finished cells from their predictions, for the grid's prevalence and rare classes of today."""
        found = {(cell.variant, cell.seed): self._measured(record, cell) for cell in cells if (record := self.finished(cell))}
        self._records |= found
        self._write()

    def _measured(self, record: Record, cell: Cell) -> Record:
        return record.model_copy(update={"values": point_values(self.predictions_of(cell), self.classes, self.prevalence_K)})

    def _write(self) -> None:
        """results.json, in the order of variants and seeds."""
        facts = _Records(grid=self.name, cells=tuple(self._records[key] for key in sorted(self._records)))
        write_json(self.folder / RECORDS, facts.model_dump(mode="json"))

    def _read(self) -> tuple[Record, ...]:
        path = self.folder / RECORDS
        if not path.exists():
            return ()
        try:
            return validate(_Records, json.loads(path.read_text(encoding="utf-8")), RECORDS).cells
        except (OSError, ValueError, ConfigurationError) as error:
            raise StorageError(f"{RECORDS} cannot be read as results of a grid", "restore it, or name another --out") from error


def point_values(predictions: Predictions, classes: Classes, prevalence_K: Floats | None) -> dict[str, float | None]:
    """All measures of the predictions, each case once, weighted to the prevalence."""
    cases = predictions.cases
    once_1N = np.ones((1, len(cases.class_N)))
    found = values_of(measures(cases, classes, case_weights(cases.class_N, once_1N, prevalence_K)))
    return {name: None if value is None else round(value, DIGITS) for name, value in found.items()}


def prevalence_of(classes: Classes, prevalence: Mapping[str, float] | None) -> Floats | None:
    """Shares in the order of the classes, summing to one.

    Raises:
        ConfigurationError: it names other classes than the study.
    """
    if prevalence is None:
        return None
    if set(prevalence) != set(classes.names):
        raise ConfigurationError(
            f"prevalence names {', '.join(prevalence)}, expected {', '.join(classes.names)}", "give each class of the study a share"
        )
    shares_K = np.array([prevalence[name] for name in classes.names])
    return np.asarray(shares_K / shares_K.sum(), np.float64)


def classes_of(study: Study, rare: tuple[str, ...]) -> Classes:
    """The study's classes, with those that the grid calls rare.

    Raises:
        ConfigurationError: the study has no such class, or no other one.
    """
    if set(rare) - set(study.classes) or len(set(rare)) == len(study.classes):
        raise ConfigurationError(f"rare is {', '.join(rare)}, expected some of {', '.join(study.classes)}", "correct the grid")
    return Classes(study.classes, study.malignant_classes, tuple(study.classes.index(name) for name in rare))


@contextmanager
def locked_folder(path: Path) -> Iterator[Path]:
    """The folder, made where it is missing, and held so that no second process writes results there.

    Raises:
        RunError: one does.
        StorageError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = lock_folder(path)
    except OSError as error:
        raise StorageError(f"cannot make folder {path}: {str(error.strerror).lower()}", "name another with --out") from error
    try:
        yield path
    finally:
        os.close(descriptor)
