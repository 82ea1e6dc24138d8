"""The one thing that matters in EXIF: how a photo has to be turned to be seen as it was taken (JEITA CP-3451, tag 0112)."""

import struct

import numpy as np

_ORIENTATION = 0x0112
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # struct's letters by EXIF's kinds
_MAX_ENTRIES = 1000
_TURNS = {  # (transposed first, rows reversed, columns reversed)
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


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


def turned(pixels: np.ndarray, how: int) -> np.ndarray:
    """Pixels (H, W, ...) as they look by an orientation."""
    if how not in _TURNS:
        return pixels
    transposed, rows, columns = _TURNS[how]
    result = pixels.swapaxes(0, 1) if transposed else pixels
    return np.ascontiguousarray(result[:: -1 if rows else 1, :: -1 if columns else 1])
