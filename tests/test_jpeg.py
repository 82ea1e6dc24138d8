"""csasn/data/lossless_jpeg.py, extended_jpeg.py, jpeg_stream.py: every predictor, restarts, scans, and damage.

What is decoded is coded here, by T.81's words and bit by bit; tests/test_dicom_syntaxes.py reads what GDCM and others coded.
"""

import random
from collections.abc import Sequence

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from scipy.fft import dctn

from csasn.data import jpeg_stream
from csasn.data.extended_jpeg import _ZIGZAG, decode_extended
from csasn.data.lossless_jpeg import decode_lossless

LENGTHS = {size: 2 if size < 2 else 5 for size in range(17)}  # of the code of each size of a difference
DAMAGE = (ValueError, LookupError)


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def huffman(place: int, lengths: dict[int, int]) -> tuple[bytes, dict[int, str]]:
    """The segment of a table, and the code of each symbol."""
    ordered = sorted(lengths, key=lambda symbol: (lengths[symbol], symbol))
    counts = bytes(sum(length == bits for length in lengths.values()) for bits in range(1, 17))
    codes, code, before = {}, 0, 0
    for symbol in ordered:
        code <<= lengths[symbol] - before
        before = lengths[symbol]
        codes[symbol] = f"{code:0{before}b}"
        code += 1
    return segment(0xC4, bytes([place]) + counts + bytes(ordered)), codes


def pack(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:].replace(b"\xff", b"\xff\x00")


def value_bits(value: int) -> tuple[int, str]:
    """Size of a value, and its bits."""
    size = abs(value).bit_length()
    return size, f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if size else ""


def predict(samples: np.ndarray, row: int, column: int, predictor: int, start: int) -> int:
    """T.81 H.1.2.1 and table H.1, for one sample of one component."""
    if row == 0 and column == 0:
        return start
    if row == 0:
        return int(samples[0, column - 1])
    if column == 0:
        return int(samples[row - 1, 0])
    a, b, c = int(samples[row, column - 1]), int(samples[row - 1, column]), int(samples[row - 1, column - 1])
    return [a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1][predictor - 1]


