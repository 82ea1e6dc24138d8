"""csasn/pictures/dicom.py: every transfer syntax, objects of other makers, and frames that lie about their size."""

import io
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from csasn.pictures import codecs, dicom_header
from csasn.pictures.images import read_image
from dicom_objects import CAPTURE, CLIP, DAMAGED, PIXELS, ULTRASOUND, dicom, ramp, recode, region, write
from image_faults import fault


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


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless])
def test_lossless_codes_of_another_maker_of_any_depth_are_read_to_the_bit(tmp_path: Path, syntax: str, bits: int) -> None:
    values = np.linspace(0, (1 << bits) - 1, 2400).reshape(40, 60)
    path = write(tmp_path, dicom(values.astype(np.uint8 if bits == 8 else np.uint16), bits=bits, sop=CAPTURE))
    plain = read_image(path).pixels_HW
    assert pydicom.dcmread(recode(path, syntax)).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_image(path).pixels_HW, plain)


def test_jpeg_of_12_bits_is_what_an_independent_decoder_reads() -> None:
    """The values are of libjpeg of the JPEG committee; decoders of lossy frames may differ by 1."""
    expected = [
        [1, 1, 1, 1, 1, 1, 1, 1],
        [1, 2, 13, 25, 67, 18, 49, 1],
        [25, 1, 29, 27, 70, 42, 22, 26],
        [1, 6, 25, 51, 72, 48, 27, 30],
        [1, 1, 36, 15, 8, 42, 1, 1],
        [1, 1, 24, 1, 1, 20, 1, 1],
        [1, 1, 27, 1, 20, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 1],
    ]
    frame = pydicom.encaps.get_frame(pydicom.dcmread(shipped("JPGExtended.dcm")).PixelData, 0, number_of_frames=1)
    pixels = codecs.decode_stream(frame).pixels
    assert np.abs(pixels[64::128, 16::32].astype(int) - expected).max() <= 1
    assert abs(pixels.mean() - 14.383) < 0.02
    read = read_image(shipped("JPGExtended.dcm")).pixels_HW
    np.testing.assert_array_equal(read, (pixels.astype(int) * 255 + 2047) // 4095)
    np.testing.assert_array_equal(read, read_image(shipped("JPEG-lossy.dcm")).pixels_HW)


def test_only_syntaxes_that_our_decoders_know_are_taken() -> None:
    jpeg = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, *JPEGLSTransferSyntaxes}
    assert set(dicom_header.CODED) == jpeg | {*JPEG2000TransferSyntaxes, RLELossless}


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
        ("examples_palette.dcm", (350, 800)),  # pydicom's makers cut the pixels and left the region of the whole picture
        ("examples_ybr_color.dcm", (240, 320)),  # the same: 240 x 320 pixels, a region up to 414 x 595
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
        ("JPEG2000.dcm", "PixelRepresentation (0028,0103) says signed, but no window or VOI LUT says what is black"),
        ("JPEG-lossy.dcm", (1024, 256)),  # its scan header breaks the JPEG standard, and the rest of it does not
        ("JPEG2000-embedded-sequence-delimiter.dcm", "not of 256 x 1024 pixels"),  # its frame holds a delimiter on purpose
        ("SC_rgb_jpeg.dcm", (256, 256)),  # its pixels are not encapsulated
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
    monkeypatch.setattr(dicom_header, "MAX_INFLATED_BYTES", 3 << 20)
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
    monkeypatch.setattr(dicom_header, limit, 2000)
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
    for name in ("_by_pillow", "imagecodecs"):
        monkeypatch.setattr(codecs, name, lambda *_: reached.append(1))
    message = fault(write(tmp_path, encapsulated(ramp(), [code], "MONOCHROME2"), syntax=syntax))
    assert message == f"{PIXELS} holds a frame that is not of 60 x 40 pixels, as Rows and Columns say"
    assert not reached


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_gdcm.dcm", "JPGExtended.dcm", "SC_rgb_jls_lossy_line.dcm"])
def test_a_cut_frame_is_refused_where_a_decoder_would_make_up_the_rest_or_look_for_it_for_minutes(
    tmp_path: Path, name: str
) -> None:
    dataset = pydicom.dcmread(shipped(name))
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = pydicom.encaps.encapsulate([frame[: len(frame) // 2]])
    dataset.save_as(tmp_path / "cut.dcm")
    assert DAMAGED in fault(tmp_path / "cut.dcm")


def test_a_frame_of_far_more_pixels_than_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, encapsulated(ramp(), [coded(ramp(), "JPEG2000", no_jp2=True)], "MONOCHROME2"), syntax=JPEG2000Lossless)
    read_image(path)
    monkeypatch.setattr(codecs, "SMALL_FRAME_PIXELS", 1000)
    monkeypatch.setattr(codecs, "MAX_COMPRESSION", 1)
    assert "holds a frame" in fault(path)


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
    monkeypatch.setattr(codecs, "imagecodecs", reached)
    assert DAMAGED in fault(path)
