"""Predictions for test cases, and the small file they are kept in: numbers alone, no identifier of a case and no picture."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csasn.errors import StorageError
from csasn.measures.blocks import Integers
from csasn.measures.cases import Cases, Floats
from csasn.platform.storage import write_atomically


@dataclass(frozen=True)
class Predictions:
    """Cases of several sites. `site_N` counts the base study's sites; `place_N` is the case's place in its site's sorted cases."""

    cases: Cases
    site_N: Integers
    place_N: Integers

    def keys(self) -> Integers:
        """(N,) a number that is the same for the same case in every cell of a grid."""
        return self.site_N << 32 | self.place_N

    def of_site(self, site: int) -> "Predictions":
        """Those of one site."""
        chosen_N = self.site_N == site
        return Predictions(self.cases.chosen(chosen_N), self.site_N[chosen_N], self.place_N[chosen_N])


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Writes the file. Logarithms of probabilities, as float16, keep the order of those near 0 and of those near 1.

    Raises:
        StorageError: it cannot be written.
    """
    cases = predictions.cases
    data = io.BytesIO()
    np.savez_compressed(
        data,
        label=cases.class_N.astype(np.uint8),
        decision=cases.decision_N.astype(np.uint8),
        log_probability=stored_precision(cases.log_probability_NK),
        adjustment=cases.adjustment_K,
        site=predictions.site_N.astype(np.uint16),
        place=predictions.place_N.astype(np.uint32),
    )
    write_atomically(path, data.getvalue())


def load_predictions(path: Path) -> Predictions:
    """What `save_predictions` wrote.

    Raises:
        StorageError: it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, NDArray[np.generic]] = dict(file)
        integers = {name: arrays[name].astype(np.int64) for name in ("label", "decision", "site", "place")}
        floats = {name: arrays[name].astype(np.float64) for name in ("log_probability", "adjustment")}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise StorageError(f"{path.name} cannot be read as predictions", "remove it; the cell is then run again") from error
    cases = Cases(integers["label"], integers["decision"], floats["log_probability"], floats["adjustment"])
    return Predictions(cases, integers["site"], integers["place"])


def stored_precision(log_probability_NK: Floats) -> NDArray[np.float16]:
    """As it is kept: nothing below the smallest number of the type."""
    return log_probability_NK.clip(np.finfo(np.float16).min, 0).astype(np.float16)
