"""Keystreams: they are AES in counter mode, cancel in pairs, and look uniform."""

import numpy as np
import pytest
from Crypto.Cipher import AES
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn.federated.secagg.masks import BLOCK_BYTES, Mask, add_masks
from secagg.scene import TYPES, drawn, is_uniform

SIZES = {8: 1 << 18, 16: 1 << 17, 64: 1 << 15}


def keystream(seed, num, dtype):
    cipher = AES.new(seed, AES.MODE_CTR, nonce=b"", initial_value=0)
    return np.frombuffer(cipher.encrypt(bytes(num * dtype.itemsize)), dtype)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(list(TYPES)), st.integers(0, 5000), st.sampled_from([1, -1]), st.binary(min_size=32, max_size=32))
def test_a_mask_is_another_library_s_keystream_in_the_array_s_ring(bits, num, sign, seed):
    values = np.arange(num).astype(TYPES[bits])
    masked = values.copy()
    add_masks(masked, [Mask(seed, sign)])
    stream = keystream(seed, num, TYPES[bits])
    assert np.array_equal(masked, values + stream if sign > 0 else values - stream)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(list(TYPES)), st.integers(1, 4), st.integers(-3, 3))
def test_threads_and_blocks_do_not_change_a_mask(bits, threads, more):
    num = 3 * BLOCK_BYTES // TYPES[bits].itemsize + more
    one, other = np.zeros(num, TYPES[bits]), np.zeros(num, TYPES[bits])
    masks = [Mask(drawn("a"), 1), Mask(drawn("b"), -1)]
    add_masks(one, masks)
    add_masks(other, masks, threads)
    assert np.array_equal(one, other)
    assert np.array_equal(one, keystream(drawn("a"), num, TYPES[bits]) - keystream(drawn("b"), num, TYPES[bits]))


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(list(TYPES)), st.integers(0, 300), st.integers(1, 6))
def test_masks_taken_off_leave_the_values(bits, num, masks):
    values = np.random.default_rng(num).integers(-100, 100, num).astype(TYPES[bits])
    masked = values.copy()
    add_masks(masked, [Mask(drawn(number), 1) for number in range(masks)])
    add_masks(masked, [Mask(drawn(number), -1) for number in range(masks)])
    assert np.array_equal(masked, values)


@pytest.mark.parametrize("bits", TYPES)
@pytest.mark.parametrize("data", ["zeros", "the largest", "the smallest", "both ends in turn"])
def test_a_masked_array_is_uniform_whatever_it_holds(bits, data):
    num, most = SIZES[bits], (1 << min(bits, 40) - 1) - 1
    values = {"zeros": np.zeros(num), "the largest": np.full(num, most), "the smallest": np.full(num, -most - 1),
              "both ends in turn": np.where(np.arange(num) % 2, most, -most)}[data].astype(TYPES[bits])  # fmt: skip
    assert not is_uniform(values)
    add_masks(values, [Mask(drawn("one mask"), 1)])
    assert is_uniform(values)
