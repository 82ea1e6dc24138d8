"""Temperature scaling from sums of integers: against a plain loop, against a fine search, and on an overconfident model."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from csasn.measures.counts import FIXED_POINT, count_cases
from csasn.measures.curves import calibration_error, reliability
from csasn.measures.temperature import CALIBRATION, TEMPERATURES, UNCHANGED, is_temperature, temperature_losses, temperature_of

BLOCK = CALIBRATION[0]


def confident(num=1500, factor=3.0, seed=0):
    """Logits `factor` times those from whose probabilities the classes were drawn."""
    random = np.random.default_rng(seed)
    logits_NK = random.normal(0, 1.2, (num, 3))
    classes_N = (logits_NK + random.gumbel(size=(num, 3))).argmax(axis=1)
    return factor * logits_NK, classes_N


def mean_loss(logits_NK, classes_N, temperature):
    return -log_softmax(logits_NK / temperature, axis=1)[np.arange(len(classes_N)), classes_N].mean()


def test_sums_of_sites_are_those_of_a_plain_loop_over_pooled_cases():
    logits_NK, classes_N = confident(num=50)
    summed = temperature_losses(logits_NK[:20], classes_N[:20]) + temperature_losses(logits_NK[20:], classes_N[20:])
    for temperature, found in zip(TEMPERATURES, summed, strict=True):
        losses = [-np.log(softmax(row / temperature)[label]) for row, label in zip(logits_NK, classes_N, strict=True)]
        assert abs(found - sum(round(loss * FIXED_POINT) for loss in losses)) <= 1  # of rounding at one half
    assert summed[UNCHANGED] == count_cases(logits_NK, logits_NK, classes_N, ())["loss"][0]


@pytest.mark.parametrize("factor", [0.7, 1.0, 3.0])
def test_the_temperature_is_that_of_a_fine_search(factor):
    logits_NK, classes_N = confident(factor=factor)
    fine = np.geomspace(0.5, 8, 400)
    best = fine[np.argmin([mean_loss(logits_NK, classes_N, temperature) for temperature in fine])]
    found = temperature_of({BLOCK: temperature_losses(logits_NK, classes_N)})
    assert found == pytest.approx(best, rel=0.01)
    assert found == pytest.approx(factor, rel=0.15)


def test_an_overconfident_model_is_calibrated_on_other_cases():
    logits_NK, classes_N = confident()
    found = temperature_of({BLOCK: temperature_losses(logits_NK, classes_N)})
    others_NK, others_N = confident(seed=1)

    def error(temperature):
        counts = count_cases(others_NK, others_NK / temperature, others_N, ())
        return np.mean([calibration_error(reliability(counts["scores"][c])) for c in range(3)])

    assert error(found) < 0.2 * error(1.0)
    assert mean_loss(others_NK, others_N, found) < 0.75 * mean_loss(others_NK, others_N, 1.0)


def test_at_the_ends_and_without_cases():
    logits_NK, classes_N = confident(num=200)
    right = 5.0 * np.eye(3)[classes_N]
    assert temperature_of({BLOCK: temperature_losses(right, classes_N)}) == 0.5
    assert temperature_of({BLOCK: temperature_losses(40 * logits_NK, classes_N)}) == 8
    assert temperature_of({BLOCK: temperature_losses(logits_NK[:0], classes_N[:0])}) == 1
    assert temperature_of({}) == 1


def test_which_temperatures_a_site_takes():
    assert is_temperature(0.5, "temperature")
    assert is_temperature(8.0, "temperature")
    assert is_temperature(1.0, "none")
    for value in (0.49, 8.1, 0.0, -1.0, float("nan"), float("inf")):
        assert not is_temperature(value, "temperature")
    assert not is_temperature(1.5, "none")
