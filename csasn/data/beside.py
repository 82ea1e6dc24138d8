"""Arrays that were computed of a site's cached images, kept in the cache's folder for the next start: they are of a file of pixels,
and the cache removes them with it. Nothing depends on them: what is missing or damaged is computed again."""

from contextlib import suppress
from pathlib import Path

import numpy as np

from csasn.errors import ModelError, StorageError
from csasn.platform.checkpoint import load_arrays, save_arrays
from csasn.platform.storage import free_bytes

MOST = 4  # files of one file of pixels: two branches of two models
ROOM = 4  # of free disk, in sizes of a file, or it is not kept: what a round has to write comes first
SUFFIX = ".safetensors"


def find_array(images_NHW: np.ndarray, name: str) -> np.ndarray | None:
    """The array that was kept as `name`; None where there is none, it is damaged, or the images are not those of a cache."""
    path = _path(images_NHW, name)
    if path is None:
        return None
    try:
        return load_arrays(path)[0].get("values")
    except ModelError:
        return None


def keep_array(images_NHW: np.ndarray, name: str, values: np.ndarray) -> None:
    """Keeps `values` as `name`, where the images are those of a cache that is still there and the disk has plenty of room."""
    path = _path(images_NHW, name)
    if path is None or free_bytes(path.parent) < ROOM * values.nbytes:
        return
    with suppress(StorageError, OSError):
        save_arrays(path, {"values": values}, {}, 0o600)
        if _path(images_NHW, name) is None:  # the pixels went meanwhile, as when somebody withdrew
            path.unlink()
        ours = path.stem.removesuffix(name)
        kept = sorted(path.parent.glob(f"{ours}*{SUFFIX}"), key=lambda other: other.stat().st_mtime_ns)
        for old in kept[:-MOST]:
            old.unlink()


def _path(images_NHW: np.ndarray, name: str) -> Path | None:
    file = getattr(images_NHW, "filename", None)  # of memory-mapped ones
    if file is None or not Path(file).exists():
        return None
    return Path(file).with_name(f"{Path(file).stem}-{name}{SUFFIX}")
