"""Rules of the server, against their equations."""

import numpy as np
import pytest

from csasn.errors import TrainingError
from csasn.federated.aggregate import apply_step_, largest_moves, mean_update
from csasn.federated.messages import Step
from csasn.federated.quantise import largest_magnitude
from csasn.federated.server_rules.fedavg import FEDAVG
from csasn.federated.server_rules.fedavgm import FedAvgM
from csasn.federated.server_rules.rule import LEFT_OVER, StepForm, in_words, quantise_step, server_rule
from csasn.model.segments import segments_of
from csasn.study import Federation

SEGMENTS = segments_of({"a": (300,), "b": (20, 10)})
NUM = SEGMENTS[-1].stop


def summed(seed, bits=16):
    dtype = {8: "int8", 16: "<i2", 32: "<i4"}[bits]
    sums = np.random.default_rng(seed).integers(-120, 120, NUM).astype(dtype)
    return Step(sums, np.array([1e-3, 3e-5]), 48)


def form(seed=0, bits=16):
    return StepForm(SEGMENTS, bits, np.random.default_rng(seed))


def federation(**changes):
    return Federation(sites=("a", "b"), **changes)


def test_the_step_of_fedavg_is_the_sum_itself_and_nothing_is_remembered():
    given = summed(1)
    step, memory = FEDAVG.step(given, {}, form())
    assert step is given
    assert memory == {}


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_the_largest_moves_are_those_of_the_mean_to_the_bit(bits):
    given = summed(2, bits)
    mean_P = mean_update(given, SEGMENTS)
    assert largest_moves(given, SEGMENTS).tolist() == [largest_magnitude(mean_P[s.start : s.stop]) for s in SEGMENTS]


def test_applying_the_sum_moves_by_the_mean():
    state = np.zeros(NUM + 5, np.float32)
    apply_step_(state, summed(3), SEGMENTS)
    assert state[:NUM].tobytes() == mean_update(summed(3), SEGMENTS).tobytes()
    expected = np.repeat([1e-3, 3e-5], [300, 200]) * summed(3).sum_P * 64 / 48
    np.testing.assert_allclose(state[:NUM], expected, rtol=1e-6)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_what_is_applied_and_what_is_left_over_add_up_to_the_moves(bits):
    random, state, left = np.random.default_rng(4), np.zeros(NUM, np.float32), np.zeros(NUM, np.float32)
    wanted = np.zeros(NUM)
    for turn in range(5):
        move_P = (random.normal(0, 1, NUM) * np.repeat([1e-2, 1e-6], [300, 200])).astype(np.float32)
        wanted += move_P
        step, left = quantise_step(move_P, left, form(turn, bits))
        assert step.sum_P.dtype.itemsize * 8 == bits
        assert step.arrived_units == 64
        apply_step_(state, step, SEGMENTS)
        assert (np.abs(left) <= 1.01 * np.repeat(step.sizes, [300, 200]) + 1e-9).all()  # nothing was clipped
    np.testing.assert_allclose(state + left, wanted, rtol=0, atol=1e-7)


def test_a_tensor_that_does_not_move_has_a_step_of_zeros():
    move_P = np.zeros(NUM, np.float32)
    move_P[:300] = 1
    step, left = quantise_step(move_P, np.zeros(NUM, np.float32), form())
    assert not step.sum_P[300:].any()
    assert not left[300:].any()
    assert np.isfinite(step.sizes).all()


def test_a_move_that_is_not_finite_is_refused():
    move_P = np.full(NUM, np.inf, np.float32)
    with pytest.raises(TrainingError, match="not finite"), np.errstate(invalid="ignore"):
        quantise_step(move_P, np.zeros(NUM, np.float32), form())


def test_momentum_moves_by_its_recursion():
    rule, memory, state = FedAvgM(momentum=0.7, learning_rate=0.5), {}, np.zeros(NUM, np.float32)
    velocity, expected = np.zeros(NUM), np.zeros(NUM)
    for turn in range(6):
        given = summed(turn)
        step, memory = rule.step(given, memory, form(turn, 32))
        apply_step_(state, step, SEGMENTS)
        velocity = 0.7 * velocity + np.repeat([1e-3, 3e-5], [300, 200]) * given.sum_P * 64 / 48
        expected += 0.5 * velocity
    np.testing.assert_allclose(state, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(memory["velocity"], velocity, rtol=1e-5, atol=1e-9)
    assert set(memory) == {"velocity", LEFT_OVER}


def test_momentum_of_zero_moves_by_the_mean_but_for_rounding():
    step, _ = FedAvgM(momentum=0.0).step(summed(5), {}, form(bits=32))
    np.testing.assert_allclose(mean_update(step, SEGMENTS), mean_update(summed(5), SEGMENTS), rtol=0, atol=1e-8)


def test_options_of_the_study_are_those_of_the_rule_and_the_others_are_as_they_were(monkeypatch):
    rule = server_rule(federation(server_rule="fedavgm", server_options={"momentum": 0.5}))
    assert rule == FedAvgM(momentum=0.5, learning_rate=1.0)
    monkeypatch.setattr("csasn.federated.server_rules.rule.load", lambda *_: FedAvgM(learning_rate=0.3))
    assert server_rule(federation(server_options={})) == FedAvgM(learning_rate=0.3)


def test_a_rule_is_told_in_words_with_all_its_options():
    assert in_words(federation()) == "fedavg: the model moves by the mean of the sites' updates"
    told = in_words(federation(server_rule="fedadam", server_options={"beta2": 0.5}))
    assert told.startswith("fedadam: each weight moves by")
    assert told.endswith("(learning_rate 0.01, beta1 0.9, tau 0.001, beta2 0.5)")
