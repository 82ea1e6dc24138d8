"""FedAdagrad, FedAdam, FedYogi: against a plain loop in float64, and where each weight has a scale of its own."""

import numpy as np
import pytest

from csasn.errors import TrainingError
from csasn.federated.aggregate import apply_step_, mean_update
from csasn.federated.messages import Step
from csasn.federated.server_rules.fedadagrad import FedAdagrad
from csasn.federated.server_rules.fedadam import FedAdam
from csasn.federated.server_rules.fedavg import FEDAVG
from csasn.federated.server_rules.fedavgm import FedAvgM
from csasn.federated.server_rules.fedyogi import FedYogi
from csasn.federated.server_rules.rule import LEFT_OVER, StepForm, quantise_step
from csasn.model.segments import segments_of

SEGMENTS = segments_of({"a": (300,), "b": (20, 10)})
NUM, ROUNDS = SEGMENTS[-1].stop, 120
FORGETS = {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.95, "tau": 2e-3}
RULES = [FedAdagrad(learning_rate=0.05, beta1=0.3, tau=5e-3), FedAdam(**FORGETS), FedYogi(**FORGETS)]
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)


def form(seed=0, bits=16, segments=SEGMENTS):
    return StepForm(segments, bits, np.random.default_rng(seed))


def mean_of(turn):
    """A mean update whose weights differ in size by 10^4, with a direction and noise about it."""
    scale = 10.0 ** np.linspace(-6, -2, NUM)
    return (scale * (np.sin(np.arange(NUM)) + np.random.default_rng(turn).normal(0, 1, NUM))).astype(np.float32)


def summed(turn):
    """As a step of 32 bits, so that it is the mean itself but for a part in 10^9."""
    return quantise_step(mean_of(turn), np.zeros(NUM, np.float32), form(turn, 32))[0]


def reference(rule, rounds):
    """Algorithm 2 of Reddi et al. 2021, one weight after another; the model after each round."""
    models, w, m, v = [], [0.0] * NUM, [0.0] * NUM, [rule.tau**2] * NUM
    for turn in range(rounds):
        for i, delta in enumerate(mean_update(summed(turn), SEGMENTS).astype(float).tolist()):
            m[i] = rule.beta1 * m[i] + (1 - rule.beta1) * delta
            if isinstance(rule, FedAdagrad):
                v[i] = v[i] + delta**2
            elif isinstance(rule, FedAdam):
                v[i] = rule.beta2 * v[i] + (1 - rule.beta2) * delta**2
            else:
                v[i] = v[i] - (1 - rule.beta2) * delta**2 * (1 if v[i] > delta**2 else -1)
            w[i] += rule.learning_rate * m[i] / (v[i] ** 0.5 + rule.tau)
        models.append(list(w))
    return np.array(models)


def distances(rule, bits, forget=()):
    """The largest distance from the reference after each round, in step sizes of its tensor; where the rule forgets a part."""
    memory, model, found = {}, np.zeros(NUM), []
    for turn, expected in enumerate(reference(rule, ROUNDS)):
        step, memory = rule.step(summed(turn), memory, form(turn, bits))
        memory = {name: array for name, array in memory.items() if name not in forget}
        model += mean_update(step, SEGMENTS)
        found.append((np.abs(model - expected) / np.repeat(step.sizes, [300, 200])).max())
    return np.array(found)


@each_rule
@pytest.mark.parametrize("bits", [8, 16])
def test_the_model_follows_a_plain_loop_within_one_step_size_however_many_rounds(rule, bits):
    assert distances(rule, bits).max() < 1.5  # and not 1, since moments are in float32


@each_rule
def test_the_model_would_drift_from_it_without_what_rounding_left_over(rule):
    found = distances(rule, 8, forget={LEFT_OVER})
    assert found[-1] > 4
    assert found[-20:].mean() > 2 * found[:20].mean()


@each_rule
@pytest.mark.parametrize("forgotten", ["first", "second"])
def test_the_model_leaves_it_where_a_moment_is_forgotten(rule, forgotten):
    assert distances(rule, 16, forget={forgotten})[-1] > 100


@each_rule
def test_a_weight_that_never_moved_stays_and_a_mean_that_is_not_finite_is_refused(rule):
    step, memory = rule.step(Step(np.zeros(NUM, np.int16), np.array([1e-3, 1e-3]), 64), {}, form())
    assert not step.sum_P.any()
    assert (memory["second"] > 0).all()
    with pytest.raises(TrainingError, match="not finite"), np.errstate(all="ignore"):
        rule.step(Step(np.ones(NUM, np.int32), np.array([1e-3, np.inf]), 64), memory, form())


@pytest.mark.parametrize("rule", [*RULES, FedAvgM()], ids=lambda rule: type(rule).__name__)
def test_running_statistics_take_their_mean_whatever_the_rule(rule):
    """They are not trained: with momentum a variance would go on below 0."""
    segments = segments_of({"bn.running_mean": (30,), "bn.running_var": (30,), "bn.weight": (30,)})
    model, memory, expected = np.ones(90, np.float32), {}, np.ones(90)
    for turn in range(20):
        mean_P = np.full(90, -0.2 * 0.8**turn, np.float32)
        given, _ = quantise_step(mean_P, np.zeros(90, np.float32), form(turn, 16, segments))
        step, memory = rule.step(given, memory, form(turn, 16, segments))
        apply_step_(model, step, segments)
        expected += mean_P
    np.testing.assert_allclose(model[:60], expected[:60], atol=1e-4)
    assert np.abs(model[60:] - expected[60:]).min() > 0.1


# of 4 sites in 24 weights, whose features are in each image down to one of ten thousand
OPTIMA_SJ = np.sign(np.cos(np.arange(24))) + np.random.default_rng(1).normal(0, 0.2, (4, 24))
FREQUENCY_J = np.geomspace(1, 1e-4, 24)


def rounds_to_target(rule, rate, bits=16, most=1500):
    """Rounds until 9/10 of the way to the least loss of all sites is gone, on the mean over the weights; in a round each site makes
    five steps of gradient descent on a quadratic of its own."""
    segments, model, memory, target = segments_of({"w": (24,)}), np.zeros(24, np.float32), {}, OPTIMA_SJ.mean(axis=0)
    for turn in range(most):
        if np.abs(model - target).mean() < np.abs(target).mean() / 10:
            return turn
        local_SJ = np.repeat(model[None].astype(float), 4, axis=0)
        for _ in range(5):
            local_SJ -= rate * FREQUENCY_J * (local_SJ - OPTIMA_SJ)
        mean_P = (local_SJ.mean(axis=0) - model).astype(np.float32)
        given, _ = quantise_step(mean_P, np.zeros(24, np.float32), form(turn, 32, segments))
        step, memory = rule.step(given, memory, form(turn, bits, segments))
        apply_step_(model, step, segments)
    return most


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("rule", [FedAdagrad(learning_rate=0.1), FedAdam(), FedYogi()], ids=lambda rule: type(rule).__name__)
def test_where_features_are_rare_an_adaptive_rule_needs_fewer_than_half_the_rounds_of_fedavg(rule, bits):
    """Which is at its best here: from a rate of 2 on it diverges."""
    slower, best = (rounds_to_target(FEDAVG, rate) for rate in (1.0, 1.9))
    assert rounds_to_target(rule, 1.9, bits) < best / 2 < slower / 2 < 1500 / 2
