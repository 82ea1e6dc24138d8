"""Arrays and facts in one file, written atomically and checked on the way back.

A file is safetensors whose metadata holds `facts` (JSON) and the SHA-256 of names, types, shapes and bytes of the arrays.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from csasn.errors import ModelError
from csasn.storage import write_atomically

Array = NDArray[np.generic]
Facts = Mapping[str, object]


def save_arrays(path: Path, arrays: Mapping[str, Array], facts: Facts) -> None:
    """Writes arrays and facts; the file is whole or absent.

    Raises:
        StorageError: it cannot be written, such as on a full disk; what stood there stays.
    """
    solid = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    metadata = {"facts": json.dumps(facts, sort_keys=True), "sha256": _digest(solid, facts)}
    write_atomically(path, save(solid, metadata))


def load_arrays(path: Path) -> tuple[dict[str, Array], dict[str, object]]:
    """Arrays and facts of a file.

    Raises:
        ModelError: the file is missing, damaged or changed.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            metadata = file.metadata() or {}
        facts = json.loads(metadata["facts"])
        intact = metadata["sha256"] == _digest(arrays, facts)
    except FileNotFoundError as error:
        raise ModelError(f"{path.name} does not exist", "check the path") from error
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ModelError(f"{path.name} is damaged, or no file of this program", "restore it from a copy") from error
    if not intact:
        raise ModelError(f"{path.name} was changed after it was written: its SHA-256 differs", "restore it from a copy")
    return arrays, facts


def _digest(arrays: Mapping[str, Array], facts: Facts) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
