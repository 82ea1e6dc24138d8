"""Decoding one coded picture by what its own bytes say: JPEG, lossless JPEG, JPEG-LS, JPEG 2000, RLE.

The same decoders everywhere, so that all sites see the same pixels: Pillow for JPEG of 8 bits, imagecodecs (libjpeg-turbo, CharLS,
openjpeg) for all other kinds. A stream goes to a decoder only if its header claims the size that is expected: this bounds memory
against damaged files. Decoders are native code and are no sandbox against malicious ones.

Axes: H rows, W columns.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import imagecodecs
import numpy as np
from PIL import Image

from csasn.pictures import jpeg
from csasn.pictures.jpeg import Jpeg, Size

SMALL_FRAME_PIXELS, MAX_COMPRESSION = 1 << 22, 1000  # a larger frame with more pixels a byte is a bomb, not a picture
_TAIL = bytes(np.random.default_rng(0).integers(0, 255, 4096, dtype=np.uint8))  # what no picture goes on with; no marker in it
_MOST_RLE, _MAX_SEGMENTS = 64, 15  # at best, 2 bytes make 128
_SLACK = 4096  # bytes that a segment may hold beyond its plane
Space = Literal["grey", "RGB", "labelled"]


@dataclass(frozen=True)
class Decoded:
    """Samples (H, W) or (H, W, 3) of `bits` bits; `space` tells their colours, `labelled` leaves this to whoever holds the label.

    Samples that are not `exact` may go a little beyond the depth that they had.
    """

    pixels: np.ndarray
    bits: int
    space: Space
    signed: bool = False
    exact: bool = True


class SizeError(ValueError):
    """A stream whose size is not the one that was expected."""


def decode_stream(code: bytes, expected: tuple[int, int] | None = None) -> Decoded:
    """A JPEG of any kind or a JPEG 2000 picture, without whatever follows its end; `expected` are rows and columns.

    An end marker may be missing, the picture before it may not: decoders make up what a cut one lacks.

    Raises:
        SizeError: it is of another size.
        RuntimeError, ValueError, LookupError, OSError, struct.error: it is damaged, or of no kind that is read.
    """
    if code.startswith((jpeg.CODESTREAM, jpeg.JP2)):
        return _decode_jpeg_2000(code, expected)
    head = jpeg.read_jpeg(code)
    _require_size(head.size, expected, len(code))
    decode = {"lossy": _decode_lossy, "lossless": _decode_lossless, "ls": _decode_ls}[head.kind]
    return decode(head)


def decode_rle(code: bytes, size: Size, bits_allocated: int) -> np.ndarray:
    """Samples (H, W) or (H, W, C) of a frame of DICOM's run lengths (PS3.5 annex G).

    Raises:
        RuntimeError, ValueError, struct.error: it is damaged, or too short for its size.
    """
    height, width, components = size
    item, plane = bits_allocated // 8, height * width
    starts = struct.unpack_from("<16I", code)
    num_segments = components * item
    if starts[0] != num_segments or num_segments > _MAX_SEGMENTS or len(code) * _MOST_RLE < plane * num_segments:
        raise ValueError
    ends = (*starts[2 : num_segments + 1], len(code))
    bytes_SP = np.empty((num_segments, plane), np.uint8)
    for number, (start, end) in enumerate(zip(starts[1 : num_segments + 1], ends, strict=True)):
        segment = imagecodecs.packbits_decode(code[start:end], out=plane + _SLACK)
        bytes_SP[number] = np.frombuffer(segment, np.uint8, plane)  # a ValueError where it is too short
    samples = np.ascontiguousarray(bytes_SP.reshape(components, item, plane).transpose(0, 2, 1)).view(f">u{item}")
    planes = samples.reshape(components, height, width)
    return planes[0] if components == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))


def _require_size(size: Size, expected: tuple[int, int] | None, num_bytes: int) -> None:
    if 0 in size or (expected and size[:2] != expected):
        raise SizeError
    if size[0] * size[1] > max(SMALL_FRAME_PIXELS, MAX_COMPRESSION * num_bytes):
        raise SizeError


def _decode_jpeg_2000(code: bytes, expected: tuple[int, int] | None) -> Decoded:
    head = jpeg.read_jpeg_2000(code)
    _require_size(head.size, expected, len(code))
    if not code.rstrip(b"\0").endswith(jpeg.END):
        code += jpeg.END  # tells a decoder nothing but that there is no more
    pixels = imagecodecs.jpeg2k_decode(code)
    if pixels.ndim == 3 and pixels.shape[2] != 3:
        raise ValueError
    space: Space = "grey" if pixels.ndim == 2 else "RGB" if head.transformed else "labelled"
    return Decoded(pixels, head.bits, space, head.signed, head.exact)


def _decode_lossy(head: Jpeg) -> Decoded:
    """libjpeg's own rules tell the colours: JFIF, else Adobe's marker, else the components' names; without, they are YCbCr."""
    components = head.size[2]
    if head.bits == 8:
        pixels = _whole(head, _by_pillow)
    else:
        space = "GRAYSCALE" if components == 1 else "RGB"
        pixels = _whole(head, lambda code: imagecodecs.jpeg8_decode(code, outcolorspace=space))
    return Decoded(pixels, head.bits, "grey" if components == 1 else "RGB", exact=False)


def _by_pillow(code: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(code), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB") if image.mode == "CMYK" else image)


def _decode_lossless(head: Jpeg) -> Decoded:
    """Samples as they were coded: a lossless stream has no colours of its own unless it names them."""
    space = "GRAYSCALE" if head.size[2] == 1 else "RGB"
    pixels = _whole(head, lambda code: imagecodecs.jpeg8_decode(code, colorspace=space, outcolorspace=space))
    return Decoded(pixels, head.bits, "grey" if pixels.ndim == 2 else "RGB" if head.says_rgb else "labelled")


def _decode_ls(head: Jpeg) -> Decoded:
    body, _ = jpeg.trimmed(head.body)
    pixels = imagecodecs.jpegls_decode(head.head + body + jpeg.END)
    return Decoded(pixels, head.bits, "grey" if pixels.ndim == 2 else "labelled", exact=head.exact)


def _whole(head: Jpeg, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
    """The picture, if it is all there.

    libjpeg makes up what is missing and says nothing. Where the end is not marked, the stream is decoded a second time with other
    bytes after it: a picture that changes with them is not whole.

    Raises:
        ValueError: the stream was cut.
    """
    body, ended = jpeg.trimmed(head.body)
    pixels = decode(head.head + body + jpeg.END)
    if not ended and not np.array_equal(pixels, decode(head.head + body + _TAIL + jpeg.END)):
        raise ValueError
    return pixels
