"""The B-mode view of an ultrasound picture, and its square pixels.

Sources: DICOM PS3.3 C.8.5.5 (ultrasound regions; corners are inclusive), C.7.6.3.1.7 (aspect), 10.7.1.3 (spacing).

Axes: H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pydicom
from PIL import Image

from csasn.data.dicom_header import Object, name_of
from csasn.data.picture import BEYOND, FLOW, SLIVER, SQUARED, UNLIKELY, require_bounds
from csasn.errors import DataError

CLEARLY_LARGER = 1.5  # of two views by area: the larger one is the picture, the other one a detail
MAX_BEYOND = 0.02  # share of the picture by which a region may pass its edge; one that passes it further is of another picture
LEAST_SHARE, LEAST_SIDE_PX, MOST_SLENDER = 0.1, 16, 6  # a smaller or longer region shows no nodule
MIN_STRETCH, MAX_STRETCH = 1.02, 4.0  # below, pixels are as good as square; above, the spacing is not that of a picture
_TISSUE, _FLOW, _SPACE_2D, _CENTIMETRE = 1, 2, 1, 3
_NO_B_MODE = {(1, 2): "colour Doppler", 2: "M-mode", 3: "spectral Doppler"}  # by (format, data type) or format
_CORNERS = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")


@dataclass(frozen=True)
class View:
    """What of a picture is its B-mode: rows and columns, spacing (down, across; mm a pixel) or their ratio alone, what is said."""

    rows: slice = field(default_factory=lambda: slice(None))
    columns: slice = field(default_factory=lambda: slice(None))
    spacing_mm: tuple[float, float] | None = None
    aspect: float = 1.0  # height of a pixel over its width
    notes: tuple[str, ...] = ()


def find_view(found: Object, height: int, width: int) -> View:
    """The B-mode region, or all where none says what it shows or it cannot be right; and the spacing of its pixels.

    Raises:
        DataError: there is no B-mode, two views of which either may be the labelled one, or a region without a place.
    """
    regions = [region for region in found.elements.get("SequenceOfUltrasoundRegions") or () if _area(region) > 1]
    best = _best(regions)
    view = View() if best is None else _place(best, height, width)
    flow = best is not None and any(_form(region) == (_SPACE_2D, _FLOW) and _overlap(region, best) for region in regions)
    spacing, aspect = _spacing(best) if best is not None else (None, None)
    if aspect is None:
        spacing, aspect = _spacing_of_object(found)
    if BEYOND in view.notes:
        spacing = None  # of a picture of another size
    return View(view.rows, view.columns, spacing, aspect, (*view.notes, *([FLOW] if flow else [])))


def squared(pixels_HW: np.ndarray, view: View) -> tuple[np.ndarray, View]:
    """Grey pixels resampled to squares of the finer of both spacings, and the view that they have then.

    A nodule that is taller than wide must look it: that is a sign of cancer.
    """
    stretch = max(view.aspect, 1 / view.aspect)
    if stretch < MIN_STRETCH:
        return pixels_HW, view
    if stretch > MAX_STRETCH:
        return pixels_HW, View(view.rows, view.columns, None, 1.0, (*view.notes, UNLIKELY))
    height, width = pixels_HW.shape
    if view.aspect > 1:
        height = round(height * view.aspect)
    else:
        width = round(width / view.aspect)
    require_bounds(height, width, 1, 1)
    pixels = np.asarray(Image.fromarray(pixels_HW).resize((width, height), Image.Resampling.BILINEAR))
    finer = min(view.spacing_mm) if view.spacing_mm else None
    spacing = (finer, finer) if finer else None
    return pixels, View(view.rows, view.columns, spacing, 1.0, (*view.notes, SQUARED))


def _best(regions: Sequence[pydicom.Dataset]) -> pydicom.Dataset | None:
    """The largest 2D tissue region; None where no region says what it shows."""
    tissue = [region for region in regions if _form(region) == (_SPACE_2D, _TISSUE)]
    if not tissue:
        keys = [key for pair in map(_form, regions) for key in (pair, pair[0])]
        if others := sorted({_NO_B_MODE[key] for key in keys if key in _NO_B_MODE}):
            problem = f"the image shows only {' and '.join(others)}, expected a 2D B-mode region"
            raise DataError(problem, "name a B-mode image of this case instead")
        return None
    best = max(tissue, key=_area)
    similar = [region for region in tissue if _area(region) * CLEARLY_LARGER > _area(best) and not _share(region, best)]
    if similar:
        problem = f"the image shows {1 + len(similar)} B-mode views of similar size, expected one"
        raise DataError(problem, "crop it to the view that was labelled, or export that view alone")
    return best


def _place(region: pydicom.Dataset, height: int, width: int) -> View:
    left, top, right, bottom = _corners(region)
    beyond = max((right + 1 - width) / width, (bottom + 1 - height) / height)
    if beyond > MAX_BEYOND and max(right - width, bottom - height) > 0:
        return View(notes=(BEYOND,))
    right, bottom = min(right, width - 1), min(bottom, height - 1)
    sides = right + 1 - left, bottom + 1 - top
    area = max(0, sides[0]) * max(0, sides[1])
    if area < LEAST_SHARE * height * width or min(sides) < LEAST_SIDE_PX or max(sides) > MOST_SLENDER * min(sides):
        return View(notes=(SLIVER,))
    return View(slice(top, bottom + 1), slice(left, right + 1))


def _form(region: pydicom.Dataset) -> tuple[int, int]:
    return int(region.get("RegionSpatialFormat") or 0), int(region.get("RegionDataType") or 0)


def _corners(region: pydicom.Dataset) -> tuple[int, int, int, int]:
    """Left, top, right, bottom.

    Raises:
        DataError: one is missing or negative.
    """
    try:
        left, top, right, bottom = (int(region[name].value) for name in _CORNERS)
    except (KeyError, TypeError, ValueError):
        problem = f"the image is DICOM whose {name_of('SequenceOfUltrasoundRegions')} has a region without a place"
        raise DataError(problem, "export it again, or as PNG") from None
    return max(0, left), max(0, top), right, bottom


def _area(region: pydicom.Dataset) -> int:
    left, top, right, bottom = _corners(region)
    return max(0, right - left + 1) * max(0, bottom - top + 1)


def _share(one: pydicom.Dataset, other: pydicom.Dataset) -> bool:
    """Whether two regions share more than half of the smaller one: they are one view, described twice."""
    return 2 * _common(one, other) > min(_area(one), _area(other))


def _overlap(one: pydicom.Dataset, other: pydicom.Dataset) -> bool:
    return _common(one, other) > 0


def _common(one: pydicom.Dataset, other: pydicom.Dataset) -> int:
    """Pixels that two regions share."""
    starts = np.maximum(_corners(one)[:2], _corners(other)[:2])
    ends = np.minimum(_corners(one)[2:], _corners(other)[2:])
    width, height = np.maximum(ends - starts + 1, 0)
    return int(width * height)


def _spacing(region: pydicom.Dataset) -> tuple[tuple[float, float] | None, float | None]:
    """Spacing (down, across) in mm a pixel where both axes are in centimetres, and the ratio where they have one unit."""
    units = [region.get(f"PhysicalUnits{axis}Direction") for axis in "YX"]
    try:
        down, across = (abs(float(region.get(f"PhysicalDelta{axis}") or 0)) * 10 for axis in "YX")
    except (TypeError, ValueError):
        return None, None
    if units[0] != units[1] or not (0 < down < np.inf and 0 < across < np.inf) or units[0] != _CENTIMETRE:
        return None, None
    return (down, across), down / across


def _spacing_of_object(found: Object) -> tuple[tuple[float, float] | None, float]:
    """Spacing in mm and ratio, of elements that speak of the whole picture."""
    for keyword in ("PixelSpacing", "NominalScannedPixelSpacing"):
        values = found.numbers(keyword)
        if len(values) == 2 and min(values) > 0:
            return (values[0], values[1]), values[0] / values[1]
    values = found.numbers("PixelAspectRatio")
    return None, values[0] / values[1] if len(values) == 2 and min(values) > 0 else 1.0
