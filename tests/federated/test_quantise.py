"""Updates as integers: exact sums, bounds, error feedback."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn.errors import ProtocolError, TrainingError
from csasn.federated.aggregate import add_integers, apply_step_, check_bound, largest_moves
from csasn.federated.messages import Step
from csasn.federated.quantise import (
    HEADROOM,
    Scale,
    integer_type,
    largest_sum,
    largest_upload,
    next_ranges,
    quantise,
    step_sizes,
)
from csasn.model.segments import segments_of

SEGMENTS = segments_of({"bias": (5,), "weight": (20, 10)})
NUM = SEGMENTS[-1].stop


def scale(bits=16, num_sites=4, units=16, ranges=0.05):
    sizes = step_sizes(np.full(len(SEGMENTS), ranges), bits, num_sites)
    return Scale(SEGMENTS, sizes, units, largest_upload(bits, num_sites, units), integer_type(bits))


def update(seed, spread=0.01):
    return np.random.default_rng(seed).uniform(-spread, spread, NUM).astype(np.float32)


def none():
    return np.zeros(NUM, np.float32)


def values_of(quantised, given):
    sizes = np.concatenate([np.full(s.stop - s.start, size) for s, size in zip(SEGMENTS, given.sizes, strict=True)])
    return quantised.integers_P * sizes


@pytest.mark.parametrize("bits", [16, 32])
def test_what_is_sent_and_what_is_left_add_up_to_the_weighted_update(bits):
    given = scale(bits)
    sent = quantise(update(1), none(), given, np.random.default_rng(2))
    np.testing.assert_allclose(values_of(sent, given) + sent.residual_P, update(1) * 16 / 64, rtol=0, atol=1e-9)


def test_rounding_is_unbiased():
    given = scale()
    mean = np.mean(
        [values_of(quantise(update(1), none(), given, np.random.default_rng(seed)), given) for seed in range(400)], axis=0
    )
    assert np.abs(mean - update(1) / 4).max() < 5 * given.sizes[0] * 0.5 / np.sqrt(400)


def test_error_feedback_keeps_the_sum_over_rounds_within_one_step():
    given, residual, total = scale(), none(), np.zeros(NUM)
    for current in range(50):
        sent = quantise(update(current), residual, given, np.random.default_rng(current))
        residual, total = sent.residual_P, total + values_of(sent, given)
    wanted = np.sum([update(current).astype(np.float64) for current in range(50)], axis=0) / 4
    assert np.abs(total - wanted).max() <= given.sizes.max() * 1.01


def test_clipped_values_are_counted_and_carried_on():
    big = none()
    big[7] = 0.2
    sent = quantise(big, none(), scale(), np.random.default_rng(1))
    assert sent.num_clipped == 1
    assert sent.integers_P[7] == largest_upload(16, 4, 16)
    np.testing.assert_allclose(sent.residual_P[7], 0.2 / 4 - 0.05 / 4, rtol=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from([8, 16, 32]),
    units=st.integers(1, 61),
    spread=st.sampled_from([1e-6, 0.01, 1.0, 1e6]),
    seed=st.integers(0, 2**31),
    rounds=st.integers(1, 3),
)
def test_however_much_is_clipped_nothing_is_refused_and_nothing_is_lost(bits, units, spread, seed, rounds):
    """A refusal would be a word in plain that depends on the cases; what does not fit is sent later instead."""
    given, residual = scale(bits, 4, units), none()
    for current in range(rounds):
        wanted = update(seed + current, spread).astype(np.float64) * units / 64 + residual
        sent = quantise(update(seed + current, spread), residual, given, np.random.default_rng(seed))
        assert np.abs(sent.integers_P.astype(np.int64)).max() <= given.largest
        beyond = np.abs(wanted) > (given.largest + 1) * np.repeat(given.sizes, [s.stop - s.start for s in SEGMENTS])
        at_the_edge = np.abs(sent.integers_P.astype(np.int64)) == given.largest
        assert beyond.sum() <= sent.num_clipped <= at_the_edge.sum()
        assert np.isfinite(sent.residual_P).all()
        exact = max(np.abs(wanted).max(), given.sizes.max()) * 2**-23  # the left-over is float32
        np.testing.assert_allclose(values_of(sent, given) + sent.residual_P, wanted, rtol=0, atol=exact)
        residual = sent.residual_P


def test_where_all_values_are_clipped_the_next_ranges_are_nearly_four_times_as_wide():
    given = scale(units=16)
    uploads = [quantise(np.full(NUM, 9.0, np.float32), none(), given, np.random.default_rng(k)) for k in range(4)]
    assert all(sent.num_clipped == NUM for sent in uploads)
    total = functools.reduce(add_integers, (sent.integers_P for sent in uploads), None)
    largest = largest_moves(Step(total, given.sizes, 64), SEGMENTS)
    ratio = next_ranges(largest, np.full(len(SEGMENTS), 0.05)) / 0.05
    assert (ratio <= HEADROOM).all()
    np.testing.assert_allclose(ratio, HEADROOM, rtol=1e-3)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_before_quantising(poison):
    bad = none()
    bad[3] = poison
    with pytest.raises(TrainingError, match="not finite"):
        quantise(bad, none(), scale(), np.random.default_rng(1))


@settings(max_examples=60, deadline=None)
@given(
    shares=st.lists(st.integers(1, 60), min_size=1, max_size=16).filter(lambda shares: sum(shares) <= 64),
    bits=st.sampled_from([16, 32]),
    seed=st.integers(0, 2**31),
)
def test_the_sum_of_any_sites_fits_its_integers_even_when_all_are_clipped(shares, bits, seed):
    num = len(shares)
    largest = [largest_upload(bits, num, units) for units in shares]
    assert sum(largest) <= largest_sum(bits, num) <= np.iinfo(integer_type(bits)).max - num
    random = np.random.default_rng(seed)
    uploads = {f"s{k}": random.choice([-most, most], NUM).astype(integer_type(bits)) for k, most in enumerate(largest)}
    for k, units in enumerate(shares):
        check_bound(uploads[f"s{k}"], largest_upload(bits, num, units))
    exact = sum(upload.astype(object) for upload in uploads.values())
    assert (functools.reduce(add_integers, uploads.values(), None) == exact).all()


def step_from_sum(sum_P, segments, sizes, arrived_units):
    """The step that a sum stands for: from zeros it leads to itself."""
    state = np.zeros(sum_P.shape, np.float32)
    apply_step_(state, Step(sum_P, sizes, arrived_units), segments)
    return state


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(["a", "b", "c", "d"]), seed=st.integers(0, 2**31))
def test_the_order_of_sites_never_changes_a_bit_of_the_step(order, seed):
    given = scale()
    uploads = {
        name: quantise(update(seed + k), none(), given, np.random.default_rng(k)).integers_P for k, name in enumerate("abcd")
    }
    first = step_from_sum(functools.reduce(add_integers, uploads.values(), None), SEGMENTS, given.sizes, 64)
    second = step_from_sum(functools.reduce(add_integers, (uploads[name] for name in order), None), SEGMENTS, given.sizes, 64)
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize(("bits", "error"), [(16, 2e-3), (32, 1e-6)])
def test_the_averaged_step_is_the_weighted_mean_of_the_updates(bits, error):
    units = {"a": 32, "b": 20, "c": 12}
    uploads, wanted = {}, np.zeros(NUM)
    for k, (name, share) in enumerate(units.items()):
        uploads[name] = quantise(update(k), none(), scale(bits, 3, share), np.random.default_rng(k)).integers_P
        wanted += update(k).astype(np.float64) * share / 64
    step = step_from_sum(functools.reduce(add_integers, uploads.values(), None), SEGMENTS, scale(bits, 3).sizes, 64)
    assert np.linalg.norm(step - wanted) / np.linalg.norm(wanted) < error


def test_fewer_sites_are_divided_by_the_weights_that_arrived():
    given = scale(units=32)
    sent = quantise(update(1), none(), given, np.random.default_rng(1)).integers_P
    step = step_from_sum(sent, SEGMENTS, given.sizes, 32)
    np.testing.assert_allclose(step, update(1), atol=2 * given.sizes.max() * 2)


def test_an_upload_beyond_what_its_weight_allows_could_break_the_sum_and_is_refused():
    upload = np.full(NUM, largest_upload(16, 2, 32) + 1, np.dtype("<i2"))
    with pytest.raises(ProtocolError, match="beyond"):
        check_bound(upload, largest_upload(16, 2, 32))


def test_ranges_follow_the_last_step_with_headroom_and_shrink_at_most_fourfold():
    largest = np.full(2, 1e-3)
    np.testing.assert_allclose(next_ranges(largest, np.full(2, 0.004)), 4e-3, rtol=1e-6)
    np.testing.assert_allclose(next_ranges(largest, np.full(2, 0.4)), 0.1)


def test_a_small_tensor_whose_moves_cancel_keeps_the_range_of_the_median_tensor():
    np.testing.assert_allclose(next_ranges(np.array([1e-7, 1e-3, 1e-3]), np.full(3, 1e-9)), 4e-3, rtol=1e-6)


def test_the_state_moves_by_the_step_in_place_and_its_fixed_part_stays():
    state = np.arange(NUM + 3, dtype=np.float32)
    sums = np.where(np.arange(NUM) % 2, -7, 5).astype("<i2")
    step = Step(sums, np.full(2, 0.5), 32)
    apply_step_(state, step, SEGMENTS)
    largest = largest_moves(step, SEGMENTS)
    np.testing.assert_array_equal(state - np.arange(NUM + 3), [*sums.astype(float), 0, 0, 0])
    assert largest.tolist() == [7.0, 7.0]
