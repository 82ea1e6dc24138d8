"""csasn/data/images.py: pictures from PNG, JPEG and DICOM, and the square they are fitted into."""

import logging
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import set_pixel_data
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from csasn.data.images import letterbox, read_image, require_size
from csasn.errors import DataError

ULTRASOUND, CLIP, CAPTURE = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.7"
NAME = "SECRETNAME99"


def ramp(height: int = 40, width: int = 60) -> np.ndarray:
    """A picture whose every pixel tells where it is, as far as 8 bits go."""
    return (np.arange(height)[:, None] * 5 + np.arange(width)[None, :]).astype(np.uint8)


def save(folder: Path, picture: Image.Image, ending: str, **options: object) -> Path:
    path = folder / f"{NAME}{ending}"
    picture.save(path, **options)
    return path


def dicom(pixels: np.ndarray, kind: str = "MONOCHROME2", bits: int = 8, sop: str = ULTRASOUND, **elements: object) -> Dataset:
    """A DICOM object with `pixels`: (H, W), (H, W, 3), or with frames before that."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop, "1.2.3"
    dataset.PatientName = NAME
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    set_pixel_data(dataset, pixels, kind, bits, generate_instance_uid=False)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def region(corners: tuple[int, int, int, int], unit: int = 3, delta: float = 0.01, form: int = 1, kind: int = 1) -> Dataset:
    """An ultrasound region; corners are left, top, right, bottom, the latter two inclusive."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = form, kind, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0, item.RegionLocationMaxX1, item.RegionLocationMaxY1 = corners
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = unit
    item.PhysicalDeltaX, item.PhysicalDeltaY = delta, 2 * delta
    return item


def write(folder: Path, dataset: Dataset, ending: str = ".dcm", syntax: str = ExplicitVRLittleEndian) -> Path:
    path = folder / f"{NAME}{ending}"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


def read(folder: Path, dataset: Dataset, frame: int | None = None) -> np.ndarray:
    return read_image(write(folder, dataset), frame).pixels_HW


def fault(path: Path, frame: int | None = None) -> str:
    """The message of reading `path`; it may name nothing of the file."""
    with pytest.raises(DataError) as caught:
        read_image(path, frame)
    text = caught.value.message + caught.value.hint
    assert "SECRET" not in text
    assert str(path.parent) not in text
    assert caught.value.__cause__ is None
    assert caught.value.hint
    return caught.value.message


# PNG and JPEG


@pytest.mark.parametrize("ending", [".png", ".PNG", "", ".dat"])
def test_grey_png_is_read_as_it_is_whatever_its_name(tmp_path: Path, ending: str) -> None:
    picture = read_image(save(tmp_path, Image.fromarray(ramp()), ending, format="PNG"))
    np.testing.assert_array_equal(picture.pixels_HW, ramp())
    assert picture.pixels_HW.dtype == np.uint8
    assert picture.spacing_mm is None


def test_jpeg_is_read_close_to_what_was_written(tmp_path: Path) -> None:
    picture = read_image(save(tmp_path, Image.fromarray(ramp(), "L"), ".jpg", quality=98))
    assert np.abs(picture.pixels_HW.astype(int) - ramp()).mean() < 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_grey_in_any_mode_stays_the_same_grey(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(ramp())
    picture = grey.quantize(256) if mode == "P" else grey.convert(mode)
    if "A" in mode:
        picture.putalpha(Image.fromarray(ramp()[::-1].copy()))
    np.testing.assert_array_equal(read_image(save(tmp_path, picture, ".png")).pixels_HW, ramp())


def test_colour_becomes_luminance(tmp_path: Path) -> None:
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[0], colours[1], colours[2] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    pixels = read_image(save(tmp_path, Image.fromarray(colours), ".png")).pixels_HW
    np.testing.assert_array_equal(pixels[:, 0], [76, 150, 29, 0])


def test_sixteen_bits_are_scaled_by_one_over_257(tmp_path: Path) -> None:
    deep = Image.fromarray(ramp().astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(save(tmp_path, deep, ".png")).pixels_HW, ramp())


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    pixels = read_image(save(tmp_path, Image.fromarray(ramp() > 128), ".png")).pixels_HW
    np.testing.assert_array_equal(pixels, (ramp() > 128) * np.uint8(255))


def test_a_turned_photo_is_read_as_it_was_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    pixels = read_image(save(tmp_path, Image.fromarray(ramp()), ".png", exif=exif)).pixels_HW
    np.testing.assert_array_equal(pixels, np.rot90(ramp(), -1))


def test_missing_folder_and_pipe_are_refused(tmp_path: Path) -> None:
    assert fault(tmp_path / NAME) == "the image does not exist"
    assert fault(tmp_path) == "the image is not a file"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert fault(pipe) == "the image is not a file"


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_cut_picture_is_refused(tmp_path: Path, ending: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    path = save(tmp_path, Image.fromarray(noise), ending)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "damaged, cut short" in fault(path)


@pytest.mark.parametrize("content", [b"", b"SECRET text", b"GIF89a SECRET", b"%PDF-1.4 SECRET"])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"{NAME}.png"
    path.write_bytes(content)
    assert "not PNG, JPEG or DICOM" in fault(path)


def test_a_picture_without_contrast_is_refused(tmp_path: Path) -> None:
    assert "no contrast" in fault(save(tmp_path, Image.new("L", (50, 50), 7), ".png"))
    assert "no contrast" in fault(write(tmp_path, dicom(np.full((50, 50), 7, np.uint8))))


def test_a_decompression_bomb_is_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, Image.new("1", (14_000, 14_000)), ".png")  # beyond Pillow's limit for an error, not only for a warning
    assert fault(path) == "the image has more than 178956970 pixels"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert fault(path).startswith("the image is too large: 1 x 14000 x 14000, expected at most 178956970 pixels a frame")


def test_a_photo_has_one_frame(tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(ramp()), ".png")
    np.testing.assert_array_equal(read_image(path, 1).pixels_HW, ramp())
    assert fault(path, 2) == "frame 2 is not in the image, expected 1 to 1"


# DICOM


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


def clip(num_frames: int = 5) -> Dataset:
    return dicom(np.stack([ramp() + 7 * frame for frame in range(num_frames)]).astype(np.uint8), sop=CLIP)


@pytest.mark.parametrize(("frame", "index"), [(1, 0), (5, 4), (None, 2)])
def test_a_frame_counts_from_one_and_the_middle_is_the_default(tmp_path: Path, frame: int | None, index: int) -> None:
    np.testing.assert_array_equal(read(tmp_path, clip(), frame), ramp() + 7 * index)


def test_the_middle_of_four_frames_is_the_second(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, clip(4)), ramp() + 7)


