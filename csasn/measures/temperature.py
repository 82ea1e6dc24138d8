"""Temperature scaling (Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2) from summed losses alone.

N cases, K classes, G temperatures. Each site sums the losses of its validation cases as if their logits were divided by each
temperature of a grid; integers of all sites add up; the temperature is where the sum is lowest. One number for all classes, so
that no decision changes.
"""

import numpy as np

from csasn.measures.blocks import Blocks, Integers
from csasn.measures.counts import Floats, case_losses

STEPS, LOWEST_STEP, HIGHEST_STEP = 8, -8, 24  # for a doubling; the grid goes from ½ to 8
TEMPERATURES = tuple(2 ** (step / STEPS) for step in range(LOWEST_STEP, HIGHEST_STEP + 1))
UNCHANGED = -LOWEST_STEP  # the place of temperature 1
CALIBRATION = ("calibration", (len(TEMPERATURES),))  # the block of counts


def is_temperature(value: float, calibration: str) -> bool:
    """Whether a model of a study with this calibration can have this temperature."""
    return TEMPERATURES[0] <= value <= TEMPERATURES[-1] if calibration == "temperature" else value == 1


def temperature_losses(adjusted_NK: Floats, classes_N: Integers) -> Integers:
    """(G,) sums of the losses of N cases at each temperature, each loss in units of 2^-16 as in `count_cases`.

    Args:
        adjusted_NK: logits f + adjustment, whose softmax is the probability at temperature 1.
        classes_N: true classes, 0..K-1.
    """
    return np.array([case_losses(adjusted_NK / temperature, classes_N).sum() for temperature in TEMPERATURES], np.int64)


def temperature_of(blocks: Blocks) -> float:
    """The temperature of the lowest sum: the lowest point of the parabola, over log T, through it and its two neighbours; at an end
    of the grid that end. 1 where no case was counted, or the counts are of a study that does not calibrate."""
    losses_G = blocks.get(CALIBRATION[0], np.zeros(len(TEMPERATURES), np.int64))
    lowest = int(losses_G.argmin())
    if losses_G.max() == losses_G.min():
        return 1.0
    if lowest in (0, len(TEMPERATURES) - 1):
        return TEMPERATURES[lowest]
    before, at, after = losses_G[lowest - 1 : lowest + 2].tolist()
    beside = (before - after) / (2 * (before - 2 * at + after))  # -½..½: `at` is the first of the lowest
    return float(2 ** ((lowest + LOWEST_STEP + beside) / STEPS))
