"""The rule `averaged` (csasn/federated/server_rules/averaged.py) against the exponential mean of the models themselves."""

import numpy as np
import pytest

from csasn.federated.aggregate import apply_step_
from csasn.federated.messages import Step
from csasn.federated.server_rules.averaged import Averaged
from csasn.federated.server_rules.fedavgm import FedAvgM
from csasn.federated.server_rules.rule import LEFT_OVER, StepForm
from csasn.model.segments import segments_of

SEGMENTS = segments_of({"a": (300,), "b": (20, 10)})
NUM = SEGMENTS[-1].stop


def summed(turn, bits=16):
    sums = np.random.default_rng(turn).integers(-120, 120, NUM).astype({8: "int8", 16: "<i2", 32: "<i4"}[bits])
    return Step(sums, np.array([1e-3, 3e-5]), 48)


def run(rule, rounds, bits=32, start=0.0):
    """The model after each round."""
    state, memory, models = np.full(NUM, start, np.float32), {}, []
    for turn in range(rounds):
        form = StepForm(SEGMENTS, bits, np.random.default_rng(turn), turn + 1 == rounds)
        step, memory = rule.step(summed(turn, bits), memory, form)
        apply_step_(state, step, SEGMENTS)
        models.append(state.copy())
    return models, memory


@pytest.mark.parametrize(("decay", "rounds"), [(0.8, 6), (0.5, 3), (0.9, 1)])
def test_the_last_model_is_the_exponential_mean_of_the_models_of_all_rounds(decay, rounds):
    models, memory = run(Averaged(decay=decay), rounds, start=0.25)
    mean, model = np.full(NUM, 0.25), np.full(NUM, 0.25)
    for turn in range(rounds):
        model = model + np.repeat([1e-3, 3e-5], [300, 200]) * summed(turn).sum_P * 64 / 48
        mean = decay * mean + (1 - decay) * model
    np.testing.assert_allclose(models[-1], mean, rtol=0, atol=1e-6)
    assert np.abs(models[-1] - model).max() > 1e-3
    assert memory == {}


def test_every_model_before_the_last_is_that_of_fedavg_and_what_rounding_leaves_over_is_carried_on():
    (averaged, _), (plain, _) = run(Averaged(), 5), run(FedAvgM(momentum=0.0), 5)
    for one, other in zip(averaged[:-1], plain[:-1], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    exact, coarse = run(Averaged(), 5)[0][-1], run(Averaged(), 5, bits=8)[0][-1]
    move = np.abs(np.diff([coarse, exact], axis=0))
    assert move[:, :300].max() < 0.01
    assert move[:, 300:].max() < 0.0003


def test_without_decay_it_is_fedavg_to_the_end():
    (averaged, _), (plain, _) = run(Averaged(decay=0.0), 4), run(FedAvgM(momentum=0.0), 4)
    assert all(np.array_equal(one, other) for one, other in zip(averaged, plain, strict=True))


def test_what_is_remembered_is_how_far_the_model_is_ahead():
    rule = Averaged(decay=0.5)
    _, memory = rule.step(summed(0), {}, StepForm(SEGMENTS, 16, np.random.default_rng(0)))
    assert set(memory) == {"ahead", LEFT_OVER}
