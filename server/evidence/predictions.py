"""Predictions for test cases, and the one file in which a grid keeps them: numbers alone, no picture or identifier of a case."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csasn.errors import StorageError
from csasn.measures.blocks import Integers
from csasn.measures.cases import Cases, Floats
from csasn.platform.storage import write_atomically

Arrays = Mapping[str, NDArray[np.generic]]


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

    def rounded(self) -> "Predictions":
        """With logarithms of probabilities as they are kept: float16 keeps the order of those near 0 and of those near 1."""
        return replace(self, cases=replace(self.cases, log_probability_NK=_kept(self.cases.log_probability_NK).astype(np.float64)))

    def sha256(self) -> str:
        """Of the kept arrays' bits (hex)."""
        digest = hashlib.sha256()
        for name, array in _arrays(self).items():
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
        return digest.hexdigest()


def save_predictions(path: Path, predictions: Mapping[str, Predictions]) -> None:
    """Writes those of all cells, by name; the same predictions make the same bytes.

    Raises:
        StorageError: the file cannot be written.
    """
    data = io.BytesIO()
    members = {f"{cell}/{name}": array for cell in sorted(predictions) for name, array in _arrays(predictions[cell]).items()}
    np.savez_compressed(data, allow_pickle=False, **members)
    write_atomically(path, data.getvalue())


def load_predictions(path: Path) -> dict[str, Predictions]:
    """What `save_predictions` wrote.

    Raises:
        StorageError: it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: Arrays = dict(file)
        return {cell: _predictions(arrays, cell) for cell in dict.fromkeys(name.partition("/")[0] for name in arrays)}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise StorageError(f"{path.name} cannot be read as predictions", "remove it; the cells are then run again") from error


def _kept(log_probability_NK: Floats) -> NDArray[np.float16]:
    """Nothing is below the smallest number of the type."""
    return log_probability_NK.clip(np.finfo(np.float16).min, 0).astype(np.float16)


def _arrays(predictions: Predictions) -> Arrays:
    cases = predictions.cases
    return {
        "label": cases.class_N.astype(np.uint8),
        "decision": cases.decision_N.astype(np.uint8),
        "log_probability": _kept(cases.log_probability_NK),
        "adjustment": cases.adjustment_K,
        "site": predictions.site_N.astype(np.uint16),
        "place": predictions.place_N.astype(np.uint32),
    }


def _predictions(arrays: Arrays, cell: str) -> Predictions:
    integers = {name: arrays[f"{cell}/{name}"].astype(np.int64) for name in ("label", "decision", "site", "place")}
    floats = {name: arrays[f"{cell}/{name}"].astype(np.float64) for name in ("log_probability", "adjustment")}
    cases = Cases(integers["label"], integers["decision"], floats["log_probability"], floats["adjustment"])
    return Predictions(cases, integers["site"], integers["place"])
