"""One frame of a DICOM object as the picture that a viewer shows, cropped to its B-mode view, its pixels square.

The order is: header (`dicom_header`), frame and its colours (`dicom_frames`), rescale, window, inversion (`viewer`), region and
square pixels (`regions`), grey. Only the elements listed in `dicom_header` are read: a patient's name never reaches memory.
"""

from typing import BinaryIO

import numpy as np
from pydicom.errors import BytesLengthException, InvalidDicomError

from csasn.errors import DataError
from csasn.pictures.dicom_frames import Layout, read_frame, read_layout
from csasn.pictures.dicom_header import Object, read_header
from csasn.pictures.levels import luminance, share_of_colour
from csasn.pictures.picture import UNREADABLE, Picture, frame_index, require_bounds, require_frame
from csasn.pictures.regions import find_view, squared
from csasn.pictures.viewer import show

MAX_DEVICE_CHARS = 64  # as DICOM allows
_DAMAGED = (*UNREADABLE, InvalidDicomError, BytesLengthException)
_COLOUR_BYTES = 12  # of a pixel in colour while it is decoded and converted


def read_dicom(file: BinaryIO, frame: int | None, marked: bool) -> Picture:
    """One frame of a DICOM file; `marked` tells whether it has the preamble that files, unlike bare objects, begin with.

    Raises:
        DataError: it is damaged, of a kind that is not supported, or shows no single B-mode view.
    """
    try:
        found = read_header(file, marked)
        layout = read_layout(found)
        require_bounds(layout.height, layout.width, layout.num_frames, _pixel_bytes(layout))
        require_frame(frame, layout.num_frames)
        return _picture(found, layout, frame_index(frame, layout.num_frames))
    except DataError:
        raise
    except _DAMAGED:
        raise DataError("the image is a damaged DICOM file", "export it again") from None


def _picture(found: Object, layout: Layout, index: int) -> Picture:
    frame = read_frame(found, layout, index)
    shown = show(found, frame)
    view = find_view(found, *shown.pixels.shape[:2])
    pixels = np.ascontiguousarray(shown.pixels[view.rows, view.columns])
    colour_share = share_of_colour(pixels)
    grey, view = squared(luminance(pixels), view)
    return Picture(grey, view.spacing_mm, _device(found), (*frame.notes, *shown.notes, *view.notes), colour_share)


def _pixel_bytes(layout: Layout) -> int:
    """What a pixel takes while it is decoded."""
    grey = layout.label.startswith("MONOCHROME") and layout.samples == 1
    return layout.bits_allocated // 8 if grey else _COLOUR_BYTES


def _device(found: Object) -> str:
    """Maker and model of the scanner."""
    names = (str(found.elements.get(name) or "").strip() for name in ("Manufacturer", "ManufacturerModelName"))
    return "".join(letter for letter in " ".join(filter(None, names)) if letter.isprintable())[:MAX_DEVICE_CHARS]
