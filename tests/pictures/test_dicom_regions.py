"""csasn/pictures/regions.py: regions that cannot be right, slivers, colour flow; and square pixels."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from csasn.pictures.images import read_image
from csasn.pictures.picture import BEYOND, FLOW, SLIVER, SQUARED, UNLIKELY, Picture
from dicom_objects import dicom, ramp, region, write


def look(folder: Path, *regions: Dataset, **elements: object) -> Picture:
    """The ramp of 40 x 60 pixels with regions."""
    return read_image(write(folder, dicom(ramp(), SequenceOfUltrasoundRegions=list(regions), **elements)))


@pytest.mark.parametrize("corners", [(0, 0, 59, 7), (0, 0, 15, 11), (2, 2, 5, 5), (0, 0, 59, 9)])
def test_a_sliver_shows_the_whole_picture_and_is_said(tmp_path: Path, corners: tuple[int, int, int, int]) -> None:
    picture = look(tmp_path, region(corners))
    np.testing.assert_array_equal(picture.pixels_HW, ramp())
    assert picture.notes == (SLIVER,)


@pytest.mark.parametrize("corners", [(0, 0, 119, 79), (0, 0, 62, 39), (30, 20, 200, 39), (0, 0, 59, 41), (70, 50, 100, 80)])
def test_a_region_of_another_picture_shows_the_whole_and_is_said(tmp_path: Path, corners: tuple[int, int, int, int]) -> None:
    picture = look(tmp_path, region(corners))
    np.testing.assert_array_equal(picture.pixels_HW, ramp())
    assert picture.notes == (BEYOND,)
    assert picture.spacing_mm is None


def test_a_region_that_passes_the_edge_by_a_little_ends_there(tmp_path: Path) -> None:
    large = np.tile(ramp(), (4, 4))
    picture = read_image(write(tmp_path, dicom(large, SequenceOfUltrasoundRegions=[region((10, 20, 242, 162))])))
    np.testing.assert_array_equal(picture.pixels_HW, large[20:, 10:])
    assert picture.notes == ()


def test_colour_flow_over_the_b_mode_is_said(tmp_path: Path) -> None:
    whole = region((0, 0, 59, 39))
    assert look(tmp_path, whole, region((10, 10, 20, 20), kind=2)).notes == (FLOW,)
    assert look(tmp_path, region((0, 0, 39, 39)), region((45, 10, 55, 20), kind=2)).notes == ()


@pytest.mark.parametrize(
    ("unit", "delta", "spacing"), [(3, 0.01, (0.1, 0.1)), (3, -0.01, (0.1, 0.1)), (4, 0.01, None), (3, 0.0, None)]
)
def test_spacing_is_in_mm_where_the_unit_is_cm(
    tmp_path: Path, unit: int, delta: float, spacing: tuple[float, float] | None
) -> None:
    found = look(tmp_path, region((0, 0, 59, 39), unit, delta)).spacing_mm
    assert found == (pytest.approx(spacing) if spacing else None)


@pytest.mark.parametrize(("aspect", "shape"), [(2.0, (80, 60)), (0.5, (40, 120)), (1.01, (40, 60)), (3.9, (156, 60))])
def test_pixels_become_squares_of_the_finer_spacing(tmp_path: Path, aspect: float, shape: tuple[int, int]) -> None:
    picture = look(tmp_path, region((0, 0, 59, 39), aspect=aspect))
    assert picture.pixels_HW.shape == shape
    assert picture.notes == ((SQUARED,) if shape != (40, 60) else ())
    if picture.notes:
        finer = 0.1 * min(1, aspect)
        assert picture.spacing_mm == pytest.approx((finer, finer))


def test_a_circle_stays_one(tmp_path: Path) -> None:
    """A round nodule, stored at half its height."""
    y, x = np.mgrid[0:60, 0:120]
    stored = np.where((2 * y - 60) ** 2 + (x - 60) ** 2 < 40**2, 200, 10).astype(np.uint8)
    pixels = read_image(write(tmp_path, dicom(stored, PixelSpacing=[0.2, 0.1]))).pixels_HW
    inside = pixels > 100
    assert abs(int(inside.any(1).sum()) - int(inside.any(0).sum())) <= 1


@pytest.mark.parametrize(
    ("elements", "shape"),
    [
        ({"PixelSpacing": [0.2, 0.1]}, (80, 60)),
        ({"NominalScannedPixelSpacing": [0.1, 0.2]}, (40, 120)),
        ({"PixelAspectRatio": [3, 2]}, (60, 60)),
        ({"PixelAspectRatio": [1, 1]}, (40, 60)),
        ({"PixelAspectRatio": [0, 0]}, (40, 60)),
        ({"PixelSpacing": [0.1, 0.1], "PixelAspectRatio": [2, 1]}, (40, 60)),
    ],
    ids=["spacing", "scanned", "aspect", "square", "nonsense", "spacing before aspect"],
)
def test_elements_of_the_whole_picture_make_squares_too(
    tmp_path: Path, elements: dict[str, object], shape: tuple[int, int]
) -> None:
    assert read_image(write(tmp_path, dicom(ramp(), **elements))).pixels_HW.shape == shape


def test_the_region_knows_better_than_the_object_and_the_object_than_none(tmp_path: Path) -> None:
    assert look(tmp_path, region((0, 0, 59, 39)), PixelSpacing=[0.2, 0.1]).pixels_HW.shape == (40, 60)
    assert look(tmp_path, region((0, 0, 59, 39), delta=0.0), PixelSpacing=[0.2, 0.1]).pixels_HW.shape == (80, 60)


def test_an_unlikely_spacing_is_not_believed_and_that_is_said(tmp_path: Path) -> None:
    picture = look(tmp_path, region((0, 0, 59, 39), aspect=6.0))
    np.testing.assert_array_equal(picture.pixels_HW, ramp())
    assert (picture.notes, picture.spacing_mm) == ((UNLIKELY,), None)
