"""csasn/pictures/formats.py, photos.py, png.py, exif.py: formats told by content, and what beside the pixels does not matter."""

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from csasn.errors import DataError
from csasn.pictures.images import read_image
from csasn.pictures.png import MAGIC, chunk
from image_faults import fault

NAME = "SECRETNAME99"
NOISE = np.random.default_rng(0).integers(0, 256, (50, 70), np.uint8)


def ramp(height: int = 40, width: int = 60) -> np.ndarray:
    return (np.arange(height)[:, None] * 4 + np.arange(width)[None, :]).astype(np.uint8)


def put(folder: Path, data: bytes, ending: str = "") -> Path:
    path = folder / f"{NAME}{ending}"
    path.write_bytes(data)
    return path


def saved(picture: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, kind, **options)
    return file.getvalue()


# Formats


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        *(("TIFF", {"compression": code}) for code in ("tiff_lzw", "tiff_adobe_deflate", "packbits")),
        ("TIFF", {"big_tiff": True}),
        ("WEBP", {"lossless": True}),
        ("JPEG2000", {}),
        ("JPEG2000", {"no_jp2": True}),
    ],
    ids=["png", "bmp", "tiff", "lzw", "deflate", "packbits", "bigtiff", "webp", "jp2", "j2k"],
)
@pytest.mark.parametrize("ending", ["", ".jpg", ".dcm"])
def test_a_picture_is_the_same_in_each_format_whatever_its_name(
    tmp_path: Path, kind: str, options: dict[str, object], ending: str
) -> None:
    np.testing.assert_array_equal(read_image(put(tmp_path, saved(ramp(), kind, **options), ending)).pixels_HW, ramp())


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"GIF89a", "GIF"),
        (b"%PDF-1.4", "a PDF document"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"\0\0\0\x18ftypisom", "a video (MP4 or QuickTime)"),
        (b"RIFF\0\0\0\0AVI LIST", "an AVI video"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"PK\3\4", "a ZIP archive"),
        (b"\xff\x0a\xfa", "JPEG XL"),
        (b"P5\n60 40\n255\n", "a portable anymap (PNM)"),
        (b"\0\5\x16\7\0\2\0\0", "a companion file that macOS writes (AppleDouble), not the image"),
        (bytes(344) + b"n+1\0", "NIfTI"),
        (b"<?xml version", "an XML document"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value.split()[0],
)
@pytest.mark.parametrize("ending", ["", ".png", ".dcm"])
def test_other_formats_are_refused_by_their_names(tmp_path: Path, start: bytes, name: str, ending: str) -> None:
    said = fault(put(tmp_path, start + b"SECRET" * 100, ending))
    assert said == f"the image is {name}, expected PNG, JPEG, BMP, TIFF, WebP, JPEG 2000 or DICOM"


@pytest.mark.parametrize("content", [b"SECRET text and more of it", b"\x01" * 600])
def test_what_is_of_no_known_format_is_refused(tmp_path: Path, content: bytes) -> None:
    assert fault(put(tmp_path, content)) == "the image is damaged or not PNG, JPEG, BMP, TIFF, WebP, JPEG 2000 or DICOM"


def test_an_empty_file_is_called_so(tmp_path: Path) -> None:
    assert fault(put(tmp_path, b"", ".png")) == "the image is empty"


