"""csasn/pictures/dicom.py: pixels, frames and regions of DICOM objects, and the B-mode view in them."""

import logging
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from csasn.pictures import dicom as dicom_module
from csasn.pictures.images import read_image
from dicom_objects import CAPTURE, CLIP, NAME, PIXELS, ULTRASOUND, dicom, ramp, read, region, write
from image_faults import fault


@pytest.mark.parametrize("sop", [ULTRASOUND, CLIP, CAPTURE])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_dicom_of_each_kind_and_plain_syntax_is_read(tmp_path: Path, sop: str, syntax: str) -> None:
    dataset = dicom(ramp(), sop=sop)
    path = tmp_path / "plain.dcm"
    dataset.file_meta.TransferSyntaxUID = syntax
    order = {"implicit_vr": syntax == ImplicitVRLittleEndian, "little_endian": syntax != ExplicitVRBigEndian}
    pydicom.dcmwrite(path, FileDataset(path, dataset, b"\0" * 128, dataset.file_meta), force_encoding=True, **order)
    np.testing.assert_array_equal(read_image(path).pixels_HW, ramp())


def test_dicom_is_told_by_its_content(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(write(tmp_path, dicom(ramp()), ending=".jpg")).pixels_HW, ramp())


@pytest.mark.parametrize("implicit", [True, False])
def test_a_bare_object_named_dcm_is_read(tmp_path: Path, implicit: bool) -> None:
    dataset = dicom(ramp())
    del dataset.file_meta
    dataset.save_as(tmp_path / "bare.dcm", implicit_vr=implicit, little_endian=True)
    np.testing.assert_array_equal(read_image(tmp_path / "bare.dcm").pixels_HW, ramp())


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, dicom(ramp(), "MONOCHROME1")), 255 - ramp())


def test_deep_dicom_is_scaled_by_its_stored_bits(tmp_path: Path) -> None:
    deep = np.linspace(0, 4095, 2400).astype(np.uint16).reshape(40, 60)
    np.testing.assert_array_equal(read(tmp_path, dicom(deep, bits=12, sop=CAPTURE)), np.floor(deep * (255 / 4095) + 0.5))


