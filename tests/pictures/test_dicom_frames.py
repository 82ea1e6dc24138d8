"""csasn/pictures/dicom_frames.py, dicom_header.py: where frames lie, what streams say against labels, small defects."""

import io
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from csasn.pictures.images import read_image
from csasn.pictures.picture import MORE_FRAMES
from dicom_objects import CLIP, DAMAGED, NAME, PIXELS, ULTRASOUND, dicom, ramp, write
from image_faults import fault

COLOURS = np.stack([ramp(40, 60), ramp(40, 60)[::-1], ramp(40, 60)[:, ::-1]], axis=-1)
GREY_OF_COLOURS = np.asarray(Image.fromarray(COLOURS).convert("L")).astype(int)


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=97, **{"subsampling": 0, **options} if pixels.ndim == 3 else options)
    return file.getvalue()


def coded(frames: list[bytes], pixels: np.ndarray = COLOURS, syntax: str = JPEGBaseline8Bit, offsets: bool = True) -> Dataset:
    dataset = dicom(pixels, "MONOCHROME2" if pixels.ndim == 2 else "RGB", sop=CLIP if len(frames) > 1 else ULTRASOUND)
    dataset.file_meta.TransferSyntaxUID = syntax
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    dataset.PixelData = encapsulate(frames, has_bot=offsets)
    dataset["PixelData"].is_undefined_length = True
    return dataset


def save(folder: Path, dataset: Dataset) -> Path:
    return write(folder, dataset, syntax=dataset.file_meta.TransferSyntaxUID)


def far(path: Path, expected: np.ndarray, frame: int | None = None) -> float:
    return float(np.abs(read_image(path, frame).pixels_HW.astype(int) - expected).mean())


# The stream decides


@pytest.mark.parametrize("label", ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "MONOCHROME2", ""])
@pytest.mark.parametrize("keep_rgb", [False, True])
@pytest.mark.parametrize("planar", [0, 1])
def test_colours_of_a_jpeg_are_those_of_the_stream(tmp_path: Path, label: str, keep_rgb: bool, planar: int) -> None:
    dataset = coded([jpeg(COLOURS, keep_rgb=keep_rgb)])
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = label, planar
    assert far(save(tmp_path, dataset), GREY_OF_COLOURS) < 2


@pytest.mark.parametrize("label", ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"])
def test_a_transformed_jpeg_2000_is_rgb_whatever_its_label(tmp_path: Path, label: str) -> None:
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, "JPEG2000", no_jp2=True, mct=1)
    dataset = coded([file.getvalue()], syntax=JPEG2000Lossless)
    dataset.PhotometricInterpretation = label
    assert far(save(tmp_path, dataset), GREY_OF_COLOURS) == 0


@pytest.mark.parametrize(("samples", "label"), [(3, "YBR_FULL_422"), (3, "RGB"), (1, "RGB"), (1, "YBR_FULL"), (None, "")])
def test_a_grey_stream_is_grey_whatever_its_object_says(tmp_path: Path, samples: int | None, label: str) -> None:
    dataset = coded([jpeg(ramp())], ramp())
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = samples, label
    assert far(save(tmp_path, dataset), ramp()) < 2


def test_a_stream_of_another_syntax_than_its_object_says_is_read(tmp_path: Path) -> None:
    dataset = coded([jpeg(ramp())], ramp(), JPEG2000Lossless)
    assert far(save(tmp_path, dataset), ramp()) < 2


# Where frames lie


