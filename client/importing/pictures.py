"""What is made of an object: its frames that are wanted, as grey pictures without header, name, date or text.

A picture with suspected text is left out, or its text blanked. The element BurnedInAnnotation is believed where it says that
there is text and nothing of the screen was cut off, and never where it says that there is none.

Axes: H rows, W columns.
"""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from client.importing.frames import Object
from csasn.errors import DataError
from csasn.pictures.images import Picture, read_image
from csasn.pictures.overlay import MAX_LOOKED_AT, Mark, find_marks

TEXT, ANNOTATED = "suspected burned-in text", "its header says that there is text in the picture, and none was found to blank"
STUBBORN, TOO_LARGE = "suspected burned-in text that blanking leaves", "the image is too large to be looked at for text"
MAX_BLANKINGS = 5
MM_AN_INCH = 25.4


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
