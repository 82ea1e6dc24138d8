"""The one thing that matters in EXIF: how a photo has to be turned to be seen as it was taken (JEITA CP-3451, tag 0112)."""

import struct

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # struct's letters by EXIF's kinds
_MAX_ENTRIES = 1000
_How = Image.Transpose
_TURNS = {2: _How.FLIP_LEFT_RIGHT, 3: _How.ROTATE_180, 4: _How.FLIP_TOP_BOTTOM, 5: _How.TRANSPOSE}
_TURNS |= {6: _How.ROTATE_270, 7: _How.TRANSVERSE, 8: _How.ROTATE_90}


def orientation(exif: bytes) -> int:
    """Orientation 1 to 8 of EXIF that begins with a TIFF header; 1 where it does not say, or says nonsense.

    Only the entries of the first directory are looked at, and of these the one: defects of all others do not matter.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 10:
        return 1
    (start,) = struct.unpack_from(order + "I", exif, 4)
    if start + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(order + "H", exif, start)
    for place in range(start + 2, min(start + 2 + 12 * min(count, _MAX_ENTRIES), len(exif) - 11), 12):
        tag, kind, number = struct.unpack_from(order + "HHI", exif, place)
        if tag == _ORIENTATION:
            letter = _WHOLE_NUMBERS.get(kind)
            value = struct.unpack_from(order + letter, exif, place + 8)[0] if letter and number == 1 else 1
            return value if 1 <= value <= 8 else 1
    return 1


def turned(pixels_HW: np.ndarray, how: int) -> np.ndarray:
    """Grey pixels as they look by an orientation."""
    return np.asarray(Image.fromarray(pixels_HW).transpose(_TURNS[how])) if how in _TURNS else pixels_HW
