"""Pictures that are nearly the same: one saved again as JPEG, scaled, brightened, cut by a few pixels, or with other text on it.

Each picture is shrunk to 16 x 16 means. Its hash (64 bits) says for 8 x 8 of these whether the next to the right is brighter; two
pictures whose hashes differ in 8 bits or fewer are compared by the correlation of the cells that agree best, 85 of 100, so that
what is written into a corner does not count. Of 7.3 million pairs of crops of different patients (thyroid and gallbladder) 3 are
found alike; of pictures that were saved again, scaled, brightened or written on, all but 1 in 500; of those cut by 2 % at each
edge, three in four or more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELLS = 16
MAX_BITS, LEAST_CORRELATION, KEPT_SHARE = 8, 0.98, 0.85
_BLOCK, _TILE = 64, 4096  # of hashes compared at once: they stay in the processor's cache


@dataclass(frozen=True)
class Facts:
    """What images (N) are of: indices of patient, split and label; the label is -1 where it is missing."""

    patient_N: NDArray[np.int64]
    split_N: NDArray[np.int64]
    label_N: NDArray[np.int64]


def shrink(images_NHW: np.ndarray) -> NDArray[np.float16]:
    """Means (N, 16, 16) of images (N, S, S), whose side is a multiple of 16."""
    small = np.empty((len(images_NHW), CELLS, CELLS), np.float16)
    step = images_NHW.shape[1] // CELLS
    for start in range(0, len(images_NHW), _BLOCK):
        block = np.asarray(images_NHW[start : start + _BLOCK])
        rows = np.add.reduceat(block, np.arange(0, block.shape[1], step), axis=1, dtype=np.uint16)
        cells = np.add.reduceat(rows, np.arange(0, block.shape[2], step), axis=2, dtype=np.uint32)
        small[start : start + _BLOCK] = cells / step**2
    return small


def hash_cells(small: NDArray[np.float16]) -> NDArray[np.uint64]:
    """64 bits (N) for each (N, 16, 16): of 8 x 8 cells, whether the one to the right, or the first at the end, is brighter."""
    cells = small.astype(np.float32).reshape(len(small), 8, 2, 8, 2).sum((2, 4))
    bits = (np.roll(cells, -1, axis=2) > cells).reshape(len(small), 64)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def conflicting_pairs(images_NHW: np.ndarray, facts: Facts) -> Iterator[tuple[int, int]]:
    """Pairs of images that are nearly the same, and of two patients or with two labels; each pair once, the smaller index first.

    Takes 8 bytes and 512 bytes an image; time grows with the square of their number.
    """
    small = shrink(images_NHW)
    hashes_N = hash_cells(small)
    for start in range(0, len(small), _BLOCK):
        for tile in range(start, len(small), _TILE):
            bits = np.bitwise_count(hashes_N[start : start + _BLOCK, None] ^ hashes_N[None, tile : tile + _TILE])
            first, second = np.nonzero(bits <= MAX_BITS)
            first, second = first + start, second + tile
            chosen = (first < second) & _conflict(first, second, facts)
            first, second = first[chosen], second[chosen]
            if len(first):
                alike = _correlation(small[first], small[second]) >= LEAST_CORRELATION
                yield from zip(first[alike].tolist(), second[alike].tolist(), strict=True)


def _conflict(first: NDArray[np.int64], second: NDArray[np.int64], facts: Facts) -> NDArray[np.bool_]:
    """Whether images may not be of one picture; a patient is in one split, so that two splits are two patients."""
    labels = facts.label_N[first], facts.label_N[second]
    two_labels = (labels[0] != labels[1]) & (labels[0] >= 0) & (labels[1] >= 0)
    return np.asarray((facts.patient_N[first] != facts.patient_N[second]) | two_labels)


def _correlation(first: NDArray[np.float16], second: NDArray[np.float16]) -> NDArray[np.float64]:
    """Correlation (P) of the cells of each pair (P, 16, 16) that agree best; 0 where one has no contrast."""
    one, other = (cells.reshape(len(cells), -1).astype(np.float64) for cells in (first, second))
    apart = np.abs(_standard(one) - _standard(other))
    kept = apart <= np.quantile(apart, KEPT_SHARE, axis=1, keepdims=True)
    centred = [np.where(kept, cells - np.mean(cells, axis=1, keepdims=True, where=kept), 0) for cells in (one, other)]
    size = np.linalg.norm(centred[0], axis=1) * np.linalg.norm(centred[1], axis=1)
    return np.asarray(np.sum(centred[0] * centred[1], axis=1) / np.maximum(size, 1e-9))


def _standard(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cells in units of their spread around their middle, by medians, which a few bright ones do not move."""
    centred = cells - np.median(cells, axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.median(np.abs(centred), axis=1, keepdims=True), 2.0))
