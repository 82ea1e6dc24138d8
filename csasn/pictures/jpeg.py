"""What a JPEG or JPEG 2000 stream says of itself: size, depth, colours, where it ends (ITU-T T.81, T.87, T.800).

Only markers are read here, no pixels: decoders take memory as a stream says, so that it has to be known before.
"""

import struct
from dataclasses import dataclass, field
from typing import Literal

Size = tuple[int, int, int]  # rows, columns, components
END = b"\xff\xd9"
JP2 = b"\0\0\0\x0cjP  "
CODESTREAM = b"\xff\x4f\xff\x51"
_LOSSLESS, _JPEG_LS = (0xC3, 0xC7, 0xCB, 0xCF), 0xF7
_SIDE = (*range(0xE1, 0xEE), 0xEF, 0xFE)  # APP1 to APP13, APP15 and comments: none of them is needed to decode
_COLOUR_OF_LS = b"mrfx"  # APP8 of JPEG-LS, which is needed


@dataclass(frozen=True)
class Jpeg:
    """What stands before the coded pixels; `kind` is `lossy`, `lossless` or `ls`.

    `says_rgb` is whether an Adobe marker or the names of the components call them RGB, or YCbCr (False); None where neither does.
    """

    size: Size
    bits: int
    kind: Literal["lossy", "lossless", "ls"]
    says_rgb: bool | None
    head: bytes = field(repr=False)  # the stream up to the coded pixels, without side segments
    exif: bytes = field(repr=False)
    body: bytes = field(repr=False)  # from the first scan on

    @property
    def exact(self) -> bool:
        """Whether its samples come back to the bit."""
        return self.kind == "lossless" or (self.kind == "ls" and self.body[5 + 2 * self.body[4] :][:1] == b"\0")


def read_jpeg(code: bytes) -> Jpeg:
    """The stream's header; bytes between segments are passed over, as decoders do.

    Raises:
        ValueError: it has no frame, or no scan.
    """
    if code[:2] != b"\xff\xd8":
        raise ValueError
    place, head, exif, adobe, frame = 2, [b"\xff\xd8"], b"", None, b""
    kind = 0
    while (place := code.find(b"\xff", place)) >= 0:
        marker = code[place + 1]  # an IndexError at the end is the caller's to know
        if marker in (0, 0xFF, 1) or 0xD0 <= marker <= 0xD8:
            place += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:
            break
        if marker == 0xD9:
            raise ValueError
        length = int.from_bytes(code[place + 2 : place + 4], "big")
        segment = code[place : place + 2 + length]
        if length < 2 or len(segment) < 2 + length:
            raise ValueError
        content = segment[4:]
        if marker == _JPEG_LS or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            kind, frame = marker, frame or content
        if marker == 0xE1 and content.startswith(b"Exif\0"):
            exif = exif or content[6:]
        if marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12:
            adobe = content[11]
        if marker not in _SIDE or content.startswith(_COLOUR_OF_LS):
            head.append(segment)
        place += len(segment)
    if place < 0 or not frame:
        raise ValueError
    bits, height, width, components = struct.unpack_from(">BHHB", frame)
    names = frame[6::3][:components]
    says_rgb = adobe == 0 if adobe is not None else (True if names == b"RGB" else None)
    form: Literal["lossy", "lossless", "ls"] = "ls" if kind == _JPEG_LS else "lossless" if kind in _LOSSLESS else "lossy"
    return Jpeg((height, width, components), bits, form, says_rgb, b"".join(head), exif, code[place:])


def trimmed(body: bytes) -> tuple[bytes, bool]:
    """Coded pixels without what follows them, and whether their end was marked; they never end in the midst of a stuffed byte."""
    end = body.rfind(END)
    if end >= 0:
        return body[:end], True
    rest = body.rstrip(b"\0")
    return (rest + b"\0" if rest.endswith(b"\xff") else rest), False


@dataclass(frozen=True)
class Jpeg2000:
    """A code stream: its size, depth and sign of the first component; whether colours were transformed (MCT), and samples kept."""

    size: Size
    bits: int
    signed: bool
    transformed: bool
    exact: bool


def read_jpeg_2000(code: bytes) -> Jpeg2000:
    """Of a code stream, bare or in a JP2 file.

    Raises:
        ValueError: there is none.
    """
    place = _start_of_codestream(code)
    if code[place : place + 4] != CODESTREAM:
        raise ValueError
    right, bottom, left, top = struct.unpack_from(">4I", code, place + 8)
    (components,) = struct.unpack_from(">H", code, place + 40)
    precision = code[place + 42]
    marker = code.find(b"\xff\x52", place + 42, place + (1 << 16))  # COD
    transformed, exact = (code[marker + 8] == 1, code[marker + 13] == 1) if marker >= 0 else (False, False)
    return Jpeg2000((bottom - top, right - left, components), (precision & 0x7F) + 1, precision > 0x7F, transformed, exact)


def _start_of_codestream(code: bytes) -> int:
    """Where it begins. A box of no length would hold decoders for ever.

    Raises:
        ValueError: a box is shorter than its own header.
    """
    if not code.startswith(JP2):
        return 0
    place = 12
    while code[place + 4 : place + 8] != b"jp2c":
        length = int.from_bytes(code[place : place + 4], "big")
        if length < 8:  # beyond the end, too
            raise ValueError
        place += length
    return place + 8
