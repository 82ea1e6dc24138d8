"""Paired differences of two decisions on the same cases: value and interval."""

import numpy as np
import pytest

from csasn.measures.intervals import paired_difference


def test_the_difference_is_of_the_cases_that_one_alone_is_right_in():
    assert paired_difference(30, 10, 200)[0] == pytest.approx(0.1)
    assert paired_difference(0, 0, 50)[0] == 0
    assert paired_difference(0, 0, 0)[0] == 0


def test_an_interval_holds_the_truth_about_95_times_of_100():
    random = np.random.default_rng(1)
    shares, cases = (0.12, 0.06, 0.82), 120
    held = 0
    for more, fewer, _ in random.multinomial(cases, shares, size=4000):
        low, high = paired_difference(int(more), int(fewer), cases)[1]
        held += low <= shares[0] - shares[1] <= high
    assert 0.935 < held / 4000 < 0.97


def test_few_discordant_cases_give_no_interval_of_width_0():
    low, high = paired_difference(0, 0, 20)[1]
    assert low < 0 < high
    low, high = paired_difference(20, 0, 20)[1]
    assert 0.5 < low < high <= 1
