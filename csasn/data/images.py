"""Reading one ultrasound picture from PNG, JPEG or DICOM as 8-bit grey, and fitting it into the square that the model sees.

Faults are `DataError`s that say what is wrong with "the image" and never name it: the caller knows the row. Texts, warnings and log
lines of the decoders may hold what is in a file, and so are neither passed on nor shown.

Axes: H rows, W columns.
"""

import hashlib
import logging
import os
import stat
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
from PIL import Image, ImageOps
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from csasn.errors import DataError

MAX_PIXELS = 178_956_970  # of one frame; Pillow's own limit
MAX_CLIP_PIXELS = 1 << 32  # of all frames of a clip
MAX_IMAGE_BYTES = 4 << 30
_ORDINARY = (OSError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError)
_OWN = (struct.error, zlib.error, Image.DecompressionBombError, InvalidDicomError, BytesLengthException)
_UNREADABLE = _ORDINARY + _OWN  # what decoders raise on damaged files, as random damage has shown
_UNCOMPRESSED = "export it uncompressed (Explicit VR Little Endian)"
_CONVERT = "save it as PNG, JPEG or uncompressed DICOM"
_STORAGE = {
    "1.2.840.10008.5.1.4.1.1.6": "Ultrasound Image (retired)",
    "1.2.840.10008.5.1.4.1.1.6.1": "Ultrasound Image",
    "1.2.840.10008.5.1.4.1.1.3": "Ultrasound Multi-frame Image (retired)",
    "1.2.840.10008.5.1.4.1.1.3.1": "Ultrasound Multi-frame Image",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.2": "Multi-frame Grayscale Byte Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.3": "Multi-frame Grayscale Word Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.4": "Multi-frame True Color Secondary Capture",
}
_PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR", "PALETTE COLOR")
_TISSUE, _SPACE_2D, _CENTIMETRE = 1, 1, 3

PREPROCESSING_VERSION = 1  # of everything from file to square; a new one rebuilds the caches


@dataclass(frozen=True)
class Picture:
    """A B-mode picture: uint8 (H, W); `spacing_mm` is (down, across) in mm a pixel, where the file says it in centimetres."""

    pixels_HW: np.ndarray
    spacing_mm: tuple[float, float] | None = None


def read_image(path: Path, frame: int | None = None) -> Picture:
    """The picture in `path`, cropped to its B-mode region where DICOM names one. `frame` counts from 1; None is the middle one.

    Colour becomes luminance (ITU-R 601), 16 bits are scaled by 1/257, an alpha channel is dropped, and EXIF orientation is applied:
    the picture is the one that was seen when it was labelled. Whether a file is DICOM is told by its content, or its ending .dcm.

    Raises:
        DataError: it is missing, damaged, too large, of a kind that is not supported, or without contrast.
    """
    check_file(path)
    try:
        with path.open("rb") as file, _QUIET:
            marked = file.read(132)[128:] == b"DICM"
            file.seek(0)
            dicom = marked or path.suffix.lower() == ".dcm"
            picture = _read_dicom(file, frame, marked) if dicom else _read_photo(file, frame)
    except OSError:
        raise DataError("the image cannot be read", "check who may read it") from None
    if not picture.pixels_HW.size:
        raise DataError("the image has no pixels", "export it again")
    if picture.pixels_HW.min() == picture.pixels_HW.max():
        raise DataError("the image has no contrast: all its pixels are equal", "export it again")
    return picture


def require_size(pixels_HW: np.ndarray, size: int) -> None:
    """Refuses a picture smaller than the model's input, whose detail would be invented.

    Raises:
        DataError: the longer side is below `size`.
    """
    height, width = pixels_HW.shape
    if max(height, width) < size:
        problem = f"the image is {width} x {height} pixels, expected a longer side of at least {size}"
        raise DataError(problem, "export it at full resolution, not as a thumbnail")


def letterbox(pixels_HW: np.ndarray, size: int) -> np.ndarray:
    """`pixels_HW` in a (size, size) square: longer side = size, aspect kept, centred, zeros around; antialiased.

    Aspect is kept because taller-than-wide is a sign of cancer.
    """
    height, width = pixels_HW.shape
    scale = size / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    resized = Image.fromarray(pixels_HW).resize(
        (new_width, new_height), Image.Resampling.BILINEAR
    )  # a triangle as wide as the step
    square = np.zeros((size, size), np.uint8)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    square[top : top + new_height, left : left + new_width] = np.asarray(resized)
    return square


