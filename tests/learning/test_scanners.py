"""csasn/learning/scanners.py: what a change between scanners may touch, and how far it goes. B images, S pixels a side."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from csasn.learning.augmentation import augment
from csasn.learning.scanners import blur, change_scanner
from csasn.recipe import Augmentation

SOME = settings(deadline=None, max_examples=15)
SEEDS = st.integers(0, 2**32 - 1)
PARTS = ("gain", "depth_gain", "speckle", "shadow", "blur")
NO_CHANGE = {"flip": False, "shift": 0.0, "scale": 0.0, "rotation_deg": 0.0, "contrast": 0.0, "brightness": 0.0}


def changed(images, seed=0, **strengths):
    return change_scanner(images, images > 0, Augmentation(**strengths), np.random.default_rng(seed))


def grey(num=200, side=32, value=0.5):
    return torch.full((num, 1, side, side), value)


def picture(num=3, side=32, seed=0):
    """Letterboxed: a frame above and below."""
    images = torch.rand(num, 1, side, side, generator=torch.Generator().manual_seed(seed)) * 0.9 + 0.05
    images[:, :, :6] = images[:, :, -6:] = 0
    return images


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_off_draws_nothing_and_one_that_is_on_draws_after_all_others(part):
    images, even = picture(), {"contrast": 0.0, "brightness": 0.0}  # where nothing that is seen turns black
    before, off, on = (np.random.default_rng(7) for _ in range(3))
    plain = augment(images, Augmentation(**even), before)
    assert torch.equal(augment(images, Augmentation(**even | dict.fromkeys(PARTS, 0.0)), off), plain)
    assert off.bit_generator.state == before.bit_generator.state
    found = augment(images, Augmentation(**even | {part: 0.6}), on)
    assert on.bit_generator.state != before.bit_generator.state
    assert torch.equal(found, change_scanner(plain, plain > 0, Augmentation(**{part: 0.6}), _after(before)))


def _after(random):
    """A generator in the same state."""
    other = np.random.default_rng()
    other.bit_generator.state = random.bit_generator.state
    return other


@SOME
@given(SEEDS, st.fixed_dictionaries(dict.fromkeys(PARTS, st.floats(0, 1))))
def test_values_stay_in_range_the_frame_stays_black_and_the_argument_is_untouched(seed, strengths):
    images = picture(seed=seed)
    before = images.clone()
    one, other = (augment(images, Augmentation(**NO_CHANGE | strengths), np.random.default_rng(seed)) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(images, before)
    assert one.dtype == torch.float32
    assert 0 <= float(one.min()) <= float(one.max()) <= 1
    assert not one[:, :, :6].any()
    assert not one[:, :, -6:].any()


def test_gain_is_one_rising_curve_an_image_within_its_exponents():
    images = torch.linspace(0.1, 0.9, 16).reshape(1, 1, 4, 4).expand(200, -1, -1, -1)
    exponents = (changed(images, gain=0.5).log() / images.log()).reshape(200, 16)
    np.testing.assert_allclose(exponents, exponents[:, :1].expand(-1, 16), rtol=1e-4)
    assert np.exp(-0.5) <= float(exponents.min()) < np.exp(-0.45)
    assert np.exp(0.45) < float(exponents.max()) <= np.exp(0.5) * 1.0001


def test_depth_gain_adds_one_smooth_curve_over_depth():
    added = (changed(grey(), depth_gain=0.2) - 0.5)[:, 0]
    assert float((added - added[:, :, :1]).abs().max()) < 1e-6  # the same along a row
    assert 0.19 < float(added.abs().max()) <= 0.2 + 1e-6
    assert float(added.diff(dim=1).abs().max()) <= 0.4 * 5 / 31 + 1e-6  # five pieces, each from -0.2 to 0.2 at most
    assert float(added[:, :, 0].std(dim=1).min()) > 0.01


def test_speckle_multiplies_by_noise_of_at_most_its_standard_deviation_wider_than_deep():
    noise = (changed(grey(), speckle=0.3) / 0.5 - 1)[:, 0]
    deviations = noise.std(dim=(1, 2))
    assert float(deviations.max()) < 0.33  # of 1,024 pixels
    assert float(deviations.min()) < 0.03
    assert float(deviations.max()) > 0.2
    assert abs(float(noise.mean())) < 0.01
    wide, deep = ((noise * noise.roll(1, axis)).mean() / noise.square().mean() for axis in (2, 1))
    assert wide > 0.5
    assert abs(deep) < 0.05


def test_a_shadow_darkens_a_band_below_a_depth_in_half_of_the_images():
    left = (changed(grey(400, 64), shadow=0.8) / 0.5)[:, 0]
    dark = left.amin(dim=(1, 2)) < 0.999
    assert 160 < int(dark.sum()) < 240
    assert float(left.max()) <= 1
    assert 0.19 < float(left.min()) < 0.25
    assert bool((left[:, :10] > 0.98).all())  # the band begins a quarter down, with a soft edge
    columns = left[:, -1][dark] < 0.5 * (1 + left[:, -1][dark].amin(dim=1, keepdim=True))
    assert bool((columns.float().mean(dim=1) < 0.3).all())
    assert bool((left[dark].diff(dim=1) < 1e-6).all())  # it never gets lighter with depth


@SOME
@given(SEEDS, st.floats(0.4, 3))
def test_blur_is_a_gaussian_the_same_along_both_axes(seed, sigma):
    image = np.random.default_rng(seed).uniform(0.1, 1, (48, 48))
    given_, seen = torch.from_numpy(image).float()[None, None], torch.ones(1, 1, 48, 48, dtype=torch.bool)
    found = blur(given_, seen, np.array([sigma]))[0, 0].numpy()
    expected = gaussian_filter(image, sigma, mode="constant", truncate=np.ceil(3 * sigma) / sigma)
    middle = slice(12, 36)
    np.testing.assert_allclose(found[middle, middle], expected[middle, middle], atol=1e-4)


def test_blur_leaves_an_even_picture_as_it_is_up_to_its_frame():
    images = grey(2)
    images[:, :, :6] = images[:, :, -6:] = 0
    torch.testing.assert_close(blur(images, images > 0, np.array([0.0, 2.5])), images)


def test_each_image_is_changed_by_numbers_of_its_own():
    for part in PARTS:
        found = changed(picture(1).expand(8, -1, -1, -1), **{part: 0.5})
        assert len({image.numpy().tobytes() for image in found}) > 2, part
