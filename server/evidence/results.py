"""What a grid has found so far: results.json with a record a cell, results.csv with a row a measure, and predictions beside them.

Each file is whole or absent, and predictions are there before the record that counts on them.
"""

import csv
import io
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
from csasn.platform.storage import write_atomically, write_json
from csasn.study import Study
from server.evidence.cells import Cell
from server.evidence.grid import Statistics
from server.evidence.predictions import Predictions, load_predictions, save_predictions

RECORDS, TABLE, PREDICTIONS, WORK = "results.json", "results.csv", "predictions", ".work"
SHORT, DIGITS = 12, 6  # of a hash in the table, and of a value
COLUMNS = (
    "grid",
    "variant",
    "seed",
    "method",
    "statistics",
    "study_hash",
    "data_hash",
    "code_version",
    "device",
    "metric",
    "value",
)


class Record(Configuration):
    """What came of a cell. `values` holds measures by statistics, `saliency` shares of maps inside nodules.

    `clipped_share` is the largest of a federation's rounds. A cell that failed has an error and none of these.
    """

    variant: str
    seed: int
    method: str
    study_hash: str
    data_hash: str
    code_version: str
    device: str = ""
    seconds: float = 0.0
    error: str = ""
    clipped_share: float | None = None
    values: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    saliency: dict[str, float | None] = Field(default_factory=dict)


class _Records(Configuration):
    grid: str
    cells: tuple[Record, ...] = ()


class Results:
    """The results of the grid `name` in `folder`."""

    def __init__(self, folder: Path, name: str, prevalence: Mapping[str, float] | None) -> None:
        self.folder, self.name = folder, name
        self._prevalence = prevalence
        self._records = {(record.variant, record.seed): record for record in self._read()}

    def finished(self, cell: Cell) -> Record | None:
        """The cell's record, if it is of the same study and way to train, did not fail, and its predictions are there."""
        record = self._records.get((cell.variant, cell.seed))
        if record is None or record.error or (record.method, record.study_hash) != (cell.method, cell.study.study_hash):
            return None
        complete = all(name in record.values and self._file(cell, name).exists() for name in cell.statistics)
        return record if complete else None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept, of this grid as it is or as it was."""
        return not self._records

    def predictions_of(self, cell: Cell, statistics: Statistics) -> Predictions:
        """The cell's predictions.

        Raises:
            StorageError: they are missing or damaged.
        """
        return load_predictions(self._file(cell, statistics))

    def keep(self, cell: Cell, record: Record, predictions: Mapping[Statistics, Predictions], classes: Classes) -> Record:
        """Takes in predictions and the record, with the measures that follow from them; the record as it is kept."""
        (self.folder / PREDICTIONS).mkdir(parents=True, exist_ok=True)
        values = {}
        for statistics, found in predictions.items():
            save_predictions(self._file(cell, statistics), found)
            values[str(statistics)] = point_values(self.predictions_of(cell, statistics), classes, self._prevalence)
        kept = record.model_copy(update={"values": values})
        self._records[cell.variant, cell.seed] = kept
        self.write()
        return kept

    def measure_again(self, cells: Sequence[Cell], classes: Classes) -> None:
        """Values of finished cells from their predictions, for the grid's prevalence and rare classes of today."""
        for cell in cells:
            if (record := self.finished(cell)) is not None:
                values = {
                    str(name): point_values(self.predictions_of(cell, name), classes, self._prevalence) for name in cell.statistics
                }
                self._records[cell.variant, cell.seed] = record.model_copy(update={"values": values})
        self.write()

    def write(self) -> None:
        """results.json and results.csv, in the order of variants and seeds."""
        records = [self._records[key] for key in sorted(self._records)]
        facts = _Records(grid=self.name, cells=tuple(records))
        write_json(self.folder / RECORDS, facts.model_dump(mode="json"))
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        for record in records:
            for statistics, values in record.values.items():
                same = (self.name, record.variant, record.seed, record.method, statistics)
                origin = (record.study_hash[:SHORT], record.data_hash, record.code_version, record.device)
                more = {f"saliency.{name}": value for name, value in record.saliency.items()}
                more |= {} if record.clipped_share is None else {"clipped_share": record.clipped_share}
                shown = {name: "" if value is None else f"{value:.{DIGITS}f}" for name, value in (values | more).items()}
                table.writerows((*same, *origin, name, text) for name, text in shown.items())
        write_atomically(self.folder / TABLE, text.getvalue().encode())

    def _read(self) -> tuple[Record, ...]:
        path = self.folder / RECORDS
        if not path.exists():
            return ()
        try:
            return validate(_Records, json.loads(path.read_text(encoding="utf-8")), RECORDS).cells
        except (OSError, ValueError, ConfigurationError) as error:
            raise StorageError(f"{RECORDS} cannot be read as results of a grid", "restore it, or name another --out") from error

    def _file(self, cell: Cell, statistics: str) -> Path:
        return self.folder / PREDICTIONS / f"{cell.name}-{statistics}.npz"


def point_values(predictions: Predictions, classes: Classes, prevalence: Mapping[str, float] | None) -> dict[str, float | None]:
    """All measures of the predictions, each case once, weighted to the prevalence."""
    cases = predictions.cases
    once_1N = np.ones((1, len(cases.class_N)))
    found = values_of(measures(cases, classes, case_weights(cases.class_N, once_1N, prevalence_of(classes, prevalence))))
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
