"""Reading one ultrasound picture as 8-bit grey, and fitting it into the square that the model sees.

A picture is what a viewer shows: loose ones are in photos.py, DICOM is in dicom.py. Faults are `DataError`s that say what is wrong
with "the image" and never name it: the caller knows the row. Texts, warnings and log lines of the decoders may hold what is in a
file, and so are neither passed on nor shown.

Axes: H rows, W columns.
"""

import os
import stat
from pathlib import Path

import numpy as np
from PIL import Image

from csasn.errors import DataError
from csasn.pictures.formats import HEAD_BYTES, tell_format
from csasn.pictures.photos import read_photo
from csasn.pictures.picture import Picture, no_memory
from csasn.pictures.quiet import QUIET, silence_logs
from csasn.platform.share import found_away, unreadable
from csasn.platform.storage import file_sha256

__all__ = ["PREPROCESSING_VERSION", "Picture", "check_file", "hash_file", "letterbox", "read_image", "require_size"]

MAX_IMAGE_BYTES = 4 << 30
silence_logs("PIL", "imagecodecs")

PREPROCESSING_VERSION = 6  # of everything from file to square and facts; a new one rebuilds the caches


def read_image(path: Path, frame: int | None = None) -> Picture:
    """The picture in `path` as a viewer shows it, cropped to its B-mode region where DICOM names one, its pixels square.

    The format is told by the content, whatever the name. `frame` (of DICOM, or a page of a TIFF) counts from 1; None is the middle
    one. Colour becomes luminance (ITU-R 601), transparency is laid over black, EXIF orientation is applied: the picture is the one
    that was seen when it was labelled.

    Raises:
        AwayError: it cannot be reached now.
        DataError: it is missing, damaged, of a kind that is not supported, without contrast, or larger than we or memory allow.
    """
    check_file(path)
    try:
        with path.open("rb") as file, QUIET:
            head = file.read(HEAD_BYTES)
            file.seek(0)
            kind = tell_format(head, path.suffix)
            if kind in ("DICOM", "bare DICOM"):
                from csasn.pictures.dicom import read_dicom  # sites with PNG alone need no pydicom

                picture = read_dicom(file, frame, marked=kind == "DICOM")
            else:
                picture = read_photo(file, kind, frame)
    except OSError as error:
        raise unreadable(error, "the image") from None
    except DataError as error:
        if (away := found_away(error)) is not None:
            raise unreadable(away, "the image") from None
        raise
    except MemoryError:
        raise no_memory() from None
    if not picture.pixels_HW.size:
        raise DataError("the image has no pixels", "export it again")
    if picture.pixels_HW.min() == picture.pixels_HW.max():
        raise DataError("the image has no contrast: all its pixels are equal", "export it again")
    return picture


def require_size(height: int, width: int, least: int | None) -> None:
    """Refuses a picture smaller than a site wants: `least` is its `policy.min_image_px`, None where it takes all.

    Raises:
        DataError: the longer side is below `least`.
    """
    if least is not None and max(height, width) < least:
        problem = f"the image is {width} x {height} pixels, expected a longer side of at least {least}, as policy.min_image_px says"
        raise DataError(problem, "export it at full resolution, not as a thumbnail")


def letterbox(pixels_HW: np.ndarray, size: int) -> np.ndarray:
    """`pixels_HW` in a (size, size) square: longer side = size, aspect kept, centred, zeros around; antialiased.

    Aspect is kept because taller-than-wide is a sign of cancer.
    """
    height, width = pixels_HW.shape
    scale = size / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    resized = Image.fromarray(pixels_HW).resize((new_width, new_height), Image.Resampling.BILINEAR)  # a triangle as wide as a step
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
        missing = "the image" if path.parent.is_dir() else "the folder of the image"
        raise DataError(f"{missing} does not exist", "check the name, and the key images of the site file") from None
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
        return file_sha256(path)
    except OSError as error:
        raise unreadable(error, "the image") from None