@pytest.mark.parametrize(
    ("kind", "name"), [("PNG", "PNG"), ("BMP", "BMP"), ("TIFF", "TIFF"), ("WEBP", "WebP"), ("JPEG2000", "JPEG 2000")]
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_cut_picture_of_each_format_is_refused(tmp_path: Path, kind: str, name: str, share: float) -> None:
    data = saved(NOISE, kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert fault(put(tmp_path, data[: int(len(data) * share)])).startswith(f"the image is {name}, but damaged, cut short")


@pytest.mark.parametrize(("frame", "level"), [(None, 2), (1, 0), (5, 4)])
@pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
def test_a_page_is_chosen_like_a_frame(tmp_path: Path, kind: str, frame: int | None, level: int) -> None:
    pages = [Image.fromarray((ramp() // 2 + 25 * number).astype(np.uint8)) for number in range(5)]
    path = put(
        tmp_path, saved(pages[0], kind, save_all=True, append_images=pages[1:], **({"lossless": True} if kind == "WEBP" else {}))
    )
    np.testing.assert_array_equal(read_image(path, frame).pixels_HW, ramp() // 2 + 25 * level)
    assert fault(path, 6) == "frame 6 is not in the image, expected 1 to 5"


def test_a_webp_of_a_huge_canvas_is_refused_from_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [Image.fromarray(ramp() + np.uint8(number)) for number in range(2)]
    for data, place, size in (
        (saved(pages[0], "WEBP", save_all=True, append_images=pages[1:], lossless=True), 24, b"\xff\x3f\0\xff\x3f\0"),
        (saved(pages[0], "WEBP", lossless=True), 21, b"\xff\xff\xff\x0f"),
        (saved(pages[0], "WEBP"), 26, b"\xff\x3f\xff\x3f"),
    ):
        huge = data[:place] + size + data[place + len(size) :]
        with monkeypatch.context() as patch:
            patch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
            assert "expected at most" in fault(put(tmp_path, huge))


# Depth


@pytest.mark.parametrize(("bits", "used"), [(8, 8), (9, 9), (10, 10), (12, 12), (14, 14), (15, 16), (16, 16)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
def test_values_of_fewer_bits_are_shown_by_their_own_range_and_that_is_said(
    tmp_path: Path, kind: str, bits: int, used: int
) -> None:
    deep = (ramp().astype(np.int64) * ((1 << bits) - 1) // 255).astype(np.uint16)
    picture = read_image(put(tmp_path, saved(deep, kind)))
    expected = ramp() if bits != 15 else ramp() // 2
    assert np.abs(picture.pixels_HW.astype(int) - expected).max() <= 1
    assert picture.notes == ((f"its values use {used} of 16 bits, it is shown by their own range",) if used < 16 else ())


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bits_of_colour_or_transparency_keep_their_depth(tmp_path: Path, channels: int) -> None:
    deep = np.repeat(ramp().astype(np.uint16)[..., None] * 16, channels, axis=2)
    if channels != 3:
        deep[..., -1] = 65535
        deep[:10, :, -1] = 0
    kind = {2: 4, 3: 2, 4: 6}[channels]
    height, width = ramp().shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    data = MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    expected = ramp().copy()
    expected[: 10 if channels != 3 else 0] = 0
    assert np.abs(read_image(put(tmp_path, data)).pixels_HW.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["TIFF", "JPEG 2000", "JPEG 2000, colours transformed"])
def test_deep_colours_keep_their_depth(tmp_path: Path, kind: str) -> None:
    deep = np.repeat(ramp()[..., None], 3, axis=2).astype(np.uint16) * 16
    if kind == "TIFF":
        data = imagecodecs.tiff_encode(deep, photometric="rgb")
    else:
        data = imagecodecs.jpeg2k_encode(deep, codecformat="jp2", reversible=True, mct="transformed" in kind)
    picture = read_image(put(tmp_path, bytes(data)))
    assert np.abs(picture.pixels_HW.astype(int) - ramp()).max() <= 1
    assert picture.notes == ("its values use 12 of 16 bits, it is shown by their own range",)


def test_a_tiff_whose_white_is_zero_is_not_shown_inverted(tmp_path: Path) -> None:
    deep = ramp().astype(np.uint16) * 257
    data = bytearray(saved(65535 - deep, "TIFF"))
    entry = data.index(struct.pack("<HHI", 262, 3, 1))
    data[entry + 8] = 0
    np.testing.assert_array_equal(read_image(put(tmp_path, bytes(data))).pixels_HW, ramp())


def test_floats_and_negative_numbers_are_refused(tmp_path: Path) -> None:
    assert "floating-point" in fault(put(tmp_path, saved(ramp().astype(np.float32), "TIFF")))
    assert "signed" in fault(put(tmp_path, saved(ramp().astype(np.int32) - 90, "TIFF")))


# Transparency


def see_through(mode: str) -> Image.Image:
    """The ramp, its upper half erased and hidden white beneath."""
    grey = ramp()
    grey[:20] = 255
    picture = Image.fromarray(grey).convert(mode)
    alpha = np.full(grey.shape, 255, np.uint8)
    alpha[:20] = 0
    picture.putalpha(Image.fromarray(alpha))
    return picture


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        *((mode, "PNG", {}) for mode in ("L", "RGB")),
        *((mode, "WEBP", {"lossless": True, "exact": True}) for mode in ("L", "RGB")),
        *((mode, "TIFF", {}) for mode in ("L", "RGB")),
        *((mode, "JPEG2000", {}) for mode in ("L", "RGB")),
    ],
)
def test_what_was_erased_is_black(tmp_path: Path, mode: str, kind: str, options: dict[str, object]) -> None:
    expected = ramp()
    expected[:20] = 0
    np.testing.assert_array_equal(read_image(put(tmp_path, saved(see_through(mode), kind, **options))).pixels_HW, expected)


def test_half_transparent_is_half_as_bright(tmp_path: Path) -> None:
    picture = Image.fromarray(np.full((40, 60), 200, np.uint8))
    picture.putalpha(Image.fromarray(ramp()))
    expected = (200 * ramp().astype(int) + 127) // 255
    np.testing.assert_array_equal(read_image(put(tmp_path, saved(picture, "PNG"))).pixels_HW, expected)


@pytest.mark.parametrize("mode", ["P", "L"])
def test_a_colour_that_stands_for_transparency_is_black(tmp_path: Path, mode: str) -> None:
    grey = ramp()
    grey[:20] = 255
    picture = Image.fromarray(grey)
    if mode == "P":
        picture = picture.convert("P")
        picture.putpalette([value for level in range(256) for value in (level,) * 3])
    expected = ramp()
    expected[:20] = 0
    np.testing.assert_array_equal(read_image(put(tmp_path, saved(picture, "PNG", transparency=255))).pixels_HW, expected)


@pytest.mark.parametrize("erased", [False, True])
def test_transparency_of_a_bitmap_counts_where_it_was_set(tmp_path: Path, erased: bool) -> None:
    height, width = ramp().shape
    pixels = np.repeat(ramp()[..., None], 4, axis=2)
    pixels[..., 3] = 0
    if erased:
        pixels[20:, :, 3] = 255
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, pixels.size, 0, 0, 0, 0) + masks + bytes(52)
    data = b"BM" + struct.pack("<IHHI", 14 + 108 + pixels.size, 0, 0, 14 + 108) + header + pixels[::-1].tobytes()
    expected = ramp()
    expected[: 20 if erased else 0] = 0
    np.testing.assert_array_equal(read_image(put(tmp_path, data)).pixels_HW, expected)


# Beside the pixels


def exif(entries: bytes, count: int, order: str = "<") -> bytes:
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, count) + entries + b"\0\0\0\0"


def entry(tag: int, kind: int, number: int, value: int, order: str = "<") -> bytes:
    content = struct.pack(order + "H", value) + b"\0\0" if kind == 3 else struct.pack(order + "I", value)
    return struct.pack(order + "HHI", tag, kind, number) + content


SIX = entry(0x0112, 3, 1, 6)
DEFECTS = {
    "plain": exif(SIX, 1),
    "big endian": exif(entry(0x0112, 3, 1, 6, ">"), 1, ">"),
    "long": exif(entry(0x0112, 4, 1, 6), 1),
    "text as bytes": exif(entry(0x010F, 1, 40, 9) + SIX, 2),
    "pointer outside": exif(entry(0x0131, 2, 500, 999_999) + SIX + entry(0x8769, 4, 1, 999_999) + entry(0x8825, 4, 1, 77_777), 4),
    "unknown kind": exif(entry(0x0132, 99, 1, 5) + SIX, 2),
    "over zero": exif(entry(0x011A, 5, 1, 26) + SIX, 2),
    "cut": exif(SIX + entry(0x0131, 2, 5, 60), 40)[:40],
    "loop": exif(SIX, 1)[:-4] + struct.pack("<I", 8),
}
NO_TURN = {
    "none": b"",
    "zero": exif(entry(0x0112, 3, 1, 0), 1),
    "nine": exif(entry(0x0112, 3, 1, 9), 1),
    "two values": exif(entry(0x0112, 3, 2, 6), 1),
    "rational": exif(entry(0x0112, 5, 1, 6), 1),
    "no TIFF": b"http://ns.adobe.com/xap/1.0/",
    "starts outside": b"II*\0\xff\xff\xff\x7f\0\0\0\0",
    "short": b"II*\0\x08\0\0\0",
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", [*DEFECTS, *NO_TURN])
def test_orientation_is_applied_where_it_is_valid_and_no_defect_beside_it_matters(tmp_path: Path, kind: str, name: str) -> None:
    side = (DEFECTS | NO_TURN)[name]
    options: dict[str, object] = {"quality": 98} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    pixels = read_image(put(tmp_path, saved(ramp(), kind, exif=b"Exif\0\0" + side if kind != "PNG" else side, **options))).pixels_HW
    expected = np.rot90(ramp(), -1) if name in DEFECTS else ramp()
    assert np.abs(pixels.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("number", range(1, 9))
def test_each_orientation_is_what_pillow_makes_of_it(tmp_path: Path, number: int) -> None:
    from PIL import ImageOps

    for kind in ("PNG", "TIFF"):
        marks = Image.Exif()
        marks[0x0112] = number
        data = saved(NOISE, kind, exif=marks)
        with Image.open(io.BytesIO(data)) as picture:
            expected = np.asarray(ImageOps.exif_transpose(picture))
        np.testing.assert_array_equal(read_image(put(tmp_path, data)).pixels_HW, expected)


def test_side_chunks_of_a_png_do_not_matter(tmp_path: Path) -> None:
    data = saved(ramp(), "PNG")
    header, rest = data[:33], data[33:]
    large = zlib.compress(bytes(20 << 20))
    sides = {
        "large profile": chunk(b"iCCP", b"scanner\0\0" + large),
        "broken profile": chunk(b"iCCP", b"scanner\0\0nonsense"),
        "broken text": chunk(b"zTXt", b"Comment\0\0nonsense"),
        "bad sum": chunk(b"tEXt", b"Comment\0SECRET")[:-4] + b"\0\0\0\0",
        "gamma": chunk(b"gAMA", struct.pack(">I", 100_000)),
        "animation": chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", bytes(26)),
        "unknown": chunk(b"prVt", b"SECRET" * 1000),
    }
    for side in sides.values():
        np.testing.assert_array_equal(read_image(put(tmp_path, header + side + rest)).pixels_HW, ramp())
    np.testing.assert_array_equal(read_image(put(tmp_path, data[:-12])).pixels_HW, ramp())
    np.testing.assert_array_equal(read_image(put(tmp_path, data + b"SECRET" * 1000)).pixels_HW, ramp())


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_of_a_png_that_are_damaged_do_matter(tmp_path: Path, channels: int) -> None:
    """Stored as they are, so that a changed byte changes a pixel alone."""
    deep = np.repeat(NOISE.astype(np.uint16)[..., None], channels, axis=2)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", *NOISE.shape[::-1], 16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    data = bytearray(MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b""))
    read_image(put(tmp_path, bytes(data)))
    data[200] ^= 1
    assert "the image is PNG, but damaged" in fault(put(tmp_path, bytes(data)))


@pytest.mark.parametrize(
    "change",
    [
        lambda code: code[:-2],
        lambda code: code[:-2] + b"\0" * 500,
        lambda code: code + b"SECRET" * 500,
        lambda code: code[:2] + b"\xff\xff\xff" + code[2:],
        lambda code: code[:2] + b"\xff\xe2\x00\x0cMPF\0nonsens" + code[2:],
        lambda code: code + code,
    ],
    ids=["no end", "no end, padded", "junk", "fill bytes", "broken side segment", "two pictures"],
)
def test_small_defects_of_a_jpeg_do_not_matter(tmp_path: Path, change: object) -> None:
    code = saved(NOISE, "JPEG", quality=95)
    assert callable(change)
    with Image.open(io.BytesIO(code)) as picture:
        expected = np.asarray(picture)
    np.testing.assert_array_equal(read_image(put(tmp_path, change(code))).pixels_HW, expected)


@pytest.mark.parametrize("channels", [3, 4])
def test_damaged_deep_colours_print_nothing(tmp_path: Path, channels: int, capfd: pytest.CaptureFixture[str]) -> None:
    """libpng prints its warnings to the terminal."""
    deep = np.repeat(NOISE.astype(np.uint16)[..., None] * 100, channels, axis=2)
    rows = bytearray(b"".join(b"\2" + row.astype(">u2").tobytes() for row in deep))
    header = struct.pack(">IIBBBBB", *NOISE.shape[::-1], 16, 2 if channels == 3 else 6, 0, 0, 0)
    packed = zlib.compress(rows)
    for pixels in (packed + b"SECRET", packed[:-4], zlib.compress(rows + b"SECRET" * 99), zlib.compress(rows[:-9]), packed[:-9]):
        side = chunk(b"tRNS", b"SECRET" if channels == 3 else b"SECRETS") + chunk(b"PLTE", b"SECRETS")
        data = MAGIC + chunk(b"IHDR", header) + side + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
        with suppress(DataError):
            read_image(put(tmp_path, data))
    assert capfd.readouterr() == ("", "")
