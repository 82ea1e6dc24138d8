"""Reading one ultrasound picture as 8-bit grey, and fitting it into the square that the model sees; DICOM is in dicom.py.

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
from PIL import Image, ImageOps

from csasn.data.share import unreadable
from csasn.errors import DataError

MAX_PIXELS = 178_956_970  # of one frame; Pillow's own limit
MAX_CLIP_PIXELS = 1 << 32  # of all frames of a clip
MAX_FRAME_BYTES = 128 << 20  # of one frame as it is decoded: 33 million pixels in colour, 67 million of 16 bits
MAX_IMAGE_BYTES = 4 << 30
STRIP = 1 << 20  # values that are scaled at once
_ORDINARY = (OSError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError)
_OWN = (struct.error, zlib.error, Image.DecompressionBombError)
_PIXEL_BYTES = {
    "1": 1,
    "L": 1,
    "I;16": 2,
    "I;16B": 2,
}  # as Pillow holds one; any other mode has four, a palette once it is looked up
UNREADABLE = _ORDINARY + _OWN  # what decoders raise on damaged files, as random damage has shown
CONVERT = "save it as PNG, JPEG or uncompressed DICOM"

PREPROCESSING_VERSION = 5  # of everything from file to square and facts; a new one rebuilds the caches


@dataclass(frozen=True)
class Picture:
    """A B-mode picture: uint8 (H, W); `spacing_mm` is (down, across) in mm a pixel, where the file says it in centimetres;
    `device` is the scanner's maker and model, "" where the file does not say."""

    pixels_HW: np.ndarray
    spacing_mm: tuple[float, float] | None = None
    device: str = ""


def read_image(path: Path, frame: int | None = None) -> Picture:
    """The picture in `path`, cropped to its B-mode region where DICOM names one. `frame` counts from 1; None is the middle one.

    Colour becomes luminance (ITU-R 601), 16 bits are scaled by 1/257, an alpha channel is dropped, and EXIF orientation is applied:
    the picture is the one that was seen when it was labelled. Whether a file is DICOM is told by its content, or its ending .dcm.

    Raises:
        DataError: it is missing, damaged, of a kind that is not supported, without contrast, or larger than we or memory allow.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            marked = file.read(132)[128:] == b"DICM"
            file.seek(0)
            if marked or path.suffix.lower() == ".dcm":
                from csasn.data.dicom import read_dicom  # it is built on this module, and sites with PNG alone need no pydicom

                with _QUIET:
                    picture = read_dicom(file, frame, marked)
            else:
                with _QUIET:
                    picture = _read_photo(file, frame)
    except OSError as error:
        raise unreadable(error, "the image") from None
    except MemoryError:
        raise no_memory() from None
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
    except OSError as error:
        raise unreadable(error, "the image") from None
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
    except OSError as error:
        raise unreadable(error, "the image") from None


def _read_photo(file: BinaryIO, frame: int | None) -> Picture:
    """A PNG or JPEG picture."""
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            require_frame(frame, 1)
            require_bounds(image.height, image.width, 1, _PIXEL_BYTES.get(image.mode, 4))
            ImageOps.exif_transpose(image, in_place=True)
            return Picture(_grey_photo(image))
    except Image.DecompressionBombError:
        raise DataError(f"the image has more than {MAX_PIXELS} pixels", "is this an ultrasound image?") from None
    except UNREADABLE:
        raise DataError("the image is damaged, cut short or not PNG, JPEG or DICOM", CONVERT) from None


def _grey_photo(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would cut them off at 255
        return to_uint8(np.asarray(image), 16)
    if image.mode in ("P", "PA"):
        image = image.convert("RGB")
    return np.asarray(image if image.mode == "L" else image.convert("L"))


def require_frame(frame: int | None, num_frames: int) -> None:
    """Refuses a frame, counted from 1, that an image of `num_frames` does not have.

    Raises:
        DataError: it has not.
    """
    if frame is not None and not 1 <= frame <= num_frames:
        raise DataError(f"frame {frame} is not in the image, expected 1 to {num_frames}", "frames count from 1")


def require_bounds(height: int, width: int, num_frames: int, pixel_bytes: int) -> None:
    """Refuses an image too large to decode, where decoding takes `pixel_bytes` a pixel.

    Raises:
        DataError: a frame, or all of them, have too many pixels, or a frame takes too much memory.
    """
    if height * width > MAX_PIXELS or height * width * num_frames > MAX_CLIP_PIXELS:
        expected = f"expected at most {MAX_PIXELS} pixels a frame and {MAX_CLIP_PIXELS} in all"
        raise DataError(f"the image is too large: {num_frames} x {width} x {height}, {expected}", "is this an ultrasound image?")
    if (size := height * width * pixel_bytes) > MAX_FRAME_BYTES:
        problem = f"the image would take {size >> 20} MiB, expected at most {MAX_FRAME_BYTES >> 20} MiB a frame"
        raise DataError(problem, "export it at the resolution of the scanner")


def no_memory() -> DataError:
    """What to say where memory ends."""
    return DataError("the image needs more memory than there is", "end other programs, or export it again if it alone is refused")


def to_uint8(values: np.ndarray, bits: int) -> np.ndarray:
    """Values of `bits` bits scaled to 0..255, rounded; in strips, since 64-bit copies of a large frame take gigabytes."""
    if bits == 8 and values.dtype == np.uint8:
        return values
    top = (1 << bits) - 1
    scaled = np.empty(values.shape, np.uint8)
    num_rows = max(1, STRIP * len(values) // max(1, values.size))
    for start in range(0, len(values), num_rows):
        strip = np.clip(values[start : start + num_rows], 0, top).astype(np.int64)
        scaled[start : start + num_rows] = (strip * 255 + top // 2) // top
    return scaled


class _Quiet:
    """Silences warnings and log lines of the decoders, which may quote what is in a file, while any thread is inside.

    Filters and levels belong to the process: the first thread to enter sets them, the last one to leave puts them back.
    """

    _NAMES = ("PIL", "pydicom", "imagecodecs")

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
            warnings.filterwarnings("ignore", module=r"(PIL|pydicom|imagecodecs|csasn\.data\.(images|dicom|codecs))\b")
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
