"""Loose pictures as a viewer shows them: PNG, JPEG, BMP, TIFF, WebP, JPEG 2000.

The order is: page, decode, depth, transparency over black, orientation, grey. What stands beside the pixels (EXIF, ICC, text)
never decides whether a picture is read; of all that, the orientation alone is applied, where it is valid.

Axes: H rows, W columns.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL import Image

from csasn.errors import DataError
from csasn.pictures import jpeg, png
from csasn.pictures.codecs import SizeError, decode_stream
from csasn.pictures.exif import orientation, turned
from csasn.pictures.formats import Format
from csasn.pictures.levels import depth, luminance, over_black, share_of_colour, to_uint8
from csasn.pictures.picture import (
    CONVERT,
    MAX_FRAMES,
    MAX_PIXELS,
    UNREADABLE,
    Picture,
    frame_index,
    own_range,
    require_bounds,
    require_frame,
)

MAX_CODED_BYTES = 512 << 20  # of a picture that is read at once
_PILLOW = {"PNG": "PNG", "BMP": "BMP", "TIFF": "TIFF", "WebP": "WEBP", "JPEG 2000": "JPEG2000"}
_PIXEL_BYTES = {"1": 1, "L": 1, "I;16": 2, "I;16B": 2, "LA": 4}  # as Pillow holds one; any other mode has four
_PHOTOMETRIC, _ORIENTATION, _BITS_PER_SAMPLE, _PLANAR = 262, 274, 258, 284  # tags of TIFF
_WHITE_IS_ZERO, _RGB = 0, 2
_MOST_BITS = {"I;16": 16, "I;16B": 16, "I;16L": 16, "I;16N": 16, "I": 32}


@dataclass(frozen=True)
class _Samples:
    """Grey (H, W), or grey and alpha, RGB, RGB and alpha (H, W, 2 to 4), of `bits` bits, and how they have to be turned."""

    pixels: np.ndarray
    bits: int = 8
    turn: int = 1


def read_photo(file: BinaryIO, kind: Format, frame: int | None) -> Picture:
    """The picture in `file`, which is of `kind`; `frame` is a page of a TIFF or WebP, counted from 1; None is the middle one.

    Raises:
        DataError: it is damaged, cut short, too large, or has no such page.
    """
    try:
        return _shown(_read(file, kind, frame))
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"the image has more than {MAX_PIXELS} pixels", "is this an ultrasound image?") from None
    except UNREADABLE:
        raise DataError(f"the image is {kind}, but damaged, cut short or of an unusual kind of it", CONVERT) from None


def _read(file: BinaryIO, kind: Format, frame: int | None) -> _Samples:
    if kind in ("PNG", "JPEG", "JPEG 2000"):
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size > MAX_CODED_BYTES:
            raise DataError(f"the image is a {kind} of more than {MAX_CODED_BYTES >> 20} MiB", "is this an ultrasound image?")
        data = file.read()
        if kind != "JPEG 2000":
            require_frame(frame, 1)
            return _read_jpeg(data) if kind == "JPEG" else _read_png(data)
        if (deep := jpeg.read_jpeg_2000(data)).bits > 8 and deep.size[2] == 3:
            require_frame(frame, 1)
            require_bounds(deep.size[0], deep.size[1], 1, 6)
            return _Samples(decode_stream(data).pixels, deep.bits)
        file = io.BytesIO(data)
    if kind == "WebP":
        require_bounds(*_size_of_webp(file.read(30)), 1, 4)
        file.seek(0)
    with Image.open(file, formats=(_PILLOW[kind],)) as image:
        num_frames = getattr(image, "n_frames", 1)
        require_frame(frame, num_frames)
        if num_frames > MAX_FRAMES:
            raise ValueError
        index = frame_index(frame, num_frames)
        if num_frames > 1:
            image.seek(index)
        return _read_deep_tiff(file, image, index) if kind == "TIFF" and _is_deep(image) else _read_open(image, kind)


def _read_jpeg(data: bytes) -> _Samples:
    head = jpeg.read_jpeg(data)
    if head.kind == "ls":
        raise DataError("the image is JPEG-LS, which is read in DICOM alone", CONVERT)
    require_bounds(head.size[0], head.size[1], 1, 1 if head.size[2] == 1 else 4)
    try:
        decoded = decode_stream(data)
    except SizeError:
        raise DataError("the image is JPEG of far more pixels than bytes", "is this an ultrasound image?") from None
    return _Samples(decoded.pixels, decoded.bits, orientation(head.exif))


def _read_png(data: bytes) -> _Samples:
    head = png.read_png(data)
    turn = orientation(head.exif)
    if head.bits == 16 and head.kind != png.GREY:
        require_bounds(head.height, head.width, 1, 2 * png.SAMPLES[head.kind])
        return _Samples(imagecodecs.png_decode(head.recoded()), 16, turn)
    with Image.open(io.BytesIO(head.code), formats=("PNG",)) as image:
        return replace(_read_open(image, "PNG"), turn=turn)


def _read_open(image: Image.Image, kind: Format) -> _Samples:
    """What Pillow has opened, decoded; its own ways to turn are taken, and to apply a colour that stands for transparency."""
    require_bounds(image.height, image.width, 1, _PIXEL_BYTES.get(image.mode, 4))
    turn = orientation(image.info.get("exif", b"").removeprefix(b"Exif\0\0")) if kind == "WebP" else 1
    tags = getattr(image, "tag_v2", {}) if kind == "TIFF" else {}
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode in _MOST_BITS
    bits = _bits(image, tags)
    if image.mode == "F":
        raise DataError(f"the image is {kind} of floating-point numbers, expected whole ones", CONVERT)
    if image.mode in _MOST_BITS:
        image.load()
        values = np.asarray(image)
        if values.dtype.kind == "i":
            if values.min() < 0:
                raise DataError(f"the image is {kind} of signed numbers, of which none says what is black", CONVERT)
            values = values.astype(np.uint32)
        return _Samples(((1 << bits) - 1 - values) if inverted else values, bits, turn)
    if "transparency" in image.info or image.mode in ("PA", "La", "RGBa"):
        image = image.convert("RGBA")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    pixels = np.asarray(image)
    if kind == "BMP" and pixels.ndim == 3 and pixels.shape[2] == 4 and not pixels[..., 3].any():
        pixels = pixels[..., :3]  # programs that write no transparency leave it 0
    return _Samples(pixels, 8, turn)


def _size_of_webp(head: bytes) -> tuple[int, int]:
    """Height and width, which Pillow would take memory for before it tells them (RFC 9649)."""
    form = head[12:16]
    if form == b"VP8X":
        return 1 + int.from_bytes(head[27:30], "little"), 1 + int.from_bytes(head[24:27], "little")
    if form == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    return int.from_bytes(head[28:30], "little") & 0x3FFF, int.from_bytes(head[26:28], "little") & 0x3FFF


def _is_deep(image: Image.Image) -> bool:
    """Whether an open TIFF is of colours of 16 bits, of which Pillow would keep the upper 8."""
    tags = getattr(image, "tag_v2", {})
    deep = set(tags.get(_BITS_PER_SAMPLE, ())) == {16} and image.mode in ("RGB", "RGBA")
    return deep and tags.get(_PHOTOMETRIC) == _RGB and tags.get(_PLANAR, 1) == 1


def _read_deep_tiff(file: BinaryIO, image: Image.Image, index: int) -> _Samples:
    count = len(image.tag_v2[_BITS_PER_SAMPLE])  # type: ignore[attr-defined]
    require_bounds(image.height, image.width, 1, 2 * count)
    turn = image.tag_v2.get(_ORIENTATION, 1)  # type: ignore[attr-defined]
    size = image.height, image.width
    file.seek(0)
    pixels = imagecodecs.tiff_decode(file.read(MAX_CODED_BYTES), index)
    if pixels.shape != (*size, count) or pixels.dtype != np.uint16:
        raise ValueError
    return _Samples(pixels if image.mode == "RGBA" else pixels[..., :3], 16, turn)


def _bits(image: Image.Image, tags: Mapping[int, Sequence[int]]) -> int:
    """Bits of a deep grey sample as the file claims."""
    most, claimed = _MOST_BITS.get(image.mode, 8), tags.get(_BITS_PER_SAMPLE, ())
    return min(most, int(claimed[0])) if len(claimed) == 1 and claimed[0] > 8 else most


def _shown(samples: _Samples) -> Picture:
    pixels, bits = samples.pixels, samples.bits
    alpha = None
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        pixels, alpha = pixels[..., :-1], to_uint8(np.ascontiguousarray(pixels[..., -1]), bits)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    used = depth(pixels if alpha is None else pixels[alpha > 0], bits)
    shown = to_uint8(np.ascontiguousarray(pixels), used)
    if alpha is not None:
        shown = over_black(shown, alpha)
    colour_share = share_of_colour(shown)
    grey = turned(luminance(shown), samples.turn)
    return Picture(grey, notes=own_range(used, bits), colour_share=colour_share)
