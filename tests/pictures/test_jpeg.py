"""csasn/pictures/codecs.py: every predictor and depth of lossless JPEG, restarts, scans, 12 bits, and colours left as they are.

Lossless streams are coded here, by T.81's words and bit by bit; tests/pictures/test_dicom_syntaxes.py reads what GDCM and others
coded, and tests/pictures/test_fuzz.py damages it.
"""

from collections.abc import Sequence

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn.pictures.codecs import decode_stream

LENGTHS = {size: 2 if size < 2 else 5 for size in range(17)}  # of the code of each size of a difference
# 8 x 16 pixels (x, 2x, 3y), coded by pyjpegls plane after plane, which is interleave mode 0
PLANES = bytes.fromhex(
    "ffd8fff70011050008001003011100021100031100ffda0008010100000000bfff7fff6bff7bff7fff7fff7fff7fff7fff7ff0ffda0008010200"
    "0000009b7fff7ffaff7eff7fff7fff7fff7fff7fff7ffcffda0008010300000000ff41dfff45ff7e9fff7bff7d7fff5fff77ff78ffd9"
)


def decode(code: bytes, shape: tuple[int, ...]) -> np.ndarray:
    return decode_stream(code, shape[:2]).pixels.reshape(shape)


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
    pixels = decode(code_lossless(samples, bits, predictor, rows, scans), samples.shape)
    np.testing.assert_array_equal(pixels, samples)
    assert pixels.dtype == (np.uint8 if bits <= 8 else np.uint16)


def test_the_point_transform_leaves_out_the_lowest_bits() -> None:
    samples = np.random.default_rng(0).integers(0, 4096, (5, 6, 1))
    code = code_lossless(samples, 12, 4, shift=3)
    np.testing.assert_array_equal(decode(code, samples.shape), samples >> 3 << 3)


@pytest.mark.parametrize("marker", [b"", segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"), segment(0xEE, b"Adobe\0\x64\0\0\0\0\1")])
def test_what_a_stream_says_of_colours_changes_no_sample(marker: bytes) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (5, 6, 3))
    code = code_lossless(samples, 8, 1)
    np.testing.assert_array_equal(decode(code[:2] + marker + code[2:], samples.shape), samples)


@pytest.mark.parametrize("num", [1, 3])
def test_twelve_bits_come_back_within_the_quantisation(num: int) -> None:
    y, x = np.mgrid[0:24, 0:40]
    samples = np.stack([2048 + 1500 * np.sin((x + 5 * name) / 11) * np.cos(y / 7) for name in range(num)], -1).astype(np.uint16)
    space = "GRAYSCALE" if num == 1 else "RGB"
    code = imagecodecs.jpeg8_encode(samples, level=100, bitspersample=12, colorspace=space, outcolorspace=space)
    assert np.abs(decode(code, samples.shape).astype(int) - samples).max() <= 2


def test_planes_of_jpeg_ls_become_pixels() -> None:
    y, x = np.mgrid[0:8, 0:16]
    np.testing.assert_array_equal(decode(PLANES, (8, 16, 3)), np.stack([x, 2 * x, 3 * y], axis=-1))
