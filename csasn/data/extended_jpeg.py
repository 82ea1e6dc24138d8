"""Grey JPEG of 12 bits: the extended sequential process 4 of ITU-T T.81, annex F.

Axes: N blocks, K coefficients in zigzag order.
"""

import numpy as np
from scipy.fft import idctn

from csasn.data.jpeg_stream import Scan, read_scans, windows

PROCESS, PRECISION = 0xC1, 12


def _zigzag() -> np.ndarray:
    """Place in a block, row by row, of each coefficient: diagonal by diagonal, in turns up and down."""
    places = sorted(np.ndindex(8, 8), key=lambda at: (sum(at), at[0] if sum(at) % 2 else at[1]))
    return np.array([row * 8 + column for row, column in places])


_ZIGZAG = _zigzag()


def decode_extended(code: bytes) -> np.ndarray:
    """uint16 (H, W), as the inverse DCT of T.81 A.3.3 in floating point has it.

    Raises:
        ValueError, LookupError: the stream is damaged or of another kind.
    """
    scan = next(read_scans(code), None)
    if scan is None or (scan.frame.process, scan.frame.precision, len(scan.frame.components)) != (PROCESS, PRECISION, 1):
        raise ValueError("no grey JPEG of 12 bits")
    height, width = scan.frame.height, scan.frame.width
    down, across = -(-height // 8), -(-width // 8)
    (quantiser,) = scan.quantisers.values()
    blocks = np.zeros((down * across, 64))
    blocks[:, _ZIGZAG] = _coefficients(scan, down * across) * quantiser
    values = idctn(blocks.reshape(-1, 8, 8), axes=(1, 2), norm="ortho", overwrite_x=True)
    image = values.reshape(down, across, 8, 8).swapaxes(1, 2).reshape(8 * down, 8 * across)[:height, :width]
    return np.asarray(np.clip(np.floor(image + (1 << PRECISION - 1) + 0.5), 0, (1 << PRECISION) - 1), np.uint16)


def _coefficients(scan: Scan, num_blocks: int) -> np.ndarray:
    """int64 (N, K); the first coefficient of a block is coded as its difference from that of the block before."""
    coefficients_NK = np.zeros((num_blocks, 64), np.int64)
    size = scan.restart_interval or num_blocks
    starts = range(0, num_blocks, size)
    if len(scan.pieces) < len(starts):
        raise ValueError("cut short")
    for start, piece in zip(starts, scan.pieces, strict=False):
        part_NK = coefficients_NK[start : start + size]
        _fill(part_NK, piece, scan)
        part_NK[:, 0] = np.cumsum(part_NK[:, 0])
    return coefficients_NK


def _fill(part_NK: np.ndarray, piece: bytes, scan: Scan) -> None:
    """Reads the blocks of a piece, T.81 figures F.13 and F.14: a symbol is a run of zeros and the size of what follows it."""
    dc, ac = scan.tables[0]
    if dc is None or ac is None:
        raise ValueError("a table is missing")
    bits, position = windows(piece), 0
    for block in part_NK:
        place, table = 0, dc
        while place < 64:
            window, before = bits[position >> 3], position & 7
            entry = table[window >> (24 - before) & 0xFFFF]
            if not entry:
                raise ValueError("no such code")
            length, run, size = entry & 31, entry >> 9, entry >> 5 & 15
            position += length + size
            if place:
                place += run
            if size:
                value = window >> (40 - before - length - size) & ((1 << size) - 1)
                block[place] = value if value >> (size - 1) else value - (1 << size) + 1
            elif place and run != 15:  # the rest of the block is zeros; 15 without a value is a run of 16 of them
                break
            place, table = place + 1, ac
    if position > 8 * len(piece):
        raise ValueError("cut short")