def check_file(path: Path) -> os.stat_result:
    """Size and times of an image file.

    Raises:
        DataError: it does not exist, is not a file or is too large.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError("the image does not exist", "check the name, and the key images of the site file") from None
    except OSError:
        raise DataError("the image cannot be read", "check who may read it") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError("the image is not a file", "name a file, not a folder")
    if status.st_size > MAX_IMAGE_BYTES:
        raise DataError(f"the image is larger than {MAX_IMAGE_BYTES >> 30} GiB", "export a shorter clip")
    return status


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of an image file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        raise DataError("the image cannot be read", "check who may read it") from None


def _read_photo(file: BinaryIO, frame: int | None) -> Picture:
    """A PNG or JPEG picture."""
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            _require_frame(frame, 1)
            _require_bounds(image.height, image.width, 1)
            upright = ImageOps.exif_transpose(image)
            return Picture(_grey_photo(upright))
    except Image.DecompressionBombError:
        raise DataError(f"the image has more than {MAX_PIXELS} pixels", "is this an ultrasound image?") from None
    except _UNREADABLE:
        raise DataError("the image is damaged, cut short or not PNG, JPEG or DICOM", _CONVERT) from None


def _grey_photo(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would cut them off at 255
        return _to_uint8(np.asarray(image).astype(np.int64), 16)
    if image.mode in ("P", "PA"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L"))


def _read_dicom(file: BinaryIO, frame: int | None, marked: bool) -> Picture:
    """One frame of a DICOM file; `marked` tells whether it has the preamble that files, unlike bare objects, begin with."""
    try:
        if marked:
            _require_decoder(UID(pydicom.filereader.read_file_meta_info(file.name).get("TransferSyntaxUID", "")))
        header = pydicom.dcmread(file, stop_before_pixels=True, force=not marked)
        _require_storage(header, marked)
        num_frames = int(header.get("NumberOfFrames") or 1)
        if not (header.get("Rows") and header.get("Columns") and num_frames > 0):
            raise DataError("the image is a DICOM file without pixels", "export the image, not a report")
        _require_bounds(int(header.Rows), int(header.Columns), num_frames)
        _require_frame(frame, num_frames)
        index = (frame or (num_frames + 1) // 2) - 1
        syntax = UID(header.file_meta.get("TransferSyntaxUID") or _bare_syntax(header))
        return _crop(_grey_dicom(_decode(file, index, syntax), header), header)
    except _UNREADABLE:
        raise DataError("the image is a damaged DICOM file", "export it again") from None


def _decode(file: BinaryIO, index: int, syntax: UID) -> np.ndarray:
    try:
        return np.asarray(pixel_array(file, index=index, transfer_syntax_uid=syntax))
    except _UNREADABLE:
        problem = f"the image is DICOM whose pixels, in {syntax.name}, are missing, damaged or of a kind that cannot be read"
        raise DataError(problem, _UNCOMPRESSED) from None


def _require_decoder(syntax: UID) -> None:
    """Refuses what needs a plugin, and deflated files: they are inflated whole, to any size, before one can look into them."""
    try:
        if syntax != DeflatedExplicitVRLittleEndian and get_decoder(syntax).is_available:
            return
    except NotImplementedError:
        pass
    name = syntax.name if syntax.name != syntax else "an unknown transfer syntax"
    raise DataError(f"the image is DICOM in {name}, which cannot be read", _UNCOMPRESSED)


def _require_storage(header: pydicom.Dataset, marked: bool) -> None:
    kind = header.get("SOPClassUID", "")
    if not marked and not kind:
        raise DataError("the image is named .dcm but is not DICOM", _CONVERT)
    if kind not in _STORAGE:
        name = UID(kind).name
        shown = "DICOM of an unknown kind" if name == kind else f"DICOM of kind {name}"
        raise DataError(f"the image is {shown}, expected Ultrasound Image, Ultrasound Multi-frame or Secondary Capture", _CONVERT)


def _bare_syntax(header: pydicom.Dataset) -> UID:
    """Transfer syntax of an object without file header, where the reader could only tell how its elements are written."""
    return ImplicitVRLittleEndian if header.original_encoding[0] else ExplicitVRLittleEndian


def _require_frame(frame: int | None, num_frames: int) -> None:
    if frame is not None and not 1 <= frame <= num_frames:
        raise DataError(f"frame {frame} is not in the image, expected 1 to {num_frames}", "frames count from 1")


def _require_bounds(height: int, width: int, num_frames: int) -> None:
    if height * width > MAX_PIXELS or height * width * num_frames > MAX_CLIP_PIXELS:
        expected = f"expected at most {MAX_PIXELS} pixels a frame and {MAX_CLIP_PIXELS} in all"
        raise DataError(f"the image is too large: {num_frames} x {width} x {height}, {expected}", "is this an ultrasound image?")


def _grey_dicom(pixels: np.ndarray, header: pydicom.Dataset) -> np.ndarray:
    """uint8 (H, W) of one decoded frame: (H, W), or (H, W, 3) in RGB, to which the decoder has brought YBR."""
    kind = str(header.PhotometricInterpretation)
    bits = int(header.BitsStored)
    if pixels.dtype.kind != "u" or not kind.startswith(_PHOTOMETRIC):
        raise DataError("the image is DICOM with signed, float or otherwise unusual pixels, expected grey or RGB", _CONVERT)
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
        bits = 8 * pixels.dtype.itemsize
    pixels = _to_uint8(pixels, bits)
    if pixels.ndim == 3:
        return np.asarray(Image.fromarray(pixels).convert("L"))
    return 255 - pixels if kind == "MONOCHROME1" else pixels


def _to_uint8(values: np.ndarray, bits: int) -> np.ndarray:
    """Values of `bits` bits scaled to 0..255, rounded."""
    if bits == 8 and values.dtype == np.uint8:
        return values
    top = (1 << bits) - 1
    scaled = (np.clip(values, 0, top).astype(np.int64) * 255 + top // 2) // top
    return np.asarray(scaled, np.uint8)


def _crop(pixels_HW: np.ndarray, header: pydicom.Dataset) -> Picture:
    """The largest 2D tissue region of SequenceOfUltrasoundRegions (0018,6011), or all without one. Corners are inclusive."""
    regions = [region for region in header.get("SequenceOfUltrasoundRegions") or () if _is_tissue(region)]
    if not regions:
        return Picture(pixels_HW)
    best = max(regions, key=_area)
    left, top, right, bottom = _corners(best)
    height, width = pixels_HW.shape
    if left < 0 or top < 0 or right > width or bottom > height:  # one beyond the edge: written as an exclusive corner
        raise DataError("the image has an ultrasound region that leaves the picture", "export it again, or as PNG")
    if right < left or bottom < top or left >= width or top >= height:
        raise DataError("the image has an ultrasound region of no size", "export it again, or as PNG")
    return Picture(np.ascontiguousarray(pixels_HW[top : bottom + 1, left : right + 1]), _spacing(best))


def _is_tissue(region: pydicom.Dataset) -> bool:
    return bool(region.get("RegionSpatialFormat") == _SPACE_2D and region.get("RegionDataType") == _TISSUE)


def _corners(region: pydicom.Dataset) -> tuple[int, int, int, int]:
    names = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
    left, top, right, bottom = (int(region[name].value) for name in names)
    return left, top, right, bottom


def _area(region: pydicom.Dataset) -> int:
    left, top, right, bottom = _corners(region)
    return max(0, right - left + 1) * max(0, bottom - top + 1)


def _spacing(region: pydicom.Dataset) -> tuple[float, float] | None:
    """(down, across) in mm a pixel, if both axes are in centimetres."""
    if any(region.get(f"PhysicalUnits{axis}Direction") != _CENTIMETRE for axis in "XY"):
        return None
    down, across = (abs(float(region.get(f"PhysicalDelta{axis}") or 0)) * 10 for axis in "YX")
    return (down, across) if 0 < down < np.inf and 0 < across < np.inf else None


class _Quiet:
    """Silences warnings and log lines of the decoders, which may quote what is in a file, while any thread is inside.

    Filters and levels belong to the process: the first thread to enter sets them, the last one to leave puts them back.
    """

    _NAMES = ("PIL", "pydicom")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._warnings = warnings.catch_warnings()
        self._levels: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            self._num_inside += 1
            if self._num_inside > 1:
                return
            self._warnings = warnings.catch_warnings()
            self._warnings.__enter__()
            warnings.filterwarnings("ignore", module=r"(PIL|pydicom|csasn\.data\.images)\b")
            loggers = [logging.getLogger(name) for name in self._NAMES]
            self._levels = [logger.level for logger in loggers]
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if self._num_inside:
                return
            self._warnings.__exit__(None, None, None)
            for name, level in zip(self._NAMES, self._levels, strict=True):
                logging.getLogger(name).setLevel(level)


_QUIET = _Quiet()
