"""Large pictures in few bytes, and a process that reads one within a limit: python image_memory.py PATH MIB"""

import json
import re
import resource
import struct
import sys
import zlib
from pathlib import Path

from csasn.errors import DataError
from csasn.pictures.images import read_image

MIB = 1 << 20
GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6  # of PNG
SAMPLES = {GREY: 1, COLOUR: 3, PALETTE: 1, GREY_ALPHA: 2, COLOUR_ALPHA: 4}


def png(path: Path, width: int, height: int, kind: int = GREY, bits: int = 16, whole: bool = True) -> Path:
    """A black picture below one lighter row, which alone is there of one that is not whole."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer, row = zlib.compressobj(1), 1 + width * SAMPLES[kind] * bits // 8
    pixels = packer.compress(b"\0" + b"\1" * (row - 1))
    if whole:
        pixels += b"".join(packer.compress(bytes(row)) for _ in range(height - 1))
    pixels += packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    colours = chunk(b"PLTE", bytes(range(256)) * 3) if kind == PALETTE else b""
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + colours + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


def memory_mib(name: str) -> int:
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) >> 10  # type: ignore[index]


def child(path: Path, more_mib: int) -> None:
    read_image(png(path.with_name("small.png"), 8, 8))  # all that is loaded on first use
    before, limit = memory_mib("VmHWM"), (memory_mib("VmSize") + more_mib) * MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        result = {"shape": read_image(path).pixels_HW.shape}
    except DataError as error:
        result = {"message": error.message, "hint": error.hint}
    print(json.dumps({**result, "took_mib": memory_mib("VmHWM") - before}))


if __name__ == "__main__":
    child(Path(sys.argv[1]), int(sys.argv[2]))
