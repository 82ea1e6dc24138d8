"""What a viewer shows of the samples of a DICOM frame: grey or RGB of 0..255.

In the order of DICOM PS3.3 C.7.6.3 and C.11, PS3.4 N.2: stored bits (overlays above them off), rescale (modality LUT), VOI LUT or
window, MONOCHROME1 or an inverse presentation, padding. Without VOI LUT or window the range is that of the stored bits.

Axes: H rows, W columns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom.pixels.processing import apply_color_lut

from csasn.errors import DataError
from csasn.pictures.dicom_frames import Frame
from csasn.pictures.dicom_header import AGAIN, Object, wrong
from csasn.pictures.levels import depth, rgb_of_ybr, to_uint8
from csasn.pictures.picture import own_range

MAX_GREY_BITS = 16


@dataclass(frozen=True)
class Shown:
    """Grey (H, W) or RGB (H, W, 3), uint8."""

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


def show(found: Object, frame: Frame) -> Shown:
    """The frame as a viewer shows it.

    Raises:
        DataError: an element that says how to show it cannot be right.
    """
    bits, shift = _stored_bits(found, frame.bits)
    values = _unsigned(frame.pixels)
    if not frame.exact and not found.number("PixelRepresentation"):
        values = np.minimum(values, (1 << bits) - 1)
    elif shift or bits < 8 * values.itemsize:
        values = values >> shift & ((1 << bits) - 1)
    if frame.kind == "palette":
        return _through_palette(found, values, bits)
    if frame.kind == "grey":
        return _grey(found, values, bits)
    used = depth(values, bits)
    pixels = to_uint8(values, used)
    return Shown(rgb_of_ybr(pixels) if frame.kind == "YBR" else pixels, own_range(used, bits))


def _unsigned(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype.kind == "u" else pixels.view(f"u{pixels.itemsize}")


def _stored_bits(found: Object, coded_bits: int) -> tuple[int, int]:
    """Bits of a sample, and how many are below them; where a stream has fewer or other bits than the header says, it decides."""
    allocated = found.number("BitsAllocated")
    stored = found.number("BitsStored") or allocated
    if not 0 < stored <= allocated:
        raise wrong("BitsStored", f"is {stored}, expected 1 to {allocated}, as BitsAllocated says")
    if coded_bits <= stored or coded_bits > allocated:
        return coded_bits, 0
    highest = found.number("HighBit", stored - 1)
    return stored, highest + 1 - stored if stored <= highest + 1 <= coded_bits else 0


def _grey(found: Object, values: np.ndarray, bits: int) -> Shown:
    if bits > MAX_GREY_BITS:
        raise wrong("BitsStored", f"is {bits}, expected at most {MAX_GREY_BITS} in grey pictures")
    stored = np.arange(1 << bits)
    signed = found.number("PixelRepresentation") == 1
    stored = np.where(stored >> (bits - 1), stored - (1 << bits), stored) if signed else stored
    padding = _padding(found, stored)
    levels, top = _rescale(found, stored)
    table = _voi(found, levels)
    notes: tuple[str, ...] = ()
    if table is None and top:
        table = to_uint8(levels.astype(np.int64), top)
    elif table is None:
        table, notes = _whole_range(levels, values[~padding[values]] if padding.any() else values, bits, signed)
    if found.text("PhotometricInterpretation") == "MONOCHROME1" or found.text("PresentationLUTShape") == "INVERSE":
        table = 255 - table
    table = np.where(padding, np.uint8(0), table).astype(np.uint8)
    shown = table[values]
    if shown.min() == shown.max() and values.min() != values.max():
        keyword = "WindowCenter" if _first(found, "VOILUTSequence") is None else "VOILUTSequence"
        raise wrong(keyword, "leaves nothing of the picture: all its pixels would be equal", AGAIN)
    return Shown(shown, notes)


def _padding(found: Object, stored: np.ndarray) -> np.ndarray:
    """Which stored values are no picture but what is around it (PS3.3 C.7.5.1.1.2)."""
    named = found.numbers("PixelPaddingValue") + found.numbers("PixelPaddingRangeLimit")
    limits = [value - (1 << 16) if value > stored.max() and stored.min() < 0 else value for value in named]
    return (stored >= min(limits)) & (stored <= max(limits)) if limits else np.zeros(len(stored), bool)


def _rescale(found: Object, stored: np.ndarray) -> tuple[np.ndarray, int]:
    """Stored values after the modality LUT, and its bits; or after slope and intercept, and 0."""
    if (lookup := _first(found, "ModalityLUTSequence")) is not None:
        return _look_up(lookup, stored, "ModalityLUTSequence")
    slope, intercept = (*found.numbers("RescaleSlope"), 1.0)[0], (*found.numbers("RescaleIntercept"), 0.0)[0]
    if slope == 0:
        raise wrong("RescaleSlope", "is 0, which leaves nothing of the picture")
    return stored * slope + intercept, 0


def _voi(found: Object, levels: np.ndarray) -> np.ndarray | None:
    """0..255 of each level by the first VOI LUT, else by the first window; None where there is neither."""
    if (lookup := _first(found, "VOILUTSequence")) is not None:
        output, bits = _look_up(lookup, levels, "VOILUTSequence")
        return to_uint8(output, bits)
    centre, width = found.numbers("WindowCenter"), found.numbers("WindowWidth")
    function = found.text("VOILUTFunction") or "LINEAR"
    if not centre or not width or width[0] < (1 if function == "LINEAR" else 1e-9):
        return None  # no window, or one that the standard forbids
    if function not in _WINDOWS:
        raise wrong("VOILUTFunction", "is unknown, expected LINEAR, LINEAR_EXACT or SIGMOID")
    return _to_grey(_WINDOWS[function](levels, centre[0], width[0]))


def _to_grey(shares: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(255 * np.clip(shares, 0, 1)), np.uint8)


def _linear(levels: np.ndarray, centre: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1."""
    if width == 1:
        return (levels > centre - 0.5).astype(float)
    return (levels - (centre - 0.5)) / (width - 1) + 0.5