def test_a_frame_out_of_range_is_refused(tmp_path: Path) -> None:
    assert fault(write(tmp_path, clip()), 6) == "frame 6 is not in the image, expected 1 to 5"


def test_rle_that_needs_no_plugin_is_read(tmp_path: Path) -> None:
    dataset = clip()
    dataset.compress(RLELossless)
    np.testing.assert_array_equal(read_image(write(tmp_path, dataset, syntax=RLELossless), 4).pixels_HW, ramp() + 21)


@pytest.mark.parametrize(
    ("name", "size"),
    [("examples_rgb_color.dcm", (240, 320)), ("SC_rgb_jpeg_dcmtk.dcm", (100, 100)), ("SC_rgb_rle_2frame.dcm", (100, 100))],
)
def test_files_of_other_makers_are_read(name: str, size: tuple[int, int]) -> None:
    assert read_image(Path(str(get_testdata_file(name, download=False)))).pixels_HW.shape == size


@pytest.mark.parametrize(
    ("regions", "rows", "columns"),
    [
        ([region((10, 5, 29, 34))], slice(5, 35), slice(10, 30)),
        ([region((0, 0, 9, 9)), region((10, 5, 29, 34)), region((2, 2, 5, 5))], slice(5, 35), slice(10, 30)),
        ([region((0, 0, 59, 39), kind=3), region((10, 5, 29, 34)), region((0, 0, 59, 39), form=3)], slice(5, 35), slice(10, 30)),
        ([region((0, 0, 30, 20), form=2)], slice(None), slice(None)),
        ([region((10, 5, 60, 40))], slice(5, None), slice(10, None)),
        ([], slice(None), slice(None)),
    ],
    ids=["one", "largest", "tissue", "none of tissue", "exclusive corner", "empty"],
)
def test_the_largest_tissue_region_is_cut_out(tmp_path: Path, regions: Sequence[Dataset], rows: slice, columns: slice) -> None:
    np.testing.assert_array_equal(read(tmp_path, dicom(ramp(), SequenceOfUltrasoundRegions=regions)), ramp()[rows, columns])


@pytest.mark.parametrize(
    ("unit", "delta", "spacing"), [(3, 0.01, (0.2, 0.1)), (3, -0.01, (0.2, 0.1)), (4, 0.01, None), (3, 0.0, None)]
)
def test_spacing_is_down_and_across_in_mm_where_the_unit_is_cm(
    tmp_path: Path, unit: int, delta: float, spacing: tuple[float, float] | None
) -> None:
    dataset = dicom(ramp(), SequenceOfUltrasoundRegions=[region((0, 0, 59, 39), unit, delta)])
    found = read_image(write(tmp_path, dataset)).spacing_mm
    assert found == (pytest.approx(spacing) if spacing else None)


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ((0, 0, 61, 20), "leaves the picture"),
        ((0, 0, 20, 41), "leaves the picture"),
        ((30, 5, 20, 10), "no size"),
        ((60, 0, 60, 20), "no size"),
    ],
)
def test_a_region_that_does_not_fit_is_refused(tmp_path: Path, corners: tuple[int, int, int, int], message: str) -> None:
    assert message in fault(write(tmp_path, dicom(ramp(), SequenceOfUltrasoundRegions=[region(corners)])))


def test_a_region_without_corners_is_refused(tmp_path: Path) -> None:
    item = region((0, 0, 5, 5))
    del item.RegionLocationMaxX1
    assert "damaged" in fault(write(tmp_path, dicom(ramp(), SequenceOfUltrasoundRegions=[item])))