def code_lossless(
    samples_HWC: np.ndarray, bits: int, predictor: int, rows_a_piece: int = 0, scans: Sequence[Sequence[int]] = (), shift: int = 0
) -> bytes:
    height, width, num = samples_HWC.shape
    table, codes = huffman(0, LENGTHS)
    frame = bytes([bits]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([num])
    result = b"\xff\xd8" + table + segment(0xC3, frame + b"".join(bytes([name + 1, 0x11, 0]) for name in range(num)))
    if rows_a_piece:
        result += segment(0xDD, (rows_a_piece * width).to_bytes(2, "big"))
    for scan in scans or [range(num)]:
        named = b"".join(bytes([name + 1, 0]) for name in scan)
        result += segment(0xDA, bytes([len(scan)]) + named + bytes([predictor, 0, shift]))
        for number, top in enumerate(range(0, height, rows_a_piece or height)):
            result += bytes([0xFF, 0xD0 + (number - 1) % 8]) if number else b""
            piece = samples_HWC[top : top + (rows_a_piece or height)] >> shift
            text = ""
            for row, column in np.ndindex(piece.shape[:2]):
                for name in scan:
                    plane = piece[:, :, name]
                    guess = predict(plane, row, column, predictor, 1 << (bits - shift - 1))
                    difference = (int(plane[row, column]) - guess + 32767) % 65536 - 32767
                    size, rest = value_bits(difference)
                    text += codes[size] + (rest if size < 16 else "")
            result += pack(text)
    return result + b"\xff\xd9"


@pytest.mark.parametrize("predictor", range(1, 8))
@given(data=st.data(), bits=st.integers(2, 16), height=st.integers(1, 9), width=st.integers(1, 9), num=st.sampled_from([1, 3]))
@settings(max_examples=40, deadline=None)
def test_lossless_samples_come_back_for_each_predictor_and_depth(
    predictor: int, data: st.DataObject, bits: int, height: int, width: int, num: int
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    samples = rng.integers(0, 1 << bits, (height, width, num))
    rows, scans = data.draw(st.integers(0, height)), data.draw(st.sampled_from([(), [[name] for name in range(num)]]))
    pixels, found = decode_lossless(code_lossless(samples, bits, predictor, rows, scans))
    np.testing.assert_array_equal(pixels, samples)
    assert (found, pixels.dtype) == (bits, np.uint16)


def test_the_point_transform_leaves_out_the_lowest_bits() -> None:
    samples = np.random.default_rng(0).integers(0, 4096, (5, 6, 1))
    pixels, _ = decode_lossless(code_lossless(samples, 12, 4, shift=3))
    np.testing.assert_array_equal(pixels, samples >> 3 << 3)


def code_extended(image: np.ndarray, quantiser: int, restart: int = 0) -> bytes:
    """A grey picture of 12 bits whose sides are multiples of 8; one step for all coefficients."""
    height, width = image.shape
    blocks = (image - 2048.0).reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    coefficients = np.rint(dctn(blocks, axes=(1, 2), norm="ortho") / quantiser).astype(int).reshape(-1, 64)[:, _ZIGZAG]
    dc, dc_codes = huffman(0, dict.fromkeys(range(16), 5))
    ac, ac_codes = huffman(0x10, dict.fromkeys([run << 4 | size for run in range(16) for size in range(15)], 8))
    frame = bytes([12]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([1, 1, 0x11, 0])
    result = b"\xff\xd8" + segment(0xDB, bytes([0]) + bytes([quantiser]) * 64) + segment(0xC1, frame) + dc + ac
    result += segment(0xDD, restart.to_bytes(2, "big")) if restart else b""
    result += segment(0xDA, bytes([1, 1, 0, 0, 63, 0]))
    for number, first in enumerate(range(0, len(coefficients), restart or len(coefficients))):
        result += bytes([0xFF, 0xD0 + (number - 1) % 8]) if number else b""
        text, before = "", 0
        for block in coefficients[first : first + (restart or len(coefficients))]:
            size, rest = value_bits(int(block[0]) - before)
            text, before, run = text + dc_codes[size] + rest, int(block[0]), 0
            for value in block[1 : 1 + max(np.flatnonzero(block[1:]), default=-1) + 1]:
                if value == 0:
                    run += 1
                    continue
                while run > 15:
                    text, run = text + ac_codes[0xF0], run - 16
                size, rest = value_bits(int(value))
                text, run = text + ac_codes[run << 4 | size] + rest, 0
            text += ac_codes[0] if block[63] == 0 else ""
        result += pack(text)
    return result + b"\xff\xd9"


@pytest.mark.parametrize("restart", [0, 1, 5])
@pytest.mark.parametrize(("kind", "quantiser", "most"), [("noise", 1, 2), ("smooth", 1, 2), ("smooth", 200, 120)])
def test_twelve_bits_come_back_within_the_quantisation(restart: int, kind: str, quantiser: int, most: int) -> None:
    y, x = np.mgrid[0:24, 0:40]
    smooth = np.rint(2048 + 1500 * np.sin(x / 11) * np.cos(y / 7)).astype(int)
    image = smooth if kind == "smooth" else np.random.default_rng(0).integers(0, 4096, (24, 40))
    assert np.abs(decode_extended(code_extended(image, quantiser, restart)).astype(int) - image).max() <= most


def test_the_zigzag_is_that_of_figure_a_6() -> None:
    assert _ZIGZAG[:15].tolist() == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4]
    assert _ZIGZAG[-3:].tolist() == [55, 62, 63]
    assert sorted(_ZIGZAG) == list(range(64))


def test_streams_of_another_kind_or_size_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    good = code_lossless(np.zeros((4, 4, 1), int), 8, 1)
    twelve = code_extended(np.full((8, 8), 7), 1)
    for decode, code in (
        (decode_lossless, twelve),
        (decode_extended, good),
        (decode_lossless, b"\xff\xd8\xff\xd9"),
        (decode_extended, b"\xff\xd8\xff\xd9"),
        (decode_lossless, b""),
        (decode_lossless, good.replace(b"\xff\xc4", b"\xff\xe4")),  # without a table
        (decode_extended, twelve.replace(b"\xff\xdb", b"\xff\xe4")),
    ):
        with pytest.raises(DAMAGE):
            decode(code)
    monkeypatch.setattr(jpeg_stream, "MAX_SAMPLES", 15)
    with pytest.raises(ValueError, match="too many"):
        decode_lossless(good)


def test_a_cut_stream_is_refused_wherever_it_is_cut() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 7, 3))
    for decode, code in (
        (decode_lossless, code_lossless(noise, 8, 7)),
        (decode_extended, code_extended(noise[:1, :1, 0].repeat(8, 0).repeat(8, 1), 1)),
    ):
        for length in range(len(code) - 3):
            with pytest.raises(DAMAGE):
                decode(code[:length])


def test_damage_is_an_exception_and_nothing_worse() -> None:
    rng = random.Random(0)
    path = str(get_testdata_file("JPGExtended.dcm", download=False))
    large = pydicom.encaps.get_frame(pydicom.dcmread(path).PixelData, 0, number_of_frames=1)
    noise = np.random.default_rng(0).integers(0, 65536, (6, 7, 1))
    outcomes = []
    for decode, code, num in ((decode_lossless, code_lossless(noise, 16, 5, 2), 1500), (decode_extended, large, 200)):
        for _ in range(num):
            changed = bytearray(code)
            for _ in range(rng.choice((1, 2, 8))):
                changed[rng.randrange(min(len(changed), rng.choice((100, 1 << 20))))] = rng.randrange(256)
            try:
                outcomes.append(decode(bytes(changed)))
            except DAMAGE:
                outcomes.append(None)
    refused = sum(outcome is None for outcome in outcomes)
    assert 0 < refused < len(outcomes)
