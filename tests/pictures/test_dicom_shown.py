"""csasn/pictures/viewer.py: rescale, VOI LUT, window, inversion, padding and depth; what is refused, and by which element.

tests/pictures/ compares the ordinary cases with GDCM; here are those that it does not read, or reads without the header.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from csasn.pictures.images import read_image
from dicom_objects import CAPTURE, dicom, ramp, read, write
from image_faults import fault


def deep(bits: int) -> np.ndarray:
    """The ramp in values of `bits` bits, which it fills."""
    return (ramp().astype(np.int64) * ((1 << bits) - 1) // 255).astype(np.uint16)


def lut(entries: Sequence[int], first: int = 0, bits: int = 8, packed: bool = False) -> list[Dataset]:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = np.array(entries, np.uint8 if packed else "<u2").tobytes()
    item["LUTData"].VR = "OW"
    return [item]


@pytest.mark.parametrize(("kind", "shape"), [("MONOCHROME1", None), ("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "INVERSE")])
def test_an_inverse_picture_is_turned_over_once(tmp_path: Path, kind: str, shape: str | None) -> None:
    elements = {"PresentationLUTShape": shape} if shape else {}
    np.testing.assert_array_equal(read(tmp_path, dicom(255 - ramp(), kind, **elements)), ramp())


def test_padding_is_black_even_where_black_is_white(tmp_path: Path) -> None:
    expected = ramp() // 2
    stored = 255 - expected
    expected[:5] = stored[:5] = 0
    np.testing.assert_array_equal(read(tmp_path, dicom(stored, "MONOCHROME1", PixelPaddingValue=0)), expected)
    stored[:5, ::2] = 3
    dataset = dicom(stored, "MONOCHROME1", PixelPaddingValue=0, PixelPaddingRangeLimit=3)
    np.testing.assert_array_equal(read(tmp_path, dataset), expected)


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_values_of_fewer_bits_in_sixteen_are_shown_by_their_own_range_and_that_is_said(tmp_path: Path, bits: int) -> None:
    picture = read_image(write(tmp_path, dicom(deep(bits), bits=16, sop=CAPTURE)))
    assert np.abs(picture.pixels_HW.astype(int) - ramp()).max() <= 1
    assert picture.notes == (f"its values use {bits} of 16 bits, it is shown by their own range",)


@pytest.mark.parametrize(("bits", "claimed"), [(15, 16), (10, 12)])
def test_a_claim_that_is_nearly_used_or_that_is_meant_is_believed(tmp_path: Path, bits: int, claimed: int) -> None:
    picture = read_image(write(tmp_path, dicom(deep(bits), bits=claimed, sop=CAPTURE)))
    assert picture.pixels_HW.max() == pytest.approx(255 >> (claimed - bits), abs=1)
    assert picture.notes == ()


@pytest.mark.parametrize(("first", "packed"), [(0, False), (10, False), (0, True)])
def test_a_voi_lut_comes_before_a_window(tmp_path: Path, first: int, packed: bool) -> None:
    entries = list(range(255, -1, -1))
    dataset = dicom(255 - ramp(), VOILUTSequence=lut(entries, first, packed=packed), WindowCenter=10, WindowWidth=20)
    np.testing.assert_array_equal(read(tmp_path, dataset), np.minimum(ramp().astype(int) + first, 255))


def test_a_modality_lut_comes_before_the_window(tmp_path: Path) -> None:
    dataset = dicom(ramp(), ModalityLUTSequence=lut([16 * value for value in range(256)], bits=12))
    assert np.abs(read(tmp_path, dataset).astype(int) - ramp() * (16 * 255 / 4095)).max() <= 1
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    assert np.abs(read(tmp_path, dataset).astype(int) - ramp() * (16 * 255 / 4095)).max() <= 1
    dataset.WindowCenter, dataset.WindowWidth = 1024, 2048
    assert np.abs(read(tmp_path, dataset).astype(int) - np.minimum(255, 2 * ramp().astype(int))).max() <= 1


def test_of_several_windows_the_first_is_the_one(tmp_path: Path) -> None:
    expected = read(tmp_path, dicom(ramp(), WindowCenter=64, WindowWidth=128))
    np.testing.assert_array_equal(read(tmp_path, dicom(ramp(), WindowCenter=[64, 9], WindowWidth=[128, 9])), expected)
    assert expected.max() == 255
    assert expected[0, 30] == 60


@pytest.mark.parametrize("elements", [{"WindowCenter": 40}, {"WindowCenter": 40, "WindowWidth": 0}, {"WindowWidth": 40}])
def test_a_window_that_is_none_is_passed_over(tmp_path: Path, elements: dict[str, object]) -> None:
    np.testing.assert_array_equal(read(tmp_path, dicom(ramp(), **elements)), ramp())


def signed_dataset(**elements: object) -> Dataset:
    return dicom(ramp(), PixelRepresentation=1, **elements)


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (dicom(ramp(), RescaleSlope=0, RescaleIntercept=0), "RescaleSlope (0028,1053) is 0"),
        (dicom(ramp(), WindowCenter=5000, WindowWidth=10), "WindowCenter (0028,1050) leaves nothing of the picture"),
        (dicom(ramp(), WindowCenter=9, WindowWidth=10, VOILUTFunction="SECRET"), "VOILUTFunction (0028,1056) is unknown"),
        (dicom(ramp(), VOILUTSequence=lut([7] * 256)), "VOILUTSequence (0028,3010) leaves nothing"),
        (dicom(ramp(), VOILUTSequence=[Dataset()]), "VOILUTSequence (0028,3010) has a LUT without LUTDescriptor"),
        (dicom(ramp(), ModalityLUTSequence=[Dataset()]), "ModalityLUTSequence (0028,3000) has a LUT without"),
        (dicom(ramp(), BitsStored=12), "BitsStored (0028,0101) is 12, expected 1 to 8"),
        (signed_dataset(), "PixelRepresentation (0028,0103) says signed, but no window or VOI LUT"),
        (dicom(ramp(), PhotometricInterpretation="PALETTE COLOR"), "RedPaletteColorLookupTableDescriptor (0028,1101) or another"),
        (dicom(ramp(), PhotometricInterpretation="SECRET"), "PhotometricInterpretation (0028,0004) is unknown, expected MONO"),
    ],
    ids=["slope", "empty window", "function", "flat LUT", "no LUT", "no modality LUT", "stored", "signed", "palette", "label"],
)
def test_what_cannot_be_shown_is_refused_by_its_element(tmp_path: Path, dataset: Dataset, said: str) -> None:
    assert said in fault(write(tmp_path, dataset))


def test_a_lut_that_lacks_entries_is_refused(tmp_path: Path) -> None:
    table = lut(range(256))
    table[0].LUTDescriptor = [400, 0, 8]
    message = fault(write(tmp_path, dicom(ramp(), VOILUTSequence=table)))
    assert message.endswith("VOILUTSequence (0028,3010) has a LUT of 256 entries, LUTDescriptor (0028,3002) says 400 of 8 bits")


def test_signed_values_that_are_all_above_zero_are_read(tmp_path: Path) -> None:
    dataset = dicom(ramp() // 2, PixelRepresentation=1)
    assert np.abs(read(tmp_path, dataset).astype(int) - ramp()).max() <= 2
