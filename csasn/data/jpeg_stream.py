"""A JPEG stream as its segments, tables and runs of symbols: ITU-T T.81, annexes B (segments), C and F.2.2 (Huffman codes).

For the two kinds of JPEG that no decoder under a permissive licence reads safely: lossless ones, and those of 12 bits. It is Python
and numpy, so that a damaged stream is an exception, never the end of the process.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MAX_SAMPLES = 1 << 24  # some seconds of decoding; a frame of 1920 x 1080 in colour has 6 million
_SOF, _DHT, _DQT, _DRI, _SOS, _EOI, _SOI = (0xC1, 0xC3), 0xC4, 0xDB, 0xDD, 0xDA, 0xD9, 0xD8
_AFTER_SCAN = re.compile(rb"\xff(?![\x00\xd0-\xd7\xff])", re.DOTALL)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_MAX_CODE_BITS, _WINDOW_BITS = 16, 40  # a code, its value and a part of a byte before them fit into a window


@dataclass(frozen=True)
class Frame:
    """What the frame header says: `process` is the marker's second byte, `components` their names in order."""

    process: int
    precision: int
    height: int
    width: int
    components: tuple[int, ...]


@dataclass(frozen=True)
class Scan:
    """One scan: tables of its components in order, its parameters, and its coded data between restarts.

    A Huffman table is a list of 65,536: for each 16 bits, the symbol that they begin with in the upper bits and the length of its
    code in the lower five; 0 where no code begins so.
    """

    frame: Frame
    components: tuple[int, ...]
    tables: tuple[tuple[list[int] | None, list[int] | None], ...]  # (DC or lossless, AC)
    quantisers: dict[int, np.ndarray]
    selection: int  # Ss: the predictor of lossless scans
    shift: int  # Al: the point transform of lossless scans
    restart_interval: int
    pieces: tuple[bytes, ...]


def read_scans(code: bytes) -> Iterator[Scan]:
    """The scans of a stream, in order.

    Raises:
        ValueError, LookupError: the stream is damaged, has more than 16 million samples, or is of another kind.
    """
    huffman: dict[int, list[int]] = {}
    quantisers: dict[int, np.ndarray] = {}
    frame, interval = None, 0
    for marker, content, data in _segments(code):
        if marker in _SOF:
            frame = _read_frame(marker, content)
        elif marker == _DHT:
            huffman |= _read_huffman(content)
        elif marker == _DQT:
            quantisers |= _read_quantisers(content)
        elif marker == _DRI:
            interval = int.from_bytes(content[:2], "big")
        elif marker == _SOS and frame is not None:
            num = content[0]
            names = tuple(content[1 : 1 + 2 * num : 2])
            tables = tuple((huffman.get(places >> 4), huffman.get(0x10 | places & 15)) for places in content[2 : 2 + 2 * num : 2])
            selection, _, shift = content[1 + 2 * num : 4 + 2 * num]
            pieces = tuple(piece.replace(b"\xff\x00", b"\xff") for piece in _RESTART.split(data))
            yield Scan(frame, names, tables, quantisers, selection, shift & 15, interval, pieces)


def windows(piece: bytes) -> memoryview:
    """At each byte of `piece`, the 40 bits from there on; zeros follow its end, and nothing lies two bytes behind it."""
    padded = np.frombuffer(piece + bytes(_WINDOW_BITS // 8), np.uint8).astype(np.uint64)
    joined = np.zeros(len(piece) + 1, np.uint64)
    for place in range(_WINDOW_BITS // 8):
        joined = joined << np.uint64(8) | padded[place : place + len(joined)]
    return joined.data


def _segments(code: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(marker, content, coded data behind it) of each segment up to the end of the image."""
    place = 0
    while (place := code.index(b"\xff", place)) + 1 < len(code):
        marker = code[place + 1]
        if marker == _EOI:
            return
        if marker in (0xFF, _SOI):
            place += 1 if marker == 0xFF else 2
            continue
        end = place + 2 + max(2, int.from_bytes(code[place + 2 : place + 4], "big"))
        content, place = code[place + 4 : end], end
        if marker != _SOS:
            yield marker, content, b""
            continue
        found = _AFTER_SCAN.search(code, end)
        place = found.start() if found else len(code)
        yield marker, content, code[end:place].rstrip(b"\xff")


def _read_frame(marker: int, content: bytes) -> Frame:
    precision, num = content[0], content[5]
    height, width = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")
    factors = content[7 : 6 + 3 * num : 3]
    if not 0 < height * width * num <= MAX_SAMPLES or len(set(factors)) != 1 or len(factors) != num:
        raise ValueError("no samples, too many, or components of several sizes")
    return Frame(marker, precision, height, width, tuple(content[6 : 6 + 3 * num : 3]))


def _read_huffman(content: bytes) -> dict[int, list[int]]:
    """Tables by class (upper half) and place; the codes of one length follow each other, T.81 figure C.2."""
    tables = {}
    while content:
        counts, code = content[1 : 1 + _MAX_CODE_BITS], 0
        symbols = iter(content[1 + _MAX_CODE_BITS :])
        table = np.zeros(1 << _MAX_CODE_BITS, np.int64)
        for length, count in enumerate(counts, 1):
            reach = _MAX_CODE_BITS - length
            for _ in range(count):
                table[code << reach : (code + 1) << reach] = next(symbols, 0) << 5 | length
                code += 1
            if code > 1 << length:
                raise ValueError("more codes than there is room for")
            code <<= 1
        tables[content[0] & 0x1F] = table.tolist()
        content = content[1 + _MAX_CODE_BITS + sum(counts) :]
    return tables


def _read_quantisers(content: bytes) -> dict[int, np.ndarray]:
    """Tables of 64 steps in zigzag order, by place."""
    tables = {}
    while content:
        kind = ">u2" if content[0] >> 4 else "u1"
        end = 1 + 64 * np.dtype(kind).itemsize
        tables[content[0] & 15] = np.frombuffer(content[1:end], kind, 64).astype(np.int64)
        content = content[end:]
    return tables