def test_a_text_named_dcm_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.dcm"
    for content in (b"SECRET text\n" * 50, b"", b"\0" * 400):
        path.write_bytes(content)
        assert fault(path) in ("the image is named .dcm but is not DICOM", "the image is a damaged DICOM file")


def test_dicom_without_pixels_is_refused(tmp_path: Path) -> None:
    dataset = dicom(ramp())
    del dataset.PixelData
    assert "pixels, in Explicit VR Little Endian, are missing" in fault(write(tmp_path, dataset))
    del dataset.Rows
    assert "without pixels" in fault(write(tmp_path, dataset))


def test_dicom_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    assert "DICOM of kind CT Image Storage, expected Ultrasound" in fault(
        write(tmp_path, dicom(ramp(), sop="1.2.840.10008.5.1.4.1.1.2"))
    )
    assert "DICOM of an unknown kind, expected" in fault(write(tmp_path, dicom(ramp(), sop="1.2.3.4.5")))


def test_a_compressed_syntax_is_refused_by_name(tmp_path: Path) -> None:
    dataset = dicom(ramp())
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0\0"])
    dataset["PixelData"].is_undefined_length = True
    assert "in JPEG-LS Lossless Image Compression, which cannot be read" in fault(write(tmp_path, dataset, syntax=JPEGLSLossless))
    assert "in MPEG2 Main Profile / Main Level, which" in fault(write(tmp_path, dataset, syntax="1.2.840.10008.1.2.4.100"))
    dataset = dicom(ramp())
    assert "in Deflated Explicit VR Little Endian, which cannot be read" in fault(
        write(tmp_path, dataset, syntax=DeflatedExplicitVRLittleEndian)
    )


def test_cut_dicom_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, clip())
    whole = path.read_bytes()
    for length in (140, 200, 400, len(whole) // 2, len(whole) - 1000):
        path.write_bytes(whole[:length])
        fault(path, 5)


def test_dicom_that_claims_more_pixels_than_allowed_is_refused_undecoded(tmp_path: Path) -> None:
    assert "too large" in fault(write(tmp_path, dicom(ramp(), Rows=60_000, Columns=60_000)))
    assert "too large" in fault(write(tmp_path, dicom(ramp(), NumberOfFrames=2_000_000)))
    assert "without pixels" in fault(write(tmp_path, dicom(ramp(), NumberOfFrames=-3)))


def test_signed_pixels_are_refused(tmp_path: Path) -> None:
    assert "signed" in fault(write(tmp_path, dicom(ramp(), PixelRepresentation=1)))


@pytest.mark.parametrize("ending", [".dcm", ".png", ".jpg"])
def test_no_damage_escapes_as_a_foreign_error(tmp_path: Path, ending: str) -> None:
    dataset = dicom(ramp(), SequenceOfUltrasoundRegions=[region((0, 0, 50, 30))])
    path = write(tmp_path, dataset) if ending == ".dcm" else save(tmp_path, Image.fromarray(ramp()), ending)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        content = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(128 if ending == ".dcm" else 0, min(len(content), 1200), rng.integers(1, 8))
        content[places] = rng.integers(0, 256, len(places))
        path.write_bytes(content.tobytes())
        with suppress(DataError):
            read_image(path)


def test_decoders_neither_warn_nor_log_and_are_left_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = dicom(ramp(), SpecificCharacterSet="ISO_IR 100")
    path = write(tmp_path, dataset)
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"SECRETNAME"))
    photo = save(tmp_path, Image.fromarray(ramp()), ".png")
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


# The square


@given(height=st.integers(1, 300), width=st.integers(1, 300), size=st.integers(8, 128))
def test_letterbox_keeps_the_aspect_and_centres(height: int, width: int, size: int) -> None:
    square = letterbox(np.full((height, width), 255, np.uint8), size)
    assert square.shape == (size, size)
    assert square.dtype == np.uint8
    rows, columns = np.flatnonzero(square.any(1)), np.flatnonzero(square.any(0))
    assert max(len(rows), len(columns)) == size
    scale = size / max(height, width)
    assert abs(len(rows) - max(1, height * scale)) <= 0.5
    assert abs(len(columns) - max(1, width * scale)) <= 0.5
    for inside in (rows, columns):
        assert inside[-1] - inside[0] == len(inside) - 1
        assert abs(inside[0] - (size - 1 - inside[-1])) <= 1
    assert np.all(square[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 255)


def test_letterbox_averages_where_it_shrinks() -> None:
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.abs(letterbox(board, 32).astype(int) - 127).max() <= 2


def test_letterbox_of_the_right_size_changes_nothing() -> None:
    np.testing.assert_array_equal(letterbox(ramp(48, 48), 48), ramp(48, 48))


def test_a_thumbnail_is_refused() -> None:
    require_size(ramp(48, 96), 96)
    require_size(ramp(96, 48), 96)
    with pytest.raises(DataError, match=r"^the image is 60 x 48 pixels, expected a longer side of at least 96$"):
        require_size(ramp(48, 60), 96)
