"""csasn/data/dicom.py: frames of DICOM objects in every transfer syntax, and the B-mode view in them."""

import io
import logging
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import set_pixel_data
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from csasn.data import dicom as dicom_module
from csasn.data.images import read_image
from image_faults import fault

ULTRASOUND, CLIP, CAPTURE = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.7"
NAME = "SECRETNAME99"
LEAVES = "the image has an ultrasound region that leaves the picture"
SIGNED = "the image is DICOM with signed, float or otherwise unusual pixels, expected grey or RGB"
DAMAGED = "missing, damaged or of a kind that cannot be read"


def ramp(height: int = 40, width: int = 60) -> np.ndarray:
    """A picture whose every pixel tells where it is, as far as 8 bits go."""
    return (np.arange(height)[:, None] * 5 + np.arange(width)[None, :]).astype(np.uint8)


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
        ([], slice(None), slice(None)),
    ],
    ids=["one", "largest", "tissue", "unspecified", "exclusive corner", "empty"],
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
        assert ("without pixels" if length == 400 else "damaged") in fault(path, 5)


def test_dicom_that_claims_more_pixels_than_allowed_is_refused_undecoded(tmp_path: Path) -> None:
    assert "too large" in fault(write(tmp_path, dicom(ramp(), Rows=60_000, Columns=60_000)))
    assert "too large" in fault(write(tmp_path, dicom(ramp(), NumberOfFrames=2_000_000)))
    assert "without pixels" in fault(write(tmp_path, dicom(ramp(), NumberOfFrames=-3)))


def test_signed_pixels_are_refused(tmp_path: Path) -> None:
    assert "signed" in fault(write(tmp_path, dicom(ramp(), PixelRepresentation=1)))


# Transfer syntaxes and files of other makers


def encapsulated(pixels: np.ndarray, frames: Sequence[bytes], kind: str, sop: str = ULTRASOUND) -> Dataset:
    """An object of one size with frames that were coded elsewhere."""
    dataset = dicom(pixels, "MONOCHROME2" if pixels.ndim == 2 else "RGB", sop=sop)
    dataset.PhotometricInterpretation = kind
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    dataset.PixelData = pydicom.encaps.encapsulate(list(frames))
    dataset["PixelData"].is_undefined_length = True
    return dataset


def coded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_lossless_frames_are_read_as_they_were(tmp_path: Path, syntax: str) -> None:
    frames = [ramp() + np.uint8(7 * number) for number in range(3)]
    if syntax == RLELossless:
        dataset = dicom(np.stack(frames), sop=CLIP)
        dataset.compress(RLELossless)
    else:
        codes = [coded(frame, "JPEG2000", no_jp2=True) for frame in frames]
        dataset = encapsulated(ramp(), codes, "MONOCHROME2", sop=CLIP)
    path = write(tmp_path, dataset, syntax=syntax)
    for number, frame in enumerate(frames, 1):
        np.testing.assert_array_equal(read_image(path, number).pixels_HW, frame)


@pytest.mark.parametrize(
    ("syntax", "kind", "options"),
    [
        (JPEGBaseline8Bit, "YBR_FULL", {"quality": 95, "subsampling": 0}),
        (JPEGBaseline8Bit, "YBR_FULL_422", {"quality": 95, "subsampling": 1}),
        (JPEG2000Lossless, "YBR_RCT", {"mct": 1, "irreversible": False}),
        (JPEG2000, "YBR_ICT", {"mct": 1, "irreversible": True}),
        (JPEG2000Lossless, "RGB", {"mct": 0, "irreversible": False}),
    ],
)
def test_compressed_colour_is_the_luminance_that_a_photo_has(
    tmp_path: Path, syntax: str, kind: str, options: dict[str, object]
) -> None:
    colours = np.stack([ramp(48, 64), ramp(48, 64)[::-1], ramp(48, 64)[:, ::-1]], axis=-1)
    form = "JPEG" if syntax == JPEGBaseline8Bit else "JPEG2000"
    code = coded(colours, form, **options, **({} if form == "JPEG" else {"no_jp2": True}))
    pixels = read_image(write(tmp_path, encapsulated(colours, [code], kind), syntax=syntax)).pixels_HW
    difference = pixels.astype(int) - np.asarray(Image.fromarray(colours).convert("L"))
    assert np.abs(difference).mean() < 2.5
    if "RCT" in kind or kind == "RGB":
        assert not difference.any()


