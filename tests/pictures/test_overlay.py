"""csasn/pictures/overlay.py: burned-in text and calipers are warned of, speckle is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw, ImageFont
from pydicom.data import get_testdata_file

from csasn.phantom.case import draw
from csasn.phantom.nodule import CLASSES, draw_nodule
from csasn.phantom.scanner import SCANNERS, burn_calipers
from csasn.pictures import overlay
from csasn.pictures.images import read_image
from csasn.pictures.overlay import Mark, find_marks

TEXTS = ("RT LOBE TRV", "Dist 1.24 cm", "A. Example 03.04.1961", "LEFT", "ID 493022")
MARGIN = 24


def phantom(site: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture of 320 x 320 pixels without marks, and the mask of its nodule."""
    rng = np.random.default_rng(number)
    scanner = replace(SCANNERS[site], caliper_rate=0.0)
    drawing = draw(rng, draw_nodule(rng, CLASSES[number % len(CLASSES)]), scanner, "transverse", size_px=320)
    return drawing.image, drawing.mask


@pytest.fixture(scope="module")
def phantoms() -> list[tuple[np.ndarray, np.ndarray]]:
    return [phantom(site, number) for site in SCANNERS for number in range(6)]


def write(picture: np.ndarray, text: str, size: int, place: tuple[int, int], level: int) -> tuple[np.ndarray, Mark]:
    image = Image.fromarray(picture)
    font = ImageFont.load_default(size)
    pen = ImageDraw.Draw(image)
    pen.text(place, text, fill=level, font=font)
    left, top, right, bottom = map(round, pen.textbbox(place, text, font=font))
    return np.asarray(image), Mark("text", left, top, right, bottom)


def cross(picture: np.ndarray, row: int, column: int, arm: int, style: str, level: int = 245, width: int = 1) -> np.ndarray:
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    for down, right in ((0, arm), (arm, 0)) if style == "plus" else ((arm, arm), (arm, -arm)):
        pen.line((column - right, row - down, column + right, row + down), fill=level, width=width)
    return np.asarray(image)


def overlap(one: Mark, other: Mark) -> bool:
    across = one.left <= other.right and other.left <= one.right
    return across and one.top <= other.bottom and other.top <= one.bottom


