"""The B-mode view of an ultrasound picture, and its square pixels.

Sources: DICOM PS3.3 C.8.5.5 (ultrasound regions; corners are inclusive), C.7.6.3.1.7 (aspect), 10.7.1.3 (spacing).

Axes: H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pydicom
from PIL import Image

from csasn.errors import DataError
from csasn.pictures.dicom_header import Object, name_of
from csasn.pictures.picture import BEYOND, FLOW, SLIVER, SQUARED, UNLIKELY, require_bounds

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


@dataclass(frozen=True)
class _Region:
    """An item of the sequence of regions, and its inclusive corners (x, y)."""

    item: pydicom.Dataset
    start: tuple[int, int]
    end: tuple[int, int]

    @property
    def form(self) -> tuple[int, int]:
        """Its spatial format and its data type."""
        return int(self.item.get("RegionSpatialFormat") or 0), int(self.item.get("RegionDataType") or 0)

    @property
    def area(self) -> int:
        """Its pixels."""
        return self.shared(self)

    def shared(self, other: "_Region") -> int:
        """Pixels that are of both."""
        width, height = (
            max(0, min(self.end[axis], other.end[axis]) - max(self.start[axis], other.start[axis]) + 1) for axis in (0, 1)
        )
        return width * height


def find_view(found: Object, height: int, width: int) -> View:
    """The B-mode region, or all where none says what it shows or it cannot be right; and the spacing of its pixels.

    Raises:
        DataError: there is no B-mode, two views of which either may be the labelled one, or a region without a place.
    """
    regions = [_read_region(item) for item in found.elements.get("SequenceOfUltrasoundRegions") or ()]
    regions = [region for region in regions if region.area > 1]
    best = _best(regions)
    spacing, aspect = (_spacing(best.item) if best else None) or _spacing_of_object(found)
    if best is None:
        return View(spacing_mm=spacing, aspect=aspect)
    view = _place(best, height, width)
    flow = any(region.form == (_SPACE_2D, _FLOW) and region.shared(best) for region in regions)
    if BEYOND in view.notes:
        spacing = None  # of a picture of another size
    return replace(view, spacing_mm=spacing, aspect=aspect, notes=(*view.notes, *([FLOW] if flow else [])))


def squared(pixels_HW: np.ndarray, view: View) -> tuple[np.ndarray, View]:
    """Grey pixels resampled to squares of the finer of both spacings, and the view that they have then.

    A nodule that is taller than wide must look it: that is a sign of cancer.
    """
    stretch = max(view.aspect, 1 / view.aspect)
    if stretch < MIN_STRETCH:
        return pixels_HW, view
    if stretch > MAX_STRETCH:
        return pixels_HW, replace(view, spacing_mm=None, aspect=1.0, notes=(*view.notes, UNLIKELY))
    height, width = pixels_HW.shape
    if view.aspect > 1:
        height = round(height * view.aspect)
    else:
        width = round(width / view.aspect)
    require_bounds(height, width, 1, 1)
    pixels = np.asarray(Image.fromarray(pixels_HW).resize((width, height), Image.Resampling.BILINEAR))
    finer = min(view.spacing_mm) if view.spacing_mm else None
    spacing = (finer, finer) if finer else None
    return pixels, replace(view, spacing_mm=spacing, aspect=1.0, notes=(*view.notes, SQUARED))


def _best(regions: Sequence[_Region]) -> _Region | None:
    """The largest 2D tissue region; None where no region says what it shows."""
    tissue = [region for region in regions if region.form == (_SPACE_2D, _TISSUE)]
    if not tissue:
        keys = [key for region in regions for key in (region.form, region.form[0])]
        if others := sorted({_NO_B_MODE[key] for key in keys if key in _NO_B_MODE}):
            problem = f"the image shows only {' and '.join(others)}, expected a 2D B-mode region"
            raise DataError(problem, "name a B-mode image of this case instead")
        return None
    best = max(tissue, key=lambda region: region.area)
    # those that share more than half of the smaller one are one view, described twice
    apart = [region for region in tissue if 2 * region.shared(best) <= min(region.area, best.area)]
    if similar := [region for region in apart if region.area * CLEARLY_LARGER > best.area]:
        problem = f"the image shows {1 + len(similar)} B-mode views of similar size, expected one"
        raise DataError(problem, "crop it to the view that was labelled, or export that view alone")
    return best


def _place(region: _Region, height: int, width: int) -> View:
    (left, top), (right, bottom) = region.start, region.end
    beyond = max((right + 1 - width) / width, (bottom + 1 - height) / height)
    if beyond > MAX_BEYOND and max(right - width, bottom - height) > 0:
        return View(notes=(BEYOND,))
    right, bottom = min(right, width - 1), min(bottom, height - 1)
    sides = right + 1 - left, bottom + 1 - top
    area = max(0, sides[0]) * max(0, sides[1])
    if area < LEAST_SHARE * height * width or min(sides) < LEAST_SIDE_PX or max(sides) > MOST_SLENDER * min(sides):
        return View(notes=(SLIVER,))
    return View(slice(top, bottom + 1), slice(left, right + 1))


def _read_region(item: pydicom.Dataset) -> _Region:
    """An item with its corners.

    Raises:
        DataError: one is missing.
    """
    try:
        left, top, right, bottom = (int(item[name].value) for name in _CORNERS)
    except (KeyError, TypeError, ValueError):
        problem = f"the image is DICOM whose {name_of('SequenceOfUltrasoundRegions')} has a region without a place"
        raise DataError(problem, "export it again, or as PNG") from None
    return _Region(item, (max(0, left), max(0, top)), (right, bottom))


def _spacing(region: pydicom.Dataset) -> tuple[tuple[float, float], float] | None:
    """Spacing (down, across) in mm a pixel and its ratio, where both axes are in centimetres."""
    units = [region.get(f"PhysicalUnits{axis}Direction") for axis in "YX"]
    try:
        down, across = (abs(float(region.get(f"PhysicalDelta{axis}") or 0)) * 10 for axis in "YX")
    except (TypeError, ValueError):
        return None
    known = units == [_CENTIMETRE] * 2 and 0 < down < np.inf and 0 < across < np.inf
    return ((down, across), down / across) if known else None


def _spacing_of_object(found: Object) -> tuple[tuple[float, float] | None, float]:
    """Spacing in mm and ratio, of elements that speak of the whole picture."""
    for keyword in ("PixelSpacing", "NominalScannedPixelSpacing"):
        values = found.numbers(keyword)
        if len(values) == 2 and min(values) > 0:
            return (values[0], values[1]), values[0] / values[1]
    values = found.numbers("PixelAspectRatio")
    return None, values[0] / values[1] if len(values) == 2 and min(values) > 0 else 1.0
