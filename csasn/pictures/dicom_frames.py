"""One frame of a DICOM object, decoded: where it lies, and what its bytes say.

A coded frame is taken for what it is, whatever the header calls it: colours and depth are those of the stream, and the planar
configuration counts for native frames alone (DICOM PS3.5 8.2, A.4; PS3.3 C.7.6.3.1.3).

Axes: H rows, W columns.
"""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from pydicom.uid import ExplicitVRBigEndian, RLELossless

from csasn.errors import DataError
from csasn.pictures.codecs import Decoded, SizeError, decode_rle, decode_stream
from csasn.pictures.dicom_header import AGAIN, NATIVE, UNCOMPRESSED, Object, wrong
from csasn.pictures.jpeg import CODESTREAM, JP2
from csasn.pictures.picture import CONVERT, MORE_FRAMES, UNREADABLE

UNDEFINED = 0xFFFFFFFF
MAX_FRAGMENTS = 1_000_000
_PIXELS, _FLOATS = (0x7FE0, 0x10), {(0x7FE0, 8): "FloatPixelData", (0x7FE0, 9): "DoubleFloatPixelData"}
_ITEM, _END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_STARTS = (b"\xff\xd8", CODESTREAM, JP2)
_KINDS = {
    "MONOCHROME1": "grey",
    "MONOCHROME2": "grey",
    "PALETTE COLOR": "palette",
    "RGB": "RGB",
    "YBR_FULL": "YBR",
    "YBR_FULL_422": "YBR",
}
_OTHERS = ("YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "XYB", "HSV", "ARGB", "CMYK")  # a word may be anything
_UNDONE = ("YBR_ICT", "YBR_RCT")  # labels of JPEG 2000: without a transform in the stream there is nothing to undo


@dataclass(frozen=True)
class Frame:
    """Samples (H, W) or (H, W, 3) as stored; `kind` is grey, RGB, YBR or palette; `exact` as of `codecs.Decoded`."""

    pixels: np.ndarray
    kind: str
    bits: int
    exact: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """What the header says of one frame."""

    height: int
    width: int
    samples: int
    bits_allocated: int
    num_frames: int
    label: str


def read_layout(found: Object) -> Layout:
    """Size, samples and number of frames.

    Raises:
        DataError: an element is missing, or cannot be right.
    """
    height, width, bits = (found.number(keyword) for keyword in ("Rows", "Columns", "BitsAllocated"))
    if not height and not width:
        raise DataError("the image is a DICOM file without pixels", "export the image, not a report")
    for keyword, value in (("Rows", height), ("Columns", width), ("BitsAllocated", bits)):
        if value <= 0:
            raise wrong(keyword, "is missing")
    if bits not in (8, 16, 32):
        raise wrong("BitsAllocated", f"is {bits}, expected 8, 16 or 32")
    num_frames = found.number("NumberOfFrames") or 1
    if num_frames < 0:
        raise wrong("NumberOfFrames", f"is {num_frames}, expected 1 or more")
    label = found.text("PhotometricInterpretation")
    colour = label.startswith(("RGB", "YBR"))
    samples = found.number("SamplesPerPixel", 3 if colour else 1)
    if samples not in (1, 3):
        raise wrong("SamplesPerPixel", f"is {samples}, expected 1 or 3")
    return Layout(height, width, samples, bits, num_frames, label or ("RGB" if samples == 3 else "MONOCHROME2"))


def read_frame(found: Object, layout: Layout, index: int) -> Frame:
    """The frame at `index`, which counts from 0; the object's file stands before its pixels.

    Raises:
        DataError: the pixels are missing, damaged or cut short, or an element contradicts them.
    """
    length, is_word = _open_pixels(found)
    try:
        if length == UNDEFINED or found.syntax not in (*NATIVE, None):
            return _read_coded(found, layout, index, length)
        return _read_native(found, layout, index, length, is_word)
    except DataError:
        raise
    except SizeError:
        problem = f"holds a frame that is not of {layout.width} x {layout.height} pixels, as Rows and Columns say"
        raise wrong("PixelData", problem) from None
    except UNREADABLE:
        coded = found.syntax is not None and found.syntax not in NATIVE
        name = f" (it is in {found.syntax.name})" if coded and found.syntax else ""
        raise wrong("PixelData", f"is damaged or cut short{name}", UNCOMPRESSED if coded else AGAIN) from None


def _open_pixels(found: Object) -> tuple[int, bool]:
    """Length of the pixel element in bytes, and whether it is of words; the file stands at its first byte then."""
    order = ">" if found.syntax == ExplicitVRBigEndian else "<"
    start = found.file.read(8)
    if len(start) < 8:
        raise wrong("PixelData", "is missing")
    group, element, length = struct.unpack(order + "HHI", start)
    if (group, element) in _FLOATS:
        raise wrong(_FLOATS[group, element], "holds floating-point pixels, expected whole numbers in PixelData")
    if (group, element) != _PIXELS:
        raise wrong("PixelData", "is missing")
    kind = start[4:6]
    if kind in (b"OB", b"OW", b"UN") and not any(start[6:8]):
        (length,) = struct.unpack(order + "I", found.file.read(4).ljust(4, b"\0"))
    if not length:
        raise wrong("PixelData", "is empty")
    return length, kind == b"OW"


# Native frames


def _read_native(found: Object, layout: Layout, index: int, length: int, is_word: bool) -> Frame:
    kind = _KINDS.get(layout.label)
    if kind is None:
        raise _unknown_label(layout.label)
    if (kind in ("RGB", "YBR")) != (layout.samples == 3):
        raise wrong("SamplesPerPixel", f"is {layout.samples}, which does not go with PhotometricInterpretation {layout.label}")
    item = layout.bits_allocated // 8
    pixels = layout.height * layout.width
    by_pairs = layout.label == "YBR_FULL_422" and item == 1 and layout.width % 2 == 0
    subsampled = by_pairs and length < 3 * pixels * layout.num_frames  # many files of this label hold all colours
    size = pixels * (2 if subsampled else layout.samples) * item
    if size * layout.num_frames > length and layout.num_frames > 1:
        problem = f"is {layout.num_frames}, but PixelData holds {length // size} frames of {size} bytes"
        raise wrong("NumberOfFrames", problem)
    found.file.seek(size * index, io.SEEK_CUR)
    data = found.file.read(size)
    if length < size or len(data) < size:
        raise wrong("PixelData", f"has {min(length, len(data))} bytes, expected {size} a frame: it is cut short")
    big = found.syntax == ExplicitVRBigEndian
    if big and item == 1 and is_word:
        data = np.frombuffer(data + b"\0" * (size % 2), ">u2").astype("<u2").tobytes()[:size]
    values = np.frombuffer(data, f"{'>' if big else '<'}u{item}")
    return Frame(_arrange(values, layout, found.number("PlanarConfiguration"), subsampled), kind, layout.bits_allocated)


def _arrange(values: np.ndarray, layout: Layout, planar: int, subsampled: bool) -> np.ndarray:
    """(H, W) or (H, W, 3)."""
    height, width = layout.height, layout.width
    if subsampled:  # two of Y, one of each colour (PS3.3 C.7.6.3.1.2)
        pairs = values.reshape(height, width // 2, 4)
        colours = np.repeat(pairs[..., 2:], 2, axis=1)
        return np.concatenate([pairs[..., :2].reshape(height, width, 1), colours], axis=2)
    if layout.samples == 1:
        return values.reshape(height, width)
    if planar == 1:
        return np.ascontiguousarray(values.reshape(3, height, width).transpose(1, 2, 0))
    return values.reshape(height, width, 3)


# Coded frames


def _read_coded(found: Object, layout: Layout, index: int, length: int) -> Frame:
    frames = _find_frames(found, layout, length)
    code = b"".join(_read_at(found.file, *fragment) for fragment in frames[index])
    notes = (MORE_FRAMES,) if len(frames) > layout.num_frames else ()
    size = layout.height, layout.width
    if found.syntax == RLELossless and not code.startswith(_STARTS):
        samples = decode_rle(code, (*size, layout.samples), layout.bits_allocated)
        decoded = Decoded(samples, layout.bits_allocated, "grey" if samples.ndim == 2 else "labelled")
    else:
        decoded = decode_stream(code, size)
    if decoded.signed and not found.number("PixelRepresentation"):
        raise wrong("PixelRepresentation", "says unsigned, but the frame is coded as signed")
    return Frame(decoded.pixels, _kind(layout, decoded), decoded.bits, decoded.exact, notes)


def _kind(layout: Layout, decoded: Decoded) -> str:
    """What the samples are: by the stream, and by the label where the stream leaves it open.

    Raises:
        DataError: the label does not say what the stream leaves open.
    """
    if decoded.space == "grey":
        return "palette" if layout.label == "PALETTE COLOR" else "grey"
    if decoded.space == "RGB" or layout.label in _UNDONE:
        return "RGB"
    if (kind := _KINDS.get(layout.label)) in ("RGB", "YBR"):
        return kind
    raise _unknown_label(layout.label)


def _unknown_label(label: str) -> DataError:
    problem = f"is {label if label in _OTHERS else 'unknown'}, expected {', '.join(list(_KINDS)[:-1])} or {list(_KINDS)[-1]}"
    return wrong("PhotometricInterpretation", problem, CONVERT)


Fragment = tuple[int, int]  # first byte and length


def _find_frames(found: Object, layout: Layout, length: int) -> Sequence[Sequence[Fragment]]:
    """Fragments of each frame: one a frame, as the rule is; else by how streams begin, for offset tables are often wrong.

    Raises:
        DataError: there are fewer than NumberOfFrames says.
    """
    offsets, fragments = _read_fragments(found.file, length)
    wanted = layout.num_frames
    if len(fragments) == wanted or found.syntax == RLELossless:
        frames = [[fragment] for fragment in fragments]
    else:
        frames = []
        for fragment in fragments:
            if not frames or _begins_picture(found.file, fragment):
                frames.append([])
            frames[-1].append(fragment)
    if len(frames) < wanted and len(offsets) == wanted:
        frames = _by_offsets(offsets, fragments)
    if len(frames) < wanted:
        raise wrong("NumberOfFrames", f"is {wanted}, but PixelData holds {len(frames)}")
    return frames


def _by_offsets(offsets: Sequence[int], fragments: Sequence[Fragment]) -> list[list[Fragment]]:
    """Frames by the basic offset table, which counts from the first fragment's item."""
    start = fragments[0][0] - 8 if fragments else 0
    frames: list[list[Fragment]] = [[] for _ in offsets]
    for fragment in fragments:
        frame = int(np.searchsorted(offsets, fragment[0] - 8 - start, "right")) - 1
        if frame < 0:
            return []
        frames[frame].append(fragment)
    return frames if all(frames) else []


def _begins_picture(file: BinaryIO, fragment: Fragment) -> bool:
    file.seek(fragment[0])
    return file.read(8).startswith(_STARTS)


def _read_at(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    piece = file.read(size)
    if len(piece) < size:
        raise ValueError
    return piece


def _read_fragments(file: BinaryIO, length: int) -> tuple[list[int], list[Fragment]]:
    """The basic offset table and the fragments after it; the delimiter that ends them may be missing."""
    begin = file.tell()
    if file.read(2) == b"\xff\xd8":  # not wrapped up at all
        return [], [(begin, length)]
    file.seek(begin)
    end = begin + length if length != UNDEFINED else None
    offsets: list[int] | None = None
    fragments: list[Fragment] = []
    while (end is None or file.tell() < end) and len(start := file.read(8)) == 8:
        group, element, size = struct.unpack("<HHI", start)
        if (group, element) == _END:
            break
        if (group, element) != _ITEM or size == UNDEFINED or len(fragments) >= MAX_FRAGMENTS:
            raise ValueError
        place = file.tell()
        if offsets is None:
            offsets = list(struct.unpack(f"<{size // 4}I", file.read(size)[: size // 4 * 4]))
        elif size:
            fragments.append((place, size))
        file.seek(place + size)
    if not fragments:
        raise wrong("PixelData", "holds no frame")
    return offsets or [], fragments
