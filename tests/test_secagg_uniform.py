"""What the coordinator sees of one site is uniform in its ring, whatever the data.

Chi-square over the values of each byte of an integer, at a false alarm of one in a million; all keys here follow from names, so
that each test gives the same figures every time.
"""

import functools

import numpy as np
import pytest
from scipy.stats import chi2

from csasn.federated.secagg import pairs
from csasn.federated.secagg.masks import Mask, add_masks
from secagg_sites import TYPES, answers, names, seeded, sites, summed

FALSE_ALARM = 1e-6
NUM, WHO = 4, "alpha"
SIZES = {8: 1 << 18, 16: 1 << 18, 64: 1 << 15}
DATA = {
    "zeros": lambda most, num: np.zeros(num),
    "all at the upper end": lambda most, num: np.full(num, most),
    "all at the lower end": lambda most, num: np.full(num, -most),
    "both ends in turn": lambda most, num: np.where(np.arange(num) % 2, most, -most),
    "a ramp": lambda most, num: np.linspace(-most, most, num),
}
each_ring_and_data = pytest.mark.parametrize(("bits", "data"), [(bits, data) for bits in SIZES for data in DATA])


def data_of(bits, data):
    return DATA[data]((1 << min(bits, 40) - 1) // NUM - 1, SIZES[bits]).astype(TYPES[bits])


@functools.cache
def answered_with(bits, data, attempt=2):
    """Everybody's answers where all have the same data, as update and, where they are of 64 bits, as counts."""
    given = dict.fromkeys(names(NUM), data_of(bits, data))
    return answers(sites(NUM), attempt, x=given, counts=given if bits == 64 else None)


def is_uniform(values):
    """Whether each byte of the integers takes all 256 values equally often."""
    columns = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    expected = len(values) / 256
    statistics = [((np.bincount(column, minlength=256) - expected) ** 2 / expected).sum() for column in columns.T]
    return bool(chi2.sf(max(statistics), 255) > FALSE_ALARM / len(statistics))


def correlation(one, other):
    """In standard deviations of what unrelated values show."""
    return abs(np.corrcoef(one.astype(float), other.astype(float))[0, 1]) * np.sqrt(len(one))


def masks_of(answer):
    """All masks of one site's upload, by whom they are shared with."""
    transcript, roster = answer.state.transcript, sites(NUM).roster
    peers = {peer: Mask(pairs.update_seed(key, transcript), roster.sign_of(WHO, peer)) for peer, key in answer.state.pairs.items()}
    return peers | {WHO: Mask(seeded("answer", WHO, 2, transcript)(32), 1)}


def without(values, masks):
    result = values.copy()
    add_masks(result, [Mask(mask.seed, -mask.sign) for mask in masks])
    return result


@each_ring_and_data
def test_one_upload_is_uniform_whatever_the_data(bits, data):
    assert is_uniform(answered_with(bits, data)[WHO].upload)


@pytest.mark.parametrize("left", names(NUM))
@pytest.mark.parametrize("bits", [8, 16, 64])
def test_one_mask_alone_keeps_an_upload_uniform_and_none_shows_it(left, bits):
    answer = answered_with(bits, "all at the upper end")[WHO]
    masks = masks_of(answer)
    assert is_uniform(without(answer.upload, [mask for name, mask in masks.items() if name != left]))
    bare = without(answer.upload, masks.values())
    assert (bare == data_of(bits, "all at the upper end")).all()
    assert not is_uniform(bare)


@pytest.mark.parametrize("data", DATA)
def test_one_site_s_counts_are_uniform_whatever_they_are(data):
    assert is_uniform(answered_with(64, data)[WHO].counts)


@pytest.mark.parametrize("absent", names(NUM))
def test_the_counts_of_all_but_one_are_uniform(absent):
    answered = answered_with(64, "all at the upper end")
    assert is_uniform(summed([answered[name].counts for name in names(NUM) if name != absent]))
    assert not is_uniform(summed([answered[name].counts for name in names(NUM)]))


@pytest.mark.parametrize("absent", names(NUM))
def test_the_sum_of_uploads_is_uniform_until_it_is_unmasked(absent):
    answered = answered_with(16, "zeros")
    assert is_uniform(summed([answered[name].upload for name in names(NUM)]))
    assert is_uniform(summed([answered[name].upload for name in names(NUM) if name != absent]))


@pytest.mark.parametrize("bits", SIZES)
@pytest.mark.parametrize("data", ["both ends in turn", "a ramp"])
def test_an_upload_does_not_follow_its_data(bits, data):
    given = data_of(bits, data)
    assert correlation(answered_with(bits, data)[WHO].upload, given) < 5
    assert correlation(given + np.random.default_rng(1).normal(0, 3 * given.std(), len(given)), given) > 5


@pytest.mark.parametrize("bits", SIZES)
def test_two_attempts_of_the_same_data_have_unrelated_uploads_and_counts(bits):
    one, other = (answered_with(bits, "a ramp", attempt)[WHO] for attempt in (2, 3))
    assert is_uniform(one.upload - other.upload)
    assert correlation(one.upload, other.upload) < 5
    if bits == 64:
        assert is_uniform(one.counts - other.counts)
        assert correlation(one.counts, other.counts) < 5


@pytest.mark.parametrize("bits", SIZES)
def test_two_sites_with_the_same_data_have_unrelated_uploads(bits):
    one, other = (answered_with(bits, "zeros")[name] for name in names(NUM)[:2])
    assert is_uniform(one.upload - other.upload)
    assert is_uniform(one.upload + other.upload)


def test_upload_and_counts_of_one_answer_are_masked_by_unrelated_streams():
    answer = answered_with(64, "zeros")[WHO]
    assert is_uniform(answer.upload - answer.counts)
    only_pairs = without(answer.upload, [masks_of(answer)[WHO]])
    assert is_uniform(only_pairs - answer.counts)