def _sigmoid(levels: np.ndarray, centre: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.3.1."""
    return 1 / (1 + np.exp(np.clip(-4 * (levels - centre) / width, -700, 700)))


_WINDOWS: dict[str, Callable[[np.ndarray, float, float], np.ndarray]] = {
    "LINEAR": _linear,
    "LINEAR_EXACT": lambda levels, centre, width: (levels - centre) / width + 0.5,  # PS3.3 C.11.2.1.3.2
    "SIGMOID": _sigmoid,
}


def _whole_range(levels: np.ndarray, values: np.ndarray, bits: int, signed: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """Levels over the range that stored values can have, or that they do use where this is far less; a falling slope inverts."""
    if signed and (values >> (bits - 1)).any():
        problem = "says signed, but no window or VOI LUT says what is black and what is white"
        raise wrong("PixelRepresentation", problem, "export it with its window")
    used = min(depth(values, bits), bits - signed)
    ends = levels[0], levels[(1 << used) - 1]
    return _to_grey((levels - min(ends)) / (max(ends) - min(ends))), own_range(used, bits - signed)


# Lookup tables


def _first(found: Object, keyword: str) -> pydicom.Dataset | None:
    items = found.elements.get(keyword)
    return items[0] if items else None


def _look_up(lookup: pydicom.Dataset, levels: np.ndarray, keyword: str) -> tuple[np.ndarray, int]:
    """Output of a LUT (PS3.3 C.11.1.1) for each level, and its bits.

    Raises:
        DataError: it has no descriptor, or fewer entries than that says.
    """
    descriptor, data = lookup.get("LUTDescriptor"), lookup.get("LUTData")
    if not descriptor or len(descriptor) != 3 or data is None:
        raise wrong(keyword, "has a LUT without LUTDescriptor (0028,3002) or LUTData (0028,3006)")
    count, first, bits = int(descriptor[0]) or 1 << 16, int(descriptor[1]), int(descriptor[2])
    if isinstance(data, bytes):
        entries = np.frombuffer(data[: count + count % 2], "u1") if len(data) <= count + 1 else np.frombuffer(data, _words(lookup))
    else:
        entries = np.atleast_1d(np.asarray(data, np.int64))
    entries = entries[:count]
    if len(entries) < count or not 1 <= bits <= 16:
        raise wrong(keyword, f"has a LUT of {len(entries)} entries, LUTDescriptor (0028,3002) says {count} of {bits} bits")
    first -= 1 << 16 if first > levels.max() and first >= 1 << 15 else 0
    place = np.clip(np.rint(levels).astype(np.int64) - first, 0, count - 1)
    output = entries.astype(np.int64)[place] & 0xFFFF
    most = max(bits, int(entries.max()).bit_length())
    return output, depth(entries, most)


def _words(lookup: pydicom.Dataset) -> str:
    return "<u2" if lookup.original_encoding[1] is not False else ">u2"


def _through_palette(found: Object, values: np.ndarray, bits: int) -> Shown:
    """Colours of an index; a table of 16 bits may be filled with 8-bit values, as some makers do."""
    if bits > MAX_GREY_BITS:
        raise wrong("BitsStored", f"is {bits}, expected at most {MAX_GREY_BITS} with a palette")
    try:
        table = apply_color_lut(np.arange(1 << bits, dtype=np.uint16), found.elements)
    except DataError:
        raise
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, NotImplementedError):
        raise wrong("RedPaletteColorLookupTableDescriptor", "or another element of the palette is missing or damaged") from None
    deepest = 8 * table.itemsize
    return Shown(to_uint8(table, depth(table, deepest))[values])