def test_dicom_colour_is_the_luminance_that_a_photo_has(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    expected = np.asarray(Image.fromarray(colours).convert("L"))
    np.testing.assert_array_equal(read(tmp_path, dicom(colours, "RGB")), expected)
    ybr = np.asarray(Image.fromarray(colours).convert("YCbCr"))
    assert np.abs(read(tmp_path, dicom(ybr, "YBR_FULL")).astype(int) - expected).max() <= 2


def test_planes_of_colour_are_read(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    dataset = dicom(colours, "RGB", PlanarConfiguration=1)
    dataset.PixelData = colours.transpose(2, 0, 1).tobytes()
    np.testing.assert_array_equal(read(tmp_path, dataset), np.asarray(Image.fromarray(colours).convert("L")))


def test_a_palette_is_applied(tmp_path: Path) -> None:
    dataset = dicom(ramp(), PhotometricInterpretation="PALETTE COLOR")
    table = (np.arange(256)[::-1] * 257).astype("<u2").tobytes()
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", table)
    np.testing.assert_array_equal(read(tmp_path, dataset), 255 - ramp())


def test_a_palette_of_eight_bits_in_sixteen_is_applied(tmp_path: Path) -> None:
    dataset = dicom(ramp(), PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", np.arange(256)[::-1].astype("<u2").tobytes())
    np.testing.assert_array_equal(read(tmp_path, dataset), 255 - ramp())


def clip(num_frames: int = 5) -> Dataset:
    return dicom(np.stack([ramp() + 7 * frame for frame in range(num_frames)]).astype(np.uint8), sop=CLIP)


@pytest.mark.parametrize(("frame", "index"), [(1, 0), (5, 4), (None, 2)])
def test_a_frame_counts_from_one_and_the_middle_is_the_default(tmp_path: Path, frame: int | None, index: int) -> None:
    np.testing.assert_array_equal(read(tmp_path, clip(), frame), ramp() + 7 * index)


def test_the_middle_of_four_frames_is_the_second(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, clip(4)), ramp() + 7)


def test_a_frame_out_of_range_is_refused(tmp_path: Path) -> None:
    assert fault(write(tmp_path, clip()), 6) == "frame 6 is not in the image, expected 1 to 5"


@pytest.mark.parametrize(
    ("regions", "rows", "columns"),
    [
        ([region((10, 5, 29, 34))], slice(5, 35), slice(10, 30)),
        ([region((0, 0, 9, 9)), region((10, 5, 29, 34)), region((2, 2, 5, 5))], slice(5, 35), slice(10, 30)),
        ([region((0, 0, 59, 39), kind=3), region((10, 5, 29, 34)), region((0, 0, 59, 39), form=3)], slice(5, 35), slice(10, 30)),
        ([region((0, 0, 30, 20), form=0)], slice(None), slice(None)),
        ([region((10, 5, 60, 40))], slice(5, None), slice(10, None)),
        ([region((0, 0, 0, 0)), region((30, 5, 20, 34))], slice(None), slice(None)),
        ([], slice(None), slice(None)),
    ],
    ids=["one", "largest", "tissue", "unspecified", "exclusive corner", "no size", "empty"],
)
def test_the_largest_tissue_region_is_cut_out(tmp_path: Path, regions: Sequence[Dataset], rows: slice, columns: slice) -> None:
    np.testing.assert_array_equal(read(tmp_path, dicom(ramp(), SequenceOfUltrasoundRegions=regions)), ramp()[rows, columns])


def test_a_region_without_corners_is_refused(tmp_path: Path) -> None:
    item = region((0, 0, 5, 5))
    del item.RegionLocationMaxX1
    message = fault(write(tmp_path, dicom(ramp(), SequenceOfUltrasoundRegions=[item])))
    assert message == "the image is DICOM whose SequenceOfUltrasoundRegions (0018,6011) has a region without a place"


def test_a_text_named_dcm_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.dcm"
    for content in (b"SECRET text\n" * 50, b"", b"\0" * 400):
        path.write_bytes(content)
        assert fault(path) == ("the image is named .dcm but is not DICOM" if content else "the image is empty")


def test_dicom_without_pixels_is_refused(tmp_path: Path) -> None:
    dataset = dicom(ramp())
    del dataset.PixelData
    assert fault(write(tmp_path, dataset)) == f"{PIXELS} is missing"
    del dataset.Rows, dataset.Columns
    assert "without pixels" in fault(write(tmp_path, dataset))


def test_dicom_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    said = fault(write(tmp_path, dicom(ramp(), sop="1.2.840.10008.5.1.4.1.1.2")))
    assert "DICOM of kind CT Image Storage by its SOPClassUID (0008,0016), expected Ultrasound" in said
    assert "DICOM of an unknown kind by its SOPClassUID" in fault(write(tmp_path, dicom(ramp(), sop="1.2.3.4.5")))


def test_video_and_private_syntaxes_are_refused_by_name(tmp_path: Path) -> None:
    dataset = dicom(ramp())
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0\0"])
    dataset["PixelData"].is_undefined_length = True
    assert "in MPEG2 Main Profile / Main Level, which cannot be read" in fault(
        write(tmp_path, dataset, syntax="1.2.840.10008.1.2.4.100")
    )
    path = write(tmp_path, dicom(ramp()))
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.1.2.3\0", 1))
    assert "in an unknown transfer syntax, which cannot be read" in fault(path)


def test_cut_dicom_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, clip())
    whole = path.read_bytes()
    for length in (140, 200, 400, len(whole) // 2, len(whole) - 1000):
        path.write_bytes(whole[:length])
        assert any(word in fault(path, 5) for word in ("without pixels", "damaged", "cut short", "is missing"))


def test_dicom_that_claims_more_pixels_than_allowed_is_refused_undecoded(tmp_path: Path) -> None:
    assert "too large" in fault(write(tmp_path, dicom(ramp(), Rows=60_000, Columns=60_000)))
    assert "too large" in fault(write(tmp_path, dicom(ramp(), NumberOfFrames=2_000_000)))
    assert "NumberOfFrames (0028,0008) is -3" in fault(write(tmp_path, dicom(ramp(), NumberOfFrames=-3)))


def test_signed_pixels_are_refused(tmp_path: Path) -> None:
    assert "signed" in fault(write(tmp_path, dicom(ramp(), PixelRepresentation=1)))


# Views


@pytest.mark.parametrize(
    ("regions", "shown"),
    [
        ([region((0, 0, 30, 20), form=2)], "M-mode"),
        ([region((0, 0, 30, 20), form=3, kind=3), region((0, 21, 30, 35), form=2)], "M-mode and spectral Doppler"),
        ([region((0, 0, 30, 20), kind=2), region((0, 30, 20, 35), form=5, kind=0)], "colour Doppler"),
    ],
)
def test_an_object_without_b_mode_is_refused_with_what_it_shows(tmp_path: Path, regions: Sequence[Dataset], shown: str) -> None:
    message = fault(write(tmp_path, dicom(ramp(), SequenceOfUltrasoundRegions=regions)))
    assert message == f"the image shows only {shown}, expected a 2D B-mode region"


def test_b_mode_beside_doppler_is_cut_out(tmp_path: Path) -> None:
    regions = [region((0, 0, 59, 19), form=3, kind=3), region((5, 20, 54, 39)), region((10, 25, 30, 30), kind=2)]
    np.testing.assert_array_equal(read(tmp_path, dicom(ramp(), SequenceOfUltrasoundRegions=regions)), ramp()[20:40, 5:55])


@pytest.mark.parametrize(("right", "clear"), [(59, False), (50, False), (49, True), (40, True)])
def test_of_two_views_the_larger_is_read_only_if_it_is_clearly_larger(tmp_path: Path, right: int, clear: bool) -> None:
    regions = [region((0, 0, 29, 39)), region((30, 0, right, 39))]  # 30 columns beside 30, 21, 20 and 11
    path = write(tmp_path, dicom(ramp(), SequenceOfUltrasoundRegions=regions))
    if clear:
        np.testing.assert_array_equal(read_image(path).pixels_HW, ramp()[:, :30])
    else:
        assert fault(path) == "the image shows 2 B-mode views of similar size, expected one"


def test_one_view_described_twice_is_one(tmp_path: Path) -> None:
    regions = [region((0, 0, 29, 39)), region((0, 0, 29, 39)), region((1, 1, 28, 39))]
    np.testing.assert_array_equal(read(tmp_path, dicom(ramp(), SequenceOfUltrasoundRegions=regions)), ramp()[:, :30])


def test_the_name_of_a_patient_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    show = dicom_module.show
    monkeypatch.setattr(dicom_module, "show", lambda found, frame: seen.append(found.elements) or show(found, frame))
    read(tmp_path, dicom(ramp()))
    assert seen[0].Rows == 40
    assert "PatientName" not in seen[0]


def test_decoders_neither_warn_nor_log_and_are_left_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = dicom(ramp(), SpecificCharacterSet="ISO_IR 100")
    path = write(tmp_path, dataset)
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"SECRETNAME"))
    photo = tmp_path / "photo.png"
    Image.fromarray(ramp()).save(photo)
    with pytest.warns(UserWarning, match="SECRETNAME"):
        _ = pydicom.dcmread(path).PatientName  # so there is something to silence
    caplog.clear()
    levels = [logging.getLogger(name).level for name in ("PIL", "pydicom")]
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read_image, [path, photo] * 10))
        assert warnings.filters == filters
    assert [logging.getLogger(name).level for name in ("PIL", "pydicom")] == levels
    assert caught == []
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