def test_colour_spaces_of_jpeg_2000_are_refused_elsewhere(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    for kind in ("YBR_RCT", "YBR_ICT", "YBR_PARTIAL_422", "HSV"):
        assert fault(write(tmp_path, dicom(colours, "RGB", PhotometricInterpretation=kind))).startswith("the image is DICOM")


@pytest.mark.parametrize(
    "name",
    ["gdcm_KY", "jpeg_gdcm", "rle_2frame", "rle_16bit", "rle_16bit_2frame", "rle_32bit", "rle_32bit_2frame"],
)
def test_one_picture_coded_without_loss_by_many_makers_is_the_same_grey(name: str) -> None:
    np.testing.assert_array_equal(
        read_image(shipped(f"SC_rgb_{name}.dcm")).pixels_HW, read_image(shipped("SC_rgb_rle.dcm")).pixels_HW
    )


@pytest.mark.parametrize(
    "name",
    [
        *(f"SC_rgb_dcmtk_+eb+c{kind}.dcm" for kind in ("r", "y+n1", "y+n2", "y+np", "y+s2", "y+s4")),
        *(f"SC_rgb_{kind}.dcm" for kind in ("jls_lossy_line", "jls_lossy_sample", "jpeg_dcmtk", "jpeg_lossy_gdcm")),
        "SC_ybr_full_422_uncompressed.dcm",
    ],
)
def test_one_picture_coded_with_loss_by_many_makers_is_nearly_the_same_grey(name: str) -> None:
    difference = read_image(shipped(name)).pixels_HW - read_image(shipped("SC_rgb_rle.dcm")).pixels_HW.astype(int)
    assert abs(difference.mean()) < 0.3
    assert np.percentile(np.abs(difference), 90) <= 5


def shipped(name: str) -> Path:
    """A file that pydicom ships; nothing is downloaded."""
    return Path(str(get_testdata_file(name, download=False)))


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("ExplVR_BigEnd.dcm", (60, 80)),
        ("examples_jpeg2k.dcm", (480, 640)),
        ("examples_rgb_color.dcm", (240, 320)),
        ("examples_palette.dcm", LEAVES),  # pydicom's makers cut the pixels and left the region of the whole picture
        ("examples_ybr_color.dcm", LEAVES),  # the same: 240 x 320 pixels, a region up to 414 x 595
        ("image_dfl.dcm", (512, 512)),
        ("GDCMJ2K_TextGBR.dcm", (400, 400)),
        ("JPGExtended.dcm", (1024, 256)),
        ("JPEGLSNearLossless_08.dcm", (45, 10)),
        ("JPEGLSNearLossless_16.dcm", (50, 10)),
        ("SC_jpeg_no_color_transform.dcm", (256, 256)),
        ("SC_jpeg_no_color_transform_2.dcm", (256, 256)),
        ("SC_rgb_jpeg_app14_dcmd.dcm", (256, 256)),
        ("SC_rgb_small_odd_big_endian.dcm", (3, 3)),
        ("SC_rgb_small_odd_jpeg.dcm", (3, 3)),
        ("JPEG2000.dcm", SIGNED),
        ("JPEG-lossy.dcm", DAMAGED),  # its scan header breaks the JPEG standard
        ("JPEG2000-embedded-sequence-delimiter.dcm", DAMAGED),  # its frame holds a delimiter on purpose
        ("SC_rgb_jpeg.dcm", DAMAGED),  # its pixels are not encapsulated
    ],
)
def test_each_shipped_object_is_read_or_explained(name: str, outcome: tuple[int, int] | str) -> None:
    if isinstance(outcome, str):
        assert outcome in fault(shipped(name))
    else:
        assert read_image(shipped(name)).pixels_HW.shape == outcome


@pytest.mark.parametrize(("name", "size"), [("examples_palette.dcm", (350, 800)), ("examples_ybr_color.dcm", (240, 320))])
def test_real_files_with_a_stale_region_are_read_without_it(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    dataset = pydicom.dcmread(shipped(name))
    del dataset.SequenceOfUltrasoundRegions
    dataset.save_as(tmp_path / "whole.dcm")
    pixels = read_image(tmp_path / "whole.dcm").pixels_HW
    assert pixels.shape == size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = pydicom.pixels.pixel_array(dataset, index=14 if dataset.get("NumberOfFrames") else 0)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        frame = (pydicom.pixels.apply_color_lut(frame, dataset) / 257).round().astype(np.uint8)
    assert np.abs(pixels - np.asarray(Image.fromarray(frame).convert("L")).astype(int)).max() <= 1


def test_no_ultrasound_object_that_pydicom_ships_is_forgotten() -> None:
    kinds = {}
    for path in sorted(shipped("CT_small.dcm").parent.glob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=["SOPClassUID", "Modality"])
        if header.get("Modality") == "US":
            kinds[path.name] = header.SOPClassUID
    assert kinds == {
        "ExplVR_BigEnd.dcm": ULTRASOUND,
        "examples_jpeg2k.dcm": ULTRASOUND,
        "examples_palette.dcm": ULTRASOUND,
        "examples_rgb_color.dcm": ULTRASOUND,
        "examples_ybr_color.dcm": CLIP,
    }


# Deflated, and frames that lie about their size


def deflate(folder: Path, dataset: Dataset) -> Path:
    path = write(folder, dataset, syntax=DeflatedExplicitVRLittleEndian)
    assert len(path.read_bytes()) < 20_000
    return path


def test_a_deflated_file_is_read(tmp_path: Path) -> None:
    dataset = dicom(ramp(), SequenceOfUltrasoundRegions=[region((10, 5, 29, 34))])
    np.testing.assert_array_equal(read_image(deflate(tmp_path, dataset)).pixels_HW, ramp()[5:35, 10:30])


def test_a_deflated_bomb_is_refused_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_module, "MAX_INFLATED_BYTES", 3 << 20)
    path = deflate(tmp_path, dicom(ramp()))
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(data[:start] + packer.compress(bytes(50 << 20)) + packer.flush())
    assert fault(path) == "the image is a deflated DICOM file of more than 3 MiB"


