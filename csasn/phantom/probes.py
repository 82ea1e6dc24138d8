"""Pictures to try a model on, where only its answers are compared."""

from collections.abc import Iterator
from itertools import cycle, islice, product

import numpy as np
from numpy.typing import NDArray

from csasn.phantom.case import draw
from csasn.phantom.nodule import CLASSES, draw_nodule
from csasn.phantom.scanner import SCANNERS
from csasn.pictures.images import letterbox

BATCHES, LEAST_PX = (1, 3, 8), 96


def probe_batches(size: int) -> Iterator[NDArray[np.uint8]]:
    """Batches (N, S, S) of several sizes, always the same."""
    random = np.random.default_rng(0)
    return (draw_probes(random, count, size) for count in BATCHES)


def draw_probes(random: np.random.Generator, count: int, size: int) -> NDArray[np.uint8]:
    """Letterboxed pictures (N, S, S), of classes and scanners in turn."""
    kinds = islice(cycle(product(SCANNERS, CLASSES)), count)
    nodules = [(draw_nodule(random, label), SCANNERS[site]) for site, label in kinds]
    drawings = [draw(random, nodule, scanner, "transverse", size_px=max(size, LEAST_PX)) for nodule, scanner in nodules]
    return np.stack([letterbox(drawing.image, size) for drawing in drawings])
