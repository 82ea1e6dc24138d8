"""What is made of an object: its frames that are wanted, as grey pictures without header, name, date or text.

A picture with suspected text is left out, or its text blanked. The element BurnedInAnnotation is believed where it says that
there is text and nothing of the screen was cut off, and never where it says that there is none.

Axes: H rows, W columns.
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from client.importing.folder import DAMAGED
from csasn.data.images import Picture, read_image
from csasn.data.overlay import MAX_LOOKED_AT, Mark, find_marks
from csasn.errors import DataError

TEXT, ANNOTATED = "suspected burned-in text", "its header says that there is text in the picture, and none was found to blank"
STUBBORN, TOO_LARGE = "suspected burned-in text that blanking leaves", "the image is too large to be looked at for text"
MAX_BLANKINGS = 5
MAX_MEASURED = 16  # frames of a clip; more of them, or all, say nothing
_TISSUE = (1, 1)  # format and data type of a region: 2D, tissue
_OVERLAYS = range(0x6000, 0x6020, 2)
_GRAPHICS_FROM, _NUM_GRAPHICS = 0x51, 0x15  # first frame with graphics of an overlay, and the number of frames with any
_ELEMENTS = [
    *map(Tag, ("NumberOfFrames", "BurnedInAnnotation", "SequenceOfUltrasoundRegions")),
    *map(Tag, ("FrameNumbersOfInterest", "RepresentativeFrameNumber")),
    *(Tag(group, element) for group in _OVERLAYS for element in (_GRAPHICS_FROM, _NUM_GRAPHICS)),
]
MM_AN_INCH = 25.4


@dataclass(frozen=True)
class Object:
    """What an object says of itself: its number of frames, those that were measured, and whether its screen shows text.

    `cropped` tells whether reading it cuts a region out of the screen."""

    num_frames: int
    measured: tuple[int, ...]
    annotated: bool
    cropped: bool


def describe(path: Path) -> Object:
    """The facts of a DICOM file that decide what is taken of it.

    Raises:
        DataError: it is damaged.
    """
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_ELEMENTS)
        num_frames = int(header.get("NumberOfFrames") or 1)
        regions = header.get("SequenceOfUltrasoundRegions") or ()
        kinds = [(region.get("RegionSpatialFormat"), region.get("RegionDataType")) for region in regions]
        measured = sorted(frame for frame in _measured(header, num_frames) if 1 <= frame <= num_frames)
        annotated = str(header.get("BurnedInAnnotation") or "").strip().upper() == "YES"
    except DAMAGED:
        raise DataError("the image is a damaged DICOM file", "export it again") from None
    return Object(num_frames, tuple(measured), annotated, _TISSUE in kinds)


def choose_frames(shown: Object, named: tuple[int, ...], pointed: tuple[int, ...], num_evenly: int) -> tuple[int | None, ...]:
    """The frames to take, None for the only one: those that the list names, else those that were measured, else some evenly spaced.

    Measured are those to which other objects point, else those that the object itself points to; all, or many, of them say nothing.

    Of T frames, the n evenly spaced ones are the middles of n equal parts.
    """
    if named:
        return named if shown.num_frames > 1 or named != (1,) else (None,)
    if shown.num_frames == 1:
        return (None,)
    for frames in (tuple(frame for frame in pointed if 1 <= frame <= shown.num_frames), shown.measured):
        if 1 <= len(frames) <= min(MAX_MEASURED, shown.num_frames - 1):
            return frames
    number = min(num_evenly, shown.num_frames)
    return tuple(-(-(2 * part + 1) * shown.num_frames // (2 * number)) for part in range(number))


def take_picture(path: Path, shown: Object, frame: int | None, *, blank: bool) -> Picture:
    """A frame without text.

    Raises:
        DataError: it cannot be read; or there may be text in it, and it is not blanked or cannot be.
    """
    picture = read_image(path, frame)
    if picture.pixels_HW.size > MAX_LOOKED_AT:
        raise DataError(TOO_LARGE, "crop it to the picture of the scanner")
    texts = _texts(picture.pixels_HW)
    if texts and not blank:
        raise DataError(TEXT, "look at it, and import with --blank, or export it without text")
    if shown.annotated and not shown.cropped and not texts:
        raise DataError(ANNOTATED, "look at it, and export it without text")
    return replace(picture, pixels_HW=_blank(picture.pixels_HW, texts)) if texts else picture


def encode_png(picture: Picture) -> bytes:
    """The picture as an 8-bit grey PNG; the size of its pixels, where it is known, is all that stands beside them (pHYs)."""
    buffer = io.BytesIO()
    dots = tuple(MM_AN_INCH / mm for mm in reversed(picture.spacing_mm)) if picture.spacing_mm else None
    Image.fromarray(picture.pixels_HW).save(buffer, "PNG", **({"dpi": dots} if dots else {}))
    return buffer.getvalue()


def _measured(header: pydicom.Dataset, num_frames: int) -> set[int]:
    """Frames that the object itself points to: as of interest, else by graphics over them, else as representative."""
    if frames := header.get("FrameNumbersOfInterest"):
        return {int(frame) for frame in (frames if isinstance(frames, MultiValue | list) else [frames])}
    graphics: set[int] = set()
    for group in _OVERLAYS:
        if (first := header.get((group, _GRAPHICS_FROM))) is not None and (
            number := header.get((group, _NUM_GRAPHICS))
        ) is not None:
            graphics |= set(range(max(1, int(first.value)), min(num_frames, int(first.value) + int(number.value) - 1) + 1))
    if graphics:
        return graphics
    frame = header.get("RepresentativeFrameNumber")
    return {int(frame)} if frame else set()


def _texts(pixels_HW: np.ndarray) -> list[Mark]:
    return [mark for mark in find_marks(pixels_HW) if mark.kind == "text"]


def _blank(pixels_HW: np.ndarray, texts: list[Mark]) -> np.ndarray:
    """Black over each line with text from edge to edge, since a box may hold only part of one, until none is found.

    Raises:
        DataError: some is found all the same.
    """
    blanked_HW = pixels_HW.copy()
    for _ in range(MAX_BLANKINGS):
        for text in texts:
            height = text.bottom - text.top + 1
            blanked_HW[max(0, text.top - height // 2 - 1) : text.bottom + height // 2 + 2] = 0
        if not (texts := _texts(blanked_HW)):
            break
    if texts or blanked_HW.min() == blanked_HW.max():
        raise DataError(STUBBORN, "export it without text")
    return blanked_HW