@pytest.mark.parametrize(("limit", "undefined"), [("MAX_HEADER_READS", True), ("MAX_VALUE_BYTES", False)])
def test_a_header_of_endless_elements_is_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, undefined: bool
) -> None:
    dataset = dicom(ramp(), SequenceOfUltrasoundRegions=[region((0, 0, 1, 1)) for _ in range(500)])
    dataset["SequenceOfUltrasoundRegions"].is_undefined_length = undefined
    path = write(tmp_path, dataset)
    read_image(path)
    monkeypatch.setattr(dicom_module, limit, 2000)
    assert fault(path) == "the image is a damaged DICOM file"


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_a_file_header_without_end_is_refused_early(tmp_path: Path, syntax: str) -> None:
    dataset = dicom(ramp())
    dataset.file_meta.PrivateInformationCreatorUID, dataset.file_meta.PrivateInformation = "1.2.3", bytes(100_000)
    np.testing.assert_array_equal(read_image(write(tmp_path, dataset, syntax=syntax)).pixels_HW, ramp())
    dataset.file_meta.PrivateInformation = bytes(300_000)
    assert fault(write(tmp_path, dataset, syntax=syntax)) == "the image is a damaged DICOM file"


def test_a_cut_deflated_file_is_refused(tmp_path: Path) -> None:
    path = deflate(tmp_path, dicom(ramp()))
    whole = path.read_bytes()
    for length in (140, 200, len(whole) - 40):
        path.write_bytes(whole[:length])
        message = fault(path)
    assert message == "the image is a damaged DICOM file"


@pytest.mark.parametrize("form", ["JPEG", "JPEG2000"])
def test_a_frame_of_another_size_than_its_object_never_reaches_a_decoder(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    syntax = JPEGBaseline8Bit if form == "JPEG" else JPEG2000Lossless
    code = coded(ramp(80, 120), form, **({} if form == "JPEG" else {"no_jp2": True}))
    reached = []
    monkeypatch.setattr(dicom_module, "pixel_array", lambda *_, **__: reached.append(1))
    assert DAMAGED in fault(write(tmp_path, encapsulated(ramp(), [code], "MONOCHROME2"), syntax=syntax))
    assert not reached


def test_a_cut_frame_is_refused_even_where_a_decoder_would_make_up_the_rest(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(shipped("SC_rgb_jpeg_gdcm.dcm"))
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = pydicom.encaps.encapsulate([frame[: len(frame) // 2]])
    dataset.save_as(tmp_path / "cut.dcm")
    assert DAMAGED in fault(tmp_path / "cut.dcm")


def test_a_frame_of_far_more_pixels_than_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, encapsulated(ramp(), [coded(ramp(), "JPEG2000", no_jp2=True)], "MONOCHROME2"), syntax=JPEG2000Lossless)
    read_image(path)
    monkeypatch.setattr(dicom_module, "SMALL_FRAME_PIXELS", 1000)
    monkeypatch.setattr(dicom_module, "MAX_COMPRESSION", 1)
    assert DAMAGED in fault(path)


@pytest.mark.parametrize("length", [b"\0\0\0\0", b"\0\0\0\x01", b"\xff\xff\xff\xff"])
def test_a_box_of_no_length_does_not_hold_the_reader_for_ever(tmp_path: Path, length: bytes) -> None:
    code = coded(ramp(), "JPEG2000", no_jp2=False)
    np.testing.assert_array_equal(
        read_image(write(tmp_path, encapsulated(ramp(), [code], "MONOCHROME2"), syntax=JPEG2000Lossless)).pixels_HW, ramp()
    )
    damaged = code[:12] + length + code[16:]
    assert DAMAGED in fault(write(tmp_path, encapsulated(ramp(), [damaged], "MONOCHROME2"), syntax=JPEG2000Lossless))


def test_a_short_run_of_rle_never_reaches_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = dicom(ramp())
    dataset.compress(RLELossless)
    dataset.Rows, dataset.Columns = 10_000, 10_000
    path = write(tmp_path, dataset, syntax=RLELossless)
    reached = []
    monkeypatch.setattr(dicom_module, "pixel_array", lambda *_, **__: reached.append(1))
    assert DAMAGED in fault(path)
    assert not reached


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
    monkeypatch.setattr(dicom_module, "_crop", lambda pixels, header: seen.append(header) or dicom_module.Picture(pixels))
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
