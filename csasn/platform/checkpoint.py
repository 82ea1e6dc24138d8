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

from csasn.errors import ModelError
from csasn.platform.storage import atomic_writer

Array = NDArray[np.generic]
Facts = Mapping[str, object]
_TYPES = {"<f4": "F32", "<f8": "F64", "<i8": "I64", "<i4": "I32", "<i2": "I16", "|i1": "I8", "|u1": "U8"}


def save_arrays(path: Path, arrays: Mapping[str, Array], facts: Facts, mode: int = 0o666, *, sync: bool = True) -> None:
    """Writes arrays and facts; the file is whole or absent, and the umask masks `mode`. Without `sync` it may be lost in a crash of
    the machine.

    Raises:
        StorageError: it cannot be written, such as on a full disk; what stood there stays.
    """
    solid = {name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}
    metadata = {"facts": json.dumps(facts, sort_keys=True), "sha256": _digest(solid, facts)}
    with atomic_writer(path, mode, sync=sync) as file:
        file.write(_header(solid, metadata))
        for array in solid.values():
            file.write(array.reshape(-1).view(np.uint8).data)


def _header(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """The head of a safetensors file. Its library would copy all arrays into one string of bytes first."""
    entries: dict[str, object] = {"__metadata__": metadata}
    start = 0
    for name, array in arrays.items():
        entries[name] = {
            "dtype": _TYPES[array.dtype.str], "shape": array.shape, "data_offsets": (start, start + array.nbytes),
        }  # fmt: skip
        start += array.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


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
