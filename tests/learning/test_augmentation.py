"""csasn/learning/augmentation.py: what a random change keeps, and how far it goes. S pixels a side."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from csasn.learning.augmentation import augment
from csasn.study import Augmentation

SOME = settings(deadline=None, max_examples=25)
SEEDS = st.integers(0, 2**32 - 1)
NO_CHANGE = {"flip": False, "shift": 0.0, "scale": 0.0, "rotation_deg": 0.0, "contrast": 0.0, "brightness": 0.0}


def augmentation(**changes):
    return Augmentation(**(NO_CHANGE | changes))


def ellipse(half_width, half_height, side=96):
    z, x = np.mgrid[:side, :side] - (side - 1) / 2
    distance = np.hypot(x / half_width, z / half_height)
    return torch.from_numpy(np.clip((1 - distance) * min(half_width, half_height), 0, 1)).float()[None, None]


def shape_of(image):
    """Area, centre (x, z), standard deviations along x and z, and along the longer and the shorter axis."""
    weight = image[0, 0].numpy().astype(np.float64)
    z, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    area = weight.sum()
    centre = np.array([(weight * x).sum(), (weight * z).sum()]) / area
    off = np.stack([x - centre[0], z - centre[1]])
    covariance = np.einsum("hw,ihw,jhw->ij", weight, off, off) / area
    shorter, longer = np.sqrt(np.linalg.eigvalsh(covariance))
    return area, centre, np.sqrt(np.diag(covariance)), longer, shorter


@SOME
@given(SEEDS, st.floats(8, 16), st.floats(8, 16))
def test_augmentation_keeps_the_aspect_of_a_nodule(seed, half_width, half_height):
    before = ellipse(half_width, half_height)
    settings_ = augmentation(flip=True, shift=0.06, scale=0.2, rotation_deg=45.0)
    after = augment(before, settings_, np.random.default_rng(seed))
    *_, longer, shorter = shape_of(before)
    *_, new_longer, new_shorter = shape_of(after)
    assert new_longer / new_shorter == pytest.approx(longer / shorter, rel=0.02)


@SOME
@given(SEEDS)
def test_scale_and_shift_keep_a_taller_than_wide_nodule_so(seed):
    before = ellipse(9, 14)
    after = augment(before, augmentation(flip=True, shift=0.06, scale=0.2), np.random.default_rng(seed))
    _, _, (wide, tall), *_ = shape_of(before)
    _, _, (new_wide, new_tall), *_ = shape_of(after)
    assert new_tall / new_wide == pytest.approx(tall / wide, rel=0.02)


def test_scale_shift_and_rotation_stay_within_their_settings_and_use_them():
    before = ellipse(16, 8).expand(200, -1, -1, -1)
    random = np.random.default_rng(1)
    area, centre, *_ = shape_of(before)
    ratios = [shape_of(image[None])[0] / area for image in augment(before, augmentation(scale=0.2), random)]
    assert np.exp(0.3) < max(ratios) < np.exp(0.4) * 1.02
    assert np.exp(-0.4) * 0.98 < min(ratios) < np.exp(-0.3)
    moves = np.array([shape_of(image[None])[1] - centre for image in augment(before, augmentation(shift=0.1), random)])
    assert (np.abs(moves).max(axis=0) < 0.1 * 96 + 0.05).all()
    assert (np.abs(moves).max(axis=0) > 0.08 * 96).all()
    turned = [tilt(image) for image in augment(before, augmentation(rotation_deg=10.0), random)]
    assert 8 < max(np.abs(turned)) < 10.2
    assert min(turned) < 0 < max(turned)


def tilt(image):
    weight = image[0].numpy().astype(np.float64)
    z, x = np.mgrid[: weight.shape[0], : weight.shape[1]] - (weight.shape[0] - 1) / 2
    return np.rad2deg(0.5 * np.arctan2(2 * (weight * x * z).sum(), (weight * (x**2 - z**2)).sum()))


def test_flip_mirrors_left_and_right_about_half_of_the_images_and_never_up_and_down():
    picture = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 0.9 + 0.05
    found = augment(picture.expand(400, -1, -1, -1), augmentation(flip=True), np.random.default_rng(2))
    mirrored = [torch.allclose(image, picture[0].flip(-1), atol=1e-5) for image in found]
    same = [torch.allclose(image, picture[0], atol=1e-5) for image in found]
    assert sum(mirrored) + sum(same) == 400
    assert 150 < sum(mirrored) < 250


SETTINGS = st.builds(
    Augmentation,
    flip=st.booleans(),
    shift=st.floats(0, 0.5),
    scale=st.floats(0, 0.5),
    rotation_deg=st.floats(0, 45),
    contrast=st.floats(0, 0.99),
    brightness=st.floats(0, 0.99),
)


@SOME
@given(SETTINGS, SEEDS)
def test_values_stay_in_range_and_a_black_image_stays_black(chosen, seed):
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    images[2] = 0
    found = augment(images, chosen, np.random.default_rng(seed))
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert not found[2].any()


@SOME
@given(SEEDS)
def test_the_black_frame_of_a_letterboxed_picture_stays_black(seed):
    images = torch.full((4, 1, 32, 32), 0.5)
    images[:, :, :8] = images[:, :, 24:] = 0
    found = augment(images, augmentation(flip=True, contrast=0.3, brightness=0.3), np.random.default_rng(seed))
    assert not found[:, :, :8].any()
    assert not found[:, :, 24:].any()
    assert bool((found[:, :, 8:24] > 0).all())


@SOME
@given(SETTINGS, SEEDS)
def test_equal_generators_give_equal_images_and_the_argument_is_untouched(chosen, seed):
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    before = images.clone()
    one, other = (augment(images, chosen, np.random.default_rng(seed)) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(images, before)


@SOME
@given(SEEDS)
def test_augmentation_is_the_identity_where_every_setting_is_off(seed):
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(augment(images, augmentation(), np.random.default_rng(seed)), images, rtol=1e-5, atol=1e-5)


def test_each_image_is_changed_by_numbers_of_its_own():
    picture = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(1)).expand(8, -1, -1, -1)
    found = augment(picture, Augmentation(), np.random.default_rng(3))
    assert len({image.numpy().tobytes() for image in found}) == 8


@SOME
@given(SEEDS, st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_contrast_and_brightness_stay_within_their_settings(seed, contrast, brightness):
    assume(contrast + brightness < 0.95)
    grey = torch.full((5, 1, 4, 4), 0.5)
    found = augment(grey, augmentation(contrast=contrast, brightness=brightness), np.random.default_rng(seed))
    assert bool((found >= max(0.5 * (1 - contrast) - brightness, 0) - 1e-6).all())
    assert bool((found <= min(0.5 * (1 + contrast) + brightness, 1) + 1e-6).all())
    assert len(set(found.mean(dim=(1, 2, 3)).tolist())) > 1
