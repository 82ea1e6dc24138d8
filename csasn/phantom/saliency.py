"""How much of what a model looks at lies inside the nodule: on the phantom its outline is known."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csasn.data.cases import SPLITS, TEST, load_records
from csasn.data.faults import Fault, data_error
from csasn.data.rows import Row
from csasn.errors import ConfigurationError, DataError
from csasn.finished.saliency import Floats, SaliencyShares, explain_square
from csasn.finished.weights import ModelInfo
from csasn.model.network import Csasn
from csasn.phantom.case import Drawing
from csasn.phantom.dataset import read_settings, redraw_case
from csasn.phantom.settings import PhantomSettings
from csasn.pictures.images import letterbox
from csasn.site import Site

SAME_PICTURE = 2.0  # grey levels, mean: what rounding on another processor may differ by, and no other picture does
Square = NDArray[np.uint8]


def saliency_in_nodule(
    network: Csasn,
    info: ModelInfo,
    phantom: Path,
    sites: Mapping[str, Site],
    max_images: int = 200,
    advance: Callable[[int, int], None] | None = None,
) -> SaliencyShares:
    """How much of the saliency on a phantom's test images lies inside the nodule, whose mask is drawn again.

    Of more than `max_images` images, so many are taken at even distances; `advance(done, total)` is called after each.

    Raises:
        StorageError: `phantom` is no folder that `csasn phantom` wrote.
        DataError: images are at fault, are not those of the phantom, or none is a test image.
    """
    rows = list(_test_rows(info, sites))
    if not rows:
        raise DataError("manifest.csv has no test image", "saliency is measured on test images: see the key split of the study")
    chosen = sorted({int(index) for index in np.linspace(0, len(rows) - 1, min(max_images, len(rows)))})
    settings = read_settings(phantom)
    gradcams, rollouts, areas = [], [], []
    for done, index in enumerate(chosen, 1):
        site, row, square = rows[index]
        nodule = _nodule(settings, site, row, square)
        saliency = explain_square(network, square)
        gradcams.append(_share_inside(saliency.gradcam, nodule))
        rollouts.append(_share_inside(saliency.rollout, nodule))
        areas.append(float(nodule.mean()))
        if advance:
            advance(done, len(chosen))
    num_blank = gradcams.count(None) if network.efficientnet is not None else 0
    return SaliencyShares(_mean(gradcams), _mean(rollouts), float(np.mean(areas)), len(chosen), num_blank)


def _test_rows(info: ModelInfo, sites: Mapping[str, Site]) -> Iterator[tuple[str, Row, Square]]:
    """Site, row of the manifest and square of each test image, in the order of sites and cases."""
    for name, site in sites.items():
        records = load_records(info.study, site, info.image_size)
        for row, square in zip(records.manifest.rows, records.images.images_NHW, strict=True):
            if records.splits[row.case] == SPLITS[TEST]:
                yield name, row, square


def _nodule(settings: PhantomSettings, site: str, row: Row, square: Square) -> Floats:
    """The share of each pixel of `square` that is nodule.

    Raises:
        DataError: `square` is no picture of the phantom.
    """
    drawing = _drawing(settings, site, row)
    size = len(square)
    if drawing is None or min(_difference(square, letterbox(frame, size)) for frame in drawing.frames) > SAME_PICTURE:
        problem = "is not the picture that the phantom's record draws"
        raise data_error([Fault(row.number, "image", problem, "name the folder that csasn phantom wrote, and its own sites")])
    return np.asarray(letterbox(drawing.mask.astype(np.uint8) * 255, size) / 255, np.float64)


def _drawing(settings: PhantomSettings, site: str, row: Row) -> Drawing | None:
    """The drawing behind a row, or None where the phantom has none."""
    try:
        views = redraw_case(settings, site, row.case).views
    except ConfigurationError:
        return None
    drawings = {str(number): view.drawing for number, view in enumerate(views, 1)}
    return drawings.get(Path(row.image).stem.rpartition("-")[2])


def _difference(one: Square, other: Square) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())


def _share_inside(saliency: Floats | None, nodule: Floats) -> float | None:
    if saliency is None or not saliency.any():
        return None
    return float((saliency * nodule).sum() / saliency.sum())


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known else None