def test_speckle_is_neither_text_nor_calipers(phantoms: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert [find_marks(picture) for picture, _ in phantoms] == [()] * len(phantoms)


@pytest.mark.parametrize(("size", "share"), [(10, 0.7), (12, 0.9), (16, 0.9), (24, 0.9)])
def test_text_of_ordinary_sizes_is_found_where_it_stands(
    phantoms: list[tuple[np.ndarray, np.ndarray]], size: int, share: float
) -> None:
    rng = np.random.default_rng(size)
    num_found = 0
    for number, (picture, _) in enumerate(phantoms):
        place = int(rng.integers(0, 40)), int(rng.integers(0, 320 - size - 4))
        written, where = write(picture, TEXTS[number % len(TEXTS)], size, place, 255)
        num_found += any(mark.kind == "text" and overlap(mark, where) for mark in find_marks(written))
    assert num_found >= share * len(phantoms)


@pytest.mark.parametrize("style", ["plus", "cross"])
@pytest.mark.parametrize(("arm", "width"), [(3, 1), (6, 1), (9, 2), (12, 3)])
def test_bright_calipers_are_found_to_the_pixel(
    phantoms: list[tuple[np.ndarray, np.ndarray]], style: str, arm: int, width: int
) -> None:
    rng = np.random.default_rng(arm)
    num_found = 0
    for picture, _ in phantoms:
        row, column = (int(place) for place in rng.integers(MARGIN, 320 - MARGIN, 2))
        marks = [mark for mark in find_marks(cross(picture, row, column, arm, style, 255, width)) if mark.kind == "caliper"]
        middles = [((mark.left + mark.right) / 2 - column, (mark.top + mark.bottom) / 2 - row) for mark in marks]
        num_found += any(max(map(abs, middle)) <= 1 for middle in middles)
        assert len(marks) <= 1
    assert num_found >= 0.9 * len(phantoms)


def test_the_calipers_that_the_phantom_burns_in_are_found(phantoms: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for style in ("plus", "cross"):
        found = [any(mark.kind == "caliper" for mark in find_marks(burn_calipers(*pair, style))) for pair in phantoms]
        assert sum(found) >= 0.9 * len(phantoms)


@pytest.mark.parametrize("place", [(20, 20), (200, 31), (3, 100)])
def test_the_box_of_a_text_lies_on_it_and_holds_most_of_it(place: tuple[int, int]) -> None:
    written, where = write(np.zeros((240, 320), np.uint8), "LEFT123", 16, place, 200)
    (mark,) = find_marks(written)
    assert mark.kind == "text"
    assert where.left - 1 <= mark.left < mark.right <= where.right + 1
    assert where.top - 1 <= mark.top < mark.bottom <= where.bottom + 1
    assert mark.right - mark.left > 0.7 * (where.right - where.left)


def test_one_letter_is_no_text_and_a_plus_within_text_is_no_caliper() -> None:
    black = np.zeros((120, 320), np.uint8)
    assert find_marks(write(black, "I", 16, (50, 50), 220)[0]) == ()
    assert {mark.kind for mark in find_marks(write(black, "1+1.24+3 cm", 16, (50, 50), 220)[0])} == {"text"}


@pytest.mark.parametrize("form", ["square", "disc", "line", "grid"])
def test_other_bright_shapes_are_no_calipers(form: str) -> None:
    picture = np.full((120, 120), 60, np.uint8)
    rows, columns = np.indices(picture.shape)
    inside = {
        "square": (abs(rows - 60) < 6) & (abs(columns - 60) < 6),
        "disc": np.hypot(rows - 60, columns - 60) < 7,
        "line": rows == 60,
        "grid": (rows % 60 == 30) | (columns % 60 == 30),
    }[form]
    assert find_marks(np.where(inside, np.uint8(230), picture)) == ()


@given(row=st.integers(8, 91), column=st.integers(8, 111), arm=st.integers(3, 8), style=st.sampled_from(["plus", "cross"]))
def test_a_caliper_on_even_ground_is_its_own_box(row: int, column: int, arm: int, style: str) -> None:
    marks = find_marks(cross(np.full((100, 120), 70, np.uint8), row, column, arm, style))
    assert marks == (Mark("caliper", column - arm, row - arm, column + arm, row + arm),)


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40)))
@settings(deadline=None)
def test_any_picture_is_looked_at_and_left_as_it_was(picture: np.ndarray) -> None:
    before = picture.copy()
    for mark in find_marks(picture):
        assert 0 <= mark.left <= mark.right < picture.shape[1]
        assert 0 <= mark.top <= mark.bottom < picture.shape[0]
    np.testing.assert_array_equal(picture, before)


def test_marks_do_not_depend_on_the_place_of_the_picture_in_memory() -> None:
    written = cross(write(np.full((160, 300), 40, np.uint8), "LEFT 12", 16, (60, 20), 230)[0], 110, 200, 7, "plus")
    assert len(find_marks(written)) == 2
    assert find_marks(np.asfortranarray(written)) == find_marks(written)


def test_marks_are_limited_and_a_huge_picture_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.full((240, 240), 50, np.uint8)
    for row in range(12, 240, 24):
        for column in range(12, 240, 24):
            picture = cross(picture, row, column, 4, "cross")
    assert len(find_marks(picture)) == overlay.MAX_MARKS
    monkeypatch.setattr(overlay, "MAX_LOOKED_AT", picture.size - 1)
    assert find_marks(picture) == ()


def test_on_a_real_screen_the_words_are_found_and_tissue_is_left_alone() -> None:
    path = get_testdata_file("examples_jpeg2k.dcm", download=False)
    assert path is not None
    texts = [mark for mark in find_marks(read_image(Path(path)).pixels_HW) if mark.kind == "text"]
    assert len(texts) >= 15
    assert not any(overlap(mark, Mark("text", 60, 110, 580, 340)) for mark in texts)
