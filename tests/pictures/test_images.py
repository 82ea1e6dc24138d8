"""csasn/pictures/images.py, photos.py: pictures from loose files, and the square they are fitted into."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from csasn.errors import DataError
from csasn.pictures.images import letterbox, read_image, require_size
from image_faults import fault

NAME = "SECRETNAME99"


def ramp(height: int = 40, width: int = 60) -> np.ndarray:
    """A picture whose every pixel tells where it is, as far as 8 bits go."""
    return (np.arange(height)[:, None] * 5 + np.arange(width)[None, :]).astype(np.uint8)


def save(folder: Path, picture: Image.Image, ending: str, **options: object) -> Path:
    path = folder / f"{NAME}{ending}"
    picture.save(path, **options)
    return path


# PNG and JPEG


@pytest.mark.parametrize("ending", [".png", ".PNG", "", ".dat"])
def test_grey_png_is_read_as_it_is_whatever_its_name(tmp_path: Path, ending: str) -> None:
    picture = read_image(save(tmp_path, Image.fromarray(ramp()), ending, format="PNG"))
    np.testing.assert_array_equal(picture.pixels_HW, ramp())
    assert picture.pixels_HW.dtype == np.uint8
    assert picture.spacing_mm is None


def test_jpeg_is_read_close_to_what_was_written(tmp_path: Path) -> None:
    picture = read_image(save(tmp_path, Image.fromarray(ramp(), "L"), ".jpg", quality=98))
    assert np.abs(picture.pixels_HW.astype(int) - ramp()).mean() < 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_grey_in_any_mode_stays_the_same_grey(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(ramp())
    picture = grey.quantize(256) if mode == "P" else grey.convert(mode)
    np.testing.assert_array_equal(read_image(save(tmp_path, picture, ".png")).pixels_HW, ramp())


def test_colour_becomes_luminance(tmp_path: Path) -> None:
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[0], colours[1], colours[2] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    pixels = read_image(save(tmp_path, Image.fromarray(colours), ".png")).pixels_HW
    np.testing.assert_array_equal(pixels[:, 0], [76, 150, 29, 0])


def test_sixteen_bits_are_scaled_by_one_over_257(tmp_path: Path) -> None:
    deep = Image.fromarray(ramp().astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(save(tmp_path, deep, ".png")).pixels_HW, ramp())


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    pixels = read_image(save(tmp_path, Image.fromarray(ramp() > 128), ".png")).pixels_HW
    np.testing.assert_array_equal(pixels, (ramp() > 128) * np.uint8(255))


def test_a_turned_photo_is_read_as_it_was_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    pixels = read_image(save(tmp_path, Image.fromarray(ramp()), ".png", exif=exif)).pixels_HW
    np.testing.assert_array_equal(pixels, np.rot90(ramp(), -1))


def test_missing_folder_and_pipe_are_refused(tmp_path: Path) -> None:
    assert fault(tmp_path / NAME) == "the image does not exist"
    assert fault(tmp_path) == "the image is not a file"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert fault(pipe) == "the image is not a file"


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_cut_picture_is_refused(tmp_path: Path, ending: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    path = save(tmp_path, Image.fromarray(noise), ending)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "damaged, cut short" in fault(path)


def test_a_picture_without_contrast_is_refused(tmp_path: Path) -> None:
    assert "no contrast" in fault(save(tmp_path, Image.new("L", (50, 50), 7), ".png"))


def test_a_decompression_bomb_is_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, Image.new("1", (14_000, 14_000)), ".png")  # beyond Pillow's limit for an error, not only for a warning
    assert fault(path) == "the image has more than 178956970 pixels"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert fault(path).startswith("the image is too large: 1 x 14000 x 14000, expected at most 178956970 pixels a frame")


def test_a_photo_has_one_frame(tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(ramp()), ".png")
    np.testing.assert_array_equal(read_image(path, 1).pixels_HW, ramp())
    assert fault(path, 2) == "frame 2 is not in the image, expected 1 to 1"


# The square


@given(height=st.integers(1, 300), width=st.integers(1, 300), size=st.integers(8, 128))
def test_letterbox_keeps_the_aspect_and_centres(height: int, width: int, size: int) -> None:
    square = letterbox(np.full((height, width), 255, np.uint8), size)
    assert square.shape == (size, size)
    assert square.dtype == np.uint8
    rows, columns = np.flatnonzero(square.any(1)), np.flatnonzero(square.any(0))
    assert max(len(rows), len(columns)) == size
    scale = size / max(height, width)
    assert abs(len(rows) - max(1, height * scale)) <= 0.5
    assert abs(len(columns) - max(1, width * scale)) <= 0.5
    for inside in (rows, columns):
        assert inside[-1] - inside[0] == len(inside) - 1
        assert abs(inside[0] - (size - 1 - inside[-1])) <= 1
    assert np.all(square[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 255)


def test_letterbox_averages_where_it_shrinks() -> None:
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.abs(letterbox(board, 32).astype(int) - 127).max() <= 2


def test_letterbox_of_the_right_size_changes_nothing() -> None:
    np.testing.assert_array_equal(letterbox(ramp(48, 48), 48), ramp(48, 48))


def test_a_thumbnail_is_refused_only_where_the_site_says_so() -> None:
    require_size(48, 60, None)
    require_size(48, 96, 96)
    require_size(96, 48, 96)
    with pytest.raises(
        DataError, match=r"^the image is 60 x 48 pixels, expected a longer side of at least 96, as policy\.min_image"
    ):
        require_size(48, 60, 96)


def test_letterbox_enlarges_what_is_smaller() -> None:
    square = letterbox(np.full((5, 10), 200, np.uint8), 40)
    assert (square[10:30] == 200).all()
    assert not square[:10].any()