def clip(offsets: bool = True, num: int = 5) -> Dataset:
    return coded([jpeg(ramp() // 2 + np.uint8(20 * number)) for number in range(num)], ramp(), offsets=offsets)


def shift_offsets(dataset: Dataset) -> None:
    data = bytearray(dataset.PixelData)
    for number in range(dataset.NumberOfFrames):
        place = 8 + 4 * number
        data[place : place + 4] = struct.pack("<I", struct.unpack_from("<I", data, place)[0] + 6)
    dataset.PixelData = bytes(data)


@pytest.mark.parametrize("how", ["as it should be", "no offsets", "offsets shifted", "no delimiter"])
def test_frames_are_found_without_offsets_or_with_wrong_ones(tmp_path: Path, how: str) -> None:
    dataset = clip(offsets=how != "no offsets")
    if how == "offsets shifted":
        shift_offsets(dataset)
    path = save(tmp_path, dataset)
    if how == "no delimiter":
        path.write_bytes(path.read_bytes().removesuffix(b"\xfe\xff\xdd\xe0\0\0\0\0"))
    for number in range(5):
        assert far(path, ramp() // 2 + 20 * number, number + 1) < 2


@pytest.mark.parametrize("claimed", [3, 1, None])
def test_of_more_frames_than_the_header_says_the_first_are_read_and_that_is_said(tmp_path: Path, claimed: int | None) -> None:
    dataset = clip(offsets=False)
    dataset.NumberOfFrames = claimed
    path = save(tmp_path, dataset)
    assert far(path, ramp() // 2 + (20 if claimed == 3 else 0)) < 2
    assert read_image(path).notes == (MORE_FRAMES,)


def test_fewer_frames_than_the_header_says_are_refused(tmp_path: Path) -> None:
    dataset = clip()
    dataset.NumberOfFrames = 7
    assert fault(save(tmp_path, dataset)) == "the image is DICOM whose NumberOfFrames (0028,0008) is 7, but PixelData holds 5"
    native = dicom(np.stack([ramp()] * 3), sop=CLIP)
    native.NumberOfFrames = 4
    assert "NumberOfFrames (0028,0008) is 4, but PixelData holds 3 frames" in fault(write(tmp_path, native))


def test_a_frame_in_three_fragments_is_one(tmp_path: Path) -> None:
    code = jpeg(ramp())
    code += b"\0" * (len(code) % 2)
    dataset = coded([code], ramp())
    third = len(code) // 6 * 2
    pieces = [code[:third], code[third : 2 * third], code[2 * third :]]
    dataset.PixelData = encapsulate(pieces, has_bot=False)
    assert far(save(tmp_path, dataset), ramp()) < 2
    two = coded([code, code], ramp())
    two.PixelData = encapsulate([*pieces, code[:100], code[100:]], has_bot=False)
    assert far(save(tmp_path, two), ramp(), 2) < 2


@pytest.mark.parametrize("tail", [b"", b"\0" * 200, b"\xff\xd9" + b"\0" * 200, b"\xff\xd9" + b"SECRET" * 20])
def test_a_jpeg_without_an_end_or_with_padding_is_read(tmp_path: Path, tail: bytes) -> None:
    code = jpeg(ramp()).removesuffix(b"\xff\xd9") + tail
    assert far(save(tmp_path, coded([code + b"\0" * (len(code) % 2)], ramp())), ramp()) < 2


@pytest.mark.parametrize("share", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_cut_is_refused_with_zeros_after_it_or_without(tmp_path: Path, share: float, progressive: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    code = jpeg(noise, progressive=progressive)
    for padding in (b"", b"\0" * 300):
        cut = code[: int(len(code) * share)] + padding
        message = fault(save(tmp_path, coded([cut + b"\0" * (len(cut) % 2)], noise)))
        assert message == f"{PIXELS} {DAMAGED} (it is in JPEG Baseline (Process 1))"


# Defects of the object


@pytest.mark.parametrize(
    "missing", ["BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation", "SamplesPerPixel"]
)
def test_elements_that_can_be_told_may_be_missing(tmp_path: Path, missing: str) -> None:
    dataset = dicom(ramp())
    del dataset[missing]
    np.testing.assert_array_equal(read_image(write(tmp_path, dataset)).pixels_HW, ramp())


def test_native_colours_without_a_planar_configuration_are_by_pixel(tmp_path: Path) -> None:
    dataset = dicom(COLOURS, "RGB")
    del dataset.PlanarConfiguration
    np.testing.assert_array_equal(read_image(write(tmp_path, dataset)).pixels_HW, GREY_OF_COLOURS)


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"Rows": None}, "Rows (0028,0010) is missing"),
        ({"Columns": 0}, "Columns (0028,0011) is missing"),
        ({"BitsAllocated": None}, "BitsAllocated (0028,0100) is missing"),
        ({"BitsAllocated": 12}, "BitsAllocated (0028,0100) is 12, expected 8, 16 or 32"),
        ({"SamplesPerPixel": 2}, "SamplesPerPixel (0028,0002) is 2, expected 1 or 3"),
        ({"SamplesPerPixel": 3}, "SamplesPerPixel (0028,0002) is 3, which does not go with PhotometricInterpretation MONOCHROME2"),
        ({"PhotometricInterpretation": "RGB"}, "SamplesPerPixel (0028,0002) is 1, which does not go with PhotometricInter"),
        ({"Rows": 41}, "PixelData (7FE0,0010) has 2400 bytes, expected 2460 a frame: it is cut short"),
        ({"PixelData": b""}, "PixelData (7FE0,0010) is empty"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_elements_that_are_wrong_are_named_and_no_advice_is_what_it_already_is(
    tmp_path: Path, elements: dict[str, object], said: str
) -> None:
    assert said in fault(write(tmp_path, dicom(ramp(), **elements)))


def test_an_object_that_does_not_say_its_kind_is_refused_by_that_element(tmp_path: Path) -> None:
    dataset = dicom(ramp())
    del dataset.file_meta, dataset.SOPClassUID
    dataset.Modality = "US"
    dataset.save_as(tmp_path / "bare.dcm", implicit_vr=False, little_endian=True)
    assert fault(tmp_path / "bare.dcm") == "the image is DICOM whose SOPClassUID (0008,0016) is missing"


def test_floating_point_pixels_are_refused_by_their_element(tmp_path: Path) -> None:
    dataset = dicom(ramp())
    del dataset.PixelData
    dataset.FloatPixelData = np.zeros((40, 60), "<f4").tobytes()
    assert "FloatPixelData (7FE0,0008) holds floating-point pixels" in fault(write(tmp_path, dataset))


@pytest.mark.parametrize("whole", [False, True])
def test_colours_by_pairs_are_told_from_whole_ones_by_their_number(tmp_path: Path, whole: bool) -> None:
    """Programs that unfold a picture forget to change its label."""
    ybr = np.asarray(Image.fromarray(COLOURS).convert("YCbCr"))
    pairs = np.concatenate([ybr[:, ::2, :1], ybr[:, 1::2, :1], ybr[:, ::2, 1:]], -1)
    dataset = dicom(ybr, "YBR_FULL", PhotometricInterpretation="YBR_FULL_422")
    dataset.PixelData = ybr.tobytes() if whole else np.ascontiguousarray(pairs).tobytes()
    assert far(write(tmp_path, dataset), GREY_OF_COLOURS) < 2


def test_bytes_beyond_the_pixels_do_not_matter(tmp_path: Path) -> None:
    dataset = dicom(ramp())
    dataset.PixelData += bytes(4096)
    dataset.add_new(0xFFFCFFFC, "OB", bytes(1000))
    np.testing.assert_array_equal(read_image(write(tmp_path, dataset)).pixels_HW, ramp())


# How files begin


@pytest.mark.parametrize("ending", [".dcm", ""])
@pytest.mark.parametrize("implicit", [True, False])
def test_an_object_without_preamble_is_told_by_its_content(tmp_path: Path, ending: str, implicit: bool) -> None:
    dataset = dicom(ramp())
    del dataset.file_meta
    path = tmp_path / f"IM_0001{ending}"
    dataset.save_as(path, implicit_vr=implicit, little_endian=True)
    np.testing.assert_array_equal(read_image(path).pixels_HW, ramp())


@pytest.mark.parametrize("start", [132, 128])
def test_a_file_header_without_its_preamble_is_read(tmp_path: Path, start: int) -> None:
    path = write(tmp_path, dicom(ramp()))
    path.write_bytes(path.read_bytes()[start:])
    np.testing.assert_array_equal(read_image(path).pixels_HW, ramp())


@pytest.mark.parametrize("implicit", [True, False])
def test_an_object_named_in_the_other_way_of_writing_is_read_as_it_is(tmp_path: Path, implicit: bool) -> None:
    dataset = dicom(ramp())
    path = tmp_path / "wrong.dcm"
    with path.open("wb") as file:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if implicit else ImplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = ULTRASOUND, "1.2.3"
        file.write(b"\0" * 128 + b"DICM")
        pydicom.filewriter.write_file_meta_info(file, dataset.file_meta)
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        body = io.BytesIO()
        pydicom.dcmwrite(body, dataset, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
        file.write(body.getvalue())
    np.testing.assert_array_equal(read_image(path).pixels_HW, ramp())


def test_a_file_without_transfer_syntax_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = write(tmp_path, dicom(ramp()))
    data = path.read_bytes()
    start = data.index(b"\x02\0\x10\0UI")
    end = start + 8 + struct.unpack_from("<H", data, start + 6)[0]
    length = struct.unpack_from("<I", data, 140)[0] - (end - start)
    path.write_bytes(data[:140] + struct.pack("<I", length) + data[144:start] + data[end:])
    np.testing.assert_array_equal(read_image(path).pixels_HW, ramp())


def test_a_companion_file_of_macos_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / f"._{NAME}.dcm"
    path.write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100))
    assert "a companion file that macOS writes" in fault(path)
