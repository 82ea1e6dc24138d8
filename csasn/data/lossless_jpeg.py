"""Lossless JPEG: process 14 of ITU-T T.81, annex H, with any predictor, of 2 to 16 bits.

Axes: H rows, W columns, C components.
"""

from itertools import pairwise

import numpy as np

from csasn.data.jpeg_stream import Frame, Scan, read_scans, windows

PROCESS = 0xC3
_RANGE = 0xFFFF  # differences and predictions are modulo 2^16


def decode_lossless(code: bytes) -> tuple[np.ndarray, int]:
    """uint16 (H, W, C) and the bits of a sample.

    Raises:
        ValueError, LookupError: the stream is damaged or of another kind.
    """
    pixels_HWC, frame = None, None
    for scan in read_scans(code):
        frame = scan.frame
        if frame.process != PROCESS or not 2 <= frame.precision <= 16 or not 1 <= scan.selection <= 7:
            raise ValueError("no lossless JPEG")
        if pixels_HWC is None:
            pixels_HWC = np.zeros((frame.height, frame.width, len(frame.components)), np.uint16)
        places = [frame.components.index(name) for name in scan.components]
        pixels_HWC[:, :, places] = _decode_scan(scan, frame)
    if pixels_HWC is None or frame is None:
        raise ValueError("no scan")
    return pixels_HWC, frame.precision


def _decode_scan(scan: Scan, frame: Frame) -> np.ndarray:
    rows_a_piece = frame.height
    if scan.restart_interval:
        rows_a_piece, rest = divmod(scan.restart_interval, frame.width)
        if rest or not rows_a_piece:
            raise ValueError("restarts within a row, which T.81 H.1.1 excludes")
    parts = []
    for number, piece in enumerate(scan.pieces[: -(-frame.height // rows_a_piece)]):
        height = min(rows_a_piece, frame.height - number * rows_a_piece)
        differences_HWC = _differences(piece, scan, height * frame.width).reshape(height, frame.width, -1)
        parts += [_undo_prediction(differences_HWC, scan.selection, 1 << (frame.precision - scan.shift - 1))]
    return np.concatenate(parts) << scan.shift


def _differences(piece: bytes, scan: Scan, num_pixels: int) -> np.ndarray:
    """As they are coded: for each pixel, that of each component in turn, -32767 to 32768."""
    tables = [table for table, _ in scan.tables if table is not None]
    if not tables or len(tables) != len(scan.components):
        raise ValueError("a table is missing")
    bits, position, values = windows(piece), 0, []
    for _ in range(num_pixels):
        for table in tables:
            window, before = bits[position >> 3], position & 7
            entry = table[window >> (24 - before) & 0xFFFF]
            length, size = entry & 31, entry >> 5
            if not 0 < size < 16:
                if not entry or size > 16:
                    raise ValueError("no such code")
                values.append(size << 11)  # 0, or 32768 of size 16: neither has bits of its own
                position += length
                continue
            position += length + size
            value = window >> (40 - before - length - size) & ((1 << size) - 1)
            values.append(value if value >> (size - 1) else value - (1 << size) + 1)
    if position > 8 * len(piece):
        raise ValueError("cut short")
    return np.array(values, np.int64)


def _undo_prediction(differences_HWC: np.ndarray, predictor: int, start: int) -> np.ndarray:
    """Samples from differences: the first row is predicted from the left, the first column from above, the rest as selected."""
    samples_HWC = differences_HWC
    samples_HWC[0, 0] += start
    samples_HWC[0] = np.cumsum(samples_HWC[0], axis=0) & _RANGE
    samples_HWC[:, 0] = np.cumsum(samples_HWC[:, 0], axis=0) & _RANGE
    for above, row in pairwise(samples_HWC):
        row[1:] += _known_part(above, predictor)
        if predictor in (1, 4, 5):
            np.cumsum(row, axis=0, out=row)
        elif predictor in (6, 7):
            _add_halves(row, above, predictor)
        np.bitwise_and(row, _RANGE, out=row)
    return samples_HWC


def _known_part(above: np.ndarray, predictor: int) -> np.ndarray:
    """What a prediction takes from the row above, T.81 table H.1, for each sample but the first."""
    parts: dict[int, np.ndarray] = {
        2: above[1:],
        3: above[:-1],
        4: above[1:] - above[:-1],
        5: (above[1:] - above[:-1]) >> 1,
        6: above[1:],
    }
    return parts.get(predictor, np.zeros_like(above[1:]))


def _add_halves(row: np.ndarray, above: np.ndarray, predictor: int) -> None:
    """Adds the half of a prediction that has the left neighbour in it, in place."""
    others = above[:-1] if predictor == 6 else -above[1:]
    for column in range(1, len(row)):
        row[column] = (row[column] + ((row[column - 1] - others[column - 1]) >> 1)) & _RANGE
