"""csasn/pictures/likeness.py: pictures that are nearly the same are found, and others are not."""

import io

import numpy as np
import pytest
from PIL import Image

from csasn.pictures.likeness import Facts, conflicting_pairs, hash_cells, shrink

SIZE = 64


def pictures(number: int, seed: int = 0) -> np.ndarray:
    """Smooth pictures that differ, uint8 (N, 64, 64)."""
    coarse = np.random.default_rng(seed).normal(100, 50, (number, 10, 10)).clip(0, 255).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for one in coarse])


def facts(number: int, patients: list[int] | None = None, labels: list[int] | None = None) -> Facts:
    zeros = np.zeros(number, np.int64)
    return Facts(
        np.arange(number) if patients is None else np.array(patients), zeros, zeros - 1 if labels is None else np.array(labels)
    )


def as_jpeg(pixels: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


def written_on(pixels: np.ndarray) -> np.ndarray:
    marked = pixels.copy()
    marked[:5, :20] = 255
    return marked


CHANGES = {
    "nothing": lambda pixels: pixels,
    "jpeg": as_jpeg,
    "brighter": lambda pixels: (pixels * 1.1 + 8).clip(0, 255).astype(np.uint8),
    "text": written_on,
    "scaled": lambda pixels: np.asarray(Image.fromarray(pixels).resize((40, 40)).resize((SIZE, SIZE))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_of_another_patient_is_found(change: str) -> None:
    one = pictures(40)
    both = np.concatenate([one, np.stack([CHANGES[change](pixels) for pixels in one])])
    assert sorted(conflicting_pairs(both, facts(80))) == [(number, number + 40) for number in range(40)]


def test_others_are_not_found() -> None:
    assert list(conflicting_pairs(pictures(400, seed=1), facts(400))) == []


def test_pictures_of_one_patient_count_where_their_labels_differ() -> None:
    twice = np.repeat(pictures(3), 2, axis=0)
    assert list(conflicting_pairs(twice, facts(6, patients=[0, 0, 1, 1, 2, 2], labels=[1, 1, 0, 1, 0, -1]))) == [(2, 3)]


def test_each_pair_is_found_once_however_many_images_there_are() -> None:
    """More images than are compared at once, in both directions."""
    many = np.tile(pictures(1), (150, 1, 1))
    assert len(set(conflicting_pairs(many, facts(150)))) == 150 * 149 // 2
    assert len(list(conflicting_pairs(many, facts(150)))) == 150 * 149 // 2


def test_a_picture_without_contrast_is_like_no_other() -> None:
    flat = np.stack([np.full((SIZE, SIZE), 7, np.uint8), np.full((SIZE, SIZE), 9, np.uint8)])
    assert list(conflicting_pairs(flat, facts(2))) == []


def test_a_hash_says_where_the_next_cell_is_brighter() -> None:
    ramp = np.tile(np.arange(SIZE, dtype=np.uint8), (1, SIZE, 1))
    (hashed,) = hash_cells(shrink(ramp))
    assert np.unpackbits(np.array([hashed]).view(np.uint8)).reshape(8, 8).tolist() == [[1] * 7 + [0]] * 8


def test_means_are_of_cells() -> None:
    image = np.arange(32 * 32, dtype=np.uint8).reshape(1, 32, 32)
    np.testing.assert_array_equal(shrink(image)[0], image[0].reshape(16, 2, 16, 2).mean((1, 3)).astype(np.float16))
