"""PNG without what is not picture: side chunks are left out, so that no defect of theirs decides whether it is read (ISO 15948)."""

import struct
import zlib
from dataclasses import dataclass, field

MAGIC = b"\x89PNG\r\n\x1a\n"
GREY, COLOUR = 0, 2
SAMPLES = {GREY: 1, COLOUR: 3, 3: 1, 4: 2, 6: 4}  # of grey, colour, palette, grey and alpha, colour and alpha
_PASSES = {  # first column and row, and steps, of each pass: all at once, or by Adam7
    False: ((0, 0, 1, 1),),
    True: ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
}
_NEEDED = (b"PLTE", b"tRNS", b"IDAT")
_END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))


@dataclass(frozen=True)
class Png:
    """Size, bits of a sample and kind of a PNG; contents of its chunks; `body` are the chunks that make the picture, whole."""

    height: int
    width: int
    bits: int
    kind: int
    header: bytes = field(repr=False)
    transparency: bytes = field(repr=False)
    pixels: bytes = field(repr=False)
    body: bytes = field(repr=False)
    exif: bytes = field(repr=False)

    @property
    def code(self) -> bytes:
        """The file without side chunks."""
        return MAGIC + chunk(b"IHDR", self.header) + self.body + _END

    def recoded(self) -> bytes:
        """The file with its pixels coded anew, so that there is nothing in it that libpng would print a warning of.

        Raises:
            ValueError, zlib.error: the pixels are damaged, or there are too few.
        """
        sides = [(-(-(self.width - x) // dx), -(-(self.height - y) // dy)) for x, y, dx, dy in _PASSES[self.header[12] == 1]]
        pixel_bytes = self.bits // 8 * SAMPLES[self.kind]
        size = sum(height * (1 + width * pixel_bytes) for width, height in sides if width > 0 and height > 0)
        plain = zlib.decompressobj().decompress(self.pixels, size)
        if len(plain) < size:
            raise ValueError
        see_through = chunk(b"tRNS", self.transparency) if self.kind == COLOUR and len(self.transparency) == 6 else b""
        return MAGIC + chunk(b"IHDR", self.header) + see_through + chunk(b"IDAT", zlib.compress(plain, 1)) + _END


def read_png(data: bytes) -> Png:
    """The chunks of a file; what follows the picture, or lacks after it, does not matter. Sums are the decoder's.

    Raises:
        ValueError, struct.error: a chunk that is needed is missing.
    """
    place, header, exif = len(MAGIC), b"", b""
    body: list[bytes] = []
    contents: dict[bytes, list[bytes]] = {name: [] for name in _NEEDED}
    while place + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        content = data[place + 8 : place + 8 + length]
        if name == b"IEND":
            break
        if name == b"IHDR":
            header = header or content
        elif name in _NEEDED:
            body.append(data[place : place + 12 + length])
            contents[name].append(content)
        elif name == b"eXIf":
            exif = exif or content
        place += 12 + length
    if len(header) != 13 or not body:
        raise ValueError
    width, height, bits, kind = struct.unpack_from(">IIBB", header)
    if kind not in SAMPLES:
        raise ValueError
    see_through, pixels = (b"".join(contents[name]) for name in (b"tRNS", b"IDAT"))
    return Png(height, width, bits, kind, header, see_through, pixels, b"".join(body), exif)


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk with its checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
